"""Arcee fusion: takes the changes of a donor that are outliers by their size and their effect on the row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import kth_largest
from ..kernel import Inputs, Kernel, Unit
from ..reductions import folded, piecewise
from ..registry import method

if TYPE_CHECKING:
    import torch

EPS = 1e-8
"""Added to probabilities before the logarithm, as in mergekit."""

TOGETHER = 1 << 15
"""Elements whose importance is computed at once. The buffers for this many stay in a core's cache."""


def importance(base: torch.Tensor, donor: torch.Tensor, columns: int, wide: bool) -> torch.Tensor:
    """(n,) float32 importances: |donor - base| times the divergence of the row, KL(softmax(donor) || softmax(base)).

    mergekit computes in float32, where the divergence of nearly equal rows is mostly a rounding error. A negative
    divergence, which only rounding can cause, counts as 0.

    Args:
        base, donor: (n,) values of whole rows.
        columns: length of a row.
        wide: compute in float64.
    """
    if wide or piecewise(base.device):
        return _importance(base, donor, columns, wide, piecewise(base.device))
    # Rounding errors influence which elements are taken, and another device would round differently.
    return _importance(base.cpu(), donor.cpu(), columns, wide, True).to(base.device)


def _importance(base: torch.Tensor, donor: torch.Tensor, columns: int, wide: bool, pieces: bool) -> torch.Tensor:
    """`importance` on one device, in pieces or all at once."""
    import torch

    dtype = torch.float64 if wide else torch.float32
    out = torch.empty(base.numel(), dtype=torch.float32, device=base.device)
    step = max(1, TOGETHER // columns) * columns if pieces else max(base.numel(), 1)
    for start in range(0, base.numel(), step):
        old, new = (values[start : start + step].to(dtype).view(-1, columns) for values in (base, donor))
        before, after = torch.softmax(old, 1).add_(EPS), torch.softmax(new, 1).add_(EPS)
        terms = torch.div(after, before, out=before).log_().mul_(after)
        divergence = (terms.sum(1, keepdim=True) if pieces else folded(terms)[:, None]).clamp_min_(0)
        out[start : start + step].copy_((new - old).abs_().mul_(divergence).view(-1))
    return out


@dataclass
class Importances:
    """Keys of importances, as a source for `kth_largest` with one sequence."""

    inputs: Inputs
    wide: bool

    def __post_init__(self) -> None:
        self.numel, self.step = self.inputs.numel, max(self.inputs.columns, 1)
        assert self.inputs.base is not None, "the base is required"
        self._which = (self.inputs.base, *self.inputs.others)

    def chunks(self, which: Sequence[int]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """(first element, [keys]) from the first element to the last."""
        for start, (base, donor) in self.inputs.chunks(self._which):
            yield start, [kth_largest.keys(importance(base, donor, self.step, self.wide))]

    def read(self, start: int, count: int, which: Sequence[int]) -> list[torch.Tensor]:
        """Keys of elements `[start, start + count)`, which must be whole rows."""
        base, donor = self.inputs.read(start, count, self._which)
        return [kth_largest.keys(importance(base, donor, self.step, self.wide))]


@dataclass
class Fusion(Kernel):
    """The donor's value where its importance is an outlier in the tensor, else the base's."""

    unit: Unit = "row"
    _base: int = 0
    _columns: int = 1
    _wide: bool = False
    _threshold: float = 0.0

    def scratch_bytes(self, donors: int, width: int) -> int:
        return super().scratch_bytes(donors, width) + 40

    def survey(self, inputs: Inputs) -> None:
        import numpy as np

        assert inputs.base is not None, "the base is required"
        self._base, self._columns = inputs.base, max(inputs.columns, 1)
        self._wide = bool(getattr(inputs, "narrow", False))
        if inputs.numel == 0:
            return
        # The i-th smallest of n is the (n - i)-th largest.
        ranks = [inputs.numel - int(share * (inputs.numel - 1)) for share in (0.25, 0.5, 0.75)]
        (found,) = kth_largest.find(Importances(inputs, self._wide), [ranks])
        low, middle, high = (np.float32(kth_largest.magnitude(search.key)) for search in found)
        self._threshold = float(middle + np.float32(1.5) * (high - low))

    def blend(self, start: int, chunks: list[torch.Tensor]) -> torch.Tensor:
        base, donor = chunks[self._base], chunks[1 - self._base]
        matters = importance(base, donor, self._columns, self._wide) >= self._threshold
        return donor.where(matters, base)


@method(donors=1, base="required", source="mergekit's arcee_fusion, Arcee 2024")
def arcee_fusion() -> Kernel:
    """The donor's value where its change is unusually important for the tensor, else the base's.

    The importance of an element is the size of its change times the divergence of its row (`importance`). It is unusual
    from the median plus 1.5 times the interquartile range of all elements on. If all importances are equal, the result
    is the donor.
    """
    return Fusion()
