"""The exact k-th largest magnitude of streamed numbers, in constant memory.

A magnitude is compared by its *key*: the bit pattern of |x| rounded to float32, which sorts like |x|. Of equal
keys, the one with the lower index counts as larger. "The largest k" is therefore one set of exactly k elements. A `Cut`
describes it: every key above a threshold, and the keys equal to it before an index. The set does not depend on chunks,
threads or device.

`cuts` runs a `Search` over one tensor. The search starts at an interval that is estimated from a sample; in most cases
one pass is then enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .histogram_search import KEPT, TOP, Search, Share
from .reductions import piecewise

if TYPE_CHECKING:
    import torch

SAMPLES, SAMPLE = 256, 1024
"""Most places that are sampled, and elements per place. A tensor of fewer than 8 times that is not sampled."""

SPARSE = 64
"""One in this many elements is sampled; the number of places is limited to between `SAMPLES` / 4 and `SAMPLES`."""


@dataclass(frozen=True)
class Cut:
    """The set of the largest k elements: those with a key above `key`, and those equal to it before index `end`."""

    key: int
    end: int


NONE = Cut(TOP, 0)


def everything(numel: int) -> Cut:
    """The cut that keeps all elements."""
    return Cut(0, numel)


class Keyed(Protocol):
    """Sequences of keys that can be read repeatedly.

    Attributes:
        numel: length of each sequence.
        step: the number of elements in a chunk is a multiple of this.
    """

    numel: int
    step: int

    def chunks(self, which: Sequence[int]) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """(first element, int32 keys of each of these sequences), from the first element to the last."""
        ...

    def read(self, start: int, count: int, which: Sequence[int]) -> list[torch.Tensor]:
        """Keys `[start, start + count)` of these sequences."""
        ...


def keys(values: torch.Tensor, *, spent: bool = False) -> torch.Tensor:
    """(n,) int32 keys of (n,) float32 or float64 values; with `spent`, the values may be overwritten."""
    import torch

    patterns = values.to(torch.float32).view(torch.int32)
    return patterns.bitwise_and_(TOP - 1) if spent else patterns & (TOP - 1)


def magnitude(key: int) -> float:
    """The float32 magnitude of a key."""
    import struct

    return float(struct.unpack("<f", struct.pack("<I", key))[0])


def edge(key: int, dtype: torch.dtype) -> float:
    """The largest magnitude of a dtype (float32 or float64) whose key is below `key`; `key` is at least 1."""
    import torch

    if dtype == torch.float32:
        return magnitude(min(key, 0x7F800001) - 1)
    if key > 0x7F800000:
        return math.inf
    high = 2.0**128 if key == 0x7F800000 else magnitude(key)
    middle = (magnitude(key - 1) + high) / 2
    return math.nextafter(middle, 0) if key % 2 == 0 else middle  # ties round to the even pattern


def keep(values: torch.Tensor, start: int, cut: Cut) -> torch.Tensor:
    """Set values outside the cut to 0 in place.

    Args:
        values: (n,) float32 or float64.
        start: index of the first value.
        cut: the elements to keep.
    """
    split = min(max(cut.end - start, 0), values.numel())
    for part, key in ((values[:split], cut.key), (values[split:], cut.key + 1)):
        if part.numel() and key > 0:
            shrink(part, edge(key, values.dtype))
    return values


def shrink(values: torch.Tensor, limit: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """Set values whose magnitude is at most `limit` to 0, in `out` or in place.

    This is several times faster than a mask, because torch's boolean operations are not vectorised.
    """
    import torch

    target = values if out is None else out
    if limit == math.inf:
        return target.zero_()
    torch.ops.aten.hardshrink.out(values, limit, out=target)
    return target


def find(source: Keyed, wanted: Sequence[Sequence[int | Share]]) -> list[list[Search]]:
    """For every sequence of keys, a finished search per k (each k is at most `numel`)."""
    return finish(source, new_searches(source, wanted))


def cuts(source: Keyed, wanted: Sequence[Sequence[int | Share]]) -> list[list[Cut]]:
    """For every sequence of keys, a cut per k. A k of 0 or less keeps nothing, a k of `numel` or more everything."""
    inner = [[k for k in ks if isinstance(k, Share) or k < source.numel] for ks in wanted]
    found = [iter(group) for group in located(source, find(source, inner))]
    return [
        [next(group) if isinstance(k, Share) or k < source.numel else everything(source.numel) for k in ks]
        for group, ks in zip(found, wanted, strict=True)
    ]


def finish(source: Keyed, searches: list[list[Search]]) -> list[list[Search]]:
    """Finish the searches; they share the passes over the source."""
    while which := [index for index, group in enumerate(searches) if any(search.key < 0 for search in group)]:
        running = [[search for search in searches[index] if search.key < 0] for index in which]
        for start, found in source.chunks(which):
            for group, sequence in zip(running, found, strict=True):
                for search in group:
                    search.add(sequence, start)
        for group in running:
            for search in group:
                search.narrow()
    return searches


def located(source: Keyed, searches: Sequence[Sequence[Search]]) -> list[list[Cut]]:
    """The cuts of finished searches; `need` and `equal` may count only the keys of this source.

    If several keys equal the threshold, the last one that belongs to the largest k must be found. The chunk that holds
    it is read again if it is known (`Search.place`); else all chunks up to it.
    """
    ends = [[source.numel if search.need >= search.equal else 0 for search in group] for group in searches]
    left: dict[tuple[int, int], int] = {}
    for index, group in enumerate(searches):
        for number, search in enumerate(group):
            if search.place and 0 < search.need < search.equal:
                start, length, n = search.place
                _, at = _nth_equal(source.read(start, length, [index])[0], search.key, n)
                assert at is not None, "a source must give the same keys in every pass"
                ends[index][number] = start + at + 1
            elif 0 < search.need < search.equal:
                left[index, number] = search.need
    which = sorted({index for index, _ in left})
    for start, found in source.chunks(which) if which else ():
        for index, sequence in zip(which, found, strict=True):
            for place in [place for place in left if place[0] == index]:
                count, at = _nth_equal(sequence, searches[index][place[1]].key, left[place])
                left[place] -= count
                if at is not None:
                    ends[index][place[1]] = start + at + 1
                    del left[place]
        if not left:
            break
    return [
        [Cut(search.key, end) for search, end in zip(group, tails, strict=True)]
        for group, tails in zip(searches, ends, strict=True)
    ]


def _nth_equal(found: torch.Tensor, key: int, n: int) -> tuple[int, int | None]:
    """The number of keys equal to `key`, and the position of the n-th of them (n from 1), or None."""
    import numpy as np

    if not piecewise(found.device):
        at = (found == key).nonzero().view(-1)
        return len(at), int(at[n - 1]) if len(at) >= n else None
    matches = found.numpy() == key
    count = int(np.count_nonzero(matches))
    return count, int(np.flatnonzero(matches)[n - 1]) if count >= n else None


def new_searches(source: Keyed, wanted: Sequence[Sequence[int | Share]]) -> list[list[Search]]:
    """New searches; for a large source, each starts at an interval that is estimated from a sample."""
    import torch

    which = [index for index, ks in enumerate(wanted) if ks]
    count = -(-SAMPLE // source.step) * source.step
    if not which or source.numel < 8 * SAMPLES * count:
        return [[Search(k) for k in ks] for ks in wanted]
    places: list[list[Any]] = [[] for _ in which]
    samples = min(max(source.numel // (SPARSE * count), -(-SAMPLES // 4)), SAMPLES)
    stride = source.numel // samples
    for number in range(samples):
        # Equal distances would hit the same columns of a matrix every time.
        offset = int(number * 0.6180339887498949 % 1 * (stride - count))
        start = (number * stride + offset) // source.step * source.step
        for found, sequence in zip(places, source.read(start, count, which), strict=True):
            found.append(sequence.clone())
    samples_of = {index: torch.stack(found).cpu().numpy() for index, found in zip(which, places, strict=True)}
    guesses = {index: _guesses(list(found), wanted[index], source.numel) for index, found in samples_of.items()}
    capacity = min(KEPT, 4 * KEPT // sum(map(len, wanted)))
    return [
        [Search(k, *guess, capacity) for k, guess in zip(ks, guesses.get(index, []), strict=True)]
        for index, ks in enumerate(wanted)
    ]


def _guesses(places: Sequence[Any], ks: Sequence[int | Share], numel: int) -> list[tuple[int, int]]:
    """For every k, an interval that most likely holds the k-th key.

    The variance between the sampled places determines its width.
    """
    import numpy as np

    ordered, found = np.sort(np.concatenate(places))[::-1], []
    size = len(ordered)
    for k in ks:
        rank = k.of_nonzero * np.count_nonzero(ordered) if isinstance(k, Share) else k * size / numel
        middle = ordered[min(max(int(rank), 0), size - 1)]
        shares = [np.count_nonzero(place >= middle) / len(place) for place in places]
        margin = 4 + 3 * size * max(float(np.std(shares)) / math.sqrt(len(places)), 1 / math.sqrt(4 * size))
        first, last = int(rank - margin), int(rank + margin) + 1
        low = int(ordered[last]) if last < size else 0
        high = int(ordered[first]) + 1 if first >= 0 else TOP
        found.append((low, high))
    return found
