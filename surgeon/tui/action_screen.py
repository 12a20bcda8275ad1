"""What every screen does: turn keys into actions of the registry, and show the footer made from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events
from textual.screen import Screen
from textual.widgets import Input

from . import theme
from .actions import ScreenName, footer
from .keys import Keys
from .widgets.line import Line, Piece

if TYPE_CHECKING:
    from .app import SurgeonApp
    from .session import Session


class ActionScreen(Screen[Any]):
    """A screen whose keys are actions: `do_<name>(count)`."""

    kind: ClassVar[ScreenName]
    counts: ClassVar[bool] = False
    SCOPED_CSS = False  # each rule names its screen; screens are subclassed

    def __init__(self) -> None:
        super().__init__()
        self.keys = Keys(self.kind, counts=self.counts)

    @property
    def surgeon(self) -> SurgeonApp:
        """The application."""
        return cast("SurgeonApp", self.app)

    @property
    def session(self) -> Session:
        """What is being edited."""
        return self.surgeon.session

    async def on_key(self, event: events.Key) -> None:
        """Keys that no input line took."""
        if isinstance(self.focused, Input):
            if event.key == "escape":
                event.stop()
                event.prevent_default()
                self.leave_input()
            elif event.key in {"up", "down"}:
                self.recall(-1 if event.key == "up" else 1)
            elif event.is_printable and event.character:
                # It was on its way to a pane when the line opened: over SSH keys arrive together.
                self.focused.insert_text_at_cursor(event.character)
            return
        press = self.keys.feed(event.key)
        if press is not None:
            self.act(press.action.name, press.count)
        if press is not None or self.keys.typed:
            event.stop()
            event.prevent_default()
        self.typed()

    def act(self, name: str, count: int | None = None) -> None:
        """Do an action by its name."""
        getattr(self, f"do_{name}")(count)

    def typed(self) -> None:
        """A key was taken; screens show half-typed counts here."""

    def leave_input(self) -> None:
        """Escape was pressed in an input line."""

    def recall(self, step: int) -> None:
        """Up or down was pressed in an input line."""

    def do_help(self, count: int | None) -> None:
        """All keys of this screen."""
        from .dialogs import Help

        self.app.push_screen(Help(self.kind))

    def do_back(self, count: int | None) -> None:
        """Back to the screen before."""
        self.app.pop_screen()

    def show_footer(self, line: Line) -> None:
        """The most useful keys, as many as fit."""
        pieces: list[Piece] = []
        room = self.size.width - 1
        for action in footer(self.kind):
            key = f" {action.show.split()[0]} "
            need = len(key) + len(action.short)
            if need <= room:
                room -= need
                pieces += [(key, theme.BOLD), (action.short, theme.DIM)]
        line.show(*pieces)
