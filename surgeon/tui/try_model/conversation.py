"""The models on the Try screen and what they are asked: the recipe or an output, and a donor beside it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import SurgeonError
from ...jobs import job_list
from ..session import Session
from .answers import Answer, Column
from .model_process import ModelProcess
from .perplexity_table import PerplexityTable, TableRow
from .recipe_copy import write_recipe_copy


class Conversation:
    """The models that answer the same requests, side by side; one process holds them.

    Args:
        session: whose recipe is tried, unwritten.
        output: a model folder to try instead; None for the recipe.
        process: holds the models; it outlives the conversation.
        on_problem: shows why a model cannot be tried.

    Attributes:
        columns: the model that is tried, and those beside it.
        table: the perplexities that are or were measured; None before that.
        changed: whether anything is new since this was last set to False.
    """

    def __init__(
        self, session: Session, output: Path | None, process: ModelProcess, on_problem: Callable[[str], None]
    ) -> None:
        self._session, self._output, self._on_problem = session, output, on_problem
        first = Column(output.name, str(output.absolute()), "path") if output else None
        self.columns = [first or Column("the recipe (unwritten)", "", "recipe")]
        self.table: PerplexityTable | None = None
        self.changed = True
        self.process = process
        self._opened = time.monotonic()
        self._numbers: set[int] = set()
        self._closed = False
        self._donor = -1
        self._copies: list[Path] = []

    @property
    def left(self) -> Column:
        """The model that is tried."""
        return self.columns[0]

    @property
    def right(self) -> Column | None:
        """The donor beside it; None without one."""
        return self.columns[1] if len(self.columns) > 1 else None

    @property
    def busy(self) -> bool:
        """Whether a request is unanswered."""
        return self.process.is_open(self._numbers)

    @property
    def measuring(self) -> bool:
        """Whether perplexities are being measured."""
        rows = self.table.rows if self.table else []
        return self.process.is_open(row.number for row in rows if row.number is not None)

    async def load(self) -> None:
        """Load the model, so that the first prompt need not wait for it."""
        plan = self._session.plan
        if self._output is None and not plan.ok:
            answer = Answer("loading", state=f"the model cannot be tried yet: {plan.errors[0].sentence()}", bad=True)
            self.left.answers.append(answer)
            self.changed = True
            return
        await self.ask(self.left, {"prompt": None}, Answer("loading", since=self._opened))

    async def ask(self, column: Column, request: dict[str, Any], answer: Answer) -> None:
        """Send a request for one model."""
        column.answers.append(answer)
        self.changed = True
        await self._send(column, request, answer)

    async def measure(self, texts: Sequence[Path]) -> None:
        """Measure the perplexity of texts: with the model, its written output and every donor."""
        columns = list(self._measured())
        self.table = PerplexityTable(texts, [TableRow(column.name) for column in columns])
        self.changed = True
        for column, row in zip(columns, self.table.rows, strict=True):
            await self._send(column, {"prompt": None, "texts": [str(path.absolute()) for path in texts]}, row)

    def _measured(self) -> Iterator[Column]:
        yield self.left
        if self._output is None and (written := self._written()) is not None:
            yield Column(f"written: {written.name}", str(written), "path")
        yield from (self._of_donor(ref) for ref in self._session.shown_models)

    def _written(self) -> Path | None:
        """The output that was last written from this recipe, as it was then; None if there is none."""
        for job in reversed(job_list.of_recipe(self._session.document.path, Path.cwd())):
            if job.out is not None and job.state().kind == "done" and job.out.is_dir():
                return job.out
        return None

    def _of_donor(self, ref: str) -> Column:
        name = f"{self._session.letters[ref]} {ref}"
        if (recipe := self._session.donor_recipe(ref)) is not None:
            return Column(name, "", "recipe", recipe.text)
        checkpoint = self._session.checkpoint(ref)
        target = str(checkpoint.path.absolute()) if checkpoint else ref
        return Column(name, target, "path")

    async def _send(self, column: Column, request: dict[str, Any], answer: Answer | TableRow) -> None:
        if not column.target and not self._copied(column):
            answer.take({"event": "cancelled"})
            return

        def take(event: dict[str, Any]) -> None:
            column.take(event)
            answer.take(event)
            self.changed = True

        full = {"target": column.target, "kind": column.kind, "device": "auto", **request}
        try:
            answer.number = await self.process.send(full, take)
        except OSError as error:
            answer.take({"event": "error", "message": f"the model's process cannot be started: {error}"})
            self.changed = True
            return
        self._numbers.add(answer.number)
        if self._closed:
            await self.process.forget({answer.number})

    def _copied(self, column: Column) -> bool:
        """Put a copy of the unwritten recipe on disk; False if that fails."""
        if self._closed:
            return False
        try:
            copy = write_recipe_copy(column.recipe or self._session.absolute().text)
        except SurgeonError as error:
            self._on_problem(error.sentence())
            return False
        column.target = str(copy)
        self._copies.append(copy)
        return True

    async def stop(self) -> None:
        """Stop all requests."""
        await self.process.cancel(self._numbers)

    def compare_with_next(self) -> str:
        """Put the next donor beside the model, or none after the last; returns its name, or an empty string."""
        models = self._session.shown_models
        self._donor = self._donor + 1 if self._donor + 1 < len(models) else -1
        self.changed = True
        del self.columns[1:]
        if self._donor < 0:
            return ""
        self.columns.append(self._of_donor(models[self._donor]))
        return self.columns[1].name

    def close(self) -> None:
        """Delete the copies of recipes that the process was given."""
        self._closed = True
        for copy in self._copies:
            with contextlib.suppress(OSError):
                copy.unlink()

    async def leave(self) -> None:
        """Stop all requests and forget them; the process keeps its models."""
        self.close()
        await self.process.forget(self._numbers)
