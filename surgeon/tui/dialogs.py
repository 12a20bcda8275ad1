"""Small windows over a screen: a question, the keys, a text to read."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from ..text import one_line, safe
from . import theme
from .actions import ScreenName, of_screen
from .cells import wrapped
from .commands import COMMANDS
from .widgets.line import Line
from .widgets.text_pane import TextPane


class Ask(ModalScreen[str]):
    """A question with one-key answers; gives the key, or an empty string for escape."""

    DEFAULT_CSS = """
    Ask { align: center middle; }
    Ask > Vertical { width: 64; max-width: 95%; height: auto; background: $panel; padding: 1 2; }
    Ask Static { height: auto; }
    """

    def __init__(self, question: str, answers: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.question, self.answers = safe(question), [(key, one_line(meaning)) for key, meaning in answers]

    def compose(self) -> ComposeResult:
        """Question and answers."""
        with Vertical():
            yield Static(self.question, markup=False)
            yield Static("")
            for key, meaning in self.answers:
                yield Static(f" {key}  {meaning}", markup=False)

    def on_key(self, event: events.Key) -> None:
        """Close with an answer, or with an empty string for escape."""
        event.stop()
        event.prevent_default()
        if event.key == "escape":
            self.dismiss("")
        elif event.character in {key for key, _ in self.answers}:
            self.dismiss(event.character or "")


class TextDialog(ModalScreen[None]):
    """A text to read; any of escape, q, enter closes it."""

    DEFAULT_CSS = """
    TextDialog { align: center middle; }
    TextDialog > Vertical { width: 100%; max-width: 110; height: 100%; background: $panel; padding: 0 1; }
    """

    def __init__(self, title: str, lines: Sequence[str | tuple[str, Style]]) -> None:
        super().__init__()
        self.heading, self.lines = title, list(lines)

    def compose(self) -> ComposeResult:
        """Title, text, hint."""
        with Vertical():
            yield Line(id="title")
            yield TextPane(id="body")
            yield Line(id="hint")

    def on_mount(self) -> None:
        """Fill the window."""
        self.query_one("#title", Line).show((self.heading, theme.TITLE))
        self.query_one("#hint", Line).show(("j k ^d ^u scroll   esc close", theme.DIM))
        self.call_after_refresh(self._fill)

    def _fill(self) -> None:
        body = self.query_one(TextPane)
        rows = []
        for line in self.lines:
            text, style = line if isinstance(line, tuple) else (line, theme.PLAIN)
            rows += [[(part, style)] for part in wrapped(text, body.size.width, indent="    ")]
        body.show(rows)

    def on_key(self, event: events.Key) -> None:
        """Scroll or close."""
        event.stop()
        event.prevent_default()
        body = self.query_one(TextPane)
        steps = {"j": 1, "down": 1, "k": -1, "up": -1, "g": -(10**6), "G": 10**6}
        page = max(1, body.size.height // 2)
        steps |= {"ctrl+d": page, "pagedown": page, "space": page, "ctrl+u": -page, "pageup": -page}
        if event.key in {"escape", "q", "enter", "question_mark"}:
            self.dismiss()
        elif event.key in steps:
            body.move(steps[event.key])


class Help(TextDialog):
    """Every key of a screen, from the registry."""

    def __init__(self, screen: ScreenName) -> None:
        lines: list[str | tuple[str, Style]] = []
        group = ""
        names = {
            "move": "Moving",
            "select": "Selecting",
            "edit": "Editing",
            "blend": "Blending",
            "go": "View and screens",
            "file": "Files",
        }
        order = [*names, *{action.group: 0 for action in of_screen(screen)}]
        actions = sorted(of_screen(screen), key=lambda action: order.index(action.group))
        for action in actions:
            if action.group != group:
                group = action.group
                lines += ["", (names.get(group, group.capitalize()), theme.TITLE)]
            verb = f"   :{action.verb}" if action.verb else ""
            lines.append(f"  {action.show:<9} {action.help}{verb}")
        if screen == "surgery":
            lines += ["", ("The command line", theme.TITLE)]
            from ..recipe.edits import EDITS

            lines += [f"  :{kind.usage:<40} {kind.help}" for kind in EDITS]
            lines += [f"  :{usage:<40} {meaning}" for usage, meaning in COMMANDS.values()]
            lines += [
                "",
                "  In a donor's column: · in the stack once, x2 twice. In the stack: + new, x a repeat, ! a finding.",
                "  Ranges are inclusive on screen (8-23) and half-open in files ([8, 24]).",
                "  Digits before a key are a count: 15j, 8G, 3D. Shift (or Option) with the mouse selects text.",
            ]
        super().__init__(f"Keys: {screen}", lines[1:] if lines and lines[0] == "" else lines)
