"""Plain tables for a terminal of any width: cells wrap; columns that do not fit are printed as further blocks."""

from __future__ import annotations

import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from ..text import one_line

DEFAULT_WIDTH = 80
_LEAST_WIDTH = 40
_GAP = "  "
_NARROWEST = 18
_BREAKS = re.compile(r"(?<=[\s/_,])|(?<=\w-)|(?<=\.)(?!\d)")
"""Where a cell may be broken: not within a number."""


@dataclass(frozen=True)
class Style:
    """What a stream can show: whether it is a terminal, has colour and Unicode, and its width in columns."""

    terminal: bool = False
    colour: bool = False
    unicode: bool = True
    width: int = DEFAULT_WIDTH

    @classmethod
    def of(cls, stream: TextIO) -> Style:
        """The style of a stream. Colour needs a terminal; NO_COLOR and TERM=dumb turn it off."""
        terminal = stream.isatty()
        colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
        encoding = (getattr(stream, "encoding", "") or "").lower()
        width = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns
        return cls(terminal, colour, encoding.startswith("utf"), max(width, _LEAST_WIDTH))

    @property
    def differs(self) -> str:
        """The mark of a row whose cells differ."""
        return "≠" if self.unicode else "!="

    def bold(self, text: str) -> str:
        """The text in bold if the stream has colour."""
        return f"\x1b[1m{text}\x1b[0m" if self.colour and text.strip() else text

    def dim(self, text: str) -> str:
        """The text dimmed if the stream has colour."""
        return f"\x1b[2m{text}\x1b[0m" if self.colour and text.strip() else text


@dataclass(frozen=True)
class TableRow:
    """A label and one cell per column. The row is marked if its keys differ (without keys: its cells)."""

    label: str
    cells: tuple[str, ...]
    keys: tuple[Any, ...] | None = None

    @property
    def differs(self) -> bool:
        """Whether the row is to be marked."""
        keys = self.cells if self.keys is None else self.keys
        return any(key != keys[0] for key in keys)


def cells(text: str) -> int:
    """The width of the text in terminal columns."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, width: int) -> str:
    """The text, padded with spaces to a width in terminal columns."""
    return text + " " * (width - cells(text))


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken after spaces and punctuation, else anywhere; nothing is left out."""
    lines: list[str] = []
    line = ""
    for piece in _BREAKS.split(one_line(text)):
        if line and cells(line + piece.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        while cells(piece.rstrip()) > width:
            head = piece[: max(1, width // 2)]
            while len(head) < len(piece) and cells(head + piece[len(head)]) <= width:
                head += piece[len(head)]
            lines.append(head)
            piece = piece[len(head) :]
        line += piece
    return [*lines, line.rstrip()] if line.rstrip() or not lines else lines


def table(rows: Sequence[TableRow], heads: Sequence[str], style: Style) -> list[str]:
    """The lines of a table. The first column has the labels; `heads` name the others (empty: one column, no head)."""
    if not rows:
        return []
    count = len(rows[0].cells)
    mark = len(style.differs) + 1 if count > 1 else 0
    label = min(max(cells(one_line(row.label)) for row in rows), style.width // 2) + mark
    room = style.width - label - len(_GAP)
    fitting = max(1, min(count, (room + len(_GAP)) // (_NARROWEST + len(_GAP))))
    lines: list[str] = []
    for start in range(0, count, fitting):
        block = list(range(start, min(start + fitting, count)))
        natural = [
            max(cells(text) for text in (*(heads[column : column + 1]), *(one_line(row.cells[column]) for row in rows)))
            for column in block
        ]
        widths = _widths(natural, room)
        if start:
            lines.append("")
        if heads:
            top = _GAP.join(pad(heads[column], width) for column, width in zip(block, widths, strict=True))
            lines.append(style.bold(f"{'':{label}}{_GAP}{top}".rstrip()))
        for row in rows:
            lines += _row_lines(row, [row.cells[column] for column in block], widths, label, mark, style)
    return lines


def _widths(natural: Sequence[int], room: int) -> list[int]:
    """Column widths that fit `room`: a column gets what it needs up to an equal share of the room that is left."""
    widths = list(natural)
    left = room - len(_GAP) * (len(natural) - 1)
    waiting = sorted(range(len(natural)), key=lambda column: natural[column])
    while waiting:
        fair = left // len(waiting)
        column = waiting.pop(0)
        widths[column] = max(1, min(natural[column], fair))
        left -= widths[column]
    return widths


def _row_lines(
    row: TableRow, texts: Sequence[str], widths: Sequence[int], label: int, mark: int, style: Style
) -> list[str]:
    names = wrap(row.label, label - mark)
    columns = [wrap(text, width) for text, width in zip(texts, widths, strict=True)]
    paint = style.bold if row.differs and mark else style.dim
    lines = []
    for index in range(max(len(column) for column in (names, *columns))):
        lead = pad(style.differs if row.differs and not index else "", mark) if mark else ""
        lead = pad(lead + (names[index] if index < len(names) else ""), label)
        parts = [
            pad(column[index] if index < len(column) else "", width)
            for column, width in zip(columns, widths, strict=True)
        ]
        lines.append(f"{paint(lead)}{_GAP}{_GAP.join(parts)}".rstrip())
    return lines


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line; characters that the stream cannot encode are escaped."""
    out = stream or sys.stdout
    encoding = getattr(out, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=out)
