"""Which elements of a task vector stay: some at random, all alike or the larger rather.

Whether an element stays depends on the seed and its index alone, not on chunks, threads or device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .consensus import Mask
from .folds import piecewise
from .kernel import Inputs, Unit
from .ranks import Ranks, ordered

if TYPE_CHECKING:
    import torch

LANES = 1 << 16
"""Values of a random lane: probabilities are multiples of 1 / LANES."""

SORTED = 1 << 16
"""Elements that are sorted at once: what that takes stays in a core's cache."""

ROOM = 1 << 28
"""Elements of one tensor's task vectors of which is kept whether they stay (32 MB)."""


class Bits:
    """Whether elements stay, a bit each, from the first on to `limit`: not all that pass a second time are drawn again.

    Attributes:
        limit: of how many elements it is kept.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._known = 0
        self._packed: Any = None

    def put(self, start: int, stays: Any) -> None:
        """Keeps (n,) bool or uint8 of elements from `start` on, if they follow those before."""
        import numpy as np

        if start != self._known or self._known >= self.limit:
            return
        if self._packed is None:
            self._packed = np.empty(-(-self.limit // 8), np.uint8)
        place, begun = divmod(start, 8)
        stays = stays[: self.limit - start]
        self._known += len(stays)
        if begun:
            stays = np.concatenate([np.unpackbits(self._packed[place : place + 1], count=begun), stays])
        packed = np.packbits(stays)
        self._packed[place : place + len(packed)] = packed

    def get(self, start: int, count: int) -> Any:
        """(count,) uint8 of 1 and 0 for elements from `start` on; None if it is not known of all."""
        import numpy as np

        if self._packed is None or start + count > self._known:
            return None
        place, begun = divmod(start, 8)
        return np.unpackbits(self._packed[place : -(-(start + count) // 8)], count=begun + count)[begun:]


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
    _bits: list[Bits] = field(default_factory=list)

    def prepare(self, inputs: Inputs, which: Sequence[int]) -> None:
        self._lanes = [Lanes(inputs.seeds[donor]) for donor in inputs.others]
        self._bits = [Bits(min(inputs.numel, ROOM // len(inputs.others))) for _ in inputs.others]

    def whole(self, donor: int) -> bool:
        return self.densities[donor] >= 1

    def apply(self, donor: int, start: int, delta: torch.Tensor) -> None:
        limit = limits(self.densities[donor])
        if limit == 0:
            delta.zero_()
            return
        stays = self._bits[donor].get(start, delta.numel())
        delta.mul_(_on(self._drawn(donor, start, delta.numel()) if stays is None else stays, delta))
        if self.divide:
            delta.mul_(LANES / limit)

    def left(self, donor: int, start: int, magnitudes: torch.Tensor) -> torch.Tensor:
        if limits(self.densities[donor]) == 0:
            return magnitudes.zero_()
        stays = self._drawn(donor, start, magnitudes.numel())
        self._bits[donor].put(start, stays)
        magnitudes.mul_(_on(stays, magnitudes))
        return magnitudes.mul_(LANES / limits(self.densities[donor])) if self.divide else magnitudes

    def _drawn(self, donor: int, start: int, count: int) -> Any:
        """(count,) uint8 of 1 and 0: which elements stay."""
        return (self._lanes[donor].read(start, count) < limits(self.densities[donor])).view("u1")


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
    room: int = field(default=56, init=False)
    _lanes: list[Lanes] = field(default_factory=list)
    _limits: list[Any] = field(default_factory=list)
    _bits: list[Bits] = field(default_factory=list)
    _ranks: Ranks = field(default_factory=Ranks)

    def prepare(self, inputs: Inputs, which: Sequence[int]) -> None:
        self._lanes = [Lanes(inputs.seeds[donor]) for donor in inputs.others]
        pairs = zip(self.densities, self.epsilons, strict=True)
        self._limits = [ranked_limits(density, epsilon, inputs.columns) for density, epsilon in pairs]
        # Whole rows, so that it is not a matter of chunks which rows are summed up sorted; see `left`.
        columns = max(inputs.columns, 1)
        limit = min(inputs.numel, ROOM // len(inputs.others)) // columns * columns
        self._bits = [Bits(limit if piecewise(inputs.device) else 0) for _ in inputs.others]

    def whole(self, donor: int) -> bool:
        return self.densities[donor] >= 1

    def apply(self, donor: int, start: int, delta: torch.Tensor) -> None:
        if self.densities[donor] <= 0:
            delta.zero_()
            return
        stays = None if self.divide else self._bits[donor].get(start, delta.numel())
        if stays is not None:
            delta.mul_(_on(stays, delta))
            return
        for first, rows in self._pieces(donor, delta):
            rows.mul_(self._by_place(donor, start + first, rows))

    def left(self, donor: int, start: int, magnitudes: torch.Tensor) -> torch.Tensor:
        if self.densities[donor] <= 0:
            return magnitudes.zero_()
        bits = self._bits[donor]
        split = min(max(bits.limit - start, 0), magnitudes.numel())
        for first, rows in self._pieces(donor, magnitudes[:split]):
            stays = self._by_place(donor, start + first, rows)
            bits.put(start + first, stays.view(-1).numpy())
            rows.mul_(stays)
        # Which stays is a matter of rank alone: without their places, magnitudes are sorted much faster.
        for first, rows in self._pieces(donor, magnitudes[split:]):
            rows.copy_(ordered(rows).mul_(self._by_rank(donor, start + split + first, rows)))
        return magnitudes

    def _pieces(self, donor: int, values: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """(first element, (n, m) rows), in parts that are worked on at once."""
        columns = len(self._limits[donor])
        step = max(1, SORTED // max(columns, 1)) * columns if piecewise(values.device) else values.numel()
        for first in range(0, values.numel(), max(step, 1)):
            yield first, values[first : first + step].view(-1, columns)

    def _by_rank(self, donor: int, start: int, rows: torch.Tensor) -> torch.Tensor:
        """(n, m) by rank: uint8 of 1 and 0 for what stays and goes; factors of the rows' dtype, if divided."""
        import torch

        drawn = self._lanes[donor].read(start, rows.numel()).reshape(rows.shape)
        stays = torch.from_numpy((drawn < self._limits[donor]).view("u1")).to(rows.device)
        return stays * _on(float(LANES) / self._limits[donor], rows) if self.divide else stays

    def _by_place(self, donor: int, start: int, rows: torch.Tensor) -> torch.Tensor:
        """The same by place."""
        values = self._by_rank(donor, start, rows)
        return values.new_empty(values.shape).scatter_(1, self._ranks.ascending(rows), values)


def limits(density: float) -> int:
    """Below which of `LANES` values a random lane lets an element stay."""
    if not 0 < density < 1:
        return 0 if density <= 0 else LANES
    return min(max(round(density * LANES), 1), LANES - 1)


def ranked_limits(density: float, epsilon: float, count: int) -> Any:
    """(count,) uint16 `limits` of a row's elements, from the smallest magnitude to the largest."""
    import numpy as np

    ranks = np.arange(count) / (count - 1) if count > 1 else np.full(count, 0.5)
    return np.clip(np.rint((density - epsilon + 2 * epsilon * ranks) * LANES), 1, LANES - 1).astype(np.uint16)


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
