"""Masks of a task vector by magnitude: the largest elements, or a band of magnitudes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import kth_largest
from .histogram_search import Search
from .kernel import Inputs, Threshold, subtract
from .sign_consensus import Mask

if TYPE_CHECKING:
    import torch


@dataclass
class Deltas:
    """Keys of task vectors, as a source for `kth_largest`."""

    inputs: Inputs
    step: int = 1

    def __post_init__(self) -> None:
        self.numel = self.inputs.numel
        assert self.inputs.base is not None, "task vectors are relative to a base"
        self._base = self.inputs.base

    def chunks(self, which: Sequence[int]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """(first element, keys of the task vector of each of these donors); donors are numbered without the base."""
        for start, chunks in self.inputs.chunks(self._with_base(which)):
            yield start, [kth_largest.keys(delta, spent=True) for delta in subtract(chunks, 0)]

    def read(self, start: int, count: int, which: Sequence[int]) -> list[torch.Tensor]:
        """Keys of elements `[start, start + count)` of the task vectors of these donors."""
        chunks = self.inputs.read(start, count, self._with_base(which))
        return [kth_largest.keys(delta, spent=True) for delta in subtract(chunks, 0)]

    def _with_base(self, which: Sequence[int]) -> list[int]:
        return [self._base, *(self.inputs.others[donor] for donor in which)]


@dataclass
class Largest(Mask):
    """Keeps the largest magnitudes of a tensor: exactly max(1, int(density * n)), or none if the density is 0.

    Attributes:
        densities: the fraction of elements to keep, per donor.
        over_model: densities are fractions of the elements of the whole model; `give` receives this tensor's part.
    """

    densities: Sequence[float]
    over_model: bool = False
    _given: list[list[Search]] = field(default_factory=list)
    _cuts: list[list[kth_largest.Cut]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.whole_model = tuple(self.densities) if self.over_model else None

    def give(self, thresholds: Sequence[Threshold]) -> None:
        self._given = [[Search(given.need, key=given.key, need=given.need, equal=given.equal)] for given in thresholds]

    def prepare(self, inputs: Inputs, which: Sequence[int]) -> None:
        searched = [donor in which and not self.whole(donor) for donor in range(len(self.densities))]
        if self.over_model:
            assert self._given, "`give` must be called before a tensor is surveyed"
            given = [group if used else [] for group, used in zip(self._given, searched, strict=True)]
            self._cuts = kth_largest.located(Deltas(inputs), given)
        else:
            counts = [kept(density, inputs.numel) for density in self.densities]
            wanted = [[count] if used else [] for count, used in zip(counts, searched, strict=True)]
            self._cuts = kth_largest.cuts(Deltas(inputs), wanted)

    def whole(self, donor: int) -> bool:
        return self.densities[donor] >= 1

    def apply(self, donor: int, start: int, delta: torch.Tensor) -> None:
        kth_largest.keep(delta, start, self._cuts[donor][0])


def kept(density: float, numel: int) -> int:
    """The number of elements out of `numel` that a density keeps."""
    return 0 if density <= 0 else min(numel, max(1, int(density * numel)))


@dataclass
class Band(Mask):
    """Drops the largest magnitudes (outliers) and the smallest.

    Of n elements sorted by magnitude, int(density * n) are kept, starting at n - int(density * n) - int(gamma * n) (at
    0 if that is negative). Of equal magnitudes, the one with the lower index counts as larger.

    Attributes:
        densities: the fraction of elements to keep, per donor; 1 or more keeps all.
        gammas: the fraction of largest elements to drop, per donor.
    """

    densities: Sequence[float]
    gammas: Sequence[float]
    _cuts: list[list[kth_largest.Cut]] = field(default_factory=list)

    def prepare(self, inputs: Inputs, which: Sequence[int]) -> None:
        wanted: list[list[int]] = [[] for _ in self.densities]
        for donor in which:
            if not self.whole(donor):
                inside = int(max(0.0, self.densities[donor]) * inputs.numel)
                lower = max(0, inputs.numel - inside - int(self.gammas[donor] * inputs.numel))
                wanted[donor] = [inputs.numel - lower, inputs.numel - lower - inside]
        self._cuts = kth_largest.cuts(Deltas(inputs), wanted)

    def whole(self, donor: int) -> bool:
        return self.densities[donor] >= 1

    def apply(self, donor: int, start: int, delta: torch.Tensor) -> None:
        lower, upper = self._cuts[donor]
        if upper != kth_largest.NONE:
            outliers = kth_largest.keep(delta.clone(), start, upper)
            delta.sub_(outliers)
        kth_largest.keep(delta, start, lower)
