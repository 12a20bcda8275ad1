"""Exact selection by magnitude, against a stable sort: any chunks, any sample, any number of equal keys."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.methods import histogram_search as searches
from surgeon.methods import kth_largest, reductions
from surgeon.methods.histogram_search import TOP, Search, Share
from surgeon.methods.kth_largest import Cut

KINDS = ("many values", "few values", "one value", "zeros", "mostly zeros", "rising", "low bits", "subnormal")


class Sequences:
    """Keys in memory."""

    def __init__(self, values: Sequence[torch.Tensor], chunk: int) -> None:
        self.keys = [kth_largest.keys(value) for value in values]
        self.numel, self.step, self.chunk, self.passes = len(values[0]), 1, chunk, 0

    def chunks(self, which: Sequence[int]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        self.passes += 1
        for start in range(0, self.numel, self.chunk):
            yield start, self.read(start, min(self.chunk, self.numel - start), which)

    def read(self, start: int, count: int, which: Sequence[int]) -> list[torch.Tensor]:
        return [self.keys[index][start : start + count].clone() for index in which]


def values(kind: str, count: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    random = np.random.default_rng(seed)
    found = {
        "many values": random.normal(size=count),
        "few values": random.integers(-3, 4, size=count) / 8,
        "one value": np.full(count, 0.3),
        "zeros": np.zeros(count),
        "mostly zeros": random.normal(size=count) * (random.random(count) < 0.1),
        "rising": np.arange(count) / 7,
        # One upper half of a float32 pattern, so that the first histogram tells nothing.
        "low bits": (1 + random.integers(0, 50, size=count) * 2.0**-23) * random.choice([-1, 1], size=count),
        "subnormal": random.integers(-9, 9, size=count) * 2.0**-149,
    }[kind]
    return torch.from_numpy(found).to(dtype)


def largest(found: torch.Tensor, k: int) -> np.ndarray:
    """Which elements are the k largest, by a stable sort."""
    mask = np.zeros(len(found), bool)
    mask[np.argsort(-found.abs().float().numpy(), kind="stable")[: max(k, 0)]] = True
    return mask


def inside(cut: Cut, found: torch.Tensor) -> np.ndarray:
    """Which elements a cut keeps, by its definition."""
    keys = kth_largest.keys(found).numpy()
    return (keys > cut.key) | ((keys == cut.key) & (np.arange(len(keys)) < cut.end))


def small_limits(patch: pytest.MonkeyPatch) -> None:
    """Samples, buffers and histograms so small that small tensors have many."""
    for module, name, value in (
        (kth_largest, "SAMPLES", 4),
        (kth_largest, "SAMPLE", 3),
        (kth_largest, "KEPT", 6),
        (searches, "BINS", 16),
    ):
        patch.setattr(module, name, value)


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    st.integers(0, 300),
    st.integers(0, 10**6),
    st.lists(st.integers(-2, 310), max_size=3),
    st.integers(1, 400),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_cuts_are_those_of_a_stable_sort(
    kinds: list[str], count: int, seed: int, ks: list[int], chunk: int, dtype: torch.dtype
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small_limits(patch)
        found = [values(kind, count, seed + index, dtype) for index, kind in enumerate(kinds)]
        cuts = kth_largest.cuts(Sequences(found, chunk), [ks] * len(found))
    for group, sequence in zip(cuts, found, strict=True):
        for cut, k in zip(group, ks, strict=True):
            np.testing.assert_array_equal(inside(cut, sequence), largest(sequence, k))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_kept_is_what_the_cut_says(kind: str, dtype: torch.dtype) -> None:
    sequence = values(kind, 200, 5, dtype)
    if dtype == torch.float64:
        sequence = sequence + 2.0**-40  # between float32 numbers
    for k in (0, 1, 57, 199, 200):
        (cut,) = kth_largest.cuts(Sequences([sequence], 64), [[k]])[0]
        pieces = [kth_largest.keep(sequence[start : start + 30].clone(), start, cut) for start in range(0, 200, 30)]
        expected = torch.where(torch.from_numpy(largest(sequence, k)), sequence, torch.zeros_like(sequence))
        assert torch.equal(torch.cat(pieces), expected)


@pytest.mark.parametrize("key", [1, 2, 3, 0x00800000, 0x3F800000, 0x3F800001, 0x7F7FFFFF, 0x7F800000])
def test_the_edge_of_a_key_is_the_largest_number_below_it(key: int) -> None:
    for dtype in (torch.float32, torch.float64):
        edge = torch.tensor([kth_largest.edge(key, dtype)], dtype=dtype)
        above = torch.nextafter(edge, torch.tensor([math.inf], dtype=dtype))
        assert kth_largest.keys(edge).item() < key <= kth_largest.keys(above).item()


def test_shares_are_of_what_is_not_zero() -> None:
    sequence = values("mostly zeros", 1000, 3)
    nonzero = int((sequence != 0).sum())
    (cuts,) = kth_largest.cuts(Sequences([sequence], 100), [[Share(0.5), Share(0.0), Share(1.0)]])
    assert [int(inside(cut, sequence).sum()) for cut in cuts] == [nonzero // 2, 0, nonzero]


def test_a_sample_saves_passes() -> None:
    sequence = values("many values", 1 << 22, 1)
    source = Sequences([sequence], 1 << 16)
    (cuts,) = kth_largest.cuts(source, [[1 << 21, 1 << 18]])
    assert [int(inside(cut, sequence).sum()) for cut in cuts] == [1 << 21, 1 << 18]
    assert source.passes == 1


def test_a_sample_that_misleads_costs_passes_alone() -> None:
    sequence = values("many values", 1 << 22, 1)
    source = Sequences([sequence], 1 << 16)
    begun = [[Search(1 << 21, 0x40000000, 0x40000100), Search(1 << 18, 5, 10)]]
    (cuts,) = kth_largest.located(source, kth_largest.finish(source, begun))
    assert [int(inside(cut, sequence).sum()) for cut in cuts] == [1 << 21, 1 << 18]
    assert source.passes > 1


def test_memory_does_not_grow_with_the_tensor() -> None:
    sequence = values("many values", 1 << 20, 2)
    search = Search(1 << 19, 0, 0x7F000000, capacity=1 << 12)
    for start in range(0, 1 << 20, 1 << 14):
        search.add(kth_largest.keys(sequence[start : start + (1 << 14)]), start)
        assert search._waiting <= 1 << 12
        assert search._bins is None or search._bins.nbytes <= 8 * searches.BINS
    assert not search.narrow()


@settings(max_examples=50, deadline=None, database=None, derandomize=True)
@given(st.sampled_from(KINDS), st.integers(1, 200), st.integers(0, 1000), st.integers(1, 200))
def test_searches_of_parts_add_up(kind: str, count: int, seed: int, k: int) -> None:
    sequence, k = values(kind, count, seed), min(k, count)
    keys = kth_largest.keys(sequence)
    search = Search(k)
    with pytest.MonkeyPatch.context() as patch:
        small_limits(patch)
        while search.key < 0:
            other = Search(k, search.low, search.high)
            search.add(keys[: count // 3])
            other.add(keys[count // 3 :])
            search.absorb(other)
            search.narrow()
    assert search.key == int(keys.sort(descending=True).values[k - 1])
    assert search.equal == int((keys == search.key).sum())
    assert search.need == k - int((keys > search.key).sum())


@pytest.mark.parametrize("at_once", [False, True])
def test_an_interval_up_to_the_top_is_searched_in_one_pass(at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if at_once:
        monkeypatch.setattr(reductions, "PIECEWISE", frozenset())
    search = Search(3, 100, TOP)
    search.add(torch.tensor([5, 700, 99, 300, 100, 300, TOP - 1], dtype=torch.int32))
    assert search.narrow()
    assert (search.key, search.need, search.equal) == (300, 1, 2)
