"""Task vectors trimmed by magnitude."""

from __future__ import annotations

from typing import cast

from ..kernel import Kernel
from ..magnitude_masks import Band, Largest
from ..registry import each, method, one
from ..sign_consensus import Consensus, Rescale
from .linear import LAMBDA, NORMALIZE, WEIGHT, WITHOUT_EFFECT

DENSITY = "the share of elements that stays"
GAMMA = "the share of largest elements that goes"
MATCH = "l1 (true): keep the sum of magnitudes; none (false)"
MATCHES = ("l1", "none")


@method(donors=(1, None), base="required", source="Yadav et al. 2023, TIES-Merging, arXiv 2306.01708")
def ties(
    *,
    weight: tuple[float, ...] = each(help=f"{WEIGHT}, in the vote on the sign too"),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=f"{DENSITY}, the largest"),
    normalize: bool = one(True, help="divide by the weights of the donors that agree"),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("none", words=MATCHES, help=MATCH),
    scope: str = one("tensor", words=("model", "tensor"), help="what `density` is a share of; the paper: model"),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """The base plus what most donors agree on: task vectors trimmed to their largest elements, of those with the \
sign that has more weight the mean.

    Density 0 keeps nothing, else at least one element stays. Weights of agreeing donors that sum to zero do not divide.
    """
    mask = Largest(density, over_model=scope == "model")
    return Consensus(mask, weight, True, normalize, lambda_, cast("Rescale", rescale))


@method(donors=(1, None), base="required", source="Davari and Belilovsky 2023, Model Breadcrumbs, arXiv 2312.06795")
def breadcrumbs(
    *,
    weight: tuple[float, ...] = each(help=WEIGHT),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=DENSITY),
    gamma: tuple[float, ...] = each(0.01, low=0, high=1, help=GAMMA),
    normalize: bool = one(False, help=NORMALIZE),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("none", words=MATCHES, help=MATCH),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """The base plus the weighted sum of task vectors without their largest and smallest elements.

    Density 1 keeps all, whatever gamma is. Weights that sum to zero are not normalised.
    """
    return Consensus(Band(density, gamma), weight, False, normalize, lambda_, cast("Rescale", rescale))


@method(donors=(1, None), base="required", source="Davari and Belilovsky 2023, with the sign election of TIES")
def breadcrumbs_ties(
    *,
    weight: tuple[float, ...] = each(help=f"{WEIGHT}, in the vote on the sign too"),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=DENSITY),
    gamma: tuple[float, ...] = each(0.01, low=0, high=1, help=GAMMA),
    normalize: bool = one(False, help="divide by the weights of the donors that agree"),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("none", words=MATCHES, help=MATCH),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """Breadcrumbs, of which only elements count that have the sign with more weight.

    Density 1 keeps all, whatever gamma is. Weights of agreeing donors that sum to zero do not divide.
    """
    return Consensus(Band(density, gamma), weight, True, normalize, lambda_, cast("Rescale", rescale))
