"""Read a token table that is composed of the rows of other tables, piece by piece."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

from ...plan.operands import MEAN, Rows

if TYPE_CHECKING:
    import torch

    from .stored_reader import Reader

_GAP = 16 * 1024
"""Most elements between two wanted rows that are read together, because every read has a fixed cost."""
_SPAN = 4 * _GAP
"""Most elements of one read for rows that are not adjacent."""
_BLOCK = 16 * 1024
"""Elements per step of the sum for the mean of all rows: fixed, and too few for torch to split among threads."""

Pairs = list[tuple[int, int]]
"""Pairs (row of the result, row of a part)."""


class RowsReader:
    """Reads `Rows`. The bits do not depend on how a range is cut; memory grows only with the requested range.

    Args:
        rows: the operand, with the source of every row.
        parts: readers of its parts, in order; all have rows of the same length.
    """

    def __init__(self, rows: Rows, parts: Sequence[Reader]) -> None:
        self._parts = tuple(parts)
        self._take = tuple(_numbers(packed) for packed in rows.take)
        self._width = prod(parts[0].shape[1:])
        self._means: dict[torch.dtype, torch.Tensor] = {}
        self.shape: tuple[int, ...] = (len(self._take[0]), *parts[0].shape[1:])
        self.numel = prod(self.shape)

    def read(self, start: int, out: torch.Tensor) -> None:
        """Fill the flat CPU tensor `out`, of float32 or float64, with the elements from `start` on."""
        place, count, width = 0, out.numel(), self._width
        while place < count:
            row, column = divmod(start + place, width)
            if column == 0 and count - place >= width:
                length = (count - place) // width
                self._fill(row, 0, out[place : place + length * width].view(length, width))
                place += length * width
            else:
                length = min(width - column, count - place)
                self._fill(row, column, out[place : place + length].view(1, length))
                place += length

    def _fill(self, first: int, column: int, out: torch.Tensor) -> None:
        """Fill `out` with rows from `first` on, or with a part of one row: the columns from `column` on."""
        count = out.shape[0]
        takes = [take[first : first + count] for take in self._take]
        givers = [0] * count
        for take in takes:
            givers = [known + (number >= 0) for known, number in zip(givers, take, strict=True)]
        if 0 in givers:
            self._fill_bare(takes[0], givers, column, out)
        for part, take in enumerate(takes):
            pairs = [(row, number) for row, number in enumerate(take) if number >= 0 and givers[row] == 1]
            self._gather(part, pairs, column, out)
        if max(givers) > 1:
            self._fill_shared(takes, givers, column, out)

    def _fill_bare(self, take: array[int], givers: list[int], column: int, out: torch.Tensor) -> None:
        """Fill rows that no part has: with zeros, or with the mean of all other rows."""
        for row, number in enumerate(take):
            if givers[row] == 0:
                if number == MEAN:
                    out[row] = self._mean(out)[column : column + out.shape[1]]
                else:
                    out[row] = 0.0

    def _fill_shared(self, takes: list[array[int]], givers: list[int], column: int, out: torch.Tensor) -> None:
        """Fill rows that several parts have with their mean, computed in float64 and rounded once."""
        import torch

        wanted = [row for row, known in enumerate(givers) if known > 1]
        total = torch.zeros(len(wanted), out.shape[1], dtype=torch.float64)
        for part, take in enumerate(takes):
            have = [index for index, row in enumerate(wanted) if take[row] >= 0]
            values = torch.empty(len(have), out.shape[1], dtype=out.dtype)
            self._gather(part, [(place, take[wanted[index]]) for place, index in enumerate(have)], column, values)
            total[have] += values
        total /= torch.tensor([givers[row] for row in wanted], dtype=torch.float64)[:, None]
        out[wanted] = total.to(out.dtype)

    def _gather(self, part: int, pairs: Pairs, column: int, out: torch.Tensor) -> None:
        """Fill rows of one part with few reads."""
        scattered: Pairs = []
        for run in _runs(pairs):
            if len(run) == len(pairs) or len(run) * self._width >= _GAP:
                (row, number), length = run[0], len(run)
                self._parts[part].read(number * self._width + column, out[row : row + length].view(-1))
            else:
                scattered += run
        reach = max(1, _GAP // self._width)
        for group in _groups(sorted(scattered, key=lambda pair: pair[1]), reach, max(1, _SPAN // self._width)):
            self._read_span(part, group, out)

    def _read_span(self, part: int, group: Pairs, out: torch.Tensor) -> None:
        import torch

        if len(group) == 1:
            ((row, number),) = group
            self._parts[part].read(number * self._width, out[row])
            return
        low, high = group[0][1], group[-1][1] + 1
        span = torch.empty((high - low) * self._width, dtype=out.dtype)
        self._parts[part].read(low * self._width, span)
        rows = torch.tensor([row for row, _ in group])
        numbers = torch.tensor([number - low for _, number in group])
        out[rows] = span.view(-1, self._width)[numbers]

    def _mean(self, like: torch.Tensor) -> torch.Tensor:
        """The mean of all rows that are not `MEAN`, computed once in float64; (width,) in the dtype of `like`."""
        import torch

        if like.dtype not in self._means:
            take, step = self._take[0], max(1, _BLOCK // self._width)
            total, count = torch.zeros(self._width, dtype=torch.float64), 0
            for run in _other_rows(take):
                for first in range(run.start, run.stop, step):
                    block = torch.empty(min(step, run.stop - first), self._width, dtype=like.dtype)
                    self._fill(first, 0, block)
                    total += block.double().sum(0)
                count += len(run)
            self._means[like.dtype] = (total / max(1, count)).to(like.dtype)
        return self._means[like.dtype]


def _numbers(packed: bytes) -> array[int]:
    numbers = array("i")
    numbers.frombytes(packed)
    return numbers


def _other_rows(take: array[int]) -> Iterator[range]:
    """Runs of rows that are not `MEAN`."""
    start = 0
    for row, number in enumerate(take):
        if number == MEAN:
            if start < row:
                yield range(start, row)
            start = row + 1
    if start < len(take):
        yield range(start, len(take))


def _runs(pairs: Pairs) -> Iterator[Pairs]:
    """Runs of pairs whose rows are consecutive in both tables."""
    start = 0
    for index in range(1, len(pairs) + 1):
        last = pairs[index - 1]
        if index == len(pairs) or pairs[index] != (last[0] + 1, last[1] + 1):
            yield pairs[start:index]
            start = index


def _groups(pairs: Pairs, reach: int, span: int) -> Iterator[Pairs]:
    """Groups of pairs, sorted by the row of the part, whose rows are close to each other."""
    start = 0
    for index in range(1, len(pairs) + 1):
        near = index < len(pairs) and pairs[index][1] - pairs[index - 1][1] <= reach
        if not near or pairs[index][1] - pairs[start][1] >= span:
            yield pairs[start:index]
            start = index
