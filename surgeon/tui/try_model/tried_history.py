"""Keeps everything that is tried in the results file beside the recipe, each answer as soon as it is complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...errors import SurgeonError
from ...evaluate.measures import Measure
from ...evaluate.results import append, results_file, row
from ..session import Session
from .answers import Answer
from .column_models import ColumnModel


class TriedHistory:
    """Appends rows in a thread, so that a slow disk delays no key; rows that are waiting are written before the end.

    Args:
        session: whose recipe is tried.

    Attributes:
        on: whether rows are kept.
        on_problem: shows why a row cannot be kept; called in any thread.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.on = True
        self.on_problem: Callable[[str], None] = lambda _: None
        self._writer = ThreadPoolExecutor(1, "history")
        self._failed = False

    @property
    def file(self) -> Path:
        """The results file."""
        path = self._session.document.path
        return results_file([path.absolute()] if path else [])

    def keep_answer(self, model: ColumnModel, prompt: str, settings: Mapping[str, Any], answer: Answer) -> None:
        """Keep a complete answer."""
        done = answer.done or {}
        more = {key: done[key] for key in ("tokens", "stop", "chat", "finite", "degenerate") if key in done}
        if answer.first is not None:
            more["first_token_seconds"] = round(answer.first, 3)
        if done.get("tokens_per_second"):
            more["tokens_per_second"] = done["tokens_per_second"]
        asked = {key: value for key, value in settings.items() if key != "prompt" and value is not None}
        self._keep(model, (), prompt=prompt, answer=answer.text, settings=asked, **more)

    def keep_scores(self, model: ColumnModel, measures: Sequence[Measure], speed: float | None) -> None:
        """Keep the scores of a request."""
        self._keep(model, measures, **({"tokens_per_second": speed} if speed else {}))

    def _keep(self, model: ColumnModel, measures: Sequence[Measure], **more: Any) -> None:
        if not self.on:
            return
        file = self.file
        if model.document and self._session.stage:
            more["stage"] = self._session.stage
        made = row("tried", model.name, file, path=model.path, recipe=model.document or None, measures=measures, **more)
        self._writer.submit(append, file, [made]).add_done_callback(self._written)

    def _written(self, done: Future[None]) -> None:
        error = done.exception()
        if error is None:
            self._failed = False
        elif not self._failed:
            self._failed = True
            why = error.sentence() if isinstance(error, SurgeonError) else str(error)
            self.on_problem(f"what you try is not kept: {why} (:history off keeps nothing)")

    def flush(self) -> None:
        """Wait until every row is written."""
        self._writer.submit(lambda: None).result()
