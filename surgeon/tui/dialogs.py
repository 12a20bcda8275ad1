"""Small windows over a screen: a question, the keys, a text to read."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from rich.style import Style
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from ..text import one_line, safe
from . import clipboard, theme
from .actions import ScreenName, of_screen
from .cells import wrapped
from .commands import COMMANDS, TRY_COMMANDS
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
    """A text to read and to search; escape, q or enter closes it."""

    DEFAULT_CSS = """
    TextDialog { align: center middle; }
    TextDialog > Vertical { width: 100%; max-width: 110; height: 100%; background: $panel; padding: 0 1; }
    TextDialog Input { border: none; padding: 0; height: 1; background: $surface; display: none; }
    TextDialog Input.-open { display: block; }
    """

    def __init__(self, title: str, lines: Sequence[str | tuple[str, Style]]) -> None:
        super().__init__()
        self.heading, self.lines = title, [line if isinstance(line, tuple) else (line, theme.PLAIN) for line in lines]

    def compose(self) -> ComposeResult:
        """Title, text, the line to search with, hint."""
        with Vertical():
            yield Line(id="title")
            yield TextPane(id="body")
            box = Input(compact=True, id="find", placeholder="only lines with ...")
            box.cursor_blink = False
            yield box
            yield Line(id="hint")

    def on_mount(self) -> None:
        """Fill the window."""
        self.query_one("#body").focus()
        self.query_one("#title", Line).show((self.heading, theme.TITLE))
        self.query_one("#hint", Line).show(("j k ^d ^u scroll   / search   y copy   esc close", theme.DIM))
        self.call_after_refresh(self._fill)

    def _fill(self) -> None:
        body = self.query_one(TextPane)
        rows = []
        for text, style in lines_with(self.query_one(Input).value, self.lines):
            rows += [[(part, style)] for part in wrapped(text, body.size.width, indent="    ")]
        body.show(rows or [[("No line has that text.", theme.DIM)]])

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show only the lines that have the text."""
        self._fill()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter: scroll in what was found."""
        event.stop()
        self.query_one(TextPane).focus()

    def on_key(self, event: events.Key) -> None:
        """Scroll, search or close."""
        box = self.query_one(Input)
        if box.has_focus:
            if event.key == "escape":
                event.stop()
                event.prevent_default()
                self._search(open_it=False)
            return
        event.stop()
        event.prevent_default()
        body = self.query_one(TextPane)
        steps = {"j": 1, "down": 1, "k": -1, "up": -1, "g": -(10**6), "G": 10**6}
        page = max(1, body.size.height // 2)
        steps |= {"ctrl+d": page, "pagedown": page, "space": page, "ctrl+u": -page, "pageup": -page}
        if event.key == "escape" and box.has_class("-open"):
            self._search(open_it=False)
        elif event.key in {"escape", "q", "enter", "question_mark"}:
            self.dismiss()
        elif event.key == "y":
            said = clipboard.copy(self.app, "\n".join(text for text, _ in self.lines))
            self.query_one("#hint", Line).show((said, theme.DIM))
        elif event.key == "slash":
            self._search(open_it=True)
        elif event.key in steps:
            body.move(steps[event.key])

    def _search(self, *, open_it: bool) -> None:
        box = self.query_one(Input)
        box.set_class(open_it, "-open")
        if open_it:
            box.focus()
        else:
            box.value = ""
            self.query_one(TextPane).focus()


class DifferenceDialog(TextDialog):
    """How a text differs from an older one."""

    def __init__(self, title: str, old: str, new: str) -> None:
        lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "old", "new", lineterm=""))[2:]
        styled: list[str | tuple[str, Style]] = [(one_line(line), theme.difference(line)) for line in lines]
        super().__init__(title, styled or ["There is no difference."])


def lines_with(text: str, lines: Sequence[tuple[str, Style]]) -> list[tuple[str, Style]]:
    """The lines that have every word of a text, each below its heading; all for an empty text."""
    words = text.lower().split()
    if not words:
        return list(lines)
    found: list[tuple[str, Style]] = []
    heading: tuple[str, Style] | None = None
    for line in lines:
        if line[1] is theme.TITLE:
            heading = line
        elif all(word in line[0].lower() for word in words):
            found += [heading] if heading else []
            found.append(line)
            heading = None
    return found


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
                ("Marks", theme.TITLE),
                "  +         a layer that the saved recipe does not have",
                "  ~         a layer whose parameters were changed since it was saved",
                "  x         a repeat: the stack has the same layer before",
                "  !         a finding is about this layer: f shows it, enter reads it here",
                "  ·  x2     in a donor's column: the stack has this layer once, twice",
                "  +4        in the column of a donor with an adapter: it changes four tensors of the layer",
                "  = B16     in a stage's column: where its layer comes from",
                "  ┌ │ └     the edges of a slice",
                "",
                ("Ranges and counts", theme.TITLE),
                "  Ranges are inclusive on screen (8-23) and half-open in files ([8, 24]).",
                "  Digits before a key are a count: 15j, 8G, 3D. Shift (or Option) with the mouse selects text.",
            ]
        if screen == "try":
            lines += ["", ("In the prompt", theme.TITLE)]
            lines += ["  enter     send", "  ^j        begin a line (S-enter too, where the terminal tells them apart)"]
            lines += ["  up down   an earlier prompt, from the first or the last line", "  esc       leave the prompt"]
            lines += [f"  :{usage:<15} {meaning}" for usage, meaning in TRY_COMMANDS.values()]
            lines += ["  ::TEXT           send a text that begins with a colon"]
        super().__init__(f"Keys: {screen}", lines[1:] if lines and lines[0] == "" else lines)
