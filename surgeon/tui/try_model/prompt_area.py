"""The field for prompts on the Try screen: it grows with its lines; enter sends, ctrl+j begins a line."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.message import Message
from textual.widgets import TextArea

NEW_LINE = frozenset({"ctrl+j", "newline", "shift+enter"})
"""Keys that begin a line. ctrl+j is the line feed, which every terminal and multiplexer passes on."""
LINES = 6
"""Most lines that are shown at a time."""


class PromptArea(TextArea):
    """A text of several lines. A pasted text keeps its line breaks; control characters are shown as symbols.

    Args:
        prompts: earlier prompts, oldest first; up on the first line and down on the last go through them.
    """

    DEFAULT_CSS = f"""
    PromptArea {{ border: none; padding: 0; height: auto; min-height: 1; max-height: {LINES}; width: 1fr; }}
    PromptArea:focus {{ border: none; }}
    """
    BINDINGS: ClassVar = []

    class Sent(Message):
        """Enter was pressed."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Left(Message):
        """Escape was pressed."""

    def __init__(self, prompts: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(id=id, compact=True, highlight_cursor_line=False, soft_wrap=True)
        self.cursor_blink = False
        self._prompts = prompts
        self._recalled: int | None = None

    def propose(self, text: str) -> None:
        """Show a text that typing replaces."""
        self.load_text(text)
        self.select_all()

    def on_focus(self) -> None:
        """An earlier prompt is there to be sent again, or replaced by typing."""
        self._recalled = None
        self.select_all()

    async def _on_key(self, event: events.Key) -> None:
        row = self.cursor_location[0]
        if event.key == "enter":
            self.post_message(self.Sent(self.text))
            self._recalled = None
            self.select_all()
        elif event.key in NEW_LINE:
            self.insert("\n")
        elif event.key == "escape":
            self.post_message(self.Left())
        elif event.key in {"tab", "shift+tab"}:
            pass
        elif event.key == "up" and row == 0:
            self._recall(-1)
        elif event.key == "down" and row == self.document.line_count - 1:
            self._recall(1)
        else:
            await super()._on_key(event)
            return
        event.stop()
        event.prevent_default()

    def _recall(self, step: int) -> None:
        prompts = self._prompts
        here = self._recalled
        if here is None:
            here = len(prompts) - (bool(prompts) and prompts[-1] == self.text)
        if 0 <= here + step <= len(prompts):
            self._recalled = here + step
            self.propose(prompts[self._recalled] if self._recalled < len(prompts) else "")

    def get_line(self, line_index: int) -> Text:
        """A line for the screen, in which control characters are symbols of one cell."""
        return Text("".join(map(_visible, self.document.get_line(line_index))), end="", no_wrap=True)


def _visible(char: str) -> str:
    if char == "\t" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
        return char
    return chr(0x2400 + ord(char)) if ord(char) < 32 else "�"
