"""YAML text as a tree of nodes with character positions, so that one node can be changed and the rest stays.

ruamel.yaml scans and parses. The tree is built from its events, so it can hold nothing but plain data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml import events as ev
from ruamel.yaml.error import MarkedYAMLError, YAMLError

MAX_NODES = 100_000
"""Most keys and values in one file, with aliases expanded."""

MAX_NESTING = 60
MAX_DOCUMENTS = 32
"""Most documents in one file: the time to check the export of a chain of stages grows with the square of its
length."""

Place = tuple[str | int, ...]

_INT = re.compile(r"[-+]?\d[\d_]*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_INNER_TABS = re.compile(r"(?<=[^\s])[ \t]*\t[ \t]*")
_TAG = "tag:yaml.org,2002:"


class TextError(ValueError):
    """The text is not YAML, or uses YAML that a recipe may not contain; `line` counts from 1."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line


class TooLarge(TextError):
    """The text is valid YAML, but exceeds a size limit."""


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of YAML.

    Attributes:
        kind: the kind of node; an `alias` refers to `target`.
        start: the first character; for a block collection under a key, the start of the line after the key.
        stop: one past the last character; for a block collection, the end of its last line.
        line: the line of the first character, from 1.
        flow: whether a collection is written in brackets.
        value: a scalar's data.
        quote: a scalar's quote or block indicator, or "".
        keys: the keys of a map, in order.
        items: the values of a map, or the items of a list.
        anchor: the anchor of this node, or the anchor that an alias refers to.
        target: the node that an alias refers to.
    """

    kind: Literal["scalar", "map", "list", "alias"]
    start: int
    stop: int
    line: int
    flow: bool = False
    value: Any = None
    quote: str = ""
    keys: tuple[Node, ...] = ()
    items: tuple[Node, ...] = ()
    anchor: str | None = None
    target: Node | None = None

    @property
    def block(self) -> bool:
        """Whether this is a collection in block style."""
        return self.kind in ("map", "list") and not self.flow

    def entries(self) -> list[tuple[Node | None, Node]]:
        """(key, value) of every entry; the key is None in a list."""
        return list(zip(self.keys or (None,) * len(self.items), self.items, strict=True))


def is_merge(key: Node) -> bool:
    """Whether a key is YAML's merge key `<<`."""
    return key.value == "<<" and not key.quote


