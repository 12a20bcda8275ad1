"""Changes the data of a YAML text with as few changed characters as possible: comments, order and spelling stay.

The old and the new data are walked along the text's tree. Unchanged data is copied character by character. A changed
scalar is replaced in place. Entries of collections are moved, removed and inserted as whole lines, each with the
comment lines above it. A full-line comment is never dropped: the comment of a removed entry moves to the next entry.

The caller must parse the result and compare it with the wanted data: a change under an anchor also changes every place
that refers to it. In that case `without_aliases` gives a text in which each place can be changed alone.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...text import aligned
from . import writer as yamltext
from .nodes import Node, is_merge, plain

_BLANK = re.compile(r"[ \t]*(#.*)?")
_DASH = re.compile(r"[ ]*-[ \t]+")


class Unpatchable(ValueError):
    """The layout of the text does not allow this change."""


def patch(text: str, tree: Node, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """`text` changed so that its data is `new`. Lines must end in a line feed.

    Args:
        tree: the tree of `text`.
        old: the data of `text`.

    Raises:
        Unpatchable: the layout of the text does not allow the change.
    """
    start = _header(text, tree.start)
    root = Node(tree.kind, start, tree.stop, tree.line, tree.flow, keys=tree.keys, items=tree.items)
    writer = _Writer(text, root)
    return text[:start] + writer.render(root, dict(old), dict(new)) + text[root.stop :]


def _header(text: str, start: int) -> int:
    """The start of the comment lines above the first key."""
    begin = text.rfind("\n", 0, start) + 1
    if text[begin:start].strip():
        return start
    start = begin
    while start and _BLANK.fullmatch(text, text.rfind("\n", 0, start - 1) + 1, start - 1):
        start = text.rfind("\n", 0, start - 1) + 1
    return start


def comments(text: str) -> list[str]:
    """The full-line comments of a text, without their indentation."""
    return [line.strip() for line in text.split("\n") if line.lstrip().startswith("#")]


def without_aliases(text: str, tree: Node, dropped: Collection[str] = ()) -> str:
    """The text with every alias and merge key written out and every anchor removed.

    Args:
        dropped: top-level keys to remove with their values.

    Raises:
        Unpatchable: a dropped key shares a line with something else, or a merge key adds nothing.
    """
    edits: list[tuple[int, int, str]] = []
    gone: set[int] = set()
    for key, item in tree.entries():
        if key is not None and str(key.value) in dropped:
            start = text.rfind("\n", 0, key.start) + 1
            stop = text.find("\n", item.stop) + 1 or len(text)
            if tree.flow or text[start : key.start].strip():
                raise Unpatchable("a dropped key shares a line with something else")
            edits.append((start, stop, ""))
            gone.add(id(item))

    def walk(node: Node) -> None:
        if node.kind == "alias":
            edits.append((node.start, node.stop, yamltext.inline(plain(node))))
            return
        if node.anchor is not None:
            position = text.index("&" + node.anchor, node.start)
            stop = position + 1 + len(node.anchor)
            spaced = text[stop : stop + 1] == " "
            edits.append((position - (not spaced and text[position - 1 : position] == " "), stop + spaced, ""))
        own = {str(key.value) for key in node.keys}
        for key, item in node.entries():
            if id(item) in gone:
                continue
            if key is not None and key.anchor is not None:
                walk(key)
            if key is not None and is_merge(key):
                merged = {name: value for name, value in plain(node).items() if name not in own}
                edits.append((key.start, item.stop, _merged(text, node, key, merged)))
            else:
                walk(item)

    walk(tree)
    for start, stop, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[stop:]
    return text


def _merged(text: str, node: Node, key: Node, merged: Mapping[str, Any]) -> str:
    """The text of the entries that replace a merge key."""
    parts = [f"{yamltext.scalar(name)}: {yamltext.inline(value)}" for name, value in merged.items()]
    if not parts:
        raise Unpatchable("a merge key adds nothing")
    column = key.start - (text.rfind("\n", 0, key.start) + 1)
    return (", " if node.flow else "\n" + " " * column).join(parts)


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


@dataclass(frozen=True)
class _Order:
    """The wanted entries of a collection.

    Attributes:
        entries: in order, the number of an old entry or the lines of a new one.
        texts: the new text of old entries that change.
        lost: the numbers of removed entries.
    """

    entries: list[int | list[str]]
    texts: dict[int, str]
    lost: list[int]


class _Writer:
    def __init__(self, text: str, root: Node) -> None:
        self.text = text
        outer = self._find_offset(root, deep=False)
        inner = next((found for item in root.items if (found := self._find_offset(item)) is not None), outer)
        self.offsets = (yamltext.OFFSET if outer is None else outer, yamltext.OFFSET if inner is None else inner)
        self.root = root

    def render(self, node: Node, old: Any, new: Any) -> str:
        """The text of a node after its data changes from `old` to `new`."""
        if _same(old, new):
            return self.text[node.start : node.stop]
        if node.kind == "map" and isinstance(old, dict) and isinstance(new, dict):
            return self._map(node, old, new)
        if node.kind == "list" and isinstance(old, list) and isinstance(new, list):
            return self._list(node, old, new)
        if node.block:
            raise Unpatchable("a block collection becomes another kind of value")
        return self._scalar(node, new)

    def _scalar(self, node: Node, new: Any) -> str:
        if isinstance(new, str) and new.isprintable() and node.quote == "'":
            return "'" + new.replace("'", "''") + "'"
        if isinstance(new, str) and new.isprintable() and node.quote == '"' and not set(new) & set('\\"'):
            return f'"{new}"'
        space = " " if node.start == node.stop and self.text[node.start - 1 : node.start] == ":" else ""
        return space + yamltext.inline(new)

    def _map(self, node: Node, old: dict[str, Any], new: dict[str, Any]) -> str:
        own = [None if is_merge(key) else str(key.value) for key in node.keys]
        lost = [index for index, name in enumerate(own) if name in old and name not in new]
        added = [name for name in new if name not in own and not (name in old and _same(old[name], new[name]))]
        if any(name not in own and name not in new for name in old):
            raise Unpatchable("a key that comes from a merge key cannot be removed")
        texts = {}
        for index, (name, key, item) in enumerate(zip(own, node.keys, node.items, strict=True)):
            if name is not None and name in new and not _same(old.get(name), new[name]):
                texts[index] = self._entry(node, key, item, old.get(name), new[name])
        entries: list[int | list[str]] = [index for index in range(len(own)) if index not in lost]
        names = [own[index] for index in range(len(own)) if index not in lost]
        for name in added:
            above = list(new)[: list(new).index(name)]
            before = next((other for other in reversed(above) if other in names), None)
            position = names.index(before) + 1 if before is not None else 0
            fresh = [f"{yamltext.scalar(name)}: {yamltext.inline(new[name])}"]
            entries.insert(position, fresh if node.flow else self._fresh(node, name, new[name]))
            names.insert(position, name)
        return self._emit(node, _Order(entries, texts, lost))

    def _entry(self, node: Node, key: Node, item: Node, old: Any, new: Any) -> str:
        """The text of a table's entry with another value, from its key on; rewritten if the old form cannot hold it."""
        kind = dict if item.kind == "map" else list
        if item.block:
            rewrite = not new or not isinstance(new, kind)
        else:
            rewrite = not node.flow and not yamltext.is_short(new) and not (isinstance(new, kind) and item.items)
        if not rewrite:
            return self.text[key.start : item.start] + self.render(item, old, new)
        first, *rest = self._fresh(node, str(key.value), new)
        indent = " " * self._column(key.start)
        inside = comments(self.text[item.start : item.stop]) if item.block else []
        return "\n".join([first, *(indent + line for line in (*inside, *rest))])

    def _fresh(self, node: Node, name: str, value: Any) -> list[str]:
        return yamltext.entry(name, value, self.offsets[node is not self.root], self.offsets[1])

    def _list(self, node: Node, old: list[Any], new: list[Any]) -> str:
        if len(old) != len(node.items):
            raise Unpatchable("a list and its data differ in length")
        pairs = _matched(old, new)
        texts = {
            index: self.render(node.items[index], old[index], value)
            for index, value in zip(pairs, new, strict=True)
            if index is not None and not _same(old[index], value)
        }
        entries: list[int | list[str]] = []
        for index, value in zip(pairs, new, strict=True):
            fresh = [yamltext.inline(value)] if node.flow else yamltext.item(value, self.offsets[1])
            entries.append(fresh if index is None else index)
        return self._emit(node, _Order(entries, texts, [index for index in range(len(old)) if index not in pairs]))

    # Layout of entries.

    def _emit(self, node: Node, order: _Order) -> str:
        if order.entries == list(range(len(node.items))):
            return self._in_place(node, order.texts)
        if not order.entries and not node.flow:
            raise Unpatchable("a block collection cannot be empty")
        own = self.text[node.start : node.stop]
        if node.flow and ("\n" not in own or (not node.items and "#" not in own)):
            return self._in_line(node, order)
        try:
            return self._in_lines(node, order)
        except Unpatchable:
            if not node.flow or "#" in own:
                raise
            return self._in_line(node, order)

    def _span(self, node: Node, index: int) -> tuple[int, int]:
        start = node.keys[index].start if node.keys else node.items[index].start
        return start, node.items[index].stop

    def _in_place(self, node: Node, texts: Mapping[int, str]) -> str:
        out, position = [], node.start
        for index in sorted(texts):
            start, stop = self._span(node, index)
            out += [self.text[position:start], texts[index]]
            position = stop
        return "".join(out) + self.text[position : node.stop]

    def _in_line(self, node: Node, order: _Order) -> str:
        """Lays out entries in brackets that open and close on one line."""
        spans = [self._span(node, index) for index in range(len(node.items))]
        parts = [
            "".join(entry) if isinstance(entry, list) else order.texts.get(entry, self.text[slice(*spans[entry])])
            for entry in order.entries
        ]
        if not spans:
            return self.text[node.start] + ", ".join(parts) + self.text[node.stop - 1]
        closing = self.text[spans[-1][1] : node.stop].replace(",", "", 1)
        return self.text[node.start : spans[0][0]] + ", ".join(parts) + closing

    def _in_lines(self, node: Node, order: _Order) -> str:
        """Lays out entries that each have their own lines, in a block or in brackets."""
        rows = _Rows(self.text, node, [self._span(node, index) for index in range(len(node.items))])
        out: list[str] = []
        waiting = {index: rows.comments(index) for index in order.lost}
        for number, entry in enumerate(order.entries):
            last = number == len(order.entries) - 1
            if isinstance(entry, list):
                out += rows.fresh(entry, last)
                continue
            for index in [index for index in waiting if index < entry]:
                out += waiting.pop(index)
            out += rows.kept(entry, order.texts.get(entry), last)
        for lead in waiting.values():
            out += lead
        return rows.around(out)

    def _find_offset(self, node: Node, deep: bool = True) -> int | None:
        """The indentation of the first list under a key, relative to the key; with `deep`, nested entries are
        searched too."""
        for key, item in node.entries():
            if key is not None and item.kind == "list" and item.block and item.items:
                start = self.text.rfind("\n", 0, item.items[0].start) + 1
                if dash := _DASH.match(self.text, start):
                    return min(4, max(0, dash.group().index("-") - self._column(key.start)))
            if deep and (found := self._find_offset(item)) is not None:
                return found
        return None

    def _column(self, position: int) -> int:
        return position - (self.text.rfind("\n", 0, position) + 1)


