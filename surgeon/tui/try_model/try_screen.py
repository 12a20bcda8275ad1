"""Tries a model: text streamed from the unwritten recipe or from disk, beside a donor, with scores and perplexities."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal

from ...text import one_line, plural
from .. import clipboard, theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..session import Session
from ..widgets.line import Line
from ..widgets.status_line import StatusLine
from ..widgets.text_pane import TextPane
from .answers import Answer, lines_of
from .conversation import Conversation
from .probe_sets import find_probe_sets, find_texts, first_prompt
from .prompt_area import PromptArea
from .try_state import TryState

REDRAW = 0.25
"""Seconds between redraws while text streams: four a second read well, and cost little over SSH."""


class TryScreen(ActionScreen):
    """One or two models answering the same prompts.

    Args:
        session: donors and recipe.
        state: what stays from one of these screens to the next, such as the process that holds the models.
        output: a checkpoint folder to try; None tries the unwritten recipe.
    """

    kind: ClassVar[ScreenName] = "try"
    DEFAULT_CSS = """
    TryScreen #header, TryScreen #footer { background: $panel; }
    TryScreen #right { border-left: vkey $panel; display: none; }
    TryScreen.-beside #right { display: block; }
    TryScreen #table { display: none; }
    TryScreen.-table #table { display: block; }
    TryScreen.-table #columns { display: none; }
    TryScreen #asking { height: auto; background: $surface; }
    TryScreen #sign { width: 9; }
    TryScreen PromptArea { background: $surface; }
    """

    def __init__(self, session: Session, state: TryState, output: Path | None = None) -> None:
        super().__init__()
        self._session, self._state = session, state
        self.conversation = Conversation(session, output, state.process, lambda why: self.say(why, "error"))

    def compose(self) -> ComposeResult:
        """Header, one or two columns or the table, the prompt, footer."""
        yield Line(id="header")
        with Horizontal(id="columns"):
            yield TextPane(follow=True, id="left")
            yield TextPane(follow=True, id="right")
        yield TextPane(id="table")
        yield StatusLine(id="status")
        with Horizontal(id="asking"):
            yield Line(id="sign")
            yield PromptArea(self._state.prompts, id="box")
        yield Line(id="footer")

    @property
    def _box(self) -> PromptArea:
        return self.query_one(PromptArea)

    def on_mount(self) -> None:
        """Offer a first prompt, and load the model while it is read."""
        self.query_one("#sign", Line).show((" prompt> ", theme.BOLD))
        self.show_footer(self.query_one("#footer", Line))
        prompts = self._state.prompts
        self._box.propose(prompts[-1] if prompts else first_prompt(self.probe_sets()))
        self._box.focus()
        self.set_interval(REDRAW, self._redraw)
        self.say("enter sends, ^j begins a line; esc leaves the prompt, then ? lists the keys")
        self.run_worker(self.conversation.load())

    async def on_unmount(self) -> None:
        """Stop what the screen asked for; the models stay loaded for the next one."""
        await self.conversation.leave()

    def end_children(self) -> None:
        """Delete what the process that holds the models was given; the application ends it."""
        self.conversation.close()

    def on_resize(self) -> None:
        """Wrap the lines again."""
        self.conversation.changed = True
        self.show_footer(self.query_one("#footer", Line))

    async def on_key(self, event: events.Key) -> None:
        """Keys that the prompt lets pass are its own, and no actions."""
        if isinstance(self.focused, PromptArea):
            event.prevent_default()

    # -- the prompt

    def probe_sets(self) -> list[Path]:
        """The probe sets that `s` scores."""
        return find_probe_sets(self._state.probes, self._session.document.roots)

    def texts(self) -> list[Path]:
        """The texts that `x` measures."""
        return find_texts(self._state.texts, self._session.document.roots)

    def on_prompt_area_left(self) -> None:
        """Escape was pressed in the prompt: keys are actions again."""
        self.query_one("#table" if self.has_class("-table") else "#left", TextPane).focus()

    def on_prompt_area_sent(self, event: PromptArea.Sent) -> None:
        """Generate, or carry out a command such as `:n 32`."""
        text = event.text
        if text.startswith(":") and not text.startswith("::"):
            self.say(*self._state.command(text[1:]))
            self._box.propose("")
            self.conversation.changed = True
        elif text.strip():
            self._generate(text.removeprefix(":"))

    def _generate(self, prompt: str) -> None:
        prompts = self._state.prompts
        if not prompts or prompts[-1] != prompt:
            prompts.append(prompt)
        self.remove_class("-table")
        self.say(self._state.settings.sentence())
        request = self._state.settings.request(prompt)
        for column in self.conversation.columns:
            self.run_worker(self.conversation.ask(column, request, Answer(prompt)))

    # -- drawing

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence above the prompt."""
        self.query_one("#status", StatusLine).say(text, severity)

    def _redraw(self) -> None:
        conversation = self.conversation
        if not conversation.changed:
            return
        conversation.changed = conversation.busy and self.has_class("-table")
        names = "  beside  ".join(one_line(column.name) for column in conversation.columns)
        busy = "  working" if conversation.busy else ""
        mode = f" {self._mode()} " if self._mode() else ""
        self.query_one("#header", Line).show(
            (" TRY ", theme.TITLE), (mode, theme.CURSOR), (f" {names}", theme.BOLD), (busy, theme.DIM)
        )
        for name, column in zip(("#left", "#right"), conversation.columns, strict=False):
            pane = self.query_one(name, TextPane)
            pane.show(lines_of(column, max(20, pane.size.width - 2)))
        if conversation.table is not None and self.has_class("-table"):
            self.query_one("#table", TextPane).show(conversation.table.lines(max(20, self.size.width)))

    def _mode(self) -> str:
        """How prompts are sent: `chat` or `raw`; empty until that is known."""
        found = self.conversation.left.chat
        return "raw" if self._state.settings.raw or found is False else "chat" if found else ""

    def _show_table(self, show: bool) -> None:
        self.set_class(show, "-table")
        self.conversation.changed = True
        self.on_prompt_area_left()
        # A pane that was hidden has its size after the next refresh.
        self.call_after_refresh(self._redraw)

    # -- actions

    def do_prompt(self, count: int | None) -> None:
        """Focus the prompt."""
        self._box.focus()

    def do_probe(self, count: int | None) -> None:
        """Score every probe set, for every column."""
        sets = self.probe_sets()
        if not sets:
            self.say("no probe set: put JSONL files into probes/ by the recipe, or type :probe FILE", "warning")
            return
        self.say(f"scoring {plural(len(sets), 'probe set')}: c stops")
        self._show_table(False)
        for column in self.conversation.columns:
            for path in sets:
                request = {"probe": str(path.absolute())}
                self.run_worker(self.conversation.ask(column, request, Answer(f"score {path.stem}")))

    def do_measure(self, count: int | None) -> None:
        """Measure the perplexity of every text, with the recipe, its output and the donors."""
        texts = self.texts()
        if self.conversation.measuring:
            self.say("perplexities are being measured: c stops")
        elif not texts:
            self.say("no text: put .txt files into texts/ by the recipe, or type :text FILE", "warning")
            return
        else:
            self.say(f"measuring {plural(len(texts), 'text')}: c stops")
            self.run_worker(self.conversation.measure(texts))
        self._show_table(True)

    def do_view(self, count: int | None) -> None:
        """Switch between the answers and the perplexities."""
        if self.conversation.table is None:
            self.say("x measures the perplexity of texts")
        else:
            self._show_table(not self.has_class("-table"))

    def do_raw(self, count: int | None) -> None:
        """Switch between the chat template and raw text."""
        settings = self._state.settings
        if not settings.raw and self.conversation.left.chat is False:
            self.say("the tokenizer has no chat template: prompts are raw text", "warning")
            return
        settings.raw = not settings.raw
        self.conversation.changed = True
        self.say("prompts are raw text" if settings.raw else "prompts are put into the chat template")

    def do_compare(self, count: int | None) -> None:
        """Put the next donor beside the result, or none after the last."""
        name = self.conversation.compare_with_next()
        self.set_class(bool(name), "-beside")
        self._show_table(False)
        self.say(f"{name} is shown side by side: the next prompt goes to both" if name else "alone")

    def do_copy(self, count: int | None) -> None:
        """Copy the answers, or the table, to the clipboard."""
        table = self.conversation.table if self.has_class("-table") else None
        text = table.transcript if table else "\n".join(column.transcript for column in self.conversation.columns)
        self.say(clipboard.copy(self.app, text))

    def do_cancel(self, count: int | None) -> None:
        """Stop what is being generated or measured."""
        if not self.conversation.busy:
            self.say("nothing is being generated")
        self.run_worker(self.conversation.stop())

    def do_half_down(self, count: int | None) -> None:
        """Scroll down."""
        for pane in self.query(TextPane):
            pane.move(max(1, pane.size.height // 2))

    def do_half_up(self, count: int | None) -> None:
        """Scroll up."""
        for pane in self.query(TextPane):
            pane.move(-max(1, pane.size.height // 2))
