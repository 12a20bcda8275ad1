"""The scores of models on the Try screen: every measure with its items, and the differences of each two models."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...evaluate.intervals import Difference
from ...evaluate.measure_data import measure_from_data
from ...evaluate.measures import Measure
from ...statefile import is_number
from .column_models import ColumnModel

_HIDDEN = frozenset({"coverage"})
"""Kinds of measures that are no reason to choose a model; a low coverage is a note."""


class Source(NamedTuple):
    """What a model is scored on.

    Attributes:
        kind: `text`, `probe` or `bundled`.
        name: the file, or the name of a bundled set.
        state: the file's time and size; a changed file is another source.
    """

    kind: str
    name: str
    state: tuple[int, int] = (0, 0)

    @classmethod
    def of_file(cls, kind: str, path: Path) -> Source:
        """A file as it is now."""
        try:
            found = path.stat()
        except OSError:
            return cls(kind, str(path.absolute()))
        return cls(kind, str(path.absolute()), (found.st_mtime_ns, found.st_size))

    @property
    def key(self) -> str:
        """What the process calls it."""
        return f"{self.kind}:{self.name}"


@dataclass
class ScoredModel:
    """A model and its scores so far.

    Attributes:
        number: the number of its request at the process; None before it was sent.
        measures: source -> its measures; empty where the model cannot be scored on it.
        tokens: source -> tokens of a text.
        speed: tokens per second; None if it is not known.
        state: how far it is; empty when it is complete.
        progress: what is scored now.
        notes: what was left out, and warnings.
    """

    model: ColumnModel
    number: int | None = None
    measures: dict[Source, list[Measure]] = field(default_factory=dict)
    tokens: dict[Source, int] = field(default_factory=dict)
    speed: float | None = None
    state: str = "waiting"
    failed: bool = False
    progress: str = ""
    notes: dict[str, None] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Wait for a request."""
        self.state, self.failed, self.progress, self.since = "waiting", False, "", time.monotonic()

    def take(self, event: dict[str, Any], wanted: dict[str, Source]) -> list[Measure]:
        """Take an event of the process; `wanted` has the sources by the names that it uses. Returns a new measure."""
        kind = event.get("event")
        if kind in {"loading", "loaded"}:
            self.state = "loading" if kind == "loading" else "scoring"
        elif kind == "cancelled":
            self.state, self.progress = "stopped", ""
        elif kind == "error":
            self.state, self.failed, self.progress = str(event.get("message")), True, ""
        elif kind == "done":
            self.state = self.progress = ""
        elif kind == "reading":
            self.progress = f"{event.get('name')}: {event.get('tokens', 0):,} tokens"
        elif kind == "probe":
            self.progress = f"{event.get('name')}: {event.get('index')} of {event.get('total')}"
        elif kind == "speed" and is_number(event.get("tokens_per_second")):
            self.speed = event["tokens_per_second"]
        elif kind == "note":
            self.notes[str(event.get("text"))] = None
        elif kind == "left out" and (source := wanted.get(str(event.get("source")))) is not None:
            self.measures[source] = []
        elif kind == "measure" and (source := wanted.get(str(event.get("source")))) is not None:
            return self._add(event, source)
        return []

    def _add(self, event: dict[str, Any], source: Source) -> list[Measure]:
        try:
            measure = measure_from_data(event)
        except InputError as error:
            self.notes[error.sentence()] = None
            return []
        known = self.measures.setdefault(source, [])
        known[:] = [*(one for one in known if one.name != measure.name), measure]
        if source.kind == "text":
            self.tokens[source] = int(event.get("tokens") or 0)
        return [measure]

    def find(self, source: Source, name: str) -> Measure | None:
        """A measure by its source and name."""
        return next((one for one in self.measures.get(source, ()) if one.name == name), None)


Pair = tuple[str, str, Source, str]
"""Base and other model by `ColumnModel.key`, source, and name of the measure."""


@dataclass
class Scores:
    """All scores of a conversation.

    Attributes:
        models: the scored models by `ColumnModel.key`; they are kept when they are no columns any more.
        shown: the keys of the rows, in order.
        sources: what the models are scored on, in the order of the table.
        base: the key of the model that the others are compared with.
        chosen: the key of the model that the user has chosen for that; empty for none.
        differences: those that are known; None for one that was asked for.
    """

    models: dict[str, ScoredModel] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    base: str = ""
    chosen: str = ""
    differences: dict[Pair, Difference | None] = field(default_factory=dict)

    @property
    def ordered(self) -> list[ScoredModel]:
        """The models of the table, the base first."""
        keys = sorted((key for key in self.shown if key in self.models), key=lambda key: key != self.base)
        return [self.models[key] for key in keys]

    def rows(self) -> list[tuple[Source, str]]:
        """Source and name of every measure, texts first."""
        order = ("text", "probe", "bundled")
        found: dict[tuple[Source, str], None] = {}
        for source in sorted(self.sources, key=lambda one: order.index(one.kind)):
            for model in self.ordered:
                for measure in model.measures.get(source, ()):
                    if measure.kind not in _HIDDEN:
                        found[source, measure.name] = None
        return list(found)

    def choose_base(self) -> None:
        """Compare with the chosen model; without one with the second, so that the verdicts are about the first."""
        self.base = self.chosen if self.chosen in self.shown else self.shown[min(1, len(self.shown) - 1)]

    def next_base(self) -> str:
        """Compare with the next model; returns its name."""
        keys = [key for key in self.shown if key in self.models]
        if not keys:
            return ""
        here = keys.index(self.base) if self.base in keys else -1
        self.base = self.chosen = keys[(here + 1) % len(keys)]
        return self.models[self.base].model.name

    def missing(self, kinds: set[str]) -> dict[str, list[Source]]:
        """What is not scored yet of these kinds, by model; everything of them if nothing is missing."""
        sources = [source for source in self.sources if source.kind in kinds]
        lacks = {key: [source for source in sources if source not in self.models[key].measures] for key in self.shown}
        return {key: found for key, found in lacks.items() if found} or {key: sources for key in self.shown if sources}

    def pairs(self) -> list[Pair]:
        """Differences that nobody has asked for yet: of all models with the base, and of the first with all others."""
        shown = [key for key in self.shown if key in self.models]
        wanted = {(self.base, key): None for key in shown if key != self.base}
        wanted |= {(key, shown[0]): None for key in shown[1:]}
        return [
            pair
            for base, other in wanted
            if base in self.models
            for source, name in self.rows()
            if self.models[base].find(source, name) is not None
            and self.models[other].find(source, name) is not None
            and (pair := (base, other, source, name)) not in self.differences
        ]

    def summary(self, source: Source, name: str) -> dict[str, list[str]]:
        """Verdict -> the models that the first one has it against, once there are several and all are known."""
        others = [key for key in self.shown[1:] if key in self.models and self.models[key].find(source, name)]
        found: dict[str, list[str]] = {}
        for key in others:
            one = self.differences.get((key, self.shown[0], source, name))
            if one is None:
                return {}
            found.setdefault(one.verdict, []).append(self.models[key].model.name)
        return found if len(others) > 1 else {}

    def forget(self, key: str, source: Source) -> None:
        """Drop the differences of a source that is scored again."""
        for pair in [pair for pair in self.differences if pair[2] == source and key in pair[:2]]:
            del self.differences[pair]
