"""A window that chooses one entry of a list, narrowed by typing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.fuzzy import FuzzySearch
from textual.screen import ModalScreen
from textual.widgets import Input

from ..text import one_line
from . import theme
from .cells import pad, shortened, wrapped
from .widgets.line import Line
from .widgets.text_pane import TextPane


@dataclass(frozen=True)
class Choice:
    """An entry: what it stands for, how it is shown, and a remark at the right."""

    value: str
    text: str
    remark: str = ""


class Picker(ModalScreen[Choice | None]):
    """Its result is the chosen entry, an entry of what was typed where nothing fits, or None.

    Args:
        title: what is chosen.
        choices: the entries, the likeliest first.
        other: what Enter does with a text that fits no entry, such as `opens that path`; empty if nothing.
        empty: what is shown where there is no entry at all.
    """

    DEFAULT_CSS = """
    Picker { align: center middle; }
    Picker > Vertical { width: 100%; max-width: 110; height: 100%; max-height: 30; background: $panel; padding: 0 1; }
    Picker Input { border: none; padding: 0; height: 1; background: $surface; }
    """

    def __init__(self, title: str, choices: Sequence[Choice] = (), *, other: str = "", empty: str = "") -> None:
        super().__init__()
        self.heading, self.other, self.empty = title, other, empty
        self.choices = list(choices)
        self.shown: list[Choice] = []
        self._search = FuzzySearch()

    def compose(self) -> ComposeResult:
        """Title, input line, list, hint."""
        with Vertical():
            yield Line(id="title")
            box = Input(compact=True, id="typed", placeholder="type to narrow the list")
            box.cursor_blink = False
            yield box
            yield TextPane(pointed=True, id="list")
            yield Line(id="hint")

    def on_mount(self) -> None:
        """Show every entry."""
        self.query_one(Input).focus()
        self.query_one("#title", Line).show((self.heading, theme.TITLE))
        hint = "up down choose   enter takes it   tab types it   esc leaves"
        self.query_one("#hint", Line).show((hint, theme.DIM))
        self.call_after_refresh(self.fill)

    def add(self, choices: Sequence[Choice]) -> None:
        """Add entries at the end."""
        self.choices += choices
        self.fill()

    def fill(self) -> None:
        """Show the entries that fit what is typed, the best first."""
        typed = self.query_one(Input).value.strip()
        if typed:
            scored = [(self._search.match(typed, choice.text)[0], choice) for choice in self.choices]
            self.shown = [choice for score, choice in sorted(scored, key=lambda pair: -pair[0]) if score > 0]
            known = {choice.value.rstrip("/") for choice in self.shown}
            self.shown += [choice for choice in self.more(typed) if choice.value.rstrip("/") not in known]
        else:
            self.shown = list(self.choices)
        pane = self.query_one(TextPane)
        width = max(20, pane.size.width - 2)
        if self.shown:
            pane.show([[(_line(choice, width), theme.PLAIN)] for choice in self.shown])
        elif typed and self.other:
            pane.show([[(f"enter {self.other}", theme.DIM)]])
        else:
            said = "nothing fits" if typed else self.empty
            pane.show([[(part, theme.DIM)] for part in wrapped(said, width)])

    def more(self, typed: str) -> list[Choice]:
        """Further entries for what is typed."""
        return []

    def on_resize(self) -> None:
        """Fit the lines to the new width."""
        self.call_after_refresh(self.fill)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Narrow the list, with the cursor on the best entry."""
        pane = self.query_one(TextPane)
        pane.move(-pane.cursor)
        self.fill()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the entry under the cursor, or what was typed."""
        event.stop()
        typed = event.value.strip()
        if self.shown:
            self.dismiss(self.shown[min(self.query_one(TextPane).cursor, len(self.shown) - 1)])
        elif typed and self.other:
            self.dismiss(Choice(typed, typed))

    def on_key(self, event: events.Key) -> None:
        """Move in the list, or leave."""
        pane = self.query_one(TextPane)
        page = max(1, pane.size.height // 2)
        steps = {"down": 1, "up": -1, "ctrl+n": 1, "ctrl+p": -1, "shift+tab": -1}
        steps |= {"ctrl+d": page, "pagedown": page, "ctrl+u": -page, "pageup": -page}
        if event.key == "escape":
            event.stop()
            event.prevent_default()
            self.dismiss(None)
        elif event.key == "tab":
            # What is chosen is typed, so that what lies in a folder can be chosen next.
            event.stop()
            event.prevent_default()
            if self.shown:
                box = self.query_one(Input)
                box.value = self.shown[min(pane.cursor, len(self.shown) - 1)].value
                box.cursor_position = len(box.value)
        elif event.key in steps:
            event.stop()
            event.prevent_default()
            pane.move(steps[event.key])


def _line(choice: Choice, width: int) -> str:
    """Text at the left, remark at the right; the text loses its middle where both do not fit."""
    text, remark = one_line(choice.text), one_line(choice.remark)
    if not remark:
        return shortened(text, width)
    room = max(8, width - cell_len(remark) - 2)
    return f"{pad(shortened(text, room), room)}  {remark}"