def resolve_word(text: str) -> Any:
    """The value of an unquoted scalar in YAML 1.2: null, a boolean, a number, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) < 400:
        if _INT.fullmatch(text):
            return int(text.replace("_", ""), {"0o": 8, "0x": 16}.get(text[:2], 10))
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def plain(node: Node) -> Any:
    """A node's data as plain dicts (with text keys), lists and scalars, with merge keys applied.

    Raises:
        TextError: a merge key's value is not a table or a list of tables.
    """
    if node.kind == "alias":
        assert node.target is not None
        return plain(node.target)
    if node.kind == "scalar":
        return node.value
    if node.kind == "list":
        return [plain(item) for item in node.items]
    merged: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key, item in zip(node.keys, node.items, strict=True):
        if is_merge(key):
            value = plain(item)
            for table in value if isinstance(value, list) else [value]:
                if not isinstance(table, Mapping):
                    raise TextError("the merge key << takes a table, or a list of tables", key.line)
                for name, entry in table.items():
                    merged.setdefault(name, entry)
        else:
            own[str(key.value)] = plain(item)
    return {**own, **{key: value for key, value in merged.items() if key not in own}}


def lines(node: Node, place: Place = ()) -> Iterator[tuple[Place, int]]:
    """(place, line) of every key and item; a place is a path such as `("slices", 2)`."""
    if node.target is not None:
        yield from lines(node.target, place)
    for number, (key, item) in enumerate(node.entries()):
        if key is not None and is_merge(key):
            continue
        here = (*place, number if key is None else str(key.value))
        yield here, (key or item).line
        yield from lines(item, here)


def anchor_carriers(root: Node) -> dict[str, bool]:
    """Top-level keys whose values contain an anchor -> whether an alias refers to such an anchor."""
    if root.kind != "map":
        return {}
    used = {node.anchor for node in _walk(root) if node.kind == "alias"}
    found: dict[str, bool] = {}
    for key, item in zip(root.keys, root.items, strict=True):
        anchors = {node.anchor for node in _walk(item, own=True)} - {None}
        if anchors:
            found[str(key.value)] = found.get(str(key.value), False) or bool(used & anchors)
    return found


def _walk(node: Node, own: bool = False) -> Iterator[Node]:
    """A node and all nodes in it; with `own`, aliases are left out."""
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if not (own and here.kind == "alias"):
            yield here
        waiting += here.items


def scalars(node: Node) -> Iterator[Node]:
    """Every scalar in a node, keys included, in text order; the targets of aliases are left out."""
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if part.kind == "scalar":
            yield part
        entries = (piece for entry in part.entries() for piece in entry if piece is not None)
        waiting += reversed(list(entries))


def build(text: str) -> list[Node]:
    """The trees of a text's documents; empty documents are left out.

    Raises:
        TextError: the text is not valid YAML, has an unsupported tag, or a key occurs twice.
        TooLarge: there are too many documents, levels of nesting, or values (with aliases expanded).
    """
    try:
        return _Builder(text).build()
    except MarkedYAMLError as error:
        if (spaced := _INNER_TABS.sub(lambda found: " " * len(found[0]), text)) != text:
            return build(spaced)  # The scanner refuses tabs between words; spaces keep every character's position.
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.context, error.problem) if part)
        raise TextError(reason.replace("\n", " "), mark.line + 1 if mark else None) from error
    except YAMLError as error:
        raise TextError(str(error).split("\n", 1)[0]) from error


@dataclass
class _Open:
    """A collection that is still open while events are read."""

    event: Any
    keys: list[Node] = field(default_factory=list)
    items: list[Node] = field(default_factory=list)
    key: Node | None = None
    size: int = 1
    names: set[Any] = field(default_factory=set)


class _Builder:
    def __init__(self, text: str) -> None:
        self.text = text
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.open: list[_Open] = []
        self.roots: list[Node] = []
        self.size = self.documents = 0

    def build(self) -> list[Node]:
        parser: Any = YAML(typ="safe", pure=True)
        for event in parser.parse(self.text):
            line = event.start_mark.line + 1
            if isinstance(event, ev.DocumentStartEvent):
                self.anchors.clear()
                self.documents += 1
                if self.documents > MAX_DOCUMENTS:
                    raise TooLarge(f"it has more than {MAX_DOCUMENTS} documents", line)
            if isinstance(event, (ev.MappingStartEvent, ev.SequenceStartEvent)):
                self._tag(event, line)
                if len(self.open) >= MAX_NESTING:
                    raise TooLarge(f"it is nested more than {MAX_NESTING} deep", line)
                self.open.append(_Open(event))
            elif isinstance(event, (ev.MappingEndEvent, ev.SequenceEndEvent)):
                self._close(self.open.pop(), event.end_mark.index)
                self.size += 1
            elif isinstance(event, ev.ScalarEvent):
                self._put(self._scalar(event, line), 1)
            elif isinstance(event, ev.AliasEvent):
                self._alias(event, line)
        return [root for root in self.roots if root.kind != "scalar" or root.value is not None]

    def _scalar(self, event: Any, line: int) -> Node:
        start, stop = event.start_mark.index, event.end_mark.index
        stop = start + len(self.text[start:stop].rstrip())
        value = event.value
        kind = self._tag(event, line)
        if (kind is None and event.implicit[0]) or kind in ("int", "float", "bool", "null"):
            value = resolve_word(value)
        return Node("scalar", start, stop, line, value=value, quote=event.style or "", anchor=event.anchor)

    def _tag(self, event: Any, line: int) -> str | None:
        """The core type that a tag names; None without a tag."""
        tag = event.tag
        if tag is None:
            return None
        name = str(tag).removeprefix(_TAG)
        if name not in {"!", "str", "int", "float", "bool", "null", "map", "seq"}:
            raise TextError(f"the tag {name!r} is not allowed in a recipe", line)
        return "str" if name == "!" else name

    def _alias(self, event: Any, line: int) -> None:
        if event.anchor not in self.anchors:
            raise TextError(f"the alias *{event.anchor} has no anchor that ends above it", line)
        target, size = self.anchors[event.anchor]
        start, stop = event.start_mark.index, event.end_mark.index
        self._put(Node("alias", start, stop, line, anchor=event.anchor, target=target), size)

    def _close(self, made: _Open, end: int) -> None:
        event = made.event
        flow, start, line = bool(event.flow_style), event.start_mark.index, event.start_mark.line + 1
        stop = end if flow else self._line_end(made.items[-1].stop if made.items else start)
        kind: Literal["map", "list"] = "map" if isinstance(event, ev.MappingStartEvent) else "list"
        node = Node(
            kind, start, stop, line, flow, keys=tuple(made.keys), items=tuple(made.items), anchor=event.anchor
        )  # fmt: skip
        self._put(node, made.size)

    def _put(self, node: Node, size: int) -> None:
        if node.anchor is not None and node.kind != "alias":
            self.anchors[node.anchor] = (node, size)
        # The entries of a collection are already counted when it is closed.
        self.size += size if node.kind in ("scalar", "alias") else 0
        if self.size > MAX_NODES:
            raise TooLarge(f"it has more than {MAX_NODES:,} values, aliases expanded", node.line)
        if not self.open:
            self.roots.append(node)
            return
        parent = self.open[-1]
        parent.size += size
        if not isinstance(parent.event, ev.MappingStartEvent):
            parent.items.append(node)
        elif parent.key is None:
            if node.kind != "scalar":
                raise TextError("a key must be a word, not a collection", node.line)
            parent.key = node
        else:
            key = parent.key
            # At the top level, a key that only holds an anchor may occur again: its name has no meaning.
            carries = len(self.open) == 1 and node.anchor is not None and node.kind != "alias"
            if key.value in parent.names and not is_merge(key) and not carries:
                raise TextError(f"the key {key.value!r} occurs twice", key.line)
            parent.names.add(key.value)
            parent.keys.append(parent.key)
            parent.items.append(self._below(parent.key, node))
            parent.key = None

    def _below(self, key: Node, node: Node) -> Node:
        """The value of a key, with corrected positions.

        An empty value starts at the colon. A block collection starts on the line after the key, so that comments above
        its first entry belong to it.
        """
        colon = self.text.find(":", key.stop)
        if node.kind == "scalar" and node.start == node.stop and not self.text[key.stop : colon].strip():
            return replace(node, start=colon + 1, stop=colon + 1)  # The scanner puts it at the next token.
        line_end = self._line_end(key.stop)
        bare = node.block and node.anchor is None and not self.text[key.stop : line_end].lstrip(" :\t").startswith("!")
        return replace(node, start=line_end + 1) if bare and node.start > line_end else node

    def _line_end(self, position: int) -> int:
        found = self.text.find("\n", position)
        return len(self.text) if found < 0 else found
