"""Every merge method against its formula in float64: any shape, dtype, number of donors, weights; and any chunks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon.methods import kernel, kth_largest, random_masks
from surgeon.methods.catalogue import every, find
from tests.support import oracle
from tests.support.memory_inputs import MemoryInputs, blended, made, run

BLOCK = 16
SHAPES = [(), (1,), (0,), (0, 3), (3, 0), (2,), (15,), (16,), (17,), (64,), (100,)]
SHAPES += [(1, 5), (5, 1), (3, 7), (8, 16), (9, 16), (2, 3, 5), (40, 8)]
KINDS = ("noise", "close", "steps", "same", "equal to base", "opposite", "zero", "constant")
WEIGHTS = (0.0, 0.5, -0.5, 1.0, 2.0, -0.25, 0.25)
DENSITIES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.8, 0.99, 1.0)
CHOICES: dict[str, Sequence[Any]] = {
    "t": (0.0, 0.3, 0.5, 1.0, -0.5),
    "lambda": (0.0, 1.0, 0.7, -1.0),
    "density": DENSITIES,
    "gamma": (0.0, 0.01, 0.1, 0.5),
    "select_topk": (0.0, 0.05, 0.3, 1.0),
    "scale": (0.0, 1.0, -0.3, 2.0),
    "epsilon": (0.04, 0.3),
    "max_iter": (0, 1, 10),
    "tol": (1e-5,),
    "eps": (1e-8,),
    "r": (0.1, 1.0),
    "alpha": (0.2, 2.0),
    "scope": ("tensor",),
}
METHODS = sorted(every())


@pytest.fixture(autouse=True, scope="module")
def small_limits() -> Iterator[None]:
    """Blocks, samples and buffers so small that small tensors have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel, "BLOCK", BLOCK)
        patch.setattr(kth_largest, "SAMPLES", 3)
        patch.setattr(kth_largest, "SAMPLE", 2)
        patch.setattr(kth_largest, "KEPT", 5)
        patch.setattr(random_masks, "SORTED", 12)
        patch.setattr(random_masks, "STORED", 100)
        yield


class Case:
    """A blend: donors and parameters."""

    def __init__(
        self, name: str, tensors: list[torch.Tensor], base: int | None, one: dict[str, Any], each: list[dict[str, Any]]
    ) -> None:
        self.name, self.tensors, self.base, self.one, self.each = name, tensors, base, one, each

    def __repr__(self) -> str:
        first = self.tensors[0]
        return (
            f"{self.name} of {len(self.tensors)} {tuple(first.shape)} {first.dtype}, {self.base} {self.one} {self.each}"
        )

    @property
    def seeds(self) -> list[int]:
        return [7000 + index for index in range(len(self.tensors))]

    @property
    def scale(self) -> torch.Tensor:
        """What rounding errors are relative to."""
        return torch.stack([tensor.double().abs() for tensor in self.tensors]).sum(0)

    @property
    def cancelling(self) -> float:
        """By how much directions that nearly cancel out make the rounding errors of their mean larger."""
        if self.name not in ("karcher", "multislerp", "nuslerp"):
            return 1.0
        origin = 0.0 if self.base is None else self.tensors[self.base].double()
        vectors = [tensor.double() - origin for index, tensor in enumerate(self.tensors) if index != self.base]
        weights = [table.get("weight", 1.0) for table in self.each]
        units = [w * v / v.norm() for w, v in zip(weights, vectors, strict=True) if v.numel() and v.norm() > 0]
        length = float(sum(units, torch.zeros(())).norm()) / (sum(map(abs, weights)) or 1.0)
        return 1 / length if length > 1e-6 else 1.0

    def blend(self, **how: Any) -> torch.Tensor:
        return blended(self.name, self.tensors, self.base, self.one, self.each, seeds=self.seeds, **how)

    @property
    def expected(self) -> torch.Tensor:
        return oracle.blend(self.name, self.tensors, self.base, self.one, self.each, self.seeds)


