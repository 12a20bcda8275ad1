"""Answers side by side: each turn begins at the same height in all columns, and marks where a text differs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

from rich.cells import cell_len

from ...text import one_line, safe
from .. import theme
from ..cells import pad, wrapped
from ..widgets.line import Piece
from .answers import Answer, Turn

MARK = "≠"
"""Stands before the first word that differs from the first column's."""
LEAST_WIDTH = 36
"""Cells that a column needs."""
_BETWEEN = " │ "


class Shown(NamedTuple):
    """A column that is shown: the name and the state of its model."""

    spec: str
    key: str


def columns_that_fit(width: int) -> int:
    """How many columns are shown side by side: at least two."""
    return max(2, (width + len(_BETWEEN)) // (LEAST_WIDTH + len(_BETWEEN)))


def column_width(width: int, count: int) -> int:
    """Cells of each of the columns."""
    return max(20, (width - 1 - len(_BETWEEN) * (count - 1)) // count)


def beside(cells: Sequence[list[Piece]], width: int) -> list[Piece]:
    """A line of several columns, each of `width` cells."""
    line: list[Piece] = [(" ", theme.PLAIN)]
    for number, cell in enumerate(cells):
        if number:
            line.append((_BETWEEN, theme.DIM))
        line += cell
        if number < len(cells) - 1:
            line.append((pad("", width - sum(cell_len(text) for text, _ in cell)), theme.PLAIN))
    return line


def lines_of(turns: Sequence[Turn], columns: Sequence[Shown], width: int) -> list[list[Piece]]:
    """The turns as styled lines of at most `width` cells."""
    own = column_width(width, len(columns))
    lines: list[list[Piece]] = []
    for turn in turns:
        lines.append([])
        for number, asked in enumerate(safe(turn.prompt).split("\n")):
            sign = "> " if number == 0 else "  "
            lines += [[(f" {part}", theme.BOLD)] for part in wrapped(sign + asked, width - 2, indent="  ")]
        first = turn.of(*columns[0])[0]
        cells = [_cell(turn, column, first if number else None, own) for number, column in enumerate(columns)]
        lines += [beside([part or [] for part in row], own) for row in zip_longest(*cells)]
    return lines


def _cell(turn: Turn, column: Shown, first: Answer | None, width: int) -> list[list[Piece]]:
    answer, old = turn.of(*column)
    if answer is None:
        return [[("not asked: enter asks again", theme.DIM)]] if column.spec not in turn.states else []
    lines: list[list[Piece]] = [[("(an earlier state of it)", theme.DIM)]] if old else []
    place = first_difference(first, answer) if first is not None and first is not answer else None
    lines += _text(safe(answer.text), width, None if place is None else len(safe(answer.text[:place])))
    state = one_line(answer.state)
    if first is not None and answer.ended and first.ended and not answer.bad and answer.text and place is None:
        state = f"the first column's text; {state}"
    style = theme.SEVERITY["error"] if answer.bad else theme.DIM
    return lines + [[(part, style)] for part in wrapped(state, width, indent="  ")]


def first_difference(first: Answer, other: Answer) -> int | None:
    """The place in the other text of the first word that differs; None while there is none."""
    a, b = first.text, other.text
    same = next((index for index, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if same == len(a) == len(b):
        return None
    if (same == len(a) and not first.ended) or (same == len(b) and not other.ended):
        return None
    if same == len(b):
        return same
    # The whole word, not only the rest of it.
    while same and not b[same - 1].isspace() and not b[same].isspace():
        same -= 1
    return same


def _text(text: str, width: int, place: int | None) -> list[list[Piece]]:
    """A text in lines; before `place` stands the mark."""
    if place is None:
        return [[(part, theme.PLAIN)] for part in wrapped(text, width)] if text else []
    gap = len(text[place:]) - len(text[place:].lstrip(" "))
    before, after = text[: place + gap], text[place + gap :]
    marks, lines, found = before.count(MARK), list[list[Piece]](), False
    for part in wrapped(before + MARK + after, width):
        if found:
            lines.append([(part, theme.PLAIN)])
        elif part.count(MARK) <= marks:
            marks -= part.count(MARK)
            lines.append([(part, theme.DIM)])
        else:
            at = -1
            for _ in range(marks + 1):
                at = part.index(MARK, at + 1)
            end = next((index for index in range(at + 1, len(part)) if part[index].isspace()), len(part))
            lines.append([(part[:at], theme.DIM), (part[at:end], theme.CURSOR), (part[end:], theme.PLAIN)])
            found = True
    return lines
