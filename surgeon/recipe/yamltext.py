"""YAML that keeps what a person wrote: comments, order and spelling survive an edit.

A file is cut into *blocks* of lines: one per top-level key, and one per item of a block list, each with the comment
lines above it. A block whose value did not change is written back as it stood; a changed one is patched through
ruamel's round trip; a new one is written afresh. Whatever comes out is parsed again by the caller, and if it does
not mean exactly what was wanted, `sync_whole` (ruamel's round trip over the whole file) is the fallback.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.nodes import MappingNode, SequenceNode


def engine() -> YAML:
    """A round-trip reader and writer; the round-trip loader builds plain data only."""
    yaml = YAML(typ="rt")
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    yaml.preserve_quotes = True
    return yaml


def load(text: str) -> Any:
    """Round-trip data of a document."""
    return engine().load(text)


def dump(value: Any) -> str:
    """YAML of a value, fresh or round-trip; short lists of plain values are written on one line."""
    out = io.StringIO()
    engine().dump(styled(value), out)
    return out.getvalue()


def styled(value: Any) -> Any:
    """Plain data as round-trip nodes in the house style (ranges, gradients and filters on one line)."""
    if isinstance(value, (CommentedMap, CommentedSeq)):
        return value
    if isinstance(value, Mapping):
        node = CommentedMap((key, styled(item)) for key, item in value.items())
        if set(value) <= {"filter", "value"} or (set(value) <= {"model", "tie"} and len(value) == 1):
            node.fa.set_flow_style()
        return node
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = CommentedSeq(styled(item) for item in value)
        if all(not isinstance(item, (Mapping, Sequence)) or isinstance(item, str) for item in value):
            items.fa.set_flow_style()
        return items
    return value


def sync(node: Any, value: Any) -> Any:
    """Make round-trip `node` mean `value`, touching only what differs; returns the node to use in its place."""
    if isinstance(node, CommentedMap) and isinstance(value, Mapping):
        for key in [key for key in node if key not in value]:
            del node[key]
        for key, item in value.items():
            if key in node:
                replacement = sync(node[key], item)
                if replacement is not node[key]:
                    node[key] = replacement
            else:
                node[key] = styled(item)
        return node
    if isinstance(node, CommentedSeq) and isinstance(value, Sequence) and not isinstance(value, str):
        if [plain(item) for item in node] == [plain(item) for item in value]:
            return node
        if len(node) == len(value):
            for index, item in enumerate(value):
                node[index] = sync(node[index], item)
            return node
        fresh = _aligned(list(node), list(value))
        node[:] = fresh
        return node
    return node if plain(node) == plain(value) and type(plain(node)) is type(plain(value)) else styled(value)


def _aligned(old: list[Any], new: list[Any]) -> list[Any]:
    """Nodes for the items of `new`, reusing those of `old` that mean the same."""
    matcher = SequenceMatcher(None, [repr(plain(i)) for i in old], [repr(plain(i)) for i in new], autojunk=False)
    kept = {b + k: old[a + k] for a, b, count in matcher.get_matching_blocks() for k in range(count)}
    return [kept.get(index, styled(item)) for index, item in enumerate(new)]


def plain(value: Any) -> Any:
    """Round-trip data as plain dicts, lists and scalars."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def sync_whole(text: str, value: Mapping[str, Any]) -> str:
    """The whole document through ruamel's round trip."""
    return dump(sync(load(text), value))


@dataclass(frozen=True)
class Block:
    """Lines of one key or item: the comment lines above it, and its own."""

    lead: tuple[str, ...]
    body: tuple[str, ...]


