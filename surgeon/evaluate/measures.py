"""Measures: the scored items of one model by name, with the direction that is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..probe.probe_set import ProbeSet
from ..probe.score_batches import Outcome
from ..text import one_line
from .intervals import Unit, mean
from .losses import TextScores
from .split import group_of

LEAST_COVERAGE = 0.1
"""Probability of all choices below which a model does not answer with one of them."""


@dataclass(frozen=True)
class Measure:
    """A measure of one model.

    Attributes:
        name: the set and what is measured.
        better: `higher`, `lower`, or empty.
        units: the scored items.
        kind: `accuracy`, `log-odds`, `coverage`, `log-probability`, `loss`, `divergence` or `task`.
    """

    name: str
    better: str
    units: tuple[Unit, ...]
    kind: str

    @property
    def value(self) -> float:
        """Weighted mean of the items; nats per token for losses."""
        return mean(self.units)

    @property
    def perplexity(self) -> float | None:
        """exp of a loss; None for other measures."""
        if self.kind != "loss":
            return None
        return math.exp(self.value) if self.value < 709 else math.inf


def set_measures(name: str, outcomes: Sequence[Outcome]) -> list[Measure]:
    """Accuracy, and where the items have them log-odds, coverage and log-probability."""
    found = [("accuracy", "higher", [float(one.right) for one in outcomes])]
    odds = [one.log_odds for one in outcomes if one.log_odds is not None]
    coverage = [one.coverage for one in outcomes if one.coverage is not None]
    chances = [one.log_probability for one in outcomes if one.log_probability is not None]
    if len(odds) == len(coverage) == len(outcomes):
        found += [("log-odds", "higher", odds), ("coverage", "", coverage)]
    if len(chances) == len(outcomes):
        found.append(("log-probability", "higher", chances))
    return [
        Measure(
            f"{name} {kind}",
            better,
            tuple(
                Unit(f"line {one.probe.line}", value, group_of(one.probe))
                for one, value in zip(outcomes, values, strict=True)
            ),
            kind,
        )
        for kind, better, values in found
    ]


def text_measures(name: str, scores: TextScores) -> list[Measure]:
    """Loss in nats per token, and the divergence from the base model if there is one."""
    found = [Measure(f"{name} loss", "lower", tuple(scores.losses), "loss")]
    if scores.divergence:
        found.append(Measure(f"{name} KL(base || model)", "", tuple(scores.divergence), "divergence"))
    return found


def warnings_of(sets: Mapping[str, ProbeSet], measures: Mapping[str, Measure], who: str) -> list[str]:
    """Sentences about sets that say little about a model: low coverage, or no better than chance."""
    notes = []
    for name, probes in sets.items():
        coverage, accuracy = measures.get(f"{name} coverage"), measures.get(f"{name} accuracy")
        if coverage is None or accuracy is None:
            continue
        if coverage.value < LEAST_COVERAGE:
            notes.append(
                f"{one_line(name)}: the choices have only {coverage.value:.1%} of the probability in {one_line(who)}, "
                "so it would answer with something else"
            )
        chance = math.fsum(1 / len(probe.choices) for probe in probes.probes) / len(probes.probes)
        error = math.sqrt(chance * (1 - chance) / len(probes.probes))
        if accuracy.value < chance + 2 * error:
            notes.append(
                f"{one_line(name)}: the accuracy of {one_line(who)}, {accuracy.value:.3f}, is not above chance "
                f"({chance:.3f}), so this set cannot show a loss"
            )
    return notes
