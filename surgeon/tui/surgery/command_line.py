"""The line under the panes in which commands and searches are typed."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen
from textual.widgets import Input
from textual.widgets.input import Selection

from .. import theme
from ..completion import Completer, usage
from ..session import Session
from ..widgets.line import Line
from ..widgets.pane import Pane
from .surgery_view import SurgeryView


class CommandLine:
    """Opens and closes the line, and recalls earlier commands.

    Attributes:
        past: earlier commands, the last one last.
    """

    def __init__(self, screen: Screen[Any], session: Session, view: SurgeryView) -> None:
        self._screen, self._session, self._view = screen, session, view
        self._focused_before: Pane | None = None
        self.past: list[str] = []
        self._recalled = 0

    @property
    def prompt(self) -> str:
        """What stands before the line: `:` for a command, `/` for a search."""
        return self._screen.query_one("#prompt", Line).text

    def open(self, prompt: str, text: str, *, offered: str = "") -> None:
        """Open the line with its beginning written; typing replaces what is only offered behind it."""
        self._focused_before = self._view.pane
        self._screen.query_one("#prompt", Line).show((prompt, theme.BOLD))
        self._screen.query_one("#command").add_class("-open")
        self._screen.query_one("#status").add_class("-hidden")
        box = self._screen.query_one("#line", Input)
        box.value = text + offered
        box.selection = Selection(len(text), len(text) + len(offered))
        # At once: what is typed right behind is meant for the line, and over SSH arrives together with its key.
        self._screen.set_focus(box)
        self._recalled = len(self.past)

    def close(self) -> None:
        """Close the line and focus the pane that had the focus."""
        self._screen.query_one("#command").remove_class("-open")
        self._screen.query_one("#status").remove_class("-hidden")
        self._screen.set_focus(self._focused_before or self._view.stack)
        self._view.show_cursor()

    def remember(self, text: str) -> None:
        """Add a command to those that `recall` offers."""
        self.past = [*(line for line in self.past if line != text), text]

    def recall(self, step: int) -> None:
        """Show an earlier or later command."""
        if not self.past or self.prompt != ":":
            return
        self._recalled = max(0, min(self._recalled + step, len(self.past)))
        box = self._screen.query_one("#line", Input)
        box.value = self.past[self._recalled] if self._recalled < len(self.past) else ""
        box.cursor_position = len(box.value)

    def complete(self) -> None:
        """Complete what is before the cursor, and show what it can be, or how the command is written."""
        if self.prompt != ":":
            return
        box = self._screen.query_one("#line", Input)
        before, behind = box.value[: box.cursor_position], box.value[box.cursor_position :]
        donors = self._session.donors
        known = {
            ref: (letter, donors.depth(ref))
            for ref, letter in self._session.letters.items()
            if self._session.checkpoint(ref)
        }
        found = Completer(known).complete(before)
        box.value = found.text + behind
        box.cursor_position = len(found.text)
        self._view.hint("  ".join(found.choices) or usage(found.text))

    def do_command(self, count: int | None) -> None:
        """Open an empty command line."""
        self.open(":", "")