def rewrite(text: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """`text`, which means `old`, changed to mean `new` with every unchanged block as it stood.

    Raises:
        ValueError: the text is not laid out in blocks (flow style at the top, or anchors): use `sync_whole`.
    """
    keys, tail = _top_blocks(text)
    if not set(old) <= set(keys):
        raise ValueError("not in block layout")
    out: dict[str, Block] = {}
    orphaned: list[str] = []
    for key, block in keys.items():
        if key in old and key not in new:
            orphaned += block.lead
            continue
        if key in old and old[key] != new[key]:
            block = Block(block.lead, _changed(key, block, old[key], new[key]))
        out[key] = Block((*orphaned, *block.lead), block.body)
        orphaned = []
    order = list(out)
    wanted = list(new)
    for position, key in enumerate(wanted):
        if key not in out:
            out[key] = Block((), tuple(dump({key: new[key]}).splitlines()))
            before = next((k for k in reversed(wanted[:position]) if k in order), None)
            order.insert(order.index(before) + 1 if before else 0, key)
    lines = [line for key in order for line in (*out[key].lead, *out[key].body)]
    return "\n".join([*lines, *orphaned, *tail]).rstrip("\n") + "\n"


def _top_blocks(text: str) -> tuple[dict[str, Block], list[str]]:
    """Every top-level key's block, and the comment lines after the last."""
    root = engine().compose(text)
    if not isinstance(root, MappingNode) or root.flow_style or "&" in text:
        raise ValueError("not in block layout")
    lines = text.splitlines()
    starts = [(str(key.value), key.start_mark.line) for key, _ in root.value]
    blocks, tail = _cut(lines, [line for _, line in starts], 0)
    return {key: block for (key, _), block in zip(starts, blocks, strict=True)}, tail


def _cut(lines: list[str], starts: list[int], first: int) -> tuple[list[Block], list[str]]:
    """Blocks that begin at the lines `starts`; comment and blank lines before one are its lead."""
    if len(set(starts)) != len(starts):
        raise ValueError("not in block layout")
    blocks = []
    lead_from = first
    for number, start in enumerate(starts):
        end = starts[number + 1] if number + 1 < len(starts) else len(lines)
        body_end = end
        while body_end > start + 1 and (not lines[body_end - 1].strip() or lines[body_end - 1].lstrip()[0] == "#"):
            body_end -= 1
        blocks.append(Block(tuple(lines[lead_from:start]), tuple(lines[start:body_end])))
        lead_from = body_end
    return blocks, lines[lead_from:]


def _changed(key: str, block: Block, old: Any, new: Any) -> tuple[str, ...]:
    """The lines of a top-level key whose value changed."""
    text = "\n".join(block.body) + "\n"
    root = engine().compose(text)
    node = root.value[0][1]
    if isinstance(node, SequenceNode) and not node.flow_style and isinstance(new, list) and new and old:
        return _changed_list(block, [item.start_mark for item in node.value], old, new)
    tree = load(text)
    return tuple(dump(sync(tree, {key: new})).splitlines())


def _changed_list(block: Block, marks: list[Any], old: list[Any], new: list[Any]) -> tuple[str, ...]:
    lines = list(block.body)
    items, tail = _cut(lines, [mark.line for mark in marks], 1)
    indent = " " * lines[marks[0].line].index("-")
    out: list[str] = []
    for item in _matched(items, old, new, indent):
        out += (*item.lead, *item.body)
    return (lines[0], *out, *tail)


def _matched(items: list[Block], old: list[Any], new: list[Any], indent: str) -> list[Block]:
    """A block for each item of `new`: unchanged, found elsewhere, patched, or fresh; no comment line is lost."""
    keys_old, keys_new = [repr(item) for item in old], [repr(item) for item in new]
    matcher = SequenceMatcher(None, keys_old, keys_new, autojunk=False)
    taken: dict[int, int] = {b + k: a + k for a, b, n in matcher.get_matching_blocks() for k in range(n)}
    free = [index for index in range(len(old)) if index not in taken.values()]
    patched: dict[int, int] = {}
    for index, key in enumerate(keys_new):
        if index in taken:
            continue
        twin = next((i for i in free if keys_old[i] == key), None)
        similar = next((i for i in free if _kin(old[i], new[index])), None)
        if twin is not None:
            taken[index] = twin
            free.remove(twin)
        elif similar is not None:
            patched[index] = similar
            free.remove(similar)
    blocks = []
    for index, value in enumerate(new):
        if index in taken:
            blocks.append(items[taken[index]])
        elif index in patched:
            source = items[patched[index]]
            blocks.append(Block(source.lead, _patched(source.body, value, indent)))
        else:
            blocks.append(Block((), _item_lines([value], indent)))
    for lost in free:
        if items[lost].lead:
            position = next((i for i in range(len(new)) if taken.get(i, patched.get(i, -1)) > lost), len(blocks) - 1)
            blocks[position] = Block((*items[lost].lead, *blocks[position].lead), blocks[position].body)
    return blocks


def _kin(old: Any, new: Any) -> bool:
    """Whether a new slice is an old one with other ranges or settings: the same donors in the same order."""

    def donors(item: Any) -> Any:
        sources = item.get("sources") if isinstance(item, Mapping) else None
        return [source.get("model") for source in sources] if isinstance(sources, list) else None

    return donors(old) is not None and donors(old) == donors(new)


def _patched(body: tuple[str, ...], value: Any, indent: str) -> tuple[str, ...]:
    text = "\n".join(line[len(indent) :] if line.startswith(indent) else line for line in body) + "\n"
    return _item_lines(sync(load(text), [value]), indent)


def _item_lines(items: Any, indent: str) -> tuple[str, ...]:
    out = io.StringIO()
    yaml = engine()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(CommentedMap(x=styled(items) if not isinstance(items, CommentedSeq) else items), out)
    lines = out.getvalue().splitlines()[1:]
    return tuple(indent + line[2:] if line.startswith("  ") else line for line in lines)
