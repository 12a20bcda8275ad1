"""Scores models one after the other in the process that holds them, and compares each with the base."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...evaluate.measure_data import difference_from_data, units_to_data
from ...evaluate.measures import Measure
from .column_models import ColumnModel
from .model_process import Sink
from .model_scores import Pair, ScoredModel, Scores, Source

Send = Callable[[dict[str, Any], Sink], Awaitable[int | None]]
Ask = Callable[[ColumnModel, dict[str, Any], Sink], Awaitable[int | None]]
ENDS = frozenset({"done", "error", "cancelled"})


class Scoring:
    """Fills the table.

    Args:
        scores: what is filled.
        ask: sends a request for a model; None if its recipe could not be written.
        send: sends any other request.
        on_change: called after each event.
        on_scored: gets a model with the measures of a request that is complete.
    """

    def __init__(
        self,
        scores: Scores,
        ask: Ask,
        send: Send,
        on_change: Callable[[], None],
        on_scored: Callable[[ColumnModel, Sequence[Measure], float | None], None],
    ) -> None:
        self.scores = scores
        self._ask, self._send, self._on_change, self._on_scored = ask, send, on_change, on_scored
        self._stopped = False
        self._busy = asyncio.Lock()

    async def score(self, models: Sequence[ColumnModel], sources: Sequence[Source]) -> bool:
        """Score models on sources, as far as that is not done; again if it is. Returns whether it was not stopped."""
        scores = self.scores
        kinds = {source.kind for source in sources}
        kept = [source for source in scores.sources if source.kind not in kinds]
        scores.sources = [*kept, *sources]
        scores.shown = [model.key for model in models]
        for model in models:
            scores.models.setdefault(model.key, ScoredModel(model)).model = model
        scores.choose_base()
        # The base first, so that every other model has its verdicts as soon as it is scored.
        wanted = dict(sorted(scores.missing(kinds).items(), key=lambda item: item[0] != scores.base))
        for key in wanted:
            scores.models[key].begin()
        self._stopped = False
        self._on_change()
        async with self._busy:
            for key, own in wanted.items():
                if self._stopped:
                    scores.models[key].state = "stopped"
                    continue
                await self._one(scores.models[key], own)
                await self.compare()
        return not self._stopped

    def stop(self) -> None:
        """Score no further model."""
        self._stopped = True

    async def _one(self, scored: ScoredModel, sources: Sequence[Source]) -> None:
        names = {source.key: source for source in sources}
        found: list[Measure] = []
        ended = asyncio.Event()

        def take(event: dict[str, Any]) -> None:
            measures = scored.take(event, names)
            if measures:
                self.scores.forget(scored.model.key, names[str(event["source"])])
                found.extend(measures)
            if event.get("event") in ENDS:
                ended.set()
                if found:
                    self._on_scored(scored.model, found, scored.speed)
            self._on_change()

        request = {
            "texts": [source.name for source in sources if source.kind == "text"],
            "probes": [source.name for source in sources if source.kind == "probe"],
            "bundled": [source.name for source in sources if source.kind == "bundled"],
        }
        try:
            scored.number = await self._ask(scored.model, {"score": request}, take)
            if scored.number is not None:
                await ended.wait()
        finally:
            if not ended.is_set():
                # The screen was left, or there is no process: nobody gets the rest.
                scored.take({"event": "cancelled"}, names)

    async def compare(self) -> None:
        """Ask for the differences with the base that are not known."""
        pairs = self.scores.pairs()
        if not pairs:
            return
        for pair in pairs:
            self.scores.differences[pair] = None
        ended = asyncio.Event()

        def take(event: dict[str, Any]) -> None:
            if event.get("event") == "differences":
                self._take(pairs, event.get("differences"))
            elif event.get("event") in ENDS:
                ended.set()
            self._on_change()

        try:
            if await self._send({"compare": [self._pair(pair) for pair in pairs]}, take) is not None:
                await ended.wait()
        finally:
            for pair in pairs:
                if self.scores.differences.get(pair) is None:
                    self.scores.differences.pop(pair, None)

    def _pair(self, pair: Pair) -> dict[str, Any]:
        base, other, source, name = pair
        measures = [self.scores.models[key].find(source, name) for key in (base, other)]
        first, second = measures
        assert first is not None and second is not None
        return {"better": second.better, "base": units_to_data(first.units), "other": units_to_data(second.units)}

    def _take(self, pairs: Sequence[Pair], found: Any) -> None:
        if not isinstance(found, list) or len(found) != len(pairs):
            return
        for pair, one in zip(pairs, found, strict=True):
            try:
                self.scores.differences[pair] = difference_from_data(one)
            except InputError:
                continue


def bundled_names(typed: str) -> list[str]:
    """The bundled sets whose names begin with the typed words.

    Raises:
        InputError: a word begins none.
    """
    from ...evaluate.bundled import SETS

    names: dict[str, None] = {}
    for word in typed.replace(",", " ").split():
        found = [name for name in SETS if word == "all" or name.startswith(word)]
        if not found:
            raise InputError(f"there is no bundled set {word!r}: write all, or some of {', '.join(SETS)}")
        names.update(dict.fromkeys(found))
    return list(names)


def sources_of(kind: str, paths: Sequence[Path]) -> list[Source]:
    """Files as sources."""
    return [Source.of_file(kind, path) for path in paths]
