"""The table of models against measures: each value, and against the base its verdict with the 95 % interval."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from rich.cells import cell_len

from ...evaluate.intervals import LEAST_DIFFERING, Difference
from ...evaluate.losses import BLOCK
from ...evaluate.measures import Measure
from ...evaluate.report import difference_text, measure_label, value_text
from ...text import duration, one_line
from .. import theme
from ..cells import cut, pad, shortened, wrapped
from ..widgets.line import Piece
from .model_scores import ScoredModel, Scores, Source

NAME = 22
"""Most cells of a measure's name."""
CELL = 19
"""Least cells of a model's column, the space before it included."""
_MOST = 30
_AGAINST = {
    "better": "better than",
    "worse": "worse than",
    "equal": "equal to",
    "within noise": "within noise of",
    "not comparable": "not comparable with",
}
TOO_FEW = "too few"
"""The verdict where an interval leaves out 0 but comes of a handful of items."""


class ScoreTable:
    """Draws scores.

    Args:
        scores: what is drawn.
    """

    def __init__(self, scores: Scores) -> None:
        self.scores = scores

    @property
    def measuring(self) -> bool:
        """Whether a model is not complete."""
        return any(model.state not in {"", "stopped"} and not model.failed for model in self.scores.ordered)

    def lines(self, width: int) -> list[list[Piece]]:
        """The table in lines of at most `width` cells; models that do not fit follow in further tables."""
        models = self.scores.ordered
        if not models:
            return []
        labels = [self._short(source, name) for source, name in self.scores.rows()] or ["speed"]
        name = min(NAME, max(10, *(cell_len(label) + 2 for label in labels)))
        each = max(1, (width - name) // CELL)
        lines: list[list[Piece]] = []
        others, step = models[1:], max(1, each - 1)
        # The base is in each of the tables, because the others are compared with it.
        groups = [others[start : start + step] for start in range(0, len(others), step)] or [[]]
        cell = min(_MOST, (width - name) // (1 + max(map(len, groups))))
        for group in groups:
            lines += [[], *self._block([models[0], *group], name, cell)]
        lines.append([])
        for text in self._notes():
            lines += [[(f" {part}", theme.DIM)] for part in wrapped(one_line(text), width - 2, indent="  ")]
        for model in models:
            if model.failed:
                text = f"{one_line(model.model.name)}: {one_line(model.state)}"
                lines += [[(f" {part}", theme.SEVERITY["error"])] for part in wrapped(text, width - 2, indent="  ")]
        return lines

    def _label(self, source: Source, name: str) -> str:
        return one_line(measure_label(name, self._any(source, name)))

    def _short(self, source: Source, name: str) -> str:
        return self._label(source, name).replace("log-probability", "log-prob")

    def _any(self, source: Source, name: str) -> Measure:
        found = (model.find(source, name) for model in self.scores.ordered)
        return next(measure for measure in found if measure is not None)

    def _block(self, models: list[ScoredModel], name: int, cell: int) -> Iterator[list[Piece]]:
        heads: list[Piece] = [(pad("", name), theme.TITLE)]
        states: list[Piece] = [(pad("", name), theme.DIM)]
        for number, model in enumerate(models):
            heads.append((_fit(shortened(one_line(model.model.name), cell - 1), cell), theme.TITLE))
            word = "failed" if model.failed else model.progress or model.state or ("base" if not number else "")
            states.append((_fit(shortened(one_line(word), cell - 1), cell), theme.DIM))
        yield heads
        yield states
        for source, measure in self.scores.rows():
            label = shortened(self._short(source, measure), name - 2)
            first: list[Piece] = [(pad(f" {label}", name), theme.PLAIN)]
            second: list[Piece] = [(pad("", name), theme.DIM)]
            for model in models:
                value, interval = self._cell(model, source, measure, cell)
                first += value
                second.append(interval)
            yield first
            if any(text.strip() for text, _ in second):
                yield second
        if any(model.speed for model in models):
            speeds = (_fit(f"{model.speed:.1f} tok/s" if model.speed else "-", cell) for model in models)
            yield [(pad(" speed", name), theme.PLAIN), ("".join(speeds), theme.PLAIN)]

    def _cell(self, model: ScoredModel, source: Source, name: str, cell: int) -> tuple[list[Piece], Piece]:
        """A value with its verdict, and the interval under it."""
        empty = (_fit("", cell), theme.DIM)
        measure = model.find(source, name)
        if measure is None:
            waits = model.state not in {"", "stopped"} and not model.failed
            return [(_fit("..." if waits else "-", cell), theme.DIM)], empty
        value = f"{value_text(measure)} "
        if not math.isfinite(measure.value):
            return [(_fit("not finite", cell), theme.SEVERITY["error"])], empty
        one = self.scores.differences.get((self.scores.base, model.model.key, source, name))
        if one is None:
            return [(_fit(value, cell), theme.PLAIN)], empty
        style = theme.BOLD if one.verdict in {"better", "worse"} else theme.DIM
        verdict = cut(TOO_FEW if _too_few(one) else one.verdict, max(5, cell - 1 - cell_len(value)))
        room = cell - cell_len(value)
        return [(value, theme.PLAIN), (_fit(verdict, room), style)], (_fit(_interval(one), cell), theme.DIM)

    def _notes(self) -> Iterator[str]:
        scores, models = self.scores, self.scores.ordered
        base = models[0].model.name
        if len(models) > 1 and scores.rows():
            yield (
                f"better, worse, within noise: against {base}, on the same items, with the 95 % interval of the "
                "difference (perplexity: of the loss in nats per token; lower is better). v changes the base."
            )
        for source, name in scores.rows():
            words = [
                f"{_AGAINST.get(word, word)} {', '.join(who)}" for word, who in scores.summary(source, name).items()
            ]
            if words:
                yield f"{self._label(source, name)}: {scores.models[scores.shown[0]].model.name} is {'; '.join(words)}"
        if any(one is not None and _too_few(one) for one in scores.differences.values()):
            yield f"{TOO_FEW}: fewer than {LEAST_DIFFERING} items, or blocks of {BLOCK} tokens, differ; no verdict."
        if any(source.kind == "bundled" for source in scores.sources):
            yield "Of bundled sets the working half is scored; `surgeon evaluate` has the other half for the verdict."
        for text, tokens in self._tokens():
            yield f"{text}: {tokens}"
        for pair, one in scores.differences.items():
            model = scores.models.get(pair[1])
            if one is None or one.verdict != "within noise" or not one.needed or pair[0] != scores.base:
                continue
            if model is not None and model in models and model.find(pair[2], pair[3]) is not None:
                yield f"{model.model.name}, {self._label(pair[2], pair[3])}: {one.sentence()}"
        for model in models:
            for text in model.notes:
                yield f"{model.model.name}: {text}"
        if self.measuring:
            took = time.monotonic() - min(model.since for model in models)
            yield f"{duration(took)} so far; c stops, tab shows the answers."
        else:
            yield "tab shows the answers, x and s score again, y copies the table."

    def _tokens(self) -> Iterator[tuple[str, str]]:
        for source in self.scores.sources:
            counts = {model.tokens[source] for model in self.scores.ordered if source in model.tokens}
            if len(counts) == 1:
                yield Path(source.name).stem, f"{counts.pop():,} tokens"
            elif counts:
                yield Path(source.name).stem, "these models split it into other tokens, so they cannot be compared"

    @property
    def transcript(self) -> str:
        """The table as tab-separated text, for a spreadsheet."""
        models = self.scores.ordered
        lines = ["\t".join(["measure", *(one_line(model.model.name) + "\tagainst the base" for model in models)])]
        for source, name in self.scores.rows():
            cells = [self._label(source, name)]
            for model in models:
                measure = model.find(source, name)
                one = self.scores.differences.get((self.scores.base, model.model.key, source, name))
                cells += [value_text(measure), difference_text(one, measure)]
            lines.append("\t".join(cells))
        lines.append("\t".join(["speed, tokens/s", *(f"{model.speed or '-'}\t" for model in models)]))
        return "\n".join(lines) + "\n"


def _too_few(one: Difference) -> bool:
    """Whether the interval leaves out 0, and only the number of items forbids a verdict."""
    return one.verdict == "within noise" and not one.low <= 0 <= one.high


def _interval(one: Difference) -> str:
    if one.verdict in {"equal", "not comparable"} or not math.isfinite(one.low):
        return ""
    return f"[{_signed(one.low)},{_signed(one.high)}]"


def _signed(value: float) -> str:
    return f"{value:+.3f}" if abs(value) < 100 else f"{value:+.2g}"


def _fit(text: str, width: int) -> str:
    """A text at the left of a column; the last cell stays empty."""
    return pad(cut(text, width - 1) if cell_len(text) >= width else text, width)
