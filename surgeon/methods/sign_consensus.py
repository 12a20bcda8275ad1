"""Weighted sums of masked task vectors, with an optional sign election.

The kernel of ties, dare, della and breadcrumbs, which differ in their `Mask` and in whether signs are elected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .kernel import Inputs, Kernel, Sum, Threshold, Unit, differences, subtract, sums

if TYPE_CHECKING:
    import torch

Rescale = Literal["l1", "none", "paper"]


class Mask:
    """Selects the elements of task vectors to keep. Donors are numbered without the base.

    Attributes:
        unit: `row` if it needs whole rows.
        scratch_bytes: most bytes per element that it allocates on a GPU.
        spreads: whether values that are not finite stay not finite, even where elements are dropped.
        whole_model: as in `Kernel`.
    """

    unit: Unit = "element"
    scratch_bytes: int = 8
    spreads: bool = False
    whole_model: tuple[float, ...] | None = None

    def give(self, thresholds: Sequence[Threshold]) -> None:
        """As in `Kernel`."""
        raise NotImplementedError

    def prepare(self, inputs: Inputs, which: Sequence[int]) -> None:
        """Make the passes that `apply` depends on; `which` are the donors with a nonzero weight."""

    def whole(self, donor: int) -> bool:
        """Whether this donor's whole task vector is kept."""
        raise NotImplementedError

    def apply(self, donor: int, start: int, delta: torch.Tensor) -> None:
        """Set the dropped elements of a chunk of the donor's task vector to 0 in place."""
        raise NotImplementedError

    def remaining(self, donor: int, start: int, magnitudes: torch.Tensor) -> torch.Tensor:
        """The magnitudes of a chunk with dropped elements set to 0; the order in a row may change. Overwrites them."""
        self.apply(donor, start, magnitudes)
        return magnitudes


@dataclass
class Consensus(Kernel):
    """base + scale * (sum of weight * masked task vector) / divisor.

    Attributes:
        mask: the elements to keep of every task vector.
        weights: a factor per donor, without the base.
        elect: for every element, sum only donors whose weighted difference has the sign of the sum over all donors. A
            difference of 0 never agrees; a sum of 0 counts as positive.
        normalize: divide by the sum of the weights (with `elect`: of agreeing donors), unless it is 0.
        scale: factor on the sum (lambda).
        rescale: `l1` restores the sum of magnitudes that each task vector had before the mask.
    """

    mask: Mask
    weights: Sequence[float]
    elect: bool
    normalize: bool
    scale: float
    rescale: Rescale = "none"
    _factors: list[float] = field(default_factory=list)
    _base: int = 0

    def __post_init__(self) -> None:
        self.unit = self.mask.unit
        self.whole_model = self.mask.whole_model
        whole = (self.mask.whole(donor) for donor in range(len(self.weights)))
        self.spreads = all(self.weights) and (self.mask.spreads or all(whole))

    def give(self, thresholds: Sequence[Threshold]) -> None:
        self.mask.give(thresholds)

    def scratch_bytes(self, donors: int, width: int) -> int:
        return super().scratch_bytes(donors, width) + self.mask.scratch_bytes

    def survey(self, inputs: Inputs) -> None:
        assert inputs.base is not None, "task vectors are relative to a base"
        self._base = inputs.base
        self._factors = list(self.weights)
        active = [donor for donor, weight in enumerate(self.weights) if weight != 0]
        self.mask.prepare(inputs, active)
        if self.rescale == "l1":
            self._match_lengths(inputs, [donor for donor in active if not self.mask.whole(donor)])

    def _match_lengths(self, inputs: Inputs, which: list[int]) -> None:
        """Multiply factors by the sum of magnitudes before the mask over that after it, unless one is about 0."""
        donors = [inputs.others[donor] for donor in which]

        def fill(found: list[Sum]) -> None:
            for start, deltas in differences(inputs, donors):
                for donor, delta, whole, left in zip(which, deltas, found[::2], found[1::2], strict=True):
                    whole.add(delta.abs_())
                    left.add(self.mask.remaining(donor, start, delta))

        if which:
            found = sums(inputs, 2 * len(which), fill, inputs.columns if self.unit == "row" else None)
            for donor, whole, left in zip(which, found[::2], found[1::2], strict=True):
                if min(whole, left) >= 1e-7:
                    self._factors[donor] *= whole / left

    def blend(self, start: int, chunks: list[torch.Tensor]) -> torch.Tensor:
        base, deltas = chunks[self._base], subtract(chunks, self._base)
        active = [donor for donor, weight in enumerate(self.weights) if weight != 0]
        for donor in active:
            if not self.mask.whole(donor):
                self.mask.apply(donor, start, deltas[donor])
        if self.elect:
            factors, weights, scale = self._shares(active)
            for donor, factor in zip(active, factors, strict=True):
                if factor != 1:
                    deltas[donor].mul_(factor)
            found = elected([deltas[donor] for donor in active], weights if self.normalize else None)
            return base if found is None else base.add_(found, alpha=scale)
        whole = sum(self.weights)
        scale = self.scale / whole if self.normalize and abs(whole) >= 1e-8 else self.scale
        for donor in active:
            base.add_(deltas[donor], alpha=self._factors[donor] * scale)
        return base

    def _shares(self, active: Sequence[int]) -> tuple[list[float], list[float], float]:
        """Factors and weights of donors, and the common factor; if all are equal, 1 is used for a faster result."""
        factors, weights = ([table[donor] for donor in active] for table in (self._factors, self.weights))
        if len({*factors, *weights}) == 1 and weights[0] > 0:
            ones = [1.0] * len(active)
            return ones, ones, self.scale if self.normalize else self.scale * weights[0]
        return factors, weights, self.scale


