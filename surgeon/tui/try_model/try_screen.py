"""Tries models side by side: the same prompts, their scores, and a table of models against measures."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal

from ...errors import InputError
from ...text import duration, one_line, plural
from .. import clipboard, theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..cells import cut, shortened, wrapped
from ..navigation import Navigation
from ..picker import Choice, Picker
from ..session import Session
from ..widgets.line import Line, Piece
from ..widgets.status_line import StatusLine
from ..widgets.text_pane import TextPane
from .answer_lines import Shown, beside, column_width, columns_that_fit, lines_of
from .answers import transcript
from .column_models import ColumnModel
from .conversation import MOST_COLUMNS, Column, Conversation
from .model_scores import Source
from .probe_sets import find_probe_sets, find_texts, first_prompt
from .prompt_area import PromptArea
from .score_table import ScoreTable
from .scoring import sources_of
from .try_state import TryState

REDRAW = 0.25
"""Seconds between redraws while text streams: four a second read well, and cost little over SSH."""


class TryScreen(ActionScreen):
    """Up to four models answering the same prompts.

    Args:
        session: donors and recipe.
        state: what stays from one of these screens to the next, such as the answers and the process with the models.
        navigation: opens the history.
        output: a checkpoint folder to try; None tries the unwritten recipe.
    """

    kind: ClassVar[ScreenName] = "try"
    DEFAULT_CSS = """
    TryScreen #header, TryScreen #footer { background: $panel; }
    TryScreen #table { display: none; }
    TryScreen.-table #table { display: block; }
    TryScreen.-table #answers, TryScreen.-table #names { display: none; }
    TryScreen #asking { height: auto; background: $surface; }
    TryScreen #sign { width: 9; }
    TryScreen PromptArea { background: $surface; }
    """

    def __init__(self, session: Session, state: TryState, navigation: Navigation, output: Path | None = None) -> None:
        super().__init__()
        self._session, self._state, self._navigation = session, state, navigation
        self.conversation: Conversation = state.conversation(session, output, self._problem)
        self._left_out = self.conversation.enter()
        self.conversation.on_first_token = self._redraw_at_once
        self.table = ScoreTable(self.conversation.scores)
        self._turned = 0

    def compose(self) -> ComposeResult:
        """Header, the columns' names, answers or the table, the prompt, footer."""
        yield Line(id="header")
        yield Line(id="names")
        yield TextPane(follow=True, id="answers")
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
        if self._left_out:
            self.say(" ".join(self._left_out), "warning")
        else:
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
        self.query_one("#table" if self.has_class("-table") else "#answers", TextPane).focus()

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
        self.run_worker(self.conversation.ask(self._state.settings.request(prompt)))

    # -- drawing

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence above the prompt."""
        self.query_one("#status", StatusLine).say(text, severity)

    def _problem(self, why: str) -> None:
        """Show a problem; called in any thread."""
        self.app.call_later(self.say, why, "warning")

    def _shown(self) -> list[Column]:
        """The columns in view: the first, and those that were turned to."""
        columns = self.conversation.columns
        fit = min(len(columns), columns_that_fit(self.size.width))
        others = columns[1:]
        start = self._turned % len(others) if others else 0
        return [columns[0], *(others[start:] + others[:start])[: fit - 1]]

    def _redraw_at_once(self) -> None:
        """Show that an answer begins."""
        if self.is_mounted and self.is_current:
            self._redraw()

    def _redraw(self) -> None:
        conversation = self.conversation
        if not conversation.changed:
            return
        conversation.changed = conversation.busy and self.has_class("-table")
        shown, count = self._shown(), len(conversation.columns)
        what = "scores" if self.has_class("-table") else plural(count, "model")
        if len(shown) < count and not self.has_class("-table"):
            what = f"{len(shown)} of {what}: ] turns"
        busy = "  working" if conversation.busy else ""
        mode = f" {self._mode()} " if self._mode() else ""
        self.query_one("#header", Line).show(
            (" TRY ", theme.TITLE), (mode, theme.CURSOR), (f" {what}", theme.BOLD), (busy, theme.DIM)
        )
        width = max(40, self.size.width - 1)
        if self.has_class("-table"):
            self.query_one("#table", TextPane).show(self.table.lines(width))
            return
        own = column_width(width, len(shown))
        self.query_one("#names", Line).show(*beside([_name(column, own) for column in shown], own))
        columns = [Shown(column.model.spec, column.model.key) for column in shown]
        self.query_one("#answers", TextPane).show(lines_of(conversation.turns, columns, width) + self._problems(width))

    def _problems(self, width: int) -> list[list[Piece]]:
        """Why the first model could not be loaded."""
        loading = self.conversation.left.loading
        if loading is None or not loading.bad:
            return []
        return [[(f" {part}", theme.SEVERITY["error"])] for part in wrapped(one_line(loading.state), width - 2)]

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
        """Score every probe set and bundled set."""
        sources = sources_of("probe", self.probe_sets())
        sources += [Source("bundled", name) for name in self._state.bundled]
        if not sources:
            self.say("no probe set: put JSONL files into probes/, or type :bundled all", "warning")
            return
        self._score(sources, plural(len(sources), "probe set"))

    def do_measure(self, count: int | None) -> None:
        """Measure the perplexity of every text."""
        sources = sources_of("text", self.texts())
        if not sources:
            self.say("no text: put .txt files into texts/ by the recipe, or type :text FILE", "warning")
            return
        self._score(sources, plural(len(sources), "text"))

    def _score(self, sources: list[Source], what: str) -> None:
        models = self.conversation.scored_models()
        self.say(f"scoring {what} with {plural(len(models), 'model')}: c stops")
        self.run_worker(self._scored(models, sources, what))
        self._show_table(True)

    async def _scored(self, models: list[ColumnModel], sources: list[Source], what: str) -> None:
        start = time.monotonic()
        complete = await self.conversation.scoring.score(models, sources)
        if self.is_mounted:
            took = duration(time.monotonic() - start)
            self.say(f"scored {what} with {plural(len(models), 'model')} in {took}" if complete else "stopped")

    def do_view(self, count: int | None) -> None:
        """Switch between the answers and the scores."""
        if not self.conversation.scores.shown:
            self.say("x measures the perplexity of texts, s scores probe sets")
        else:
            self._show_table(not self.has_class("-table"))

    def do_next_base(self, count: int | None) -> None:
        """Compare the scores with those of the next model."""
        name = self.conversation.scores.next_base()
        if not name:
            self.say("x measures the perplexity of texts, s scores probe sets")
            return
        self.run_worker(self.conversation.scoring.compare())
        self.say(f"compared with {one_line(name)}")
        self._show_table(True)

    def do_raw(self, count: int | None) -> None:
        """Switch between the chat template and raw text."""
        settings = self._state.settings
        if not settings.raw and self.conversation.left.chat is False:
            self.say("the tokenizer has no chat template: prompts are raw text", "warning")
            return
        settings.raw = not settings.raw
        self.conversation.changed = True
        self.say("prompts are raw text" if settings.raw else "prompts are put into the chat template")

    def do_add_column(self, count: int | None) -> None:
        """Choose a model to put beside the others."""
        used = {column.model.spec for column in self.conversation.columns}
        choices = [choice for choice in self.conversation.models.choices() if choice.value not in used]
        if len(used) >= MOST_COLUMNS:
            self.say(f"there are {MOST_COLUMNS} columns: B removes one", "warning")
            return
        self.app.push_screen(Picker("Put a model beside these", choices, empty="there is no other model"), self._add)

    def _add(self, choice: Choice | None) -> None:
        if choice is None:
            return
        try:
            column = self.conversation.add(choice.value)
        except InputError as error:
            self.say(error.sentence(), "error")
            return
        # The new column is in view, whatever else is.
        self._turned = len(self.conversation.columns) - 2 if len(self._shown()) < len(self.conversation.columns) else 0
        self._show_table(False)
        self.say(f"{one_line(column.name)} is beside them: the next prompt goes to all (i, enter sends the last again)")

    def do_remove_column(self, count: int | None) -> None:
        """Remove a column; choose which if there are several."""
        others: list[ColumnModel] = [column.model for column in self.conversation.columns[1:]]
        if not others:
            self.say("there is one column: b puts a model beside it")
        elif len(others) == 1:
            self._remove(others[0].spec)
        else:
            choices = [Choice(model.spec, model.name) for model in others]
            picker = Picker("Remove a column", choices)
            self.app.push_screen(picker, lambda choice: self._remove(choice.value if choice else None))

    def _remove(self, spec: str | None) -> None:
        if spec is not None:
            self.conversation.remove(spec)
            self._turned = 0
            self._show_table(False)
            self.say(f"{plural(len(self.conversation.columns), 'column')} left")

    def do_turn(self, count: int | None) -> None:
        """Show the next columns beside the first."""
        columns = self.conversation.columns
        if len(columns) <= columns_that_fit(self.size.width):
            self.say("all columns are in view" if len(columns) > 1 else "there is one column: b puts a model beside it")
            return
        self._turned += 1
        self._show_table(False)
        self.say(f"beside: {', '.join(one_line(column.name) for column in self._shown()[1:])}")

    def do_results(self, count: int | None) -> None:
        """List what was tried and evaluated."""
        self._navigation.open_results()

    def do_copy(self, count: int | None) -> None:
        """Copy the answers, or the table, to the clipboard."""
        columns = [(column.name, column.model.spec, column.model.key) for column in self.conversation.columns]
        table = self.has_class("-table")
        text = self.table.transcript if table else transcript(self.conversation.turns, columns)
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


def _name(column: Column, width: int) -> list[Piece]:
    """The name of a column, and how its model was loaded."""
    loading = column.loading
    state = one_line(loading.state) if loading is not None and not loading.bad else ""
    name = shortened(one_line(column.name), width)
    room = width - cell_len(name) - 2
    return [(name, theme.TITLE), (f"  {cut(state, room)}" if state and room > 12 else "", theme.DIM)]
