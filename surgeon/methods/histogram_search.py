"""The search for the k-th largest of streamed keys. Each pass makes a histogram of a smaller interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .reductions import piecewise

if TYPE_CHECKING:
    import torch

TOP = 1 << 31
"""A value above every key."""

COARSE = 16
"""Number of low bits that the first histogram, over all keys, ignores."""

BINS = 1 << 17
"""Most bins of a histogram of an interval (1 MB)."""

KEPT = 1 << 20
"""Most keys that a search stores (4 MB)."""


@dataclass(frozen=True)
class Share:
    """A k given as a fraction of the number of nonzero keys, rounded down."""

    of_nonzero: float


@dataclass
class Search:
    """Finds the k-th largest key.

    A pass calls `add` for every key, in any order, and then `narrow`. Passes are repeated until `narrow` returns True.
    `absorb` adds the counts of other processes. While only few keys lie in the interval, they are stored, which saves
    passes.

    Attributes:
        k: the rank of the key, at most the number of keys. If it is less than 1, the result is `TOP`.
        low, high: the interval `[low, high)` of keys that is searched.
        capacity: number of keys that may be stored.
        key: the result; -1 until it is known.
        need: number of keys equal to `key` that belong to the largest k.
        equal: number of keys equal to `key`.
        place: (first index, length, n) of the chunk whose n-th key equal to `key` is the last of the largest k; None
            if that is not known.
    """

    k: int | Share
    low: int = 0
    high: int = TOP
    capacity: int = KEPT
    key: int = -1
    need: int = 0
    equal: int = 0
    place: tuple[int, int, int] | None = None
    _above: int = 0
    _nonzero: int = 0
    _bins: Any = None
    _kept: list[tuple[int, int, Any]] = field(default_factory=list)
    _waiting: int = 0
    _few: bool = True
    _buffers: Any = None
    _places: Any = None

    @property
    def _whole(self) -> bool:
        return self.high - self.low == TOP

    @property
    def _shift(self) -> int:
        return COARSE if self._whole else max(0, (self.high - self.low - 1).bit_length() - BINS.bit_length() + 1)

    @property
    def _size(self) -> int:
        return ((self.high - self.low - 1) >> self._shift) + 1

    def add(self, found: torch.Tensor, start: int = 0) -> bool:
        """Count (n,) int32 keys; the first has index `start`.

        Returns:
            Whether the keys inside the interval are stored; `inside` gives their positions.
        """
        import torch

        if isinstance(self.k, Share):
            self._nonzero += _nonzero(found)
        if self._whole:
            self._count(torch.bincount(found >> COARSE, minlength=self._size).cpu().numpy())
            return False
        above, inside = self._between(found)
        self._above += above
        self._kept.append((start, found.numel(), inside))
        self._waiting += len(inside)
        if self._waiting > self.capacity:
            self._flush()
        return self._few

    def absorb(self, other: Search) -> None:
        """Add the counts of another search of the same interval over other keys."""
        other._flush()
        self._flush()
        self._above += other._above
        self._nonzero += other._nonzero
        if other._bins is not None:
            self._count(other._bins)

    def narrow(self) -> bool:
        """End a pass. True if `key`, `need` and `equal` are known; else another pass is needed."""
        if isinstance(self.k, Share):
            self.k = int(self.k.of_nonzero * self._nonzero)
        if self.k < 1:
            self.key = TOP
            return True
        if self._few and not self._whole:
            return self._from_kept(self.k - self._above)
        self._flush()
        return self._from_bins(self.k - self._above)

    def _from_kept(self, rank: int) -> bool:
        """End the search if the stored keys contain the rank-th largest."""
        import numpy as np

        inside = np.concatenate([kept for _, _, kept in self._kept]) if self._kept else np.zeros(0, np.uint32)
        if not 0 < rank <= len(inside):
            return self._restart(0, TOP)
        offset = np.partition(inside, len(inside) - rank)[len(inside) - rank]
        self.key = self.low + int(offset)
        self.equal = int(np.count_nonzero(inside == offset))
        self.need = left = rank - int(np.count_nonzero(inside > offset))
        for start, length, kept in self._kept:
            here = int(np.count_nonzero(kept == offset))
            if here >= left:
                self.place = (start, length, left)
                break
            left -= here
        self._kept = []
        return True

    def _from_bins(self, rank: int) -> bool:
        """Narrow the interval to the bin that holds the rank-th largest counted key, or end the search there."""
        import numpy as np

        bins = self._bins
        if bins is None or not 0 < rank <= int(bins.sum()):
            return self._restart(0, TOP)
        downwards = np.cumsum(bins[::-1])
        place = int(np.searchsorted(downwards, rank))
        number, inside = len(bins) - 1 - place, int(bins[len(bins) - 1 - place])
        low, width = self.low + (number << self._shift), 1 << self._shift
        if width == 1:
            self.key, self.need, self.equal = low, rank - int(downwards[place]) + inside, inside
            return True
        return self._restart(low, min(self.high, low + width))

    def _restart(self, low: int, high: int) -> bool:
        assert self._whole is False or high - low < TOP, "a search of all keys must find one"
        self.low, self.high, self._above, self._bins = low, high, 0, None
        self._kept, self._waiting, self._few = [], 0, True
        return False

    def _flush(self) -> None:
        """Count the stored keys, and from now on count keys instead of storing them."""
        import numpy as np

        self._few = False
        if self._kept:
            found = np.concatenate([kept for _, _, kept in self._kept]) >> self._shift
            self._kept, self._waiting = [], 0
            self._count(np.bincount(found, minlength=self._size))

    def _count(self, bins: Any) -> None:
        if self._bins is None:
            self._bins = bins.copy()
        else:
            self._bins += bins

    def inside(self, found: torch.Tensor, values: Sequence[torch.Tensor]) -> tuple[Any, list[Any]]:
        """(m,) int64 positions of the last added keys that lie in the interval, and the elements of `values` there."""
        if not piecewise(found.device):
            at = ((found >= self.low) & (found <= self.high - 1)).nonzero().view(-1)
            return at.cpu().numpy(), [value[at].cpu().numpy() for value in values]
        places = self._search(found) if self._places is None else self._places
        return places, [value.numpy()[places] for value in values]

    def _search(self, found: torch.Tensor) -> Any:
        import numpy as np

        patterns = found.cpu().numpy().view(np.uint32)
        offsets, flags = self._scratch(len(patterns))
        np.subtract(patterns, np.uint32(self.low), out=offsets)
        return np.flatnonzero(np.less(offsets, np.uint32(self.high - self.low), out=flags))

    def _between(self, found: torch.Tensor) -> tuple[int, Any]:
        """The number of keys at or above `high`, and `key - low` (uint32) of the keys in `[low, high)`."""
        import numpy as np
        import torch

        low, high, self._places = self.low, self.high, None
        if not piecewise(found.device):
            above = int(torch.count_nonzero(found >= high)) if high < TOP else 0
            if high - low == 1:
                return above, np.zeros(int(torch.count_nonzero(found == low)), np.uint32)
            # Not `< high`: TOP overflows to the lowest int32 in torch.
            return above, (found[(found >= low) & (found <= high - 1)] - low).cpu().numpy().view(np.uint32)
        patterns = found.numpy().view(np.uint32)
        offsets, flags = self._scratch(len(patterns))
        above = int(np.count_nonzero(np.greater_equal(patterns, np.uint32(high), out=flags))) if high < TOP else 0
        if high - low == 1:  # common with donors of 16 bits: many of their differences are equal
            return above, np.zeros(np.count_nonzero(np.equal(patterns, np.uint32(low), out=flags)), np.uint32)
        self._places = self._search(found)
        return above, offsets[self._places]

    def _scratch(self, count: int) -> tuple[Any, Any]:
        """(count,) uint32 and bool buffers, reused because new pages would cost more than the arithmetic."""
        import numpy as np

        if self._buffers is None or len(self._buffers[0]) < count:
            self._buffers = np.empty(count, np.uint32), np.empty(count, np.bool_)
        offsets, flags = self._buffers
        return offsets[:count], flags[:count]


def _nonzero(found: torch.Tensor) -> int:
    """The number of nonzero keys. NumPy counts them twice as fast as torch."""
    import numpy as np

    return int(np.count_nonzero(found.numpy()) if piecewise(found.device) else found.count_nonzero())
