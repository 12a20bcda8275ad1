"""Which elements of a task vector stay: some at random, all alike or the larger rather.

Whether an element stays depends on the seed and its index alone, not on chunks, threads or device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import select
from .consensus import Mask
from .kernel import Inputs, Unit

if TYPE_CHECKING:
    import torch

LANES = 1 << 16
"""Values of a random lane: probabilities are multiples of 1 / LANES."""

SORTED = 1 << 16
"""Elements that are sorted at once: what that takes stays in a core's cache."""


@dataclass
class Random(Mask):
    """Each element stays with one probability, its density.

    Attributes:
        densities: per donor; rounded to a multiple of 1 / 65536, but to 0 or 1 only if it is that.
        divide: divide what stays by its probability (as it was rounded).
    """

    densities: Sequence[float]
    divide: bool = False
    _lanes: list[Lanes] = field(default_factory=list)

    def prepare(self, inputs: Inputs, which: Sequence[int]) -> None:
        self._lanes = [Lanes(inputs.seeds[donor]) for donor in inputs.others]

    def whole(self, donor: int) -> bool:
        return self.densities[donor] >= 1

    def apply(self, donor: int, start: int, delta: torch.Tensor) -> None:
        limit = limits(self.densities[donor])
        if limit == 0:
            delta.zero_()
            return
        drawn = self._lanes[donor].read(start, delta.numel())
        delta.mul_(_on((drawn < limit).view("u1"), delta))
        if self.divide:
            delta.mul_(LANES / limit)


@dataclass
class Ranked(Mask):
    """Each element stays with a probability that grows with the rank of its magnitude in its row.

    From density - epsilon for the smallest to density + epsilon for the largest; of equal magnitudes the lower index
    ranks lower. A row of one element has the density. Densities of 0 and less keep none, of 1 and more all.

    Attributes:
        densities, epsilons: per donor.
        divide: divide what stays by its probability (as it was rounded).
    """

    densities: Sequence[float]
    epsilons: Sequence[float]
    divide: bool = False
    unit: Unit = "row"
    _lanes: list[Lanes] = field(default_factory=list)
    _limits: list[Any] = field(default_factory=list)

    def prepare(self, inputs: Inputs, which: Sequence[int]) -> None:
        self._lanes = [Lanes(inputs.seeds[donor]) for donor in inputs.others]
        pairs = zip(self.densities, self.epsilons, strict=True)
        self._limits = [ranked_limits(density, epsilon, inputs.columns) for density, epsilon in pairs]

    def whole(self, donor: int) -> bool:
        return self.densities[donor] >= 1

    def apply(self, donor: int, start: int, delta: torch.Tensor) -> None:
        if self.densities[donor] <= 0:
            delta.zero_()
            return
        columns = len(self._limits[donor])
        step = max(1, SORTED // columns) * columns if delta.device.type == "cpu" else delta.numel()
        for first in range(0, delta.numel(), step):
            self._thin(donor, start + first, delta[first : first + step].view(-1, columns))

    def _thin(self, donor: int, start: int, rows: torch.Tensor) -> None:
        stays, order = self._stays(donor, start, rows), _ascending(rows)
        rows.mul_(stays.new_empty(stays.shape).scatter_(1, order, stays))
        if self.divide:
            factors = _on(LANES / self._limits[donor], rows).expand(rows.shape)
            rows.mul_(factors.new_empty(rows.shape).scatter_(1, order, factors))

    def left(self, donor: int, start: int, magnitudes: torch.Tensor) -> torch.Tensor:
        rows = magnitudes.view(-1, len(self._limits[donor]))
        if self.densities[donor] <= 0:
            return magnitudes.zero_()
        # Which stays is a matter of rank alone: without their places, magnitudes are sorted much faster.
        ordered = _sorted(rows)
        return ordered.mul_(self._stays(donor, start, rows)).view(-1)

    def _stays(self, donor: int, start: int, rows: torch.Tensor) -> torch.Tensor:
        """(n, m) of 1 and 0 by rank: whether that element of a row stays."""
        drawn = self._lanes[donor].read(start, rows.numel()).reshape(rows.shape)
        return _on((drawn < self._limits[donor]).view("u1"), rows)


def limits(density: float) -> int:
    """Below which of `LANES` values a random lane lets an element stay."""
    if not 0 < density < 1:
        return 0 if density <= 0 else LANES
    return min(max(round(density * LANES), 1), LANES - 1)


def ranked_limits(density: float, epsilon: float, count: int) -> Any:
    """(count,) uint32 `limits` of a row's elements, from the smallest magnitude to the largest."""
    import numpy as np

    ranks = np.arange(count) / (count - 1) if count > 1 else np.full(count, 0.5)
    return np.clip(np.rint((density - epsilon + 2 * epsilon * ranks) * LANES), 1, LANES - 1).astype(np.uint32)


class Lanes:
    """A stream of random 16-bit numbers that can be read anywhere: PCG64's raw 64-bit draws, four lanes each.

    NumPy promises that a seed's raw stream stays what it is (NEP 19).
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._next = -1
        self._generator: Any = None

    def read(self, start: int, count: int) -> Any:
        """(count,) uint16 lanes, from the `start`-th on."""
        import numpy as np

        first, last = start // 4, -(-(start + count) // 4)
        if first != self._next:
            self._generator = np.random.PCG64(self._seed).advance(first)
        self._next = last
        return self._generator.random_raw(last - first).view("<u2")[start % 4 : start % 4 + count]


def _on(values: Any, like: torch.Tensor) -> torch.Tensor:
    """A NumPy array as a tensor of the dtype and on the device of another."""
    import torch

    return torch.from_numpy(values).to(like.device).to(like.dtype)


def _sorted(rows: torch.Tensor) -> torch.Tensor:
    """(n, m) magnitudes, each row from the smallest to the largest."""
    import numpy as np
    import torch

    if rows.device.type != "cpu":
        return torch.sort(rows, dim=1).values
    return torch.from_numpy(np.sort(rows.numpy(), axis=1))


def _ascending(rows: torch.Tensor) -> torch.Tensor:
    """(n, m) int64 indices that sort each of n rows by magnitude, equal ones by index."""
    import torch

    keys = select.keys(rows.reshape(-1)).view(rows.shape)
    if keys.device.type != "cpu":
        return torch.sort(keys, dim=1, stable=True).indices
    # Many times faster than a stable argsort: sorts numbers whose upper half is the key and whose lower the index. As
    # patterns of float64 they have the same order, and NumPy sorts those the fastest.
    packed = keys.clamp_max_(0x7F800000).long().bitwise_left_shift_(32).bitwise_or_(torch.arange(keys.shape[1]))
    packed.view(torch.float64).numpy().sort(axis=1)
    return packed.bitwise_and_(0xFFFFFFFF)
