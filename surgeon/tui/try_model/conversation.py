"""The models on the Try screen and what they are asked. It outlives the screen, with all answers and scores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError, SurgeonError
from ..session import Session
from .answers import Answer, Turn
from .column_models import ColumnModel, ColumnModels
from .model_process import ModelProcess, Sink
from .model_scores import Scores
from .recipe_copy import write_recipe_copy
from .scoring import Scoring
from .tried_history import TriedHistory

MOST_COLUMNS = 4
"""As many as the process keeps models."""
MOST_TURNS = 200
"""Turns that are kept; the results file has all."""


@dataclass
class Column:
    """A model side by side with others.

    Attributes:
        chat: whether its tokenizer has a chat template; None until it is loaded.
        loading: how its loading ended; None if it was not loaded for its own sake.
    """

    model: ColumnModel
    chat: bool | None = None
    loading: Answer | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name


class Conversation:
    """The models that answer the same requests, side by side; one process holds them.

    Args:
        session: whose recipe is tried, unwritten.
        output: a model folder to try instead; None for the recipe.
        process: holds the models; it outlives the conversation.
        history: keeps what was tried.
        on_problem: shows why a model cannot be tried.

    Attributes:
        on_first_token: called when an answer begins.
        columns: the model that is tried, and those beside it.
        turns: what was asked so far.
        scores: the scores of these and other models.
        changed: whether anything is new since this was last set to False.
    """

    def __init__(
        self,
        session: Session,
        output: Path | None,
        process: ModelProcess,
        history: TriedHistory,
        on_problem: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._session, self.process, self.history = session, process, history
        self.on_problem = on_problem
        self.on_first_token: Callable[[], None] = lambda: None
        self.models = ColumnModels(session, output)
        self.columns = [Column(self.models.find(self.models.first))]
        self.turns: list[Turn] = []
        self.scores = Scores()
        self.scoring = Scoring(self.scores, self.ask_model, self.send, self._change, history.keep_scores)
        self.changed = True
        self._opened = time.monotonic()
        self._numbers: set[int] = set()
        self._closed = False
        self._copies: dict[str, Path] = {}

    def _change(self) -> None:
        self.changed = True

    @property
    def left(self) -> Column:
        """The model that is tried."""
        return self.columns[0]

    @property
    def busy(self) -> bool:
        """Whether a request is unanswered."""
        return self.process.is_open(self._numbers)

    # -- columns

    def enter(self) -> list[str]:
        """Begin again on another screen: each column is the present state of its model. Returns what is left out."""
        self._closed, self._opened, self.changed = False, time.monotonic(), True
        columns, left_out = [], []
        for column in self.columns:
            try:
                model = self.models.find(column.model.spec)
            except InputError as error:
                left_out.append(f"{column.name}: {error.sentence()}")
                continue
            columns.append(column if model.key == column.model.key else Column(model))
            columns[-1].model = model
        self.columns = columns or [Column(self.models.find(self.models.first))]
        return left_out

    def add(self, spec: str) -> Column:
        """Put a model beside the others; InputError if it is there, or there are too many."""
        if len(self.columns) >= MOST_COLUMNS:
            raise InputError(f"there are {MOST_COLUMNS} columns already", remedy="B removes one")
        if any(column.model.spec == spec for column in self.columns):
            raise InputError("this model is a column already")
        column = Column(self.models.find(spec))
        self.columns.append(column)
        self.changed = True
        return column

    def remove(self, spec: str) -> None:
        """Remove a column; the first stays."""
        self.columns[1:] = [column for column in self.columns[1:] if column.model.spec != spec]
        self.changed = True

    # -- requests

    async def load(self) -> None:
        """Load the first model, so that the first prompt need not wait for it."""
        column, plan = self.left, self._session.plan
        column.loading = answer = Answer(since=self._opened)
        self.changed = True
        if column.model.spec == "recipe" and not plan.ok:
            message = f"the model cannot be tried yet: {plan.errors[0].sentence()}"
            answer.take({"event": "error", "message": message})
            return
        # Without a forward pass, for which a prompt that is sent meanwhile would wait.
        await self._ask(column, {"prompt": None, "check": False}, answer)

    async def ask(self, settings: dict[str, Any]) -> None:
        """Send a prompt with its settings to every column."""
        turn = Turn(str(settings["prompt"]), settings)
        self.turns.append(turn)
        del self.turns[:-MOST_TURNS]
        columns: dict[str, Column] = {}
        for column in self.columns:
            # Two columns in the same state are one model.
            turn.states[column.model.spec] = column.model.key
            columns.setdefault(column.model.key, column)
            turn.answers.setdefault(column.model.key, Answer())
        self.changed = True
        for key, column in columns.items():
            await self._ask(column, settings, turn.answers[key], turn)

    async def _ask(self, column: Column, request: dict[str, Any], answer: Answer, turn: Turn | None = None) -> None:
        model = column.model

        def take(event: dict[str, Any]) -> None:
            if event.get("event") == "loaded":
                column.chat = bool(event.get("chat"))
            before = answer.first
            answer.take(event)
            if before is None and answer.first is not None:
                self.changed = True
                self.on_first_token()
            if turn is not None and answer.done is event:
                self.history.keep_answer(model, turn.prompt, turn.settings, answer)
            self.changed = True

        answer.number = await self.ask_model(model, request, take)
        if answer.number is None and not answer.ended:
            answer.take({"event": "cancelled"})

    async def ask_model(self, model: ColumnModel, request: dict[str, Any], sink: Sink) -> int | None:
        """Send a request for a model; returns its number, or None if it cannot be sent."""
        target, kind = str(model.path), "path"
        if model.text:
            copy = self._copy(model)
            if copy is None:
                return None
            target, kind = str(copy), "recipe"
        return await self.send({"target": target, "kind": kind, "device": "auto", **request}, sink)

    async def send(self, request: dict[str, Any], sink: Sink) -> int | None:
        """Send a request; returns its number, or None if there is no process."""
        try:
            number = await self.process.send(request, sink)
        except OSError as error:
            sink({"event": "error", "message": f"the model's process cannot be started: {error}"})
            return None
        self._numbers.add(number)
        if self._closed:
            await self.process.forget({number})
        return number

    def _copy(self, model: ColumnModel) -> Path | None:
        """A copy of an unwritten recipe on disk; None if that fails."""
        if self._closed:
            return None
        if model.key not in self._copies:
            try:
                self._copies[model.key] = write_recipe_copy(model.text)
            except SurgeonError as error:
                self.on_problem(error.sentence())
                return None
        return self._copies[model.key]

    def scored_models(self) -> list[ColumnModel]:
        """The rows of the table: the columns, the written output and the donors, each state once."""
        found = {column.model.key: column.model for column in self.columns}
        for spec in self.models.measured():
            with contextlib.suppress(InputError):
                model = self.models.find(spec)
                found.setdefault(model.key, model)
        return list(found.values())

    async def stop(self) -> None:
        """Stop all requests."""
        self.scoring.stop()
        await self.process.cancel(self._numbers)

    def close(self) -> None:
        """Delete the copies of recipes that the process was given."""
        self._closed = True
        for copy in self._copies.values():
            with contextlib.suppress(OSError):
                copy.unlink()
        self._copies.clear()

    async def leave(self) -> None:
        """Stop all requests and forget them; the process keeps its models."""
        self.close()
        self.scoring.stop()
        for answer in self._open_answers():
            answer.take({"event": "cancelled"})
        await self.process.forget(self._numbers)
        self._numbers.clear()

    def _open_answers(self) -> Sequence[Answer]:
        answers = [answer for turn in self.turns for answer in turn.answers.values()]
        return [answer for answer in answers if not answer.ended]
