"""Lists what was tried and evaluated, the newest first; the recipe of a row can become the one that is edited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult

from ...errors import InputError
from ...evaluate.results import Row, read_results
from ...files import exists
from ...text import one_line, plural
from .. import clipboard, theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..dialogs import DifferenceDialog, TextDialog
from ..session import Session
from ..widgets.line import Line
from ..widgets.status_line import StatusLine
from ..widgets.text_pane import TextPane
from .result_rows import heading, lines, whole

MOST_ROWS = 1000
"""Rows that are listed; `surgeon results` lists all."""


class ResultsScreen(ActionScreen):
    """Its result is the row whose recipe is to be edited, or None.

    Args:
        session: the recipe that is edited.
        file: the results file.
        flush: writes the rows that are waiting; called in a thread.
    """

    kind: ClassVar[ScreenName] = "results"
    DEFAULT_CSS = """
    ResultsScreen #header, ResultsScreen #footer { background: $panel; }
    """

    def __init__(self, session: Session, file: Path, flush: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._session, self._file, self._flush = session, file, flush
        self.rows: list[Row] = []

    def compose(self) -> ComposeResult:
        """Header, heads, rows, messages, footer."""
        yield Line(id="header")
        yield Line(id="heads")
        yield TextPane(pointed=True, id="rows")
        yield StatusLine(id="status")
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Read the file in a thread."""
        self.query_one("#header", Line).show((" RESULTS ", theme.TITLE), (f" {one_line(self._file.name)}", theme.BOLD))
        self.query_one("#rows", TextPane).focus()
        self.show_footer(self.query_one("#footer", Line))
        self.run_worker(self._read())

    async def _read(self) -> None:
        try:
            rows, bad = await asyncio.to_thread(self._rows)
        except InputError as error:
            self.say(error.sentence(), "error")
            return
        self.rows = rows[: -MOST_ROWS - 1 : -1]
        if bad:
            self.say(f"{plural(bad, 'line')} of the file cannot be read", "warning")
        elif not rows:
            self.say("nothing was tried yet: T tries the recipe")
        elif len(rows) > MOST_ROWS:
            self.say(f"the last {MOST_ROWS:,} of {len(rows):,} rows; `surgeon results` lists all")
        self.fill()

    def _rows(self) -> tuple[list[Row], int]:
        self._flush()
        return read_results(self._file) if exists(self._file) else ([], 0)

    def on_resize(self) -> None:
        """Fit the lines to the new width."""
        self.show_footer(self.query_one("#footer", Line))
        self.call_after_refresh(self.fill)

    def fill(self) -> None:
        """Draw the list."""
        width = max(40, self.size.width - 2)
        self.query_one("#heads", Line).show((heading(self.rows, width), theme.DIM))
        self.query_one("#rows", TextPane).show(lines(self.rows, width, time.time(), self._session.current.text))

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence under the rows."""
        self.query_one("#status", StatusLine).say(text, severity)

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        cursor = self.query_one("#rows", TextPane).cursor
        return self.rows[cursor] if cursor < len(self.rows) else None

    def _with_recipe(self) -> Row | None:
        """The row under the cursor, if it has a recipe; else say so."""
        row = self.row
        if row is None:
            self.say("there is no row")
        elif row.recipe is None:
            self.say(f"row {row.number} has no recipe: it is a checkpoint", "warning")
            return None
        return row

    def do_detail(self, count: int | None) -> None:
        """Show all of the row."""
        if (row := self.row) is not None:
            self.app.push_screen(TextDialog(f"Row {row.number}", whole(row)))

    def do_take(self, count: int | None) -> None:
        """Edit the recipe of the row."""
        if (row := self._with_recipe()) is not None:
            self.dismiss(row)

    def do_compare(self, count: int | None) -> None:
        """Show how this recipe differs from the row's."""
        row = self._with_recipe()
        if row is not None and row.recipe is not None:
            title = f"row {row.number} -> this recipe"
            self.app.push_screen(DifferenceDialog(title, row.recipe, self._session.current.text))

    def do_copy(self, count: int | None) -> None:
        """Copy the row to the clipboard."""
        if (row := self.row) is not None:
            texts = [text if isinstance(text, str) else text[0] for text in whole(row)]
            self.say(clipboard.copy(self.app, "\n".join(texts) + "\n"))

    def do_down(self, count: int | None) -> None:
        """Next row."""
        self.query_one("#rows", TextPane).move(1)

    def do_up(self, count: int | None) -> None:
        """Previous row."""
        self.query_one("#rows", TextPane).move(-1)

    def do_half_down(self, count: int | None) -> None:
        """Half a page down."""
        self.query_one("#rows", TextPane).page(0.5)

    def do_half_up(self, count: int | None) -> None:
        """Half a page up."""
        self.query_one("#rows", TextPane).page(-0.5)
