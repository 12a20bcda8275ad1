"""The models on the Try screen and what they are asked: the recipe or an output, and a donor beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import SurgeonError
from ..session import Session
from .answers import Answer, Column
from .model_process import ModelProcess
from .recipe_copy import write_recipe_copy


class Conversation:
    """One or two models that answer the same requests; one process holds them.

    Args:
        session: whose recipe is tried, unwritten.
        output: a model folder to try instead; None for the recipe.
        on_problem: shows why a model cannot be tried.

    Attributes:
        left: the model that is tried.
        right: the donor beside it; None without one.
        changed: whether anything is new since this was last set to False.
    """

    def __init__(self, session: Session, output: Path | None, on_problem: Callable[[str], None]) -> None:
        self._session, self._output, self._on_problem = session, output, on_problem
        self.left = (
            Column(output.name, str(output), "path") if output else Column("the recipe (unwritten)", "", "recipe")
        )
        self.right: Column | None = None
        self.changed = True
        self.process = ModelProcess(self.take)
        self._donor = -1

    @property
    def columns(self) -> list[Column]:
        """The models."""
        return [self.left, *([self.right] if self.right else [])]

    async def load(self) -> None:
        """Load the model, so that the first prompt need not wait for it."""
        plan = self._session.plan
        if self._output is None and not plan.ok:
            self._on_problem(f"the model cannot be tried yet: {plan.errors[0].sentence()}")
            return
        await self.ask(self.left, {"prompt": None}, "loading")

    async def ask(self, column: Column, request: dict[str, Any], shown: str) -> None:
        """Send a request for one model; `shown` is how the screen names it."""
        if not column.target:
            try:
                column.target = str(write_recipe_copy(self._session.absolute().text))
            except SurgeonError as error:
                self._on_problem(error.sentence())
                return
        full = {"target": column.target, "kind": column.kind, "device": "auto", **request}
        number = await self.process.send(full)
        column.answers[number] = Answer(shown, state="waiting")
        self.changed = True

    def take(self, event: dict[str, Any]) -> None:
        """Add an event of the process to the answer that it belongs to."""
        for column in self.columns:
            answer = column.answers.get(event.get("id", 0))
            if answer is not None:
                answer.take(event)
                self.changed = True

    def compare_with_next(self) -> str:
        """Put the next donor beside the model, or none after the last; returns its name, or an empty string."""
        models = self._session.models
        self._donor = self._donor + 1 if self._donor + 1 < len(models) else -1
        self.changed = True
        if self._donor < 0:
            self.right = None
            return ""
        ref = models[self._donor]
        checkpoint = self._session.checkpoint(ref)
        name = f"{self._session.letters[ref]} {ref}"
        self.right = Column(name, str(checkpoint.path) if checkpoint else ref, "path")
        return name

    def close(self) -> None:
        """End the process, and delete the copy of the recipe that it was given."""
        self.process.close()
        if self._output is None and self.left.target:
            with contextlib.suppress(OSError):
                Path(self.left.target).unlink()
