"""Spherical interpolation and means: slerp, nuslerp, multislerp and karcher."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..kernel import Combination, Kernel
from ..registry import each, method, one
from .linear import WEIGHT, divisor

if TYPE_CHECKING:
    import torch

NEARLY_PARALLEL = 0.9995
"""Absolute cosine above which slerp interpolates linearly, as in mergekit."""

NO_DIRECTION = 1e-6
"""A mean of unit vectors up to this length has no direction: it is the rounding error of vectors that cancel out."""


def lengths(gram: torch.Tensor) -> torch.Tensor:
    """(n, k) lengths of k vectors from their (n, k, k) Gram matrices."""
    return gram.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()


def arc(t: float, cosine: torch.Tensor, straight: torch.Tensor) -> torch.Tensor:
    """(n, 2) coefficients of the point at `t` between two vectors.

    Args:
        t: 0 is the first vector, 1 the second.
        cosine: (n,) cosines of the angles between the vectors.
        straight: (n,) bool, True to interpolate linearly instead of along the arc.
    """
    import torch

    angle = torch.arccos(cosine)
    curved = torch.stack([torch.sin(angle - angle * t), torch.sin(angle * t)], -1) / torch.sin(angle)[:, None]
    return torch.where(straight[:, None], cosine.new_tensor([1 - t, t]), curved)


@method(donors=2, base="start", source="Shoemake 1985, Animating Rotation with Quaternion Curves")
def slerp(*, t: float = one(help="0 is the base, 1 the other donor")) -> Kernel:
    """The point at `t` on the arc from the base to the other donor; neither is normalised to unit length.

    Nearly parallel or opposite vectors are interpolated linearly. A vector of length 0 counts as orthogonal to the
    other.
    """

    def coefficients(gram: torch.Tensor) -> torch.Tensor:
        size = lengths(gram)
        unit = size.where(size > 1e-8, 1.0)
        cosine = (gram[:, 0, 1] / unit.prod(-1)).clamp(-1, 1)
        return arc(t, cosine, cosine.abs() > NEARLY_PARALLEL)

    return Combination(coefficients)


@method(donors=2, base="optional", source="mergekit's nuslerp, after Shoemake 1985")
def nuslerp(
    *,
    weight: tuple[float, ...] = each(help=f"{WEIGHT}; the second one's part of the sum is the point on the arc"),
    nuslerp_flatten: bool = one(True, help="treat the tensor as one vector"),
    nuslerp_row_wise: bool = one(
        False, help="without nuslerp_flatten: the vectors are columns, else rows (as in mergekit)"
    ),
) -> Kernel:
    """The point on the arc between two donors; with a base, between their differences from it.

    Vectors with equal or opposite directions, or with length 0, are interpolated linearly. The point is in the middle
    if the weights sum to zero.
    """
    total = sum(weight)
    t = weight[1] / total if abs(total) >= 1e-6 else 0.5

    def coefficients(gram: torch.Tensor) -> torch.Tensor:
        size = lengths(gram).clamp_min(1e-7)
        cosine = (gram[:, 0, 1] / size.prod(-1)).clamp(-1, 1)
        # mergekit's limit is 1e-16, which rounding exceeds for opposite vectors.
        return arc(t, cosine, 1 - cosine * cosine <= 1e-12)

    return Combination(
        coefficients, "tensor" if nuslerp_flatten else "column" if nuslerp_row_wise else "row", relative=True
    )


@method(donors=(2, None), base="optional", source="mergekit's multislerp: a step on the sphere from the mean direction")
def multislerp(
    *,
    weight: tuple[float, ...] = each(help=WEIGHT),
    normalize_weights: bool = one(True, help="divide the weights by their sum"),
    eps: float = one(1e-8, low=0, help="lengths up to this count as zero"),
) -> Kernel:
    """The mean direction of any number of donors times their mean length; with a base, of their differences from it.

    If the mean has no direction (opposite donors, or all equal to the base), the result is the weighted sum. Weights
    that sum to zero are not normalised.
    """
    total = divisor(weight, normalize_weights)

    def coefficients(gram: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.stack([_on_sphere(matrix, gram.new_tensor(weight) / total, eps) for matrix in gram])

    return Combination(coefficients, relative=True)


def _on_sphere(gram: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """(k,) coefficients of multislerp from a (k, k) Gram matrix and (k,) weights."""
    size = gram.diagonal().clamp_min(0).sqrt()
    unit = (size + eps).where(size + eps > 0, 1.0)
    gram = gram / unit / unit[:, None]
    # From here on, vectors are coefficients of the unit vectors, and `gram` is the Gram matrix of these.
    mean = weight.clone()
    length = float(mean @ gram @ mean)
    if length <= 0 or math.sqrt(length) < max(eps, NO_DIRECTION):
        return weight
    mean /= math.sqrt(length)
    along = gram @ mean
    tangent = weight - (weight @ along) * mean
    turn = math.sqrt(max(0.0, float(tangent @ gram @ tangent))) + eps
    step = math.sin(turn) / turn if turn else 1.0
    return (mean * math.cos(turn) + tangent * step) * (weight @ size) / unit


@method(donors=(2, None), base="member", source="Karcher 1977; Grove and Karcher 1973")
def karcher(
    *,
    max_iter: int = one(10, low=0, help="the maximum number of steps"),
    tol: float = one(
        1e-5, low=0, help="iteration ends at a shorter step; donors up to this length do not count for the direction"
    ),
) -> Kernel:
    """The Riemannian mean of the donors' directions times the mean of their lengths.

    The result is zero if every donor has length 0. A donor opposite to the current mean does not move it, because all
    ways to it are equally short.
    """

    def coefficients(gram: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.stack([_karcher(matrix, max_iter, tol) for matrix in gram])

    return Combination(coefficients)


def _karcher(gram: torch.Tensor, max_iter: int, tol: float) -> torch.Tensor:
    """(k,) coefficients of the mean from a (k, k) Gram matrix."""
    import torch

    size = gram.diagonal().clamp_min(0).sqrt()
    valid = (size > tol).double()
    if not bool(valid.any()):
        return torch.zeros_like(size)
    unit = size.where(size > tol, 1.0)
    gram, share = gram / unit / unit[:, None], valid / valid.sum()

    def norm(vector: torch.Tensor) -> float:
        return math.sqrt(max(0.0, float(vector @ gram @ vector)))

    tol = max(tol, NO_DIRECTION)
    mean = share / length if (length := norm(share)) >= tol else torch.zeros_like(share).scatter(0, valid.argmax(), 1.0)
    for _ in range(max_iter):
        cosine = (gram @ mean).clamp(-1, 1)
        angle = torch.arccos(cosine)
        # The limit of angle / sin(angle) at 0 is 1. Without it, a donor that equals the mean after rounding would lose
        # its weight.
        ratio = (angle / torch.sin(angle)).where(angle > 0, 1.0)
        pull = (share * ratio).where(math.pi - angle > 1e-7, 0.0)
        step = pull - (pull @ cosine) * mean
        if (length := norm(step)) < tol:
            break
        mean = mean * math.cos(length) + step * (math.sin(length) / length)
        mean = mean / norm(mean)
    return mean * size.mean() / unit
