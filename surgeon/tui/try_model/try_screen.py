"""Tries a model: text streamed from the unwritten recipe or from disk, beside a donor, with scores of probe sets."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input

from ...files import expanded, is_file
from ...text import one_line
from .. import theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..session import Session
from ..widgets.line import Line
from ..widgets.text_pane import TextPane
from .answers import lines_of
from .conversation import Conversation
from .probe_sets import find_probe_sets, first_prompt

TOKENS = 64
"""Tokens that a prompt generates, until `:n` says otherwise."""
REDRAW = 0.25
"""Seconds between redraws while text streams: four a second read well, and cost little over SSH."""


class TryScreen(ActionScreen):
    """One or two models answering the same prompts.

    Args:
        session: donors and recipe.
        probes: probe sets given by hand; those that are typed here are added.
        output: a checkpoint folder to try; None tries the unwritten recipe.
    """

    kind: ClassVar[ScreenName] = "try"
    DEFAULT_CSS = """
    TryScreen #header, TryScreen #footer { background: $panel; }
    TryScreen #right { border-left: vkey $panel; display: none; }
    TryScreen.-beside #right { display: block; }
    TryScreen #asking { height: 1; }
    TryScreen #sign { width: 9; }
    TryScreen Input { border: none; padding: 0; height: 1; width: 1fr; background: $surface; }
    """

    def __init__(self, session: Session, probes: list[Path], output: Path | None = None) -> None:
        super().__init__()
        self._session, self._probes = session, probes
        self.conversation = Conversation(session, output, lambda why: self.say(why, "error"))
        self.tokens = TOKENS

    def compose(self) -> ComposeResult:
        """Header, one or two columns, the prompt, footer."""
        yield Line(id="header")
        with Horizontal():
            yield TextPane(follow=True, id="left")
            yield TextPane(follow=True, id="right")
        yield Line(id="status")
        with Horizontal(id="asking"):
            yield Line(id="sign")
            box = Input(compact=True, id="box", select_on_focus=False)
            box.cursor_blink = False
            yield box
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Offer a first prompt, and load the model while it is read."""
        self.query_one("#sign", Line).show((" prompt> ", theme.BOLD))
        self.show_footer(self.query_one("#footer", Line))
        box = self.query_one("#box", Input)
        box.value = first_prompt(self.probe_sets())
        box.cursor_position = len(box.value)
        box.focus()
        self.set_interval(REDRAW, self._redraw)
        self.say("enter generates; esc leaves the prompt, then s scores and b adds a donor")
        self.run_worker(self.conversation.load())

    def on_unmount(self) -> None:
        """End the process with the screen."""
        self.end_children()

    def end_children(self) -> None:
        """End the process that holds the models."""
        self.conversation.close()

    def probe_sets(self) -> list[Path]:
        """The probe sets that `s` scores."""
        return find_probe_sets(self._probes, self._session.document.roots)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Generate, or run `:n 32` and `:probe FILE`."""
        event.stop()
        text = event.value
        word, _, rest = text.strip().partition(" ")
        if word == ":n" and rest.strip().isdigit():
            self.tokens = max(1, min(int(rest), 4096))
            self.say(f"up to {self.tokens} tokens")
        elif word == ":probe" and rest.strip():
            path = expanded(rest.strip())
            if is_file(path):
                self._probes.append(path)
                self.say(f"added {path}: esc, then s scores it")
            else:
                self.say(f"there is no file {path}", "error")
        elif text.strip():
            for column in self.conversation.columns:
                self.run_worker(self.conversation.ask(column, {"prompt": text, "n": self.tokens}, text))

    # -- drawing

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence above the prompt."""
        self.query_one("#status", Line).show((f" {text}", theme.SEVERITY.get(severity, theme.DIM)))

    def _redraw(self) -> None:
        conversation = self.conversation
        if not conversation.changed:
            return
        conversation.changed = False
        names = "  beside  ".join(one_line(column.name) for column in conversation.columns)
        busy = "  working" if conversation.process.busy else ""
        self.query_one("#header", Line).show((" TRY ", theme.TITLE), (names, theme.BOLD), (busy, theme.DIM))
        for pane, column in zip(self.query(TextPane), conversation.columns, strict=False):
            pane.show(lines_of(column, max(20, pane.size.width - 2)))

    def leave_input(self) -> None:
        """Escape was pressed in the prompt: keys are actions again."""
        self.query_one("#left", TextPane).focus()

    def do_prompt(self, count: int | None) -> None:
        """Focus the prompt."""
        self.query_one("#box", Input).focus()

    def do_probe(self, count: int | None) -> None:
        """Score every probe set, for every column."""
        sets = self.probe_sets()
        if not sets:
            self.say(
                "there is no probe set: put JSONL files into probes/ next to the recipe, or type :probe FILE", "warning"
            )
        for column in self.conversation.columns:
            for path in sets:
                self.run_worker(
                    self.conversation.ask(column, {"probe": str(path), "n": self.tokens}, f"score {path.stem}")
                )

    def do_compare(self, count: int | None) -> None:
        """Put the next donor beside the result, or none after the last."""
        name = self.conversation.compare_with_next()
        self.set_class(bool(name), "-beside")
        self.say(f"{name} is shown side by side: the next prompt goes to both" if name else "alone")

    def do_cancel(self, count: int | None) -> None:
        """Stop what is being generated."""
        if not self.conversation.process.busy:
            self.say("nothing is being generated")
        self.conversation.process.interrupt()

    def do_half_down(self, count: int | None) -> None:
        """Scroll down."""
        for pane in self.query(TextPane):
            pane.move(max(1, pane.size.height // 2))

    def do_half_up(self, count: int | None) -> None:
        """Scroll up."""
        for pane in self.query(TextPane):
            pane.move(-max(1, pane.size.height // 2))
