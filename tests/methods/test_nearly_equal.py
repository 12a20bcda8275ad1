"""Donors of 16 bits that are nearly equal: what rounding does to inner products must not become a weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from surgeon.methods.kernel import Combination
from tests.support.memory_inputs import MemoryInputs, made

SHAPES = ((1, 32), (1, 64), (32, 32), (64, 48), (96, 96))
SCALES = (0.1, 1e-2, 1e-3, 1e-4, 1e-5, 0.0)
CASES: dict[str, tuple[str, bool, dict[str, Any], list[dict[str, Any]]]] = {
    "karcher": ("karcher", False, {}, [{}, {}, {}]),
    "slerp": ("slerp", True, {"t": 0.3}, [{}, {}]),
    "nuslerp": ("nuslerp", False, {}, [{"weight": 1}, {"weight": 2}]),
    "nuslerp of deltas": ("nuslerp", True, {}, [{"weight": 1}, {"weight": 2}]),
    "multislerp": ("multislerp", False, {}, [{"weight": 1}, {"weight": 2}, {"weight": 0.5}]),
    "multislerp of deltas": ("multislerp", True, {}, [{"weight": 1}, {"weight": 2}, {"weight": 0.5}]),
    "model_stock": ("model_stock", True, {}, [{}, {}, {}]),
    "sce": ("sce", True, {"select_topk": 0.3}, [{}, {}, {}]),
}


def coefficients(case: str, tensors: list[torch.Tensor]) -> list[float]:
    name, based, one, each = CASES[case]
    kernel = made(name, one, each)
    kernel.survey(MemoryInputs(tensors, 0 if based else None))
    return list(kernel._values if isinstance(kernel, Combination) else kernel._weights)  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nearly_equal_donors_have_the_weights_that_float64_gives(case: str, dtype: torch.dtype) -> None:
    name, based, _, each = CASES[case]
    generator = torch.Generator().manual_seed(0)
    for shape in SHAPES:
        for scale in SCALES:
            middle = torch.randn(shape, generator=generator) * 0.15 + (shape[0] == 1)
            count = len(each) + (based and name != "slerp")
            spread = [middle + torch.randn(shape, generator=generator) * scale for _ in range(count)]
            donors = [tensor.to(dtype) for tensor in spread]
            found, wanted = (coefficients(case, made) for made in (donors, [donor.double() for donor in donors]))
            assert found == pytest.approx(wanted, abs=3e-6), (shape, scale)


@pytest.mark.parametrize("scale", [1e-3, 1e-4, 1e-5, 0.0])
def test_the_karcher_mean_of_nearly_equal_donors_is_their_mean(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    for shape in SHAPES:
        middle = torch.randn(shape, generator=generator) * 0.15 + 1
        donors = [(middle + torch.randn(shape, generator=generator) * scale).half() for _ in range(3)]
        assert coefficients("karcher", donors) == pytest.approx([1 / 3] * 3, abs=1e-3), shape
