"""The trim over a whole model against a sort of the whole task vector."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from surgeon.methods import find
from surgeon.methods.whole_model_trim import ModelTrim
from tests.support.memory_inputs import MemoryInputs, made, run

SHAPES = [(4, 8), (17,), (), (0, 3), (5, 5, 2), (64,)]


def model(seed: int, kind: str) -> list[torch.Tensor]:
    random = np.random.default_rng(seed)
    if kind == "steps":
        return [torch.tensor(random.integers(-3, 4, size=shape) / 4).float() for shape in SHAPES]
    return [torch.tensor(random.normal(size=shape)).float() for shape in SHAPES]


def trimmed(deltas: Sequence[torch.Tensor], density: float) -> list[torch.Tensor]:
    """The largest of all elements of all tensors; of equal ones the first."""
    whole = torch.cat([delta.reshape(-1) for delta in deltas])
    kept = torch.zeros_like(whole)
    if density > 0:
        order = np.argsort(-whole.abs().numpy(), kind="stable")[: max(1, int(density * len(whole)))].copy()
        kept[order] = whole[order]
    pieces = kept.split([delta.numel() for delta in deltas])
    return [piece.view(delta.shape) for piece, delta in zip(pieces, deltas, strict=True)]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["steps", "noise"])
@pytest.mark.parametrize("densities", [(0.2,), (0.001, 0.5), (1.0, 0.0, 0.97)])
def test_density_is_of_all_elements_of_all_tensors(workers: int, kind: str, densities: tuple[float, ...]) -> None:
    base = [torch.zeros(shape) for shape in SHAPES]
    donors = [model(seed, kind) for seed in range(len(densities))]
    inputs = [MemoryInputs([origin, *parts], 0, chunk_size=16) for origin, *parts in zip(base, *donors, strict=True)]
    trim, passes = ModelTrim(densities), 0
    while not trim.done:
        passes += 1
        parts = [copy.deepcopy(trim) for _ in range(workers)] if workers > 1 else [trim]
        for number, tensor in reversed(list(enumerate(inputs))):  # in any order
            parts[number % workers].visit(number, tensor)
        for part in parts if workers > 1 else []:
            trim.absorb(part)
        trim.end_pass()
    assert passes <= 3
    expected = zip(*(trimmed(donor, density) for donor, density in zip(donors, densities, strict=True)), strict=True)
    for number, parts in enumerate(expected):  # type: ignore[assignment]
        tables = [{"weight": 1.0, "density": density} for density in densities]
        kernel = made("ties", {"scope": "model", "normalize": False}, tables)
        assert kernel.whole_model == densities
        kernel.give(trim.thresholds(number))
        got = run(kernel, [base[number], *(donor[number] for donor in donors)], 0, chunk_size=16)
        majority = torch.where(sum(parts) >= 0, 1.0, -1.0)  # type: ignore[arg-type, call-overload]
        assert torch.equal(got, sum(part * (part.sign() == majority) for part in parts))  # type: ignore[arg-type]


def test_other_kernels_want_no_pass_over_the_model() -> None:
    assert made("ties", {}, [{"weight": 1.0, "density": 0.5}]).whole_model is None
    assert made("linear", {}, [{"weight": 1.0}]).whole_model is None


def test_the_scope_is_the_tensor_as_in_mergekit() -> None:
    method = find("ties")
    assert method is not None
    assert method.parameters["scope"].default == "tensor"
