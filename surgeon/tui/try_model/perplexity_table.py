"""A table of models against texts: the perplexity of every text, and the tokens that were counted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.cells import cell_len

from ...text import duration, one_line
from .. import theme
from ..cells import pad, shortened, wrapped
from ..widgets.line import Piece

NAME = 28
"""Most cells of a model's name."""
CELL = 12
"""Cells of a text's column, the space before it included."""
_HEADING = " perplexity"


class Measure(NamedTuple):
    """The perplexity of a text (None if it is not finite), the number of its tokens, and the window in tokens.

    `error` is why it could not be measured; then there are no tokens.
    """

    value: float | None
    tokens: int
    window: int
    error: str = ""


@dataclass
class TableRow:
    """A model, and what was measured so far.

    Attributes:
        number: the number of its request at the process; None before it was sent.
        found: the measures, in the order of the texts.
        state: how far it is, if it is not complete; an error if it failed.
        reading: how many tokens of a long text it has read.
    """

    name: str
    number: int | None = None
    found: list[Measure] = field(default_factory=list)
    state: str = "waiting"
    reading: str = ""
    failed: bool = False
    since: float = field(default_factory=time.monotonic)

    def take(self, event: dict[str, Any]) -> None:
        """Take an event of the process that holds the model."""
        kind = event.get("event")
        if kind in {"loading", "cancelled"}:
            self.state = "loading" if kind == "loading" else "stopped"
        elif kind == "loaded":
            self.state = "measuring"
        elif kind == "reading":
            self.reading = f"{event.get('tokens', 0):,} of {event.get('total', 0):,}"
        elif kind == "perplexity":
            self.reading = ""
            value = event.get("value")
            tokens, window = int(event.get("tokens", 0)), int(event.get("window", 0))
            self.found.append(Measure(value, tokens, window, str(event.get("error") or "")))
        elif kind == "error":
            self.state, self.failed = str(event.get("message")), True
        elif kind == "done":
            self.state = ""


@dataclass
class PerplexityTable:
    """Rows of models, columns of texts."""

    texts: Sequence[Path]
    rows: list[TableRow]

    def same_tokens(self, column: int) -> int | None:
        """The number of tokens of a text, if all models split it alike; else None."""
        counts = self._counts(column)
        return counts.pop() if len(counts) == 1 else None

    def _counts(self, column: int) -> set[int]:
        measures = [row.found[column] for row in self.rows if len(row.found) > column]
        return {measure.tokens for measure in measures if not measure.error}

    def best(self, column: int) -> float | None:
        """The lowest perplexity of a text, if two models or more can be compared."""
        found = [row.found[column].value for row in self.rows if len(row.found) > column]
        values = [value for value in found if value is not None]
        return min(values) if len(values) > 1 and self.same_tokens(column) is not None else None

    def lines(self, width: int) -> list[list[Piece]]:
        """The table in lines of at most `width` cells; texts that do not fit follow in further tables."""
        name = min(NAME, max(len(_HEADING), *(cell_len(one_line(row.name)) + 2 for row in self.rows)))
        each = max(1, (width - name - 1) // CELL)
        lines: list[list[Piece]] = []
        for start in range(0, len(self.texts), each):
            lines += [[], *self._block(range(start, min(start + each, len(self.texts))), name)]
        lines.append([])
        for text in self._notes():
            lines += [[(f" {part}", theme.DIM)] for part in wrapped(text, width - 2, indent="  ")]
        for row in self.rows:
            if row.failed:
                lines += _problem(f"{one_line(row.name)}: {one_line(row.state)}", width)
        for text in dict.fromkeys(measure.error for row in self.rows for measure in row.found if measure.error):
            lines += _problem(one_line(text), width)
        return lines

    def _block(self, columns: range, name: int) -> Iterable[list[Piece]]:
        names = "".join(_right(shortened(one_line(self.texts[column].stem), CELL - 2)) for column in columns)
        yield [(pad(shortened(_HEADING, name), name), theme.TITLE), (names, theme.TITLE)]
        yield [(" " * name, theme.DIM), ("".join(_right(self._tokens(column)) for column in columns), theme.DIM)]
        for row in self.rows:
            pieces: list[Piece] = [(pad(shortened(f" {one_line(row.name)}", name), name), theme.PLAIN)]
            for column in columns:
                pieces.append(self._cell(row, column))
            if len(row.found) <= columns.start and row.state:
                pieces = [*pieces[:1], (f"  {'failed' if row.failed else row.state}", theme.DIM)]
            yield pieces
            if any(len(self._counts(column)) > 1 and len(row.found) > column for column in columns):
                counts = [row.found[column].tokens if len(row.found) > column else 0 for column in columns]
                shown = "".join(_right(f"{count:,} tok" if count else "") for count in counts)
                yield [(" " * name, theme.DIM), (shown, theme.DIM)]

    def _tokens(self, column: int) -> str:
        count = self.same_tokens(column)
        return "" if count is None else f"{count:,} tok"

    def _cell(self, row: TableRow, column: int) -> Piece:
        if len(row.found) <= column:
            return _right("-" if row.failed or row.state == "stopped" else "..."), theme.DIM
        value = row.found[column].value
        if row.found[column].error:
            return _right("error"), theme.SEVERITY["error"]
        if value is None:
            return _right("not finite"), theme.SEVERITY["error"]
        best = value == self.best(column)
        return _right(f"{value:.4g}{'*' if best else ''}", mark=best), theme.BOLD if best else theme.PLAIN

    def _notes(self) -> Iterable[str]:
        if any(self.best(column) is not None for column in range(len(self.texts))):
            yield "* the lowest. Lower is better: the text surprises the model less."
        measured = [column for column in range(len(self.texts)) if any(len(row.found) > column for row in self.rows)]
        if any(len(self._counts(column)) > 1 for column in measured):
            yield "Models that split a text into other tokens have perplexities that cannot be compared."
        windows = {measure.window for row in self.rows for measure in row.found if measure.tokens > measure.window}
        if windows:
            sizes = ", ".join(f"{window:,}" for window in sorted(windows))
            yield f"Texts that are longer are read in windows of {sizes} tokens."
        for row in self.rows:
            if row.reading:
                yield f"{one_line(row.name)} has read {row.reading} tokens of the next text."
        if all(row.failed or row.state in {"", "stopped"} for row in self.rows):
            yield "tab shows the answers, x measures again, y copies the table."
        else:
            yield f"{duration(time.monotonic() - self.rows[0].since)} so far; c stops, tab shows the answers."

    @property
    def transcript(self) -> str:
        """The table as tab-separated text, for a spreadsheet."""
        lines = ["\t".join(["model", *(f"{one_line(text)}\ttokens" for text in self.texts)])]
        for row in self.rows:
            cells = [f"{'' if found.value is None else repr(found.value)}\t{found.tokens}" for found in row.found]
            lines.append("\t".join([one_line(row.name), *cells]))
        return "\n".join(lines) + "\n"


def _problem(text: str, width: int) -> list[list[Piece]]:
    return [[(f" {part}", theme.SEVERITY["error"])] for part in wrapped(text, width - 2, indent="  ")]


def _right(text: str, *, mark: bool = False) -> str:
    """A text at the right end of a column; a mark takes the column's last cell, so that numbers stay aligned."""
    text = text if mark else text + " "
    return " " * max(0, CELL - cell_len(text)) + text
