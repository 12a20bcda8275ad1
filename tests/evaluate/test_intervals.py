"""Paired differences: verdicts, and what share of the intervals holds the true difference."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest

from surgeon.evaluate import intervals
from surgeon.evaluate.intervals import Unit, bootstrap, mean, paired_difference, student
from tests.support.models import one_thread

Draw = Callable[[random.Random, int], list[tuple[float, float]]]


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def units(values: list[float], cluster: int = 1) -> list[Unit]:
    return [Unit(str(number), value, str(number // cluster)) for number, value in enumerate(values)]


def test_the_difference_is_that_of_the_means() -> None:
    dice = random.Random(1)
    base, other = ([dice.gauss(0, 1) for _ in range(50)] for _ in range(2))
    found = paired_difference(units(base), units(other), "higher")
    assert found.mean == pytest.approx(mean(units(other)) - mean(units(base)), abs=1e-12)
    assert found.low < found.mean < found.high and found.clusters == 50


def test_the_interval_of_many_items_is_that_of_the_normal_distribution() -> None:
    dice = random.Random(2)
    values = [dice.gauss(0.2, 1) for _ in range(2000)]
    found = paired_difference(units([0.0] * 2000), units(values), "higher")
    error = math.sqrt(sum((value - found.mean) ** 2 for value in values) / 1999 / 2000)
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.006)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.006)


@pytest.mark.parametrize(
    ("shift", "better", "verdict"),
    [
        (1.0, "higher", "better"), (-1.0, "higher", "worse"), (1.0, "lower", "worse"), (-1.0, "lower", "better"),
        (1.0, "", "changed"), (0.0, "higher", "within noise"),
    ],
)  # fmt: skip
def test_verdicts(shift: float, better: str, verdict: str) -> None:
    dice = random.Random(3)
    noise = [dice.gauss(0, 0.5) for _ in range(40)]
    middle = sum(noise) / 40
    found = paired_difference(units([0.0] * 40), units([value - middle + shift + 0.01 for value in noise]), better)
    assert found.verdict == verdict


def test_noise_says_how_many_items_it_would_take() -> None:
    values = [1.0, -1.0] * 50 + [1.0] * 4
    found = paired_difference(units([0.0] * 104), units(values), "higher")
    # 2.8 standard errors: n = (2.8 * 1 / 0.0385)^2.
    assert found.verdict == "within noise" and found.needed == pytest.approx(5290, rel=0.02)
    assert f"needs about {found.needed:,} items" in found.sentence()


def test_equal_items_and_items_that_do_not_match() -> None:
    assert paired_difference(units([1.0, 2.0]), units([1.0, 2.0]), "higher").verdict == "equal"
    for other in (units([1.0]), units([1.0, 2.0, 3.0]), [Unit("x", 1.0, "x"), Unit("y", 1.0, "y")], []):
        assert paired_difference(units([1.0, 2.0]), other, "higher").verdict == "not comparable"
    assert paired_difference(units([1.0, 2.0]), units([1.0, math.nan]), "higher").verdict == "not comparable"
    heavier = [Unit("0", 1.0, "0", 2.0), Unit("1", 1.0, "1")]
    assert paired_difference(units([1.0, 2.0]), heavier, "higher").verdict == "not comparable"


def test_five_items_that_differ_are_no_verdict() -> None:
    for count, verdict in ((5, "within noise"), (9, "better")):
        other = [1.0] * count + [0.0] * (64 - count)
        assert paired_difference(units([0.0] * 64), units(other), "higher").verdict == verdict


def test_wordings_of_an_item_are_resampled_together() -> None:
    dice = random.Random(4)
    values = [value for value in (dice.gauss(0, 1) for _ in range(60)) for _ in range(2)]
    apart = paired_difference(units([0.0] * 120), units(values), "higher")
    together = paired_difference(units([0.0] * 120, 2), units(values, 2), "higher")
    ratio = (together.high - together.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(math.sqrt(2), rel=0.1) and together.clusters == 60


def test_the_seed_alone_decides() -> None:
    clusters = [(random.Random(number).gauss(0, 1), 1.0) for number in range(30)]
    assert bootstrap(clusters, 1) == bootstrap(clusters, 1) != bootstrap(clusters, 2)


def test_one_cluster_has_no_interval() -> None:
    assert bootstrap([(1.0, 1.0)]) == (-math.inf, math.inf)
    assert paired_difference(units([0.0]), units([1.0]), "higher").verdict == "within noise"


@pytest.mark.parametrize(("degrees", "value"), [(5, 2.571), (7, 2.365), (15, 2.131), (31, 2.040), (127, 1.979)])
def test_quantiles_of_students_t(degrees: int, value: float) -> None:
    assert student(degrees) == pytest.approx(value, abs=0.005)


def _normal(dice: random.Random, count: int) -> list[tuple[float, float]]:
    return [(dice.gauss(0.3, 1), 1.0) for _ in range(count)]


def _skewed(dice: random.Random, count: int) -> list[tuple[float, float]]:
    """Differences of losses, of which a few are large: chi square with four degrees of freedom."""
    return [(dice.gammavariate(2, 0.15), 1.0) for _ in range(count)]


def _verdicts(dice: random.Random, count: int) -> list[tuple[float, float]]:
    """Exact match: 20 % of the items get right and 8 % get wrong, two wordings each."""
    rows = []
    for _ in range(count):
        shared = dice.random() < 0.6
        draws = [dice.random()] * 2 if shared else [dice.random(), dice.random()]
        rows.append((sum(1.0 if draw < 0.2 else -1.0 if draw < 0.28 else 0.0 for draw in draws), 2.0))
    return rows


def _blocks(dice: random.Random, count: int) -> list[tuple[float, float]]:
    """Blocks of text of different lengths, whose tokens have an effect in common."""
    rows = []
    for _ in range(count):
        weight = dice.randrange(16, 65)
        common = dice.gauss(0.3, 0.4)
        rows.append((sum(dice.gauss(common, 1) for _ in range(weight)), float(weight)))
    return rows


def covered(draw: Draw, true: float, count: int, times: int) -> float:
    dice = random.Random(5)
    intervals_ = (bootstrap(draw(dice, count), seed) for seed in range(times))
    return sum(low <= true <= high for low, high in intervals_) / times


CASES = [(_normal, 0.3), (_skewed, 0.3), (_verdicts, 0.12), (_blocks, 0.3)]


@pytest.mark.slow
@pytest.mark.parametrize("count", [64, 128])
@pytest.mark.parametrize(("draw", "true"), CASES)
def test_95_percent_are_93_to_97(draw: Draw, true: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)
    assert 0.93 <= covered(draw, true, count, 3000) <= 0.97


@pytest.mark.parametrize(("draw", "true"), [CASES[0], CASES[2]])
def test_about_95_percent_of_the_intervals_hold_the_truth(
    draw: Draw, true: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    assert 0.90 <= covered(draw, true, 64, 300) <= 0.99
