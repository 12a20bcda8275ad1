"""DARE and DELLA: random masks of task vectors."""

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
VOTES = f"{WEIGHT}, also in the sign election"
AGREEING = "divide by the sum of the weights of the donors that agree"
CHANCE = "the probability to keep an element"
EPSILON = "the probability is lower by this for the smallest element of a row, and higher by this for the largest"
RESCALE = "l1 (true): keep the sum of magnitudes; paper: divide by the probability; none (false)"
RESCALES = ("l1", "none", "paper")


@method(donors=(1, None), base="required", source=DARE, random=True)
def dare_linear(
    *,
    weight: tuple[float, ...] = each(help=WEIGHT),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=CHANCE),
    normalize: bool = one(False, help=NORMALIZE),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("l1", words=RESCALES, help=RESCALE),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """A weighted sum of task vectors with randomly dropped elements, added to the base.

    Weights that sum to zero are not normalised. A task vector without remaining elements is not rescaled.
    """
    return Consensus(Random(density, rescale == "paper"), weight, False, normalize, lambda_, cast("Rescale", rescale))


@method(donors=(1, None), base="required", source=f"{DARE}, with the sign election of TIES", random=True)
def dare_ties(
    *,
    weight: tuple[float, ...] = each(help=VOTES),
    density: tuple[float, ...] = each(1.0, low=0, high=1, help=CHANCE),
    normalize: bool = one(False, help=AGREEING),
    lambda_: float = one(1.0, help=LAMBDA),
    rescale: str = one("l1", words=RESCALES, help=RESCALE),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """Task vectors with randomly dropped elements, summed with the sign election of TIES, added to the base.

    Weights of agreeing donors that sum to zero do not divide. A task vector without remaining elements is not rescaled.
    """
    return Consensus(Random(density, rescale == "paper"), weight, True, normalize, lambda_, cast("Rescale", rescale))


@method(donors=(1, None), base="required", source=DELLA, random=True)
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
    """As dare_ties, but small elements of a row are dropped with a higher probability than large ones.

    Weights of agreeing donors that sum to zero do not divide. A task vector without remaining elements is not rescaled.
    """
    _probabilities(density, epsilon)
    mask = Ranked(density, epsilon, rescale == "paper")
    return Consensus(mask, weight, True, normalize, lambda_, cast("Rescale", rescale))


@method(donors=(1, None), base="required", source=f"{DELLA}, without the sign election", random=True)
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
    """As dare_linear, but small elements of a row are dropped with a higher probability than large ones.

    Weights that sum to zero are not normalised. A task vector without remaining elements is not rescaled.
    """
    _probabilities(density, epsilon)
    mask = Ranked(density, epsilon, rescale == "paper")
    return Consensus(mask, weight, False, normalize, lambda_, cast("Rescale", rescale))


def _probabilities(densities: Sequence[float], epsilons: Sequence[float]) -> None:
    """ValueError if a probability would not lie between 0 and 1."""
    for density, epsilon in zip(densities, epsilons, strict=True):
        if 0 < density < 1 and not (density - epsilon > 0 and density + epsilon < 1):
            room = min(density, 1 - density)
            raise ValueError(
                f"density {density:g} with epsilon {epsilon:g} gives probabilities from {density - epsilon:g} to "
                f"{density + epsilon:g}, which must be more than 0 and less than 1: "
                f"give an epsilon below {room:g}"
            )
