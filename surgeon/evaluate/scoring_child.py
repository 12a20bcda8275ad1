"""The resident child of `probe` with two more requests: scores of a model item by item, and differences of two models.

    {"id": 1, "target": "recipe.yml", "kind": "recipe", "score": {"texts": [FILE], "probes": [FILE], "bundled": [NAME]}}
    {"id": 2, "compare": [{"better": "lower", "base": UNITS, "other": UNITS}]}

`score` sends `measure` events with every item (see `measure_data`), a `speed` event, `probe` and `reading` events while
it works, and a `note` for what is left out. Files are scored whole; of a bundled set the working half, because the
held-out half is for the verdict of `surgeon evaluate`. `compare` sends one `differences` event. Run with `python -m
surgeon.evaluate.scoring_child`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..probe import requests
from ..probe.environment import fitting_threads
from ..probe.generate import Generation, pieces
from ..probe.probe_set import ProbeSet, read_probes
from ..probe.requests import Event, Text, text_in
from ..probe.resident_child import Child, Request, files_of, serve
from ..probe.score import score
from ..probe.subject import Subject
from ..probe.text_measures import default_window
from .bundled import bundled
from .evaluation import without_chats
from .intervals import paired_difference
from .losses import score_text
from .measure_data import difference_to_data, measure_to_data, units_from_data
from .measures import set_measures, text_measures, warnings_of
from .split import split_sets

SPEED_TOKENS = 24
"""Tokens that are generated to measure the speed."""
_PROGRESS = 16
"""Probes between two events about the progress."""


class ScoringChild(Child):
    """Answers `score` and `compare` too."""

    def events(self, request: Request) -> Iterator[Event]:
        """The events that answer a request."""
        if "compare" in request:
            yield {"event": "differences", "differences": [_difference(one) for one in _list(request["compare"])]}
            yield {"event": "done"}
        elif "score" in request:
            yield from self._scored(request)
        else:
            yield from super().events(request)

    def _scored(self, request: Request) -> Iterator[Event]:
        wanted = request["score"]
        if not isinstance(wanted, dict):
            raise InputError("score is not an object")
        names = wanted.get("bundled") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError("bundled is not a list of names")
        sets = [(f"probe:{path}", read_probes(path)) for path in files_of(wanted, "probes")]
        sets += [(f"bundled:{one.name}", split_sets([one], "working")[0]) for one in bundled(names)]
        texts = [(f"text:{path}", path, text_in(path)) for path in files_of(wanted, "texts")]
        yield {"event": "loading"}
        subject = self.subject(request)
        yield requests.loaded(subject)
        if subject.tokenizer is None:
            raise InputError(f"it cannot be scored, because {subject.why_no_tokenizer}")
        with fitting_threads(subject.parameters, subject.device):
            for source, path, text in texts:
                yield from self._text(request["id"], subject, source, path, text)
            for source, probes in sets:
                yield from self._set(subject, source, probes)
            yield self._speed(subject)
        yield {"event": "done"}

    def _text(self, number: Any, subject: Subject, source: str, path: Path, text: Text) -> Iterator[Event]:
        windows = 0

        def check() -> None:
            nonlocal windows
            self.check()
            if windows > 1:
                self.emit(
                    number, {"event": "reading", "name": path.stem, "tokens": windows * default_window(subject) // 2}
                )
            windows += 1

        scores = score_text(subject, [text.text], path.stem, check=check)
        for measure in text_measures(path.stem, scores):
            yield {"event": "measure", "source": source, "tokens": scores.tokens, **measure_to_data(measure)}

    def _set(self, subject: Subject, source: str, probes: ProbeSet) -> Iterator[Event]:
        fitting = without_chats(subject, probes)
        if len(fitting.probes) < len(probes.probes):
            what = "chats of " if fitting.probes else ""
            yield {"event": "note", "text": f"{what}{probes.name} are left out: the tokenizer has no chat template"}
        if not fitting.probes:
            yield {"event": "left out", "source": source}
            return
        outcomes, right, total = [], 0, len(fitting.probes)
        for index, outcome in enumerate(score(subject, fitting, self.check), start=1):
            outcomes.append(outcome)
            right += outcome.right
            if index % _PROGRESS == 0 or index == total:
                yield {"event": "probe", "name": probes.name, "index": index, "total": total, "right": right}
        found = {measure.name: measure for measure in set_measures(probes.name, outcomes)}
        for measure in found.values():
            yield {"event": "measure", "source": source, **measure_to_data(measure)}
        for text in warnings_of({probes.name: fitting}, found, "this model"):
            yield {"event": "note", "text": text}

    def _speed(self, subject: Subject) -> Event:
        """Tokens per second of a short greedy continuation, after the first token."""
        made = Generation()
        for _ in pieces(subject, subject.encode("The"), SPEED_TOKENS, made):
            self.check()
        return {"event": "speed", "tokens_per_second": round(made.tokens_per_second, 2)}


def _difference(one: Any) -> dict[str, Any]:
    if not isinstance(one, Mapping) or one.get("better") not in ("higher", "lower", ""):
        raise InputError("compare is not a list of {better, base, other}")
    base, other = units_from_data(one.get("base")), units_from_data(one.get("other"))
    return difference_to_data(paired_difference(base, other, str(one["better"])))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError("compare is not a list of {better, base, other}")
    return value


if __name__ == "__main__":
    serve(ScoringChild)
