"""Model stock: interpolation between the base and the mean of fine-tunes by the angle between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..kernel import Combination, Kernel
from ..registry import method, one
from .slerp_karcher import lengths

if TYPE_CHECKING:
    import torch


@method(donors=(2, None), base="required", source="Jang et al. 2024, Model Stock, arXiv 2403.19522")
def model_stock(*, filter_wise: bool = one(False, help="an angle per row, instead of one per tensor")) -> Kernel:
    """A point between the base and the donors' mean; the smaller the angle between donors, the nearer to the mean.

    The result is the base if all donors equal it, or if the formula for the angle divides by zero.
    """

    def coefficients(gram: torch.Tensor) -> torch.Tensor:
        import torch

        k = gram.shape[-1]
        size = lengths(gram)
        cosines = gram / (size[:, :, None] * size[:, None, :]).clamp_min(1e-6)
        first, second = torch.triu_indices(k, k, 1)
        cosine = cosines[:, first, second].mean(-1)
        below = 1 + (k - 1) * cosine
        t = (k * cosine / below).where(below.abs() >= 1e-6, 0.0)
        return (t / k)[:, None].expand(-1, k)

    return Combination(coefficients, "row" if filter_wise else "tensor", relative=True)
