"""Weighted sums of donors and of task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..kernel import Combination, Kernel
from ..registry import each, method, one

if TYPE_CHECKING:
    import torch

WEIGHT = "the weight of the donor"
NORMALIZE = "divide by the sum of the weights"
LAMBDA = "factor on the sum that is added to the base"
WITHOUT_EFFECT = "accepted because mergekit's recipes have it; has no effect"


def divisor(weights: Sequence[float], normalize: bool) -> float:
    """The divisor of a weighted sum: the sum of the weights; 1 if `normalize` is False or the sum is about zero."""
    total = sum(weights)
    return total if normalize and abs(total) >= 1e-8 else 1.0


def fixed(weights: Sequence[float], *, relative: bool = False) -> Combination:
    """A linear combination with constant coefficients."""

    def coefficients(gram: torch.Tensor) -> torch.Tensor:
        return gram.new_tensor([list(weights)])

    return Combination(coefficients, relative=relative, needs_gram=False)


@method(donors=1, source="mergekit's passthrough")
def passthrough(*, scale: tuple[float, ...] = each(1.0, help="factor on the donor")) -> Kernel:
    """One donor's tensor, unchanged or multiplied by a factor."""
    return fixed(scale)


@method(donors=(1, None), source="Wortsman et al. 2022, Model soups, arXiv 2203.05482")
def linear(
    *,
    weight: tuple[float, ...] = each(help=WEIGHT),
    normalize: bool = one(True, help=NORMALIZE),
) -> Kernel:
    """The weighted mean of the donors.

    Weights that sum to zero are not normalised.
    """
    total = divisor(weight, normalize)
    return fixed([value / total for value in weight])


@method(
    donors=(1, None), base="required", source="Ilharco et al. 2022, Editing Models with Task Arithmetic, 2212.04089"
)
def task_arithmetic(
    *,
    weight: tuple[float, ...] = each(
        help="factor on the difference of the donor from the base; a negative one subtracts it"
    ),
    density: tuple[float, ...] = each(1.0, help=WITHOUT_EFFECT),
    normalize: bool = one(False, help=NORMALIZE),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: bool = one(False, help=WITHOUT_EFFECT),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """A weighted sum of task vectors, added to the base.

    Weights that sum to zero are not normalised.
    """
    factor = lambda_ / divisor(weight, normalize)
    return fixed([value * factor for value in weight], relative=True)