def elected(
    terms: Sequence[torch.Tensor],
    weights: Sequence[float] | None = None,
    factors: Sequence[float] | None = None,
    floor: float | None = None,
) -> torch.Tensor | None:
    """For every element, the sum of the terms whose sign is that of the sum of all terms. Overwrites the terms.

    Signs are compared as bits, because torch's boolean operations are many times slower. Source: TIES, arXiv
    2306.01708, section 3.

    Args:
        terms: (n,) float32 or float64 each; without terms the result is None.
        weights: of the terms; the result is divided by the sum of the weights of agreeing terms, unless that is 0.
        factors: the terms are multiplied by these after the election.
        floor: the smallest divisor; if given, weights must not be negative.
    """
    import torch

    if not terms:
        return None
    bits, sign = (torch.int64, -(1 << 63)) if terms[0].dtype == torch.float64 else (torch.int32, -(1 << 31))
    # A sum is -0 only if all terms are -0. Its sign has no effect, because a zero term never agrees.
    signs = total(terms).view(bits).bitwise_and_(sign)
    for term in terms:
        term.view(bits).bitwise_xor_(signs)
        term.relu_()
    out = total(terms, factors)
    if weights is not None:
        out.div_(_agreeing(terms, weights, floor))
    out.view(bits).bitwise_xor_(signs)
    return out


def total(terms: Sequence[torch.Tensor], factors: Sequence[float] | None = None) -> torch.Tensor:
    """The sum of the terms (each times its factor) in a new tensor."""
    if factors is None:
        out = terms[0] + terms[1] if len(terms) > 1 else terms[0].clone()
        for term in terms[2:]:
            out.add_(term)
        return out
    out = terms[0] * factors[0]
    for term, factor in zip(terms[1:], factors[1:], strict=True):
        out.add_(term, alpha=factor)
    return out


def _agreeing(terms: Sequence[torch.Tensor], weights: Sequence[float], floor: float | None) -> torch.Tensor:
    """The sum of the weights of nonzero terms; 1 where the sum is about 0. Overwrites the terms."""
    import torch

    if floor is not None or min(weights) > 0:
        divisor = terms[0].sign_()
        if weights[0] != 1:
            divisor.mul_(weights[0])
        for term, weight in zip(terms[1:], weights[1:], strict=True):
            divisor.add_(term.sign_(), alpha=weight)
        # Where no term agrees, the dividend is 0 too.
        return divisor.clamp_min_(floor or torch.finfo(divisor.dtype).tiny)
    exact = torch.zeros_like(terms[0], dtype=torch.float64)
    for term, weight in zip(terms, weights, strict=True):
        exact.add_(term.sign_().double(), alpha=weight)
    return exact.masked_fill_(exact.abs() < 1e-8, 1.0).to(terms[0].dtype)
