"""Which elements of a task vector stay: the largest, or a band of magnitudes."""

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
    """Keys of task vectors, for `select`."""

    inputs: Inputs
    step: int = 1

    def __post_init__(self) -> None:
        self.numel = self.inputs.numel
        assert self.inputs.base is not None, "task vectors are relative to a base"
        self._base = self.inputs.base

    def chunks(self, which: Sequence[int]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """Keys of these donors' task vectors; donors are counted without the base."""
        for start, chunks in self.inputs.chunks(self._with_base(which)):
            yield start, [kth_largest.keys(delta, spent=True) for delta in subtract(chunks, 0)]

    def read(self, start: int, count: int, which: Sequence[int]) -> list[torch.Tensor]:
        """The same of some elements."""
        chunks = self.inputs.read(start, count, self._with_base(which))
        return [kth_largest.keys(delta, spent=True) for delta in subtract(chunks, 0)]

    def _with_base(self, which: Sequence[int]) -> list[int]:
        return [self._base, *(self.inputs.others[donor] for donor in which)]


@dataclass
class Largest(Mask):
    """The largest magnitudes of a tensor: exactly max(1, int(density * n)) of them, none at density 0.

    Attributes:
        densities: the share that stays, per donor.
        over_model: of the elements of all tensors of a model instead; `give` says how many of this one's.
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
            assert self._given, "a trim over the whole model comes before the survey of a tensor"
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
    """How many elements a density keeps."""
    return 0 if density <= 0 else min(numel, max(1, int(density * numel)))


@dataclass
class Band(Mask):
    """Magnitudes without the largest (outliers) and without the smallest.

    Of n elements sorted by magnitude, int(density * n) stay, from n - int(density * n) - int(gamma * n) on (from 0 on
    where that is less). Of equal magnitudes the lower index counts as the larger.

    Attributes:
        densities: the share that stays, per donor; all at 1 and more.
        gammas: the share of largest elements that goes.
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
