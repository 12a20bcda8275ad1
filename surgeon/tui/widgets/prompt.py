"""A line that opens for typing and passes the text to a function."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input
from textual.widgets.input import Selection

from .. import theme
from .line import Line


class Prompt(Horizontal):
    """A sign and an input line; hidden while nobody asks."""

    DEFAULT_CSS = """
    Prompt { height: 1; display: none; }
    Prompt.-open { display: block; }
    Prompt Line { width: auto; }
    Prompt Input { border: none; padding: 0; height: 1; width: 1fr; background: $surface; }
    """

    class Closed(Message):
        """The line was closed."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._then: Callable[[str], None] = lambda text: None
        self._default = ""
        self._back: Widget | None = None

    def compose(self) -> ComposeResult:
        """Sign and line."""
        yield Line(id="sign")
        box = Input(compact=True, id="typed", select_on_focus=False)
        box.cursor_blink = False
        yield box

    @property
    def is_open(self) -> bool:
        """Whether something is being typed."""
        return self.has_class("-open")

    def ask(self, sign: str, text: str, then: Callable[[str], None], *, default: str = "") -> None:
        """Open the line with a text, which typing replaces; `then` gets what is in it, or the default, unless empty."""
        self._then, self._default = then, default
        self._back = self._back if self.is_open else self.screen.focused
        line = self.query_one("#sign", Line)
        line.styles.width = cell_len(sign) + 2
        line.show((f" {sign} ", theme.BOLD))
        self.add_class("-open")
        box = self.query_one(Input)
        box.value = text
        box.selection = Selection(0, len(text))
        self.screen.set_focus(box)

    def close(self) -> None:
        """Close it and focus what had the focus."""
        self.remove_class("-open")
        self.screen.set_focus(self._back)
        self.post_message(self.Closed())

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter on the line."""
        event.stop()
        self.close()
        if text := event.value.strip() or self._default:
            self._then(text)
