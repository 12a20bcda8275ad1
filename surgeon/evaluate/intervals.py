"""Paired differences of two models with a bootstrap interval, and the verdict.

The bootstrap resamples clusters: the wordings of an item, or the tokens of a block of text, are drawn together. The
interval is the percentile interval with Hesterberg's correction for few clusters (The American Statistician 69, 2015,
section 4.5): its level is that of Student's t with n - 1 degrees of freedom, and it is wider by sqrt(n / (n - 1)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RESAMPLES = 2000
LEVEL = 0.95
LEAST_DIFFERING = 6
"""Clusters that must differ for a verdict: with fewer, even equal signs are likely by chance (sign test, p > 0.05)."""
_POWER = 2.8
"""Difference in standard errors that is found in 80 % of repetitions: 1.96 + 0.84."""
_MOST_NEEDED = 100_000


@dataclass(frozen=True)
class Unit:
    """One scored item: `value` is a sum over `weight` things (1 for a probe, the number of tokens for a text).

    Attributes:
        name: identifies the item in every model's scores.
        cluster: items of one cluster are resampled together.
    """

    name: str
    value: float
    cluster: str
    weight: float = 1.0


@dataclass(frozen=True)
class Difference:
    """The difference of two models on the same items.

    Attributes:
        mean: difference of the weighted means, in the measure's unit.
        low, high: 95 % bootstrap interval of it.
        verdict: `better`, `worse`, `within noise`, `equal` (every item has the same value), `changed` (the measure has
            no better direction), or `not comparable` (other items).
        needed: items with which a difference of this size would probably be found; None if unknown or too many.
        clusters: number of clusters that were resampled.
    """

    mean: float
    low: float
    high: float
    verdict: str
    needed: int | None
    clusters: int

    def sentence(self) -> str:
        """The verdict in words."""
        if self.verdict != "within noise":
            return self.verdict
        return f"within noise (needs about {self.needed:,} items)" if self.needed else "within noise"


NOT_COMPARABLE = Difference(math.nan, math.nan, math.nan, "not comparable", None, 0)


def mean(units: Sequence[Unit]) -> float:
    """Weighted mean of the units' values; NaN without units."""
    weight = math.fsum(unit.weight for unit in units)
    return math.fsum(unit.value for unit in units) / weight if weight else math.nan


def paired_difference(base: Sequence[Unit], other: Sequence[Unit], better: str, seed: int = 0) -> Difference:
    """`other` - `base` on the same items.

    Args:
        better: `higher`, `lower`, or empty if the measure has no better direction.
        seed: seed of the bootstrap.
    """
    before = {unit.name: unit for unit in base}
    if len(before) != len(base) or len(base) != len(other) or not base:
        return NOT_COMPARABLE
    sums: dict[str, list[float]] = {}
    for unit in other:
        old = before.get(unit.name)
        if old is None or old.weight != unit.weight:
            return NOT_COMPARABLE
        total = sums.setdefault(unit.cluster, [0.0, 0.0])
        total[0] += unit.value - old.value
        total[1] += unit.weight
    differences = list(sums.values())
    if not all(math.isfinite(value) for value, _ in differences):
        return NOT_COMPARABLE
    middle = math.fsum(value for value, _ in differences) / math.fsum(weight for _, weight in differences)
    low, high = bootstrap(differences, seed)
    differing = sum(value != 0 for value, _ in differences)
    return Difference(
        middle,
        low,
        high,
        _verdict(middle, low, high, better, differing),
        _needed(differences, middle, len(base)),
        len(differences),
    )


def interval_of(units: Sequence[Unit], seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the weighted mean of units."""
    sums: dict[str, list[float]] = {}
    for unit in units:
        total = sums.setdefault(unit.cluster, [0.0, 0.0])
        total[0] += unit.value
        total[1] += unit.weight
    if not sums or not all(math.isfinite(value) for value, _ in sums.values()):
        return math.nan, math.nan
    return bootstrap(list(sums.values()), seed)


def _verdict(middle: float, low: float, high: float, better: str, differing: int) -> str:
    if not differing:
        return "equal"
    if low <= 0 <= high or differing < LEAST_DIFFERING:
        return "within noise"
    if not better:
        return "changed"
    return "better" if (middle > 0) == (better == "higher") else "worse"


def _needed(differences: Sequence[Sequence[float]], middle: float, items: int) -> int | None:
    """Items with which the difference would be found with a probability of 80 %, at the same spread of the clusters."""
    count = len(differences)
    if count < 2 or middle == 0:
        return None
    weight = math.fsum(one[1] for one in differences)
    rest = math.fsum((value - middle * own) ** 2 for value, own in differences)
    error = math.sqrt(rest * count / (count - 1)) / weight
    needed = math.ceil(items * (_POWER * error / middle) ** 2)
    return needed if items < needed <= _MOST_NEEDED else None


def bootstrap(clusters: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float]:
    """95 % interval of sum(value) / sum(weight) over clusters of (value, weight), by resampling whole clusters."""
    import torch

    count = len(clusters)
    if count < 2:
        return -math.inf, math.inf
    data = torch.tensor(clusters, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    means = []
    # In parts, so that memory stays small for texts of many blocks.
    part = max(1, 2_000_000 // count)
    for start in range(0, RESAMPLES, part):
        rows = min(part, RESAMPLES - start)
        drawn = data[torch.randint(count, (rows, count), generator=generator)].sum(dim=1)
        means.append(drawn[:, 0] / drawn[:, 1])
    drawn_means = torch.cat(means).sort().values
    tail = _tail(count)
    low, high = (float(torch.quantile(drawn_means, share)) for share in (tail, 1 - tail))
    return low, high


def _tail(count: int) -> float:
    """Share of the resamples below the interval: Phi(-sqrt(n / (n - 1)) t), t of 0.975 with n - 1 degrees."""
    wide = math.sqrt(count / (count - 1)) * student(count - 1)
    return 0.5 * math.erfc(wide / math.sqrt(2))


def student(degrees: int) -> float:
    """The 0.975 quantile of Student's t (Cornish-Fisher series; exact values below five degrees of freedom)."""
    exact = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764}
    if degrees in exact:
        return exact[degrees]
    z, n = 1.959963984540054, float(degrees)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / n + second / n**2 + third / n**3


def best_of(measured: Mapping[str, Sequence[Unit]], better: str) -> str | None:
    """Name of the best model by the mean; None without a direction or without models."""
    finite = {name: mean(units) for name, units in measured.items() if math.isfinite(mean(units))}
    if not finite or not better:
        return None
    return max(finite, key=lambda name: finite[name] if better == "higher" else -finite[name])