class _Rows:
    """The lines of a collection whose entries do not share lines.

    Attributes:
        spans: (start, stop) of the characters of each entry.
        after_dash: whether the first entry follows the dash of an enclosing list on its line.
    """

    def __init__(self, text: str, node: Node, spans: Sequence[tuple[int, int]]) -> None:
        if not spans:
            raise Unpatchable("brackets over several lines with nothing in them")
        self.text, self.node, self.spans = text, node, spans
        self.starts = [text.rfind("\n", 0, start) + 1 for start, _ in spans]
        self.ends = [len(text) if (end := text.find("\n", stop)) < 0 else end for _, stop in spans]
        self.after_dash = node.start > self.starts[0] and not node.flow
        self.column = spans[0][0] - self.starts[0]
        own_line = node.flow or node.anchor is not None
        self.begin = text.find("\n", node.start) + 1 if own_line else node.start
        self._check()
        self.comma = node.flow and self._tail(len(spans) - 1).startswith(",")
        self.dash = node.kind == "list" and not node.flow
        if self.dash:
            self.column = text.index("-", self.starts[0]) - self.starts[0]
        self.until = [self._until(end) for end in self.ends]

    def _check(self) -> None:
        opening = _DASH if self.node.kind == "list" and not self.node.flow else re.compile(r"[ \t]*")
        above = self.begin
        for index, (start, _) in enumerate(self.spans):
            if not (index == 0 and self.after_dash):
                between = self.text[above : self.starts[index]]
                if self.starts[index] < above or any(not _BLANK.fullmatch(line) for line in between.split("\n")):
                    raise Unpatchable("entries share a line")
                if not opening.fullmatch(self.text, self.starts[index], start):
                    raise Unpatchable("something precedes an entry on its line")
            if not re.fullmatch(r",?[ \t]*(#.*)?", self._tail(index)) or self.ends[index] > self.node.stop:
                raise Unpatchable("something follows an entry on its line")
            above = self.ends[index] + 1
        if self.node.flow and not _BLANK.fullmatch(self.text, self.node.start + 1, self.begin - 1):
            raise Unpatchable("something follows the bracket on its line")

    def _until(self, end: int) -> int:
        """The end of an entry, including comment lines after it that are indented further than the entry."""
        deeper = re.compile(rf"\n {{{self.column + 1},}}#[^\n]*")
        while not self.node.flow and end < self.node.stop and (line := deeper.match(self.text, end)):
            end = line.end()
        return end

    def _tail(self, index: int) -> str:
        """The text after an entry on its line: a comma, a comment."""
        tail = self.text[self.spans[index][1] : self.ends[index]]
        return tail.lstrip() if tail.lstrip().startswith(",") else tail

    def _lead(self, index: int) -> list[str]:
        """Comment and blank lines above an entry."""
        if index == 0 and self.after_dash:
            return []
        above = self.begin if index == 0 else self.until[index - 1] + 1
        return self.text[above : self.starts[index]].split("\n")[:-1]

    def comments(self, index: int) -> list[str]:
        """Full-line comments above and in an entry."""
        lead = [line for line in self._lead(index) if line.strip()]
        return lead + [" " * self.column + line for line in comments(self.text[self.starts[index] : self.until[index]])]

    def kept(self, index: int, changed: str | None, last: bool) -> list[str]:
        """The lines of an old entry, unchanged or with another text."""
        start, stop = self.spans[index]
        before = " " * self.column if index == 0 and self.after_dash else self.text[self.starts[index] : start]
        body = before + (self.text[start:stop] if changed is None else changed) + self._with_comma(index, last)
        return [*self._lead(index), body]

    def _with_comma(self, index: int, last: bool) -> str:
        if not self.node.flow:
            return self.text[self.spans[index][1] : self.until[index]]
        tail = self._tail(index)
        bare = tail[1:] if tail.startswith(",") else tail
        return bare if last and not self.comma else "," + bare

    def fresh(self, lines: list[str], last: bool) -> list[str]:
        """The lines of a new entry."""
        comma = "," if self.node.flow and not (last and not self.comma) else ""
        return [" " * self.column + line for line in lines[:-1]] + [" " * self.column + lines[-1] + comma]

    def around(self, lines: list[str]) -> str:
        """The text of the collection with these lines as its entries."""
        body = "\n".join(lines)
        if self.after_dash:
            # The first entry follows the list's dash, so comments above it move below it.
            first = next(number for number, line in enumerate(lines) if not _BLANK.fullmatch(line))
            body = "\n".join([lines[first][self.column :], *lines[:first], *lines[first + 1 :]])
        return self.text[self.node.start : self.begin] + body + self.text[self.until[-1] : self.node.stop]


