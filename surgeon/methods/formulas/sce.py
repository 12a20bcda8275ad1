"""SCE (select, calculate, erase): takes the elements with the largest variance between donors and weights the donors
by the size of their changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

from .. import kth_largest
from ..histogram_search import TOP, Search, Share
from ..kernel import Inputs, Kernel, Scratch, Sum, differences, subtract, sums
from ..reductions import piecewise
from ..registry import method, one
from ..sign_consensus import elected, total
from .linear import WITHOUT_EFFECT

if TYPE_CHECKING:
    import torch


LEAST = 1e-6
"""The smallest divisor; a sum of mean squares below it counts as zero. As in mergekit."""


def variance(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """(n,) float32 population variances over k tensors of (n,) values."""
    import torch

    single = [value.to(torch.float32) for value in values]
    if len(single) == 2:
        return (single[0] - single[1]).mul_(0.5).square_()
    if not piecewise(single[0].device):
        return _variance_at_once(single)
    mean = total(single).div_(len(single))
    out = torch.zeros_like(mean)
    for value in single:
        apart = value - mean
        out.addcmul_(apart, apart)
    return out.div_(len(single))


def _variance_at_once(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """`variance` on a GPU, with the same bits as on the CPU, because they decide which elements are taken.

    A GPU replaces a division by a Python number by a multiplication, and it may or may not round a square before adding
    it. A divisor in a tensor and squares in float64 avoid both.
    """
    import torch

    count = torch.full((), len(values), dtype=torch.float32, device=values[0].device)
    mean = total(values).div_(count)
    out = torch.zeros_like(mean)
    for value in values:
        out.copy_((value - mean).double().square_().add_(out))
    return out.div_(count)


@dataclass
class Variances:
    """Keys of the variances of task vectors over donors, as a source for `kth_largest` with one sequence."""

    inputs: Inputs
    step: int = 1

    def __post_init__(self) -> None:
        self.numel = self.inputs.numel

    def chunks(self, which: Sequence[int]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """(first element, [keys]) from the first element to the last."""
        for start, deltas in differences(self.inputs, self.inputs.others):
            yield start, [kth_largest.keys(variance(deltas), spent=True)]

    def read(self, start: int, count: int, which: Sequence[int]) -> list[torch.Tensor]:
        """Keys of elements `[start, start + count)`."""
        return [kth_largest.keys(variance(subtract(self.inputs.read(start, count), self.inputs.base)), spent=True)]


class EarlySquares:
    """Sums of squares of the taken elements, computed in the pass that searches which elements are taken.

    The search starts at an interval of variances. Elements above the interval are certainly taken and are summed at
    once. Elements inside it are stored until the search has ended.
    """

    def __init__(self, inputs: Inputs, search: Search) -> None:
        """Make the first pass of the search, and end it."""
        scratch, narrow = Scratch(), getattr(inputs, "narrow", False)
        self._sums = [Sum(scratch, narrow=narrow) for _ in inputs.others]
        self._kept: list[tuple[Any, Any, list[Any]]] | None = []
        low, high = search.low, search.high
        for start, deltas in differences(inputs, inputs.others):
            single = variance(deltas)
            found = kth_largest.keys(single, spent=True)
            if not search.add(found, start):
                self._kept = None
            if self._kept is None:
                continue
            places, (keys, *inside) = search.inside(found, [found, *deltas])
            self._kept.append((places + start, keys, inside))
            taken = kth_largest.shrink(single, kth_largest.edge(high, single.dtype)).sign_()
            for total_, delta in zip(self._sums, deltas, strict=True):
                total_.add_squares(delta.mul_(taken))
        search.narrow()
        if not (search.key >= 0 and low <= search.key < high):
            self._kept = None

    def squares(self, cut: kth_largest.Cut) -> list[float] | None:
        """The sum of squares per donor.

        None if the interval held too many elements or did not hold the cut, or if a sum is not finite in float32.
        """
        import numpy as np

        if self._kept is None:
            return None
        places, found, values = (list(part) for part in zip(*self._kept, strict=True))
        key, place = np.concatenate(found), np.concatenate(places)
        taken = (key > cut.key) | ((key == cut.key) & (place < cut.end))
        more = [np.concatenate(parts).astype(np.float64)[taken] for parts in zip(*values, strict=True)]
        squares = [total_.value + float((part * part).sum()) for total_, part in zip(self._sums, more, strict=True)]
        return squares if all(map(isfinite, squares)) else None


@dataclass
class Selected(Kernel):
    """The base plus the weighted mean of agreeing task vectors, at the elements with the largest variance.

    Attributes:
        share: the fraction of elements with a nonzero variance that are taken.
    """

    share: float
    _base: int = 0
    _cut: kth_largest.Cut | None = None
    _weights: list[float] = field(default_factory=list)

    def scratch_bytes(self, donors: int, width: int) -> int:
        return super().scratch_bytes(donors, width) + 4 * donors + 16

    def survey(self, inputs: Inputs) -> None:
        assert inputs.base is not None, "the base is required"
        self._base = inputs.base
        squares = None
        if self.share < 1:
            source = Variances(inputs)
            ((search,),) = kth_largest.new_searches(source, [[Share(self.share)]])
            early = EarlySquares(inputs, search) if search.low > 0 or search.high < TOP else None
            self._cut = kth_largest.located(source, kth_largest.finish(source, [[search]]))[0][0]
            squares = early.squares(self._cut) if early else None
        means = [square / max(inputs.numel, 1) for square in squares or self._squares(inputs)]
        whole = sum(means)
        self._weights = [mean / whole if whole >= LEAST else 1 / len(means) for mean in means]

    def _squares(self, inputs: Inputs) -> list[float]:
        """The sum of squares of the taken elements per donor, in a separate pass."""

        def fill(squares: list[Sum]) -> None:
            for start, deltas in differences(inputs, inputs.others):
                taken = self._taken(start, deltas)
                for square, delta in zip(squares, deltas, strict=True):
                    square.add_squares(delta if taken is None else delta.mul_(taken))

        return sums(inputs, len(inputs.others), fill)

    def _taken(self, start: int, deltas: Sequence[torch.Tensor]) -> torch.Tensor | None:
        """(n,) mask of taken elements, 1 or 0; None if all are taken."""
        if self._cut is None:
            return None
        return kth_largest.keep(variance(deltas), start, self._cut).sign_().to(deltas[0].dtype)

    def blend(self, start: int, chunks: list[torch.Tensor]) -> torch.Tensor:
        base, deltas = chunks[self._base], subtract(chunks, self._base)
        taken = self._taken(start, deltas)
        found = elected(deltas, self._weights, self._weights, floor=LEAST)
        assert found is not None, "there must be a donor"
        return base.add_(found) if taken is None else base.addcmul_(found, taken)


@method(donors=(1, None), base="required", source="Wan et al. 2024, FuseChat (SCE), arXiv 2408.07990")
def sce(
    *,
    select_topk: float = one(1.0, low=0, high=1, help="the fraction of the differing elements that is taken"),
    int8_mask: bool = one(False, help=WITHOUT_EFFECT),
) -> Kernel:
    """The base plus, where donors differ most, the mean of the donors that agree in sign, weighted by mean squares.

    The result is the base where donors do not differ and `select_topk` is below 1. Donors have equal weights if the
    changes of all are about zero.
    """
    return Selected(select_topk)
