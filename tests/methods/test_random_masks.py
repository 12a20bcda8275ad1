"""Random masks: their rates, that they take nothing away on average, and that they depend on seed and index alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from surgeon.methods import every, random_masks
from surgeon.methods.random_masks import Bits, Lanes, Random, Ranked, limits
from surgeon.methods.rank_masks import LANES, Draws, ranked_limits
from tests.support.memory_inputs import MemoryInputs, blended

COUNT = 1 << 18


def mask_of(mask: Random | Ranked, delta: torch.Tensor, seed: int = 11) -> torch.Tensor:
    """What a mask leaves of a task vector of donor 0."""
    inputs = MemoryInputs([torch.zeros_like(delta), delta], 0, seeds=[0, seed])
    mask.prepare(inputs, [0])
    left = delta.clone().view(-1)
    mask.apply(0, 0, left)
    return left.view(delta.shape)


def test_lanes_can_be_read_anywhere() -> None:
    whole = Lanes(5).read(0, 1000)
    lanes = Lanes(5)
    for start, count in ((0, 10), (10, 7), (17, 4), (21, 100), (400, 8), (3, 1), (999, 1), (0, 1000)):
        np.testing.assert_array_equal(lanes.read(start, count), whole[start : start + count])


def test_the_stream_is_numpys_raw_stream() -> None:
    raw = np.random.PCG64(5).random_raw(3)
    assert Lanes(5).read(0, 12).tolist() == [int(word) >> shift & 0xFFFF for word in raw for shift in (0, 16, 32, 48)]


@pytest.mark.parametrize("density", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_as_many_stay_as_the_density_says(density: float) -> None:
    stays = float((mask_of(Random([density]), torch.ones(COUNT)) != 0).double().mean())
    assert abs(stays - density) < 5 * (density * (1 - density) / COUNT) ** 0.5 + 1 / LANES


def test_a_probability_is_rounded_but_not_to_none_or_all() -> None:
    assert [limits(density) for density in (-1, 0, 1e-9, 0.5, 1 - 1e-9, 1, 2)] == [0, 0, 1, 32768, 65535, 65536, 65536]


def test_dividing_by_the_probability_takes_nothing_away_on_average() -> None:
    delta = torch.linspace(-1, 3, 64).double()
    for mask in (Random([0.3], divide=True), Ranked([0.3], [0.2], divide=True)):
        found = torch.stack([mask_of(mask, delta, seed) for seed in range(4000)])
        error = found.std(0) / 4000**0.5
        assert ((found.mean(0) - delta).abs() <= 5 * error + 1e-9).all()


def test_a_divided_element_is_its_value_over_the_rounded_probability() -> None:
    left = mask_of(Random([0.3], divide=True), torch.ones(1000).double())
    assert set(left.tolist()) == {0.0, LANES / round(0.3 * LANES)}


def test_donors_and_neighbours_are_independent() -> None:
    one, other = ((mask_of(Random([0.5]), torch.ones(COUNT), seed) - 0.5).double() for seed in (1, 2))
    for shift in range(9):
        for second in (other, one) if shift else (other,):
            correlation = float((one[shift:] * second[: COUNT - shift]).mean()) / 0.25
            assert abs(correlation) < 5 / COUNT**0.5


def test_larger_elements_of_a_row_stay_more_often() -> None:
    row = torch.tensor([0.1, -5.0, 0.3, 2.0, -0.2])  # ranks 0, 4, 2, 3, 1
    rows = row.repeat(COUNT // 8, 1)
    rate = (mask_of(Ranked([0.5], [0.4]), rows) != 0).double().mean(0)
    expected = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.3], dtype=torch.float64)
    assert (rate - expected).abs().max() < 5 * 0.5 / (COUNT // 8) ** 0.5


def test_equal_magnitudes_have_the_mean_probability_of_their_ranks() -> None:
    rows = torch.tensor([1.0, -2.0, 2.0, 2.0, -5.0]).repeat(COUNT // 8, 1)
    rate = (mask_of(Ranked([0.5], [0.4]), rows) != 0).double().mean(0)
    assert (rate - torch.tensor([0.1, 0.5, 0.5, 0.5, 0.9])).abs().max() < 5 * 0.5 / (COUNT // 8) ** 0.5


def test_as_many_of_all_equal_elements_stay_as_the_density_says() -> None:
    rate = (mask_of(Ranked([0.3], [0.2]), torch.ones(COUNT // 64, 64)) != 0).double().mean(0)
    assert (rate - 0.3).abs().max() < 5 * 0.5 / (COUNT // 64) ** 0.5


def test_a_row_of_one_has_the_density() -> None:
    assert ranked_limits(0.25, 0.2, 1).tolist() == [LANES // 4]
    assert ranked_limits(0.25, 0.2, 0).tolist() == []


@pytest.mark.parametrize("method", ["dare_linear", "della_linear"])
@pytest.mark.parametrize("rescale", ["l1", "none", "paper"])
def test_rescaling_means_what_it_says(method: str, rescale: str) -> None:
    random = np.random.default_rng(4)
    base, donor = (torch.from_numpy(random.normal(size=(64, 128))) for _ in range(2))
    each = [{"weight": 1.0, "density": 0.4}]
    left = blended(method, [base, donor], 0, {"rescale": rescale}, each) - base
    plain = blended(method, [base, donor], 0, {"rescale": "none"}, each) - base
    delta, stays = donor - base, plain.abs() > 1e-9
    assert 0.3 < stays.double().mean() < 0.5
    if rescale == "l1":
        torch.testing.assert_close(left.abs().sum(), delta.abs().sum())
        ratio = left[stays] / delta[stays]
        torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0])), rtol=1e-9, atol=0)
    elif rescale == "none":
        torch.testing.assert_close(left[stays], delta[stays], rtol=1e-9, atol=1e-12)
    elif method == "dare_linear":
        torch.testing.assert_close(left[stays], delta[stays] * (LANES / round(0.4 * LANES)), rtol=1e-9, atol=1e-12)
    else:
        assert ((left / delta)[stays] >= 1 / 0.55 - 1e-3).all() and ((left / delta)[stays] <= 1 / 0.25 + 1e-3).all()


def test_seeds_change_masks() -> None:
    one, other = (mask_of(Random([0.5]), torch.ones(1000), seed) for seed in (1, 2))
    assert not torch.equal(one, other)
    assert torch.equal(one, mask_of(Random([0.5]), torch.ones(1000), 1))


@pytest.mark.parametrize("sizes", [[100], [16, 16, 68], [3, 1, 7, 20, 69], [50, 50]])
@pytest.mark.parametrize("limit", [100, 37, 8, 0])
def test_bits_are_what_was_put(sizes: list[int], limit: int) -> None:
    stays, bits, start = np.random.default_rng(3).integers(0, 2, size=100, dtype=np.uint8), Bits(limit), 0
    for size in sizes:
        bits.put(start, stays[start : start + size])
        start += size
    bits.put(0, 1 - stays)  # what is known stays
    parts = ((0, limit), (0, limit // 2), (limit // 3, limit - limit // 3), (limit // 2, 0)) if limit else ()
    for first, count in parts:
        np.testing.assert_array_equal(bits.get(first, count), stays[first : first + count])
    assert bits.get(0, limit + 1) is None


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della", "della_linear"])
def test_it_does_not_matter_how_much_is_drawn_twice(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    tensors = [torch.from_numpy(random.normal(size=(64, 37))).float() for _ in range(3)]
    each = [{"weight": 0.7, "density": 0.4}, {"weight": 0.4, "density": 0.6}]
    found = []
    for stored in (1 << 28, 2000, 0):
        monkeypatch.setattr(random_masks, "STORED", stored)
        found += [blended(method, tensors, 0, {}, each, chunk_size=size) for size in (37, 370, 1 << 16)]
    assert all(torch.equal(one, found[0]) for one in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["many values", "few values", "zeros", "tiny", "infinite", "no numbers"])
def test_what_is_looked_at_alone_and_all_at_once_are_the_same(kind: str, dtype: torch.dtype) -> None:
    random = np.random.default_rng(6)
    for shape in ((40, 300), (3, 5000), (7, 1), (2, 0), (0, 3)):
        values = random.normal(size=shape)
        if kind in ("few values", "zeros", "tiny"):
            step = {"few values": 0.25, "zeros": 0.0, "tiny": 2.0**-149}[kind]
            values = random.integers(-9, 9, size=shape) * step  # type: ignore[assignment]
        elif values.size > 1:
            values[0, ::3] = {"infinite": np.inf, "no numbers": np.nan}.get(kind, 0.0)
        rows = torch.from_numpy(values).to(dtype)
        before, lanes = rows.clone(), Lanes(8).read(0, rows.numel())
        draws = Draws(ranked_limits(0.4, 0.3, shape[1]))
        assert torch.equal(draws.stay(rows, lanes), draws._mask_at_once(rows, lanes))
        assert torch.equal(rows.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("name", sorted(every()))
def test_exactly_the_methods_that_say_so_are_random(name: str) -> None:
    """The probe shares a result between places of a model, which have other seeds, unless the method is random."""
    method = every()[name]
    tensors = [torch.randn(64, 48, generator=torch.Generator().manual_seed(index)) for index in range(3)]
    base = None if method.base == "none" else 0
    if method.donors[1] is not None:
        tensors = tensors[: method.donors[1] + (method.subtracts and base is not None)]
    values = {"density": 0.5, "weight": 1.0, "epsilon": 0.1, "t": 0.4}
    known = {key: value for key, value in values.items() if key in method.parameters}
    own = {key: value for key, value in known.items() if method.parameters[key].each}
    one = {key: value for key, value in known.items() if not method.parameters[key].each}
    count = len(tensors) - (method.subtracts and base is not None)
    found = [blended(name, tensors, base, one, [own] * count, seeds=range(s, s + 3)) for s in (1, 50)]
    assert torch.equal(*found) is not method.random