def _matched(old: list[Any], new: list[Any]) -> list[int | None]:
    """For each item of `new`, the number of the item of `old` that it equals or derives from; each is used once."""
    keys_old, keys_new = [json.dumps(item) for item in old], [json.dumps(item) for item in new]
    if len(old) == len(new) and not any(isinstance(item, (dict, list)) for item in (*old, *new)):
        return list(range(len(old)))
    found = aligned(keys_old, keys_new)
    _pair(keys_old, keys_new, found)
    _pair([_name(item) for item in old], [_name(item) for item in new], found)
    if len(old) == len(new):
        used = set(found.values())
        for position in range(len(new)):
            if position not in found and position not in used and type(old[position]) is type(new[position]):
                found[position] = position
    return [found.get(position) for position in range(len(new))]


def _pair(old: Sequence[str | None], new: Sequence[str | None], found: dict[int, int]) -> None:
    """Pair each unpaired position of `new` with the first free position of `old` that has the same key."""
    used = set(found.values())
    free: dict[str, deque[int]] = {}
    for index, key in enumerate(old):
        if key is not None and index not in used:
            free.setdefault(key, deque()).append(index)
    for position, key in enumerate(new):
        if position not in found and key is not None and (left := free.get(key)):
            found[position] = left.popleft()


def _name(item: Any) -> str | None:
    """What identifies an item whose ranges or settings changed: its donors in order, or its filter."""
    if not isinstance(item, dict):
        return None
    if isinstance(sources := item.get("sources"), list):
        return repr([source.get("model") for source in sources])
    return repr(name) if (name := item.get("model") or item.get("filter")) is not None else None
