"""What every screen does: turn keys into actions of the registry, and show the footer made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar, Protocol, cast

from textual import events
from textual._keyboard_protocol import MODIFIER_FUNCTIONAL_KEYS
from textual.reactive import Reactive
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input

from . import theme
from .actions import ScreenName, footer, perform
from .keys import Keys
from .widgets.line import Line, Piece
from .widgets.status_line import StatusLine

MODIFIERS = frozenset(MODIFIER_FUNCTIONAL_KEYS)
"""Keys that some terminals report although they mean nothing alone."""


class _Application(Protocol):
    """What a screen asks of the application."""

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence on the status line of the main screen."""

    def save_picture(self, name: str = "") -> str:
        """Write the screen to an SVG file; returns the message to show."""


class ActionScreen(Screen[Any]):
    """A screen whose keys are actions.

    Attributes:
        counts: whether digits before a key are a count.
        counted_keys: the keys that take one, as a hint.
        parts: the objects that have the actions' methods, `do_<name>(count)`: the screen itself and what it is made of.
    """

    kind: ClassVar[ScreenName]
    counts: ClassVar[bool] = False
    counted_keys: ClassVar[str] = ""
    SCOPED_CSS = False  # each rule names its screen
    focused: Reactive[Widget | None] = Reactive(None, repaint=False)
    """Textual draws the whole screen when the focus moves; widgets draw what that changes."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = Keys(self.kind, counts=self.counts)
        self.parts: tuple[object, ...] = (self,)
        self._hint = ""
        self._next_key: Callable[[str], Awaitable[None]] | None = None

    async def on_key(self, event: events.Key) -> None:
        """Handle a key that no input line took."""
        if isinstance(self.focused, Input):
            if event.key == "escape":
                event.stop()
                event.prevent_default()
                self.leave_input()
            elif event.key in {"tab", "shift+tab"}:
                # Never to another widget while a line is open.
                event.stop()
                event.prevent_default()
                if event.key == "tab":
                    self.complete()
            elif event.key in {"up", "down"}:
                self.recall(-1 if event.key == "up" else 1)
            return
        if (take := self._next_key) is not None:
            self._next_key = None
            event.stop()
            event.prevent_default()
            await take(event.key)
            return
        self._clear_hint()
        press = self.keys.feed(event.key)
        if press is not None:
            perform(self.parts, press.action.name, press.count)
        if press is not None or self.keys.typed:
            event.stop()
            event.prevent_default()
        if self.keys.typed:
            self.hint(self._possible_keys())
        elif self.keys.unknown and event.key not in self.active_bindings and event.key not in MODIFIERS:
            shown = " ".join(_shown(key, event) for key in self.keys.unknown.split())
            self.hint(f"there is no key {shown} here: ? lists the keys")

    def take_next_key(self, take: Callable[[str], Awaitable[None]]) -> None:
        """Give the next key to a function instead of the registry."""
        self._next_key = take

    def hint(self, text: str) -> None:
        """Show a text about keys, which is no message to keep; the next key clears it."""
        self._hint = f" {text}"
        for line in self._message_lines():
            line.show((self._hint, theme.DIM))

    def _clear_hint(self) -> None:
        if self._hint:
            for line in self._message_lines():
                if line.text == self._hint:
                    line.show()
            self._hint = ""

    def _message_lines(self) -> Iterable[StatusLine]:
        return self.query(StatusLine).filter("#status, #space")

    def _possible_keys(self) -> str:
        """The keys typed so far, and those that can follow."""
        keys = self.keys
        if keys.pending:
            # "first line; ..." is enough of a longer help.
            ways = [f"{key}  {action.help.partition(';')[0]}" for key, action in keys.sequences()]
            return f"{keys.typed}:  {', '.join(ways)}"
        return f"{keys.digits}:  {self.counted_keys}" if self.counted_keys else keys.digits

    def leave_input(self) -> None:
        """Escape was pressed in an input line."""

    def complete(self) -> None:
        """Tab was pressed in an input line."""

    def recall(self, step: int) -> None:
        """Up or down was pressed in an input line."""

    def do_help(self, count: int | None) -> None:
        """Show all keys of this screen."""
        from .dialogs import Help

        self.app.push_screen(Help(self.kind))

    def do_picture(self, count: int | None) -> None:
        """Write the screen to an SVG file."""
        self.say(cast(_Application, self.app).save_picture())

    def say(self, text: str, severity: str = "") -> None:
        """Show a sentence; on the main screen unless this one has a line for it."""
        cast(_Application, self.app).say(text, severity)

    def do_back(self, count: int | None) -> None:
        """Return to the screen before."""
        self.app.pop_screen()

    def show_footer(self, line: Line) -> None:
        """Show the most useful keys, as many as fit; always, at the end, the one that lists them all."""
        words = {action.name: (f" {action.show.split()[0]} ", action.short) for action in footer(self.kind)}
        last = words.pop("help")
        free = self.size.width - len("".join(last))
        shown = []
        for key, word in words.values():
            free -= len(key) + len(word)
            if free < 0:
                break
            shown.append((key, word))
        pieces: list[Piece] = []
        for key, word in (*shown, last):
            pieces += [(key, theme.BOLD), (word, theme.DIM)]
        line.show(*pieces)


def _shown(key: str, event: events.Key) -> str:
    """A key as text: the character that it types, else its name."""
    return event.character if key == event.key and event.character and event.is_printable else key
