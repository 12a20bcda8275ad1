"""Text measured in cells of the terminal: a CJK character or an emoji takes two, a combining mark none."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

from ..text import one_line

MORE = "…"
"""Stands for what is left out."""


def pad(text: str, width: int) -> str:
    """Text with spaces behind it up to `width` cells; a longer one is unchanged."""
    return text + " " * (width - cell_len(text))


def cut(text: str, width: int) -> str:
    """Text in at most `width` cells; where its end is left out, `…` says so."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + MORE if width > 0 else ""


def shortened(text: str, width: int) -> str:
    """Text in at most `width` cells, left out in the middle: the ends of names are what tells them apart."""
    if cell_len(text) <= width:
        return text
    if width < 5:
        return cut(text, width)
    behind = width // 2
    tail = text[-behind:]
    while cell_len(tail) > behind:
        tail = tail[1:]
    return set_cell_size(text, width - 1 - cell_len(tail)).rstrip() + MORE + tail


def short_name(ref: str, width: int) -> str:
    """The name of a donor's folder, and of its adapter's, in at most `width` cells."""
    names = (part.rstrip("/").rsplit("/", 1)[-1] for part in ref.split("+"))
    return shortened(one_line("+".join(names)), width)


def wrapped(text: str, width: int, *, indent: str = "") -> list[str]:
    """Text in lines of at most `width` cells, broken at spaces; `indent` leads every line but the first of each."""
    width = max(width, 20)
    return [line for part in text.splitlines() or [""] for line in _wrapped_line(part, width, indent)]


def _wrapped_line(text: str, width: int, indent: str) -> list[str]:
    if cell_len(text) <= width:
        return [text]
    lines: list[str] = []
    line = text[: len(text) - len(text.lstrip(" "))]  # its own indent
    empty = True
    for word in text.split():
        if not empty and cell_len(line) + 1 + cell_len(word) > width:
            lines.append(line)
            line, empty = indent, True
        line += word if empty else f" {word}"
        empty = False
        while cell_len(line) > width:
            head = set_cell_size(line, width).rstrip()
            head = line[: len(head)] if line.startswith(head) else line[: len(head) - 1]
            lines.append(head)
            line = indent + line[len(head) :]
    return [*lines, line]
