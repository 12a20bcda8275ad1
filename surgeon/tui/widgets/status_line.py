"""The line for messages: none is cut off without a way to read the rest."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from rich.style import Style
from textual.app import ComposeResult
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from .. import theme
from ..cells import cut, wrapped
from .line import Line, Piece, strip_of

MAX_ROWS = 8
"""Rows that a message takes at most; `:messages` has the rest."""


class StatusLine(Line):
    """Shows a message. One that is longer than the line grows over its neighbours until the next key.

    What is beside it is covered, not moved, which over SSH costs only the lines that it takes.

    Args:
        down: it grows downwards instead of upwards.
    """

    DEFAULT_CSS = """
    StatusLine Overflow { overlay: screen; display: none; width: 100%; background: $panel; }
    """

    @dataclass
    class Said(Message):
        """A message was shown."""

        text: str
        severity: str

    def __init__(self, *, id: str | None = None, down: bool = False) -> None:
        super().__init__(id=id)
        self._down = down
        self._rows: list[str] = []
        self._folded = False

    def compose(self) -> ComposeResult:
        """What lies over the neighbours."""
        yield Overflow()

    def say(self, text: str, severity: str = "") -> None:
        """Show a sentence, and have it kept for `:messages`."""
        self.show((f" {text}", theme.SEVERITY.get(severity, theme.PLAIN)))
        # To the application itself: on the way there, Textual stops what a parent of this line has caused.
        self.app.post_message(self.Said(text, severity))

    def show(self, *pieces: Piece, folded: bool = False) -> None:
        """Replace the text; with `folded` it stays on its line."""
        super().show(*pieces)
        self._folded = folded
        self._place()

    def fold(self) -> None:
        """Leave the neighbours; what does not fit into the line is cut off."""
        if not self._folded:
            self._folded = True
            self._place()

    def on_resize(self) -> None:
        """Wrap the text to the new width."""
        self._place()

    @property
    def style(self) -> Style:
        """How a message looks that takes several rows."""
        return self.pieces[0][1] if self.pieces else theme.PLAIN

    def _place(self) -> None:
        """Spread the text over the line and the rows next to it."""
        width = self.size.width
        rows: list[str] = []
        if width and not self._folded and cell_len(self.text) > width:
            rows = [f" {row}" for row in wrapped(self.text.strip(), width - 2)]
            if len(rows) > MAX_ROWS:
                rows = [*rows[: MAX_ROWS - 1], cut(f"{rows[MAX_ROWS - 1]} …", width - 12) + " :messages"]
        if rows == self._rows:
            return
        self._rows = rows
        box = self.query_one(Overflow)
        box.rows = (rows[1:] if self._down else rows[:-1]) if rows else []
        box.display = bool(box.rows)
        box.styles.height = max(1, len(box.rows))
        box.styles.offset = (0, 1 if self._down else -len(box.rows))
        box.refresh()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """The row of the line itself."""
        if y or not self._rows:
            return super().render_line(y)
        row = self._rows[0 if self._down else -1]
        return strip_of([(row, self.style)], self.size.width, self.rich_style)


class Overflow(Widget):
    """Rows of a message beside its line."""

    rows: list[str]

    def __init__(self) -> None:
        super().__init__()
        self.rows = []

    def render_line(self, y: int) -> Strip:
        """One row."""
        assert isinstance(self.parent, StatusLine)
        text = self.rows[y] if y < len(self.rows) else ""
        return strip_of([(text, self.parent.style)], self.size.width, self.rich_style)
