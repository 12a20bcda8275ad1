"""Trying a model: text streamed from the unwritten recipe or from disk, beside a donor, with scores of probe sets."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input

from ...errors import SurgeonError
from ...files import expanded, is_file, write_atomic
from ...jobs.state_folder import state_folder
from ...statefile import StateRecord, open_regular, parse
from ...text import one_line, safe, size
from .. import theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..widgets.line import Line, Piece
from ..widgets.text_pane import TextPane, wrapped
from .probe_child import Prober

TOKENS = 64
_LONGEST = 100_000
"""Bytes of a probe set's first line that are read."""
REDRAW = 0.25
"""Seconds between redraws while text streams: four a second read well, and cost little over SSH."""


@dataclass
class Answer:
    """One request in a column: what was asked, the text so far, and how it ended."""

    ask: str
    text: str = ""
    state: str = ""
    bad: bool = False


@dataclass
class Column:
    """A model on this screen; `target` is a recipe file or a checkpoint, `kind` which."""

    name: str
    target: str
    kind: str
    answers: dict[int, Answer] = field(default_factory=dict)


class TryScreen(ActionScreen):
    """One or two models answering the same prompts.

    Args:
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

    def __init__(self, output: Path | None = None) -> None:
        super().__init__()
        self.output = output
        self.prober = Prober(self.take)
        self.tokens = TOKENS
        self.beside = -1
        self.left = Column("", "", "recipe")
        self.right: Column | None = None
        self.dirty = False

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
        failed = ""
        if self.output is not None:
            self.left = Column(self.output.name, str(self.output), "path")
        else:
            self.left = Column("the recipe, unwritten", "", "recipe")
            try:
                self.left.target = self._recipe_file()
            except SurgeonError as error:
                failed = error.sentence()
        box = self.query_one("#box", Input)
        box.value = self._first_prompt()
        box.cursor_position = len(box.value)
        box.focus()
        self.set_interval(REDRAW, self._redraw)
        self.say("enter generates; esc leaves the prompt, then s scores and b adds a donor")
        self.dirty = True
        if failed:
            self.say(failed, "error")
            return
        if self.output is None and not self.session.plan.ok:
            self.say(f"it cannot be tried yet: {self.session.plan.errors[0].sentence()}", "error")
            return
        self.run_worker(self.ask(self.left, {"prompt": None}, "loading"))

    def on_unmount(self) -> None:
        """The child goes with the screen."""
        self.end_children()

    def end_children(self) -> None:
        """End the child, and forget the recipe that it was given."""
        self.prober.close()
        if self.output is None and self.left.target:
            with contextlib.suppress(OSError):
                Path(self.left.target).unlink()

    def _recipe_file(self) -> str:
        text, failed = self.session.absolute().text, SurgeonError("there is no folder for the recipe")
        # Where there is no state folder, or it is full, any other will do.
        for own in (True, False):
            try:
                folder = state_folder("try") if own else Path(tempfile.gettempdir())
                handle, name = tempfile.mkstemp(".yaml", "surgeon-", folder)
            except SurgeonError as error:
                failed = error
                continue
            except OSError as error:
                failed = SurgeonError(f"cannot write the recipe: {error.strerror or error}")
                continue
            os.close(handle)
            try:
                write_atomic(Path(name), text, own=True)
            except SurgeonError as error:
                failed = error
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                continue
            return name
        raise failed

    def probe_sets(self) -> list[Path]:
        """Probe sets given at the start, and those in `probes/` beside the recipe or here."""
        folders = {Path.cwd() / "probes", *(root / "probes" for root in self.session.document.roots)}
        found = [path for folder in sorted(folders) if folder.is_dir() for path in sorted(folder.glob("*.jsonl"))]
        return list(dict.fromkeys([*self.surgeon.probes, *found]))

    def _first_prompt(self) -> str:
        for path in self.probe_sets():
            with contextlib.suppress(OSError, ValueError), open_regular(path, follow=True) as file:
                if prompt := StateRecord(parse(file.readline(_LONGEST))).text("prompt"):
                    return prompt
        return ""

    # -- requests

    async def ask(self, column: Column, request: dict[str, Any], shown: str) -> None:
        """Send a request for one column."""
        full = {"target": column.target, "kind": column.kind, "device": "auto", **request}
        number = await self.prober.send(full)
        column.answers[number] = Answer(shown, state="waiting")
        self.dirty = True

    def take(self, event: dict[str, Any]) -> None:
        """An event of the child."""
        for column in self.columns():
            answer = column.answers.get(event.get("id", 0))
            if answer is not None:
                _absorb(answer, event)
                self.dirty = True

    def columns(self) -> list[Column]:
        """The models on the screen."""
        return [self.left, *([self.right] if self.right else [])]

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter: generate, or obey `:n 32` and `:probe FILE`."""
        event.stop()
        text = event.value
        word, _, rest = text.strip().partition(" ")
        if word == ":n" and rest.strip().isdigit():
            self.tokens = max(1, min(int(rest), 4096))
            self.say(f"up to {self.tokens} tokens")
        elif word == ":probe" and rest.strip():
            path = expanded(rest.strip())
            if is_file(path):
                self.surgeon.probes.append(path)
                self.say(f"added {path}: esc, then s scores it")
            else:
                self.say(f"there is no file {path}", "error")
        elif text.strip():
            for column in self.columns():
                self.run_worker(self.ask(column, {"prompt": text, "n": self.tokens}, text))

    # -- drawing

    def say(self, text: str, severity: str = "") -> None:
        """A sentence above the prompt."""
        self.query_one("#status", Line).show((f" {text}", theme.SEVERITY.get(severity, theme.DIM)))

    def _redraw(self) -> None:
        if not self.dirty:
            return
        self.dirty = False
        names = "  beside  ".join(one_line(column.name) for column in self.columns())
        busy = "  working" if self.prober.busy else ""
        self.query_one("#header", Line).show((" TRY ", theme.TITLE), (names, theme.BOLD), (busy, theme.DIM))
        for pane, column in zip(self.query(TextPane), self.columns(), strict=False):
            pane.show(_lines(column, max(20, pane.size.width - 2)))

    def leave_input(self) -> None:
        """Escape in the prompt: keys are actions now."""
        self.query_one("#left", TextPane).focus()

    def do_prompt(self, count: int | None) -> None:
        """Type a prompt."""
        self.query_one("#box", Input).focus()

    def do_probe(self, count: int | None) -> None:
        """Score every probe set, for every column."""
        sets = self.probe_sets()
        if not sets:
            self.say(
                "there is no probe set: put JSONL files into probes/ beside the recipe, or type :probe FILE", "warning"
            )
        for column in self.columns():
            for path in sets:
                self.run_worker(self.ask(column, {"probe": str(path), "n": self.tokens}, f"score {path.stem}"))

    def do_compare(self, count: int | None) -> None:
        """The next donor beside the result, or none after the last."""
        models = self.session.models
        self.beside = self.beside + 1 if self.beside + 1 < len(models) else -1
        self.set_class(self.beside >= 0, "-beside")
        if self.beside < 0:
            self.right = None
            self.say("alone")
        else:
            ref = models[self.beside]
            checkpoint = self.session.checkpoint(ref)
            name = f"{self.session.letters[ref]} {ref}"
            self.right = Column(name, str(checkpoint.path) if checkpoint else ref, "path")
            self.say(f"{name} beside: the next prompt goes to both")
        self.dirty = True

    def do_cancel(self, count: int | None) -> None:
        """Stop what is being generated."""
        if not self.prober.busy:
            self.say("nothing is being generated")
        self.prober.interrupt()

    def do_half_down(self, count: int | None) -> None:
        """Scroll down."""
        for pane in self.query(TextPane):
            pane.move(max(1, pane.size.height // 2))

    def do_half_up(self, count: int | None) -> None:
        """Scroll up."""
        for pane in self.query(TextPane):
            pane.move(-max(1, pane.size.height // 2))


def _absorb(answer: Answer, event: dict[str, Any]) -> None:
    """Take an event into an answer."""
    kind = event.get("event")
    if kind == "loading":
        answer.state = "loading the model"
    elif kind == "loaded":
        answer.state = f"loaded in {event.get('seconds', 0):.1f}s, {event.get('layers')} layers"
    elif kind == "token":
        answer.text += str(event.get("text", ""))
    elif kind == "probe":
        answer.state = f"{event.get('right')} right of {event.get('index')}, {event.get('total')} in all"
    elif kind == "cancelled":
        answer.state = "stopped"
    elif kind == "error":
        answer.state, answer.bad = str(event.get("message")), True
    elif kind == "done":
        answer.state = summary(event)
        answer.bad = not event.get("finite", True) or bool(event.get("degenerate"))


def summary(event: dict[str, Any]) -> str:
    """What a finished request measured, in one line."""
    scores = [f"{p['name']} {p['right']}/{p['total']} ({p['score']:.3f})" for p in event.get("probes") or []]
    if scores:
        return ", ".join(scores)
    if not event.get("tokens"):
        loaded = event.get("load_seconds")
        return f"ready, loaded in {loaded:.1f}s" if isinstance(loaded, (int, float)) else "ready"
    parts = [f"{event['tokens']} tokens"]
    if event.get("tokens_per_second"):
        parts.append(f"{event['tokens_per_second']:.0f} tok/s")
    if event.get("peak_memory_bytes"):
        parts.append(f"peak {size(event['peak_memory_bytes'])}")
    parts.append("finite" if event.get("finite", True) else "NOT FINITE: the logits hold NaN or infinity")
    if event.get("degenerate"):
        parts.append("DEGENERATE: the text repeats itself")
    return ", ".join(parts)


def _lines(column: Column, width: int) -> list[list[Piece]]:
    lines: list[list[Piece]] = [[(f" {one_line(column.name)}", theme.TITLE)]]
    for answer in column.answers.values():
        lines.append([])
        lines += [[(f" {part}", theme.BOLD)] for part in wrapped(f"> {one_line(answer.ask)}", width, indent="  ")]
        if answer.text:
            lines += [[(f" {part}", theme.PLAIN)] for part in wrapped(safe(answer.text), width)]
        style = theme.SEVERITY["error"] if answer.bad else theme.DIM
        lines += [[(f" {part}", style)] for part in wrapped(one_line(answer.state), width, indent="  ")]
    return lines
