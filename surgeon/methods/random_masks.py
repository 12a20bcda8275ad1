"""Random masks of a task vector, with equal probabilities or probabilities that grow with the magnitude.

Whether an element is kept depends only on the seed, its index and the values, not on chunks, threads or device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .kernel import Inputs, Scratch, Unit
from .rank_masks import LANES, Draws, ranked_limits
from .reductions import piecewise
from .sign_consensus import Mask

if TYPE_CHECKING:
    import torch

SORTED = 1 << 16
"""Elements that are sorted at once. The buffers for this many stay in a core's cache."""

STORED = 1 << 28
"""Most elements of one tensor's task vectors whose mask is stored (32 MB)."""


class Bits:
    """The stored mask of the first `limit` elements, a bit each, so that a second pass does not draw it again."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._known = 0
        self._packed: Any = None

    def put(self, start: int, stays: Any) -> None:
        """Store (n,) bool or uint8 mask values of elements from `start` on, if they follow the stored ones."""
        import numpy as np

        if start != self._known or self._known >= self.limit:
            return
        if self._packed is None:
            self._packed = np.empty(-(-self.limit // 8), np.uint8)
        byte, bits = divmod(start, 8)
        stays = stays[: self.limit - start]
        self._known += len(stays)
        if bits:
            stays = np.concatenate([np.unpackbits(self._packed[byte : byte + 1], count=bits), stays])
        packed = np.packbits(stays)
        self._packed[byte : byte + len(packed)] = packed

    def get(self, start: int, count: int) -> Any:
        """(count,) uint8 mask of elements from `start` on; None if not all of it is stored."""
        import numpy as np

        if self._packed is None or start + count > self._known:
            return None
        byte, bits = divmod(start, 8)
        return np.unpackbits(self._packed[byte : -(-(start + count) // 8)], count=bits + count)[bits:]


@dataclass
class Random(Mask):
    """Keeps each element with the same probability, the density (DARE, arXiv 2311.03099).

    Attributes:
        densities: per donor; rounded to a multiple of 1 / 65536, but never rounded to 0 or 1.
        divide: divide kept elements by the rounded probability.
    """

    densities: Sequence[float]
    divide: bool = False
    _lanes: list[Lanes] = field(default_factory=list)
    _bits: list[Bits] = field(default_factory=list)
    _scratch: Scratch = field(default_factory=Scratch)

    def __post_init__(self) -> None:
        self.spreads = all(density > 0 for density in self.densities)  # NaN and infinity times 0 give NaN

    def prepare(self, inputs: Inputs, which: Sequence[int]) -> None:
        self._lanes = [Lanes(inputs.seeds[donor]) for donor in inputs.others]
        self._bits = [Bits(min(inputs.numel, STORED // len(inputs.others))) for _ in inputs.others]

    def whole(self, donor: int) -> bool:
        return self.densities[donor] >= 1

    def apply(self, donor: int, start: int, delta: torch.Tensor) -> None:
        limit = limits(self.densities[donor])
        if limit == 0:
            delta.zero_()
            return
        stays = self._bits[donor].get(start, delta.numel())
        delta.mul_(factors(self._scratch, self._drawn(donor, start, delta.numel()) if stays is None else stays, delta))
        if self.divide:
            delta.mul_(LANES / limit)

    def remaining(self, donor: int, start: int, magnitudes: torch.Tensor) -> torch.Tensor:
        if limits(self.densities[donor]) == 0:
            return magnitudes.zero_()
        stays = self._drawn(donor, start, magnitudes.numel())
        self._bits[donor].put(start, stays)
        magnitudes.mul_(factors(self._scratch, stays, magnitudes))
        return magnitudes.mul_(LANES / limits(self.densities[donor])) if self.divide else magnitudes

    def _drawn(self, donor: int, start: int, count: int) -> Any:
        """(count,) uint8 mask, 1 for kept elements."""
        return (self._lanes[donor].read(start, count) < limits(self.densities[donor])).view("u1")


@dataclass
class Ranked(Mask):
    """Keeps each element with a probability that grows with the rank of its magnitude in its row (DELLA).

    The probability grows from density - epsilon for the smallest to density + epsilon for the largest. Equal magnitudes
    have the mean probability of their ranks. The element of a row of one has the density. A density of 0 or less keeps
    nothing, of 1 or more everything. Source: arXiv 2406.11617.

    Attributes:
        densities, epsilons: per donor.
        divide: divide kept elements by the rounded probability.
    """

    densities: Sequence[float]
    epsilons: Sequence[float]
    divide: bool = False
    unit: Unit = "row"
    scratch_bytes: int = field(default=56, init=False)
    _lanes: list[Lanes] = field(default_factory=list)
    _draws: list[Draws] = field(default_factory=list)
    _bits: list[Bits] = field(default_factory=list)
    _scratch: Scratch = field(default_factory=Scratch)

    def __post_init__(self) -> None:
        self.spreads = all(density > 0 for density in self.densities)

    def prepare(self, inputs: Inputs, which: Sequence[int]) -> None:
        self._lanes = [Lanes(inputs.seeds[donor]) for donor in inputs.others]
        pairs = zip(self.densities, self.epsilons, strict=True)
        self._draws = [Draws(ranked_limits(density, epsilon, inputs.columns)) for density, epsilon in pairs]
        limit = min(inputs.numel, STORED // len(inputs.others)) if piecewise(inputs.device) else 0
        self._bits = [Bits(limit) for _ in inputs.others]

    def whole(self, donor: int) -> bool:
        return self.densities[donor] >= 1

    def apply(self, donor: int, start: int, delta: torch.Tensor) -> None:
        if self.densities[donor] <= 0:
            delta.zero_()
            return
        stays = None if self.divide else self._bits[donor].get(start, delta.numel())
        if stays is not None:
            delta.mul_(factors(self._scratch, stays, delta))
            return
        for _, rows, drawn in self._pieces(donor, start, delta):
            if self.divide:
                rows.mul_(self._draws[donor].divided(rows, drawn))
            else:
                rows.view(-1).mul_(self._scratch.of(self._draws[donor].stay(rows, drawn), rows))

    def remaining(self, donor: int, start: int, magnitudes: torch.Tensor) -> torch.Tensor:
        if self.divide or not piecewise(magnitudes.device) or self.densities[donor] <= 0:
            return super().remaining(donor, start, magnitudes)
        for first, rows, drawn in self._pieces(donor, start, magnitudes):
            stays = self._draws[donor].stay(rows, drawn)
            self._bits[donor].put(start + first, stays.numpy())
            rows.view(-1).mul_(self._scratch.of(stays, rows))
        return magnitudes

    def _pieces(self, donor: int, start: int, values: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, Any]]:
        """(first element, (n, m) rows, their (n * m,) random lanes) of each part that is processed at once."""
        columns = self._draws[donor].columns
        step = max(1, SORTED // max(columns, 1)) * columns if piecewise(values.device) else values.numel()
        for first in range(0, values.numel(), max(step, 1)):
            rows = values[first : first + step].view(-1, columns)
            yield first, rows, self._lanes[donor].read(start + first, rows.numel())


def limits(density: float) -> int:
    """The limit in 0..`LANES` for a density: an element is kept if its random lane is below it."""
    if not 0 < density < 1:
        return 0 if density <= 0 else LANES
    return min(max(round(density * LANES), 1), LANES - 1)


class Lanes:
    """A random-access stream of random 16-bit numbers (lanes): PCG64's raw 64-bit draws, four lanes each.

    NumPy guarantees that the raw stream of a seed does not change (NEP 19).
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._next = -1
        self._generator: Any = None

    def read(self, start: int, count: int) -> Any:
        """(count,) uint16 lanes from index `start` on."""
        import numpy as np

        first, last = start // 4, -(-(start + count) // 4)
        if first != self._next:
            self._generator = np.random.PCG64(self._seed).advance(first)
        self._next = last
        return self._generator.random_raw(last - first).view("<u2")[start % 4 : start % 4 + count]


def factors(scratch: Scratch, stays: Any, like: torch.Tensor) -> torch.Tensor:
    """A NumPy (n,) uint8 mask as a tensor with the dtype and device of `like`, valid until the next call."""
    import torch

    return scratch.of(torch.from_numpy(stays).to(like.device), like)
