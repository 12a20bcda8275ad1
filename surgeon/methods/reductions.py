"""Sums of many numbers at once: for a GPU, in an order that is the same for any chunk, on any device.

The order in which a GPU's own sums are made depends on its model, and on how many of them there are. Here halves are
added to halves, an IEEE addition per element and step: on a CPU the same instructions give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PIECEWISE = frozenset({"cpu"})
"""Kinds of devices where a chunk is worked on in pieces that stay in a core's cache, and that a result is waited for
costs nothing. On others every operation has a price of its own: there all of a chunk is done at once."""

ROWS = 64
"""Rows that are added up together."""


def piecewise(device: torch.device) -> bool:
    """Whether a chunk is worked on in pieces there, or else all at once."""
    return device.type in PIECEWISE


def folded(values: torch.Tensor) -> torch.Tensor:
    """The sums over dimension 1 of (n, m, ...) numbers, which are overwritten: (n, ...), the same for any n."""
    count = values.shape[1]
    if not count:
        return values.sum(1)
    while count > 1:
        half = (count + 1) // 2
        values[:, : count - half].add_(values[:, half:count])
        count = half
    return values[:, 0].clone()


def spans(values: torch.Tensor, span: int) -> torch.Tensor:
    """The sums of every `span` of (n,) numbers, which are overwritten; the last may be of fewer."""
    import torch

    whole = values.numel() // span * span
    return torch.cat([folded(part) for part in (values[:whole].view(-1, span), values[None, whole:]) if part.numel()])


def in_order(sums: torch.Tensor) -> list[float]:
    """(k, n) float64 numbers, from any device -> the k sums of rows, added up one after the other."""
    return [added(row) for row in sums.tolist()]


def added(values: Iterable[float], start: float = 0.0) -> float:
    """Numbers added up one after the other, which the built-in `sum` of later Pythons does not do."""
    return reduce(add, values, start)


class ColumnSums:
    """The sums of the columns of rows that stream past: `ROWS` at once, then what comes of them in order."""

    def __init__(self) -> None:
        self._total: torch.Tensor | None = None
        self._rest: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        """Adds (n, columns) numbers, which are overwritten."""
        import torch

        if self._rest is not None:
            rows = torch.cat([self._rest, rows])
        whole = len(rows) // ROWS * ROWS
        self._rest = rows[whole:].clone()
        if whole:
            self._sum(rows[:whole].view(-1, ROWS, rows.shape[1]))

    def _sum(self, groups: torch.Tensor) -> None:
        for group in folded(groups):
            self._total = group.clone() if self._total is None else self._total.add_(group)

    def total(self) -> torch.Tensor:
        """(columns,) sums of all rows, after the last of them."""
        assert self._rest is not None, "there is a row"
        if len(self._rest):
            self._sum(self._rest[None])
            self._rest = self._rest[:0]
        assert self._total is not None
        return self._total
