"""Task vectors thinned out at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..kernel import Kernel
from ..random_masks import Random, Ranked
from ..registry import each, method, one
from ..sign_consensus import Consensus, Rescale
from .linear import LAMBDA, NORMALIZE, WEIGHT, WITHOUT_EFFECT

DARE = "Yu et al. 2023, Language Models are Super Mario, arXiv 2311.03099"
DELLA = "Deep et al. 2024, DELLA-Merging, arXiv 2406.11617"
VOTES = f"{WEIGHT}, in the vote on the sign too"
AGREEING = "divide by the weights of the donors that agree"
CHANCE = "the probability that an element stays"
EPSILON = "the probability is so much less for a row's smallest element, and more for its largest"
RESCALE = "l1 (true): keep the sum of magnitudes; paper: divide by the probability; none (false)"
RESCALES = ("l1", "none", "paper")


@method(donors=(1, None), base="required", source=DARE)
def dare_linear(
    *,
    weight: tuple[float, ...] = each(help=WEIGHT),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=CHANCE),
    normalize: bool = one(False, help=NORMALIZE),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("l1", words=RESCALES, help=RESCALE),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """The base plus the weighted sum of task vectors of which random elements are dropped.

    Weights that sum to zero are not normalised. Nothing is rescaled where nothing is left.
    """
    return Consensus(Random(density, rescale == "paper"), weight, False, normalize, lambda_, cast("Rescale", rescale))


@method(donors=(1, None), base="required", source=f"{DARE}, with the sign election of TIES")
def dare_ties(
    *,
    weight: tuple[float, ...] = each(help=VOTES),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=CHANCE),
    normalize: bool = one(False, help=AGREEING),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("l1", words=RESCALES, help=RESCALE),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """Task vectors of which random elements are dropped; only elements count that have the sign with more weight.

    Weights of agreeing donors that sum to zero do not divide. Nothing is rescaled where nothing is left.
    """
    return Consensus(Random(density, rescale == "paper"), weight, True, normalize, lambda_, cast("Rescale", rescale))


@method(donors=(1, None), base="required", source=DELLA)
def della(
    *,
    weight: tuple[float, ...] = each(help=VOTES),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=f"{CHANCE}, on average"),
    epsilon: tuple[float, ...] = each(0.15, low=0, high=1, help=EPSILON),
    normalize: bool = one(True, help=AGREEING),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("l1", words=RESCALES, help=RESCALE),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """Task vectors of which random elements are dropped, small ones rather; only those with the elected sign count.

    Weights of agreeing donors that sum to zero do not divide. Nothing is rescaled where nothing is left.
    """
    _probabilities(density, epsilon)
    mask = Ranked(density, epsilon, rescale == "paper")
    return Consensus(mask, weight, True, normalize, lambda_, cast("Rescale", rescale))


@method(donors=(1, None), base="required", source=f"{DELLA}, without the sign election")
def della_linear(
    *,
    weight: tuple[float, ...] = each(help=WEIGHT),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=f"{CHANCE}, on average"),
    epsilon: tuple[float, ...] = each(0.15, low=0, high=1, help=EPSILON),
    normalize: bool = one(False, help=NORMALIZE),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("l1", words=RESCALES, help=RESCALE),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """The base plus the weighted sum of task vectors of which random elements are dropped, small ones rather.

    Weights that sum to zero are not normalised. Nothing is rescaled where nothing is left.
    """
    _probabilities(density, epsilon)
    mask = Ranked(density, epsilon, rescale == "paper")
    return Consensus(mask, weight, False, normalize, lambda_, cast("Rescale", rescale))


def _probabilities(densities: Sequence[float], epsilons: Sequence[float]) -> None:
    """ValueError where a probability would not be between 0 and 1."""
    for density, epsilon in zip(densities, epsilons, strict=True):
        if 0 < density < 1 and not (density - epsilon > 0 and density + epsilon < 1):
            room = min(density, 1 - density)
            raise ValueError(
                f"density {density:g} with epsilon {epsilon:g} asks for probabilities from {density - epsilon:g} to "
                f"{density + epsilon:g}, which must be more than 0 and less than 1: "
                f"give an epsilon below {room:g}"
            )