def donors(kind: str, shape: tuple[int, ...], count: int, seed: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Donors of one kind; the first would be the base."""
    random = np.random.default_rng(seed)
    origin = random.normal(size=shape)
    if kind == "steps":  # few values: many equal magnitudes
        found = [random.integers(-3, 4, size=shape) / 4 for _ in range(count)]
    elif kind == "zero":
        found = [np.zeros(shape) for _ in range(count)]
    elif kind == "constant":
        found = [np.full(shape, float(index % 3)) for index in range(count)]
    elif kind == "equal to base":
        found = [origin] * count
    elif kind == "same":
        found = [origin, *[random.normal(size=shape)] * (count - 1)]
    elif kind == "opposite":
        found = [origin * (-1) ** index for index in range(count)]
    else:
        spread = 0.05 if kind == "close" else 1.0
        found = [origin, *(origin + spread * random.normal(size=shape) for _ in range(count - 1))]
    return [torch.tensor(array, dtype=torch.float64).to(dtype) for array in found]


@st.composite
def cases(draw: st.DrawFn, name: str, dtypes: Sequence[torch.dtype]) -> Case:
    method = find(name)
    assert method is not None
    low, high = method.donors
    count = draw(st.integers(low, min(high or 8, 8)))
    based = method.base in ("required", "start") or (method.base == "optional" and draw(st.booleans()))
    extra = based and method.subtracts
    shape, kind = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(KINDS))
    tensors = donors(kind, shape, count + extra, draw(st.integers(0, 2**31)), draw(st.sampled_from(dtypes)))
    base = 0
    if extra and draw(st.booleans()):  # a base that is subtracted may be anywhere
        base = len(tensors) - 1
        tensors = [*tensors[1:], tensors[0]]

    def value(parameter: Any) -> Any:
        if parameter.name == "weight":
            return draw(st.sampled_from(WEIGHTS))
        if parameter.name in CHOICES:
            return draw(st.sampled_from(CHOICES[parameter.name]))
        return draw(st.sampled_from(parameter.words) if parameter.kind == "word" else st.booleans())

    declared = method.parameters.values()
    one = {p.name: value(p) for p in declared if not p.each}
    each = [{p.name: value(p) for p in declared if p.each} for _ in range(count)]
    for table in each:
        if "epsilon" in table:  # probabilities stay between 0 and 1
            table["epsilon"] = min(table["epsilon"], 0.5 * min(table["density"], 1 - table["density"]))
    return Case(name, tensors, base if based else None, one, each)


def ulp(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Distance of neighbouring numbers of a dtype at float64 values."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(values.abs().clamp(min=info.smallest_normal))[1] - 1
    return torch.ldexp(torch.full_like(values, info.eps), exponent)


def assert_within(got: torch.Tensor, expected: torch.Tensor, margin: torch.Tensor) -> None:
    assert got.shape == expected.shape
    for element in torch.nonzero(((got.double() - expected).abs() <= margin).logical_not().view(-1)).view(-1).tolist():
        one, other = got.reshape(-1)[element].item(), expected.reshape(-1)[element].item()
        pytest.fail(f"element {element} is {one}, should be {other} +- {margin.reshape(-1)[element].item()}")


def few(examples: int) -> Any:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )


@pytest.mark.parametrize("name", METHODS)
def test_float64_arithmetic_gives_16_bit_results_within_one_unit_in_the_last_place(name: str) -> None:
    @few(60)
    @given(cases(name, [torch.bfloat16, torch.float16]), st.sampled_from([BLOCK, 3 * BLOCK, 1 << 16]))
    def check(case: Case, chunk_size: int) -> None:
        got, expected = case.blend(dtype=torch.float64, chunk_size=chunk_size).double(), case.expected
        assert_within(got, expected, ulp(expected, case.tensors[0].dtype) + 1e-14 * case.scale)

    check()


@pytest.mark.parametrize("name", METHODS)
def test_float32_arithmetic_is_as_good_as_float32(name: str) -> None:
    @few(60)
    @given(cases(name, [torch.float32, torch.bfloat16, torch.float16]))
    def check(case: Case) -> None:
        got, expected = case.blend(out=torch.float32), case.expected
        assert_within(got, expected, 1e-6 * (1 + case.scale + expected.abs()) * case.cancelling)

    check()


@pytest.mark.parametrize("name", METHODS)
def test_chunks_do_not_change_a_bit(name: str) -> None:
    @few(25)
    @given(cases(name, [torch.float32, torch.bfloat16]))
    def check(case: Case) -> None:
        one, other, whole = (case.blend(chunk_size=size, out=torch.float32) for size in (BLOCK, 3 * BLOCK, 1 << 16))
        assert torch.equal(one.view(torch.int32), other.view(torch.int32))
        assert torch.equal(one.view(torch.int32), whole.view(torch.int32))

    check()


@pytest.mark.parametrize("name", METHODS)
def test_threads_do_not_change_a_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "BLOCK", 1 << 16)
    method = find(name)
    assert method is not None
    tensors = donors("close", (400, 500), (method.donors[1] or 3) + method.subtracts, 5, torch.float32)
    one = {"t": 0.3, "select_topk": 0.4, "density": 0.5}
    shared = {key: value for key, value in one.items() if key in method.parameters}
    each = [
        {key: value for key, value in (("weight", 0.4), ("density", 0.5)) if key in method.parameters}
        for _ in tensors[method.subtracts :]
    ]
    shared = {key: value for key, value in shared.items() if not method.parameters[key].each}
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(blended(name, tensors, None if method.base in ("none", "member") else 0, shared, each))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


@pytest.mark.parametrize("name", METHODS)
def test_a_kernel_blends_chunks_in_any_order(name: str) -> None:
    method = find(name)
    assert method is not None
    each = {"weight": 0.4, "density": 0.5}
    count = (method.donors[1] or 3) + method.subtracts
    tensors = donors("close", (8, 16), count, 6, torch.float32)
    tables = [{k: v for k, v in each.items() if k in method.parameters} for _ in tensors[method.subtracts :]]
    shared = {"t": 0.3} if name in ("slerp", "nearswap") else {}
    base = None if method.base in ("none", "member") else 0
    expected = blended(name, tensors, base, shared, tables)
    mixed = made(name, shared, tables)
    run(mixed, tensors, base)
    for start in (96, 0, 48, 96):
        values = mixed.blend(start, [tensor.reshape(-1)[start : start + 32].clone() for tensor in tensors])
        assert torch.equal(values, expected.reshape(-1)[start : start + 32])


def test_a_sum_depends_on_neither_chunks_nor_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "BLOCK", 1 << 16)
    values = torch.from_numpy(np.random.default_rng(9).normal(size=(1 << 20) + 77))
    threads = torch.get_num_threads()
    found = set()
    try:
        for size in (1 << 16, 3 << 16, 1 << 21):
            for count in (1, 2):
                torch.set_num_threads(count)
                total = kernel.Sum()
                for start in range(0, len(values), size):
                    total.add(values[start : start + size])
                found.add(total.value)
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
    assert math.isclose(found.pop(), math.fsum(values.tolist()), abs_tol=1e-9)


def test_float64_donors_are_blended_in_float64() -> None:
    random = np.random.default_rng(3)
    tensors = [torch.from_numpy(random.normal(size=(9, 11))) for _ in range(3)]
    each = [{"weight": 0.3}, {"weight": 0.9}]
    got = blended("task_arithmetic", tensors, 0, {}, each)
    expected = tensors[0] + 0.3 * (tensors[1] - tensors[0]) + 0.9 * (tensors[2] - tensors[0])
    torch.testing.assert_close(got, expected, rtol=1e-15, atol=1e-15)
    assert math.isclose(float(got.double().sum()), float(expected.sum()), rel_tol=1e-14)


@pytest.mark.parametrize("kept", [1 << 20, 5])
@pytest.mark.parametrize("kind", ["close", "steps"])
def test_sce_measures_donors_in_the_pass_that_cuts(kind: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SAMPLES", 16), ("SAMPLE", 16), ("KEPT", kept)):
        monkeypatch.setattr(kth_largest, name, value)
    tensors = donors(kind, (128, 64), 4, 8, torch.float32)
    mixed, inputs = made("sce", {"select_topk": 0.3}, [{}] * 3), MemoryInputs(tensors, 0, 64)
    mixed.survey(inputs)
    if kept > 5:
        assert inputs.passes == 1
    got = blended("sce", tensors, 0, {"select_topk": 0.3}, [{}] * 3, out=torch.float64)
    expected = oracle.blend("sce", tensors, 0, {"select_topk": 0.3}, [{}] * 3, [1, 2, 3, 4])
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1e30, 1.0, 1e-8])
def test_lengths_that_float32_cannot_hold(size: float) -> None:
    """Squares of what bfloat16 holds leave float32's range."""
    dice = torch.Generator().manual_seed(3)
    donors = [(torch.randn(40, 8, generator=dice) * size).bfloat16() for _ in range(2)]
    inputs = MemoryInputs(donors, base=0)
    assert inputs.narrow
    combined = find("slerp").kernel({"t": 0.3}, [{}, {}])  # type: ignore[union-attr]
    combined.survey(inputs)
    one, two = (donor.double().flatten() for donor in donors)
    angle = math.acos(float(one @ two) / float(one.norm() * two.norm()))
    wanted = [math.sin(0.7 * angle) / math.sin(angle), math.sin(0.3 * angle) / math.sin(angle)]
    assert combined._fixed[0].tolist() == pytest.approx(wanted, rel=1e-5)
