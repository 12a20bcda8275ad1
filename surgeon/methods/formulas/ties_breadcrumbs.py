"""TIES and Breadcrumbs: task vectors trimmed by magnitude."""

from __future__ import annotations

from typing import cast

from ..kernel import Kernel
from ..magnitude_masks import Band, Largest
from ..registry import each, method, one
from ..sign_consensus import Consensus, Rescale
from .linear import LAMBDA, NORMALIZE, WEIGHT, WITHOUT_EFFECT

DENSITY = "the fraction of elements to keep"
GAMMA = "the fraction of largest elements to drop"
MATCH = "l1 (true): keep the sum of magnitudes; none (false)"
MATCHES = ("l1", "none")


@method(donors=(1, None), base="required", source="Yadav et al. 2023, TIES-Merging, arXiv 2306.01708")
def ties(
    *,
    weight: tuple[float, ...] = each(help=f"{WEIGHT}, also in the sign election"),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=f"{DENSITY}, the largest ones"),
    normalize: bool = one(True, help="divide by the sum of the weights of the donors that agree"),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("none", words=MATCHES, help=MATCH),
    scope: str = one(
        "tensor",
        words=("model", "tensor"),
        help="`density` is a fraction of this; the paper: model",
    ),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """The mean of trimmed task vectors with the elected sign for every element, added to the base.

    A task vector is trimmed to its largest elements; the elected sign is the sign with more weight. Density 0 keeps
    nothing, any other at least one element. Weights of agreeing donors that sum to zero do not divide.
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
    """A weighted sum of task vectors without their largest and smallest elements, added to the base.

    Density 1 keeps all elements, whatever gamma is. Weights that sum to zero are not normalised.
    """
    return Consensus(Band(density, gamma), weight, False, normalize, lambda_, cast("Rescale", rescale))


@method(donors=(1, None), base="required", source="Davari and Belilovsky 2023, with the sign election of TIES")
def breadcrumbs_ties(
    *,
    weight: tuple[float, ...] = each(help=f"{WEIGHT}, also in the sign election"),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=DENSITY),
    gamma: tuple[float, ...] = each(0.01, low=0, high=1, help=GAMMA),
    normalize: bool = one(False, help="divide by the sum of the weights of the donors that agree"),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("none", words=MATCHES, help=MATCH),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """Breadcrumbs with the sign election of TIES: only elements with the elected sign count.

    Density 1 keeps all elements, whatever gamma is. Weights of agreeing donors that sum to zero do not divide.
    """
    return Consensus(Band(density, gamma), weight, True, normalize, lambda_, cast("Rescale", rescale))
