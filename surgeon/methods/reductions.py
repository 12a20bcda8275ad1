"""Sums whose order of additions does not depend on the chunk or the device.

The order of additions in a GPU's own sums depends on the GPU model and on the number of elements. Here halves are added
to halves, one IEEE addition per element and step, so a CPU gets the same bits with the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PIECEWISE = frozenset({"cpu"})
"""Device types on which a chunk is processed in pieces that stay in a core's cache, and on which synchronisation costs
nothing. On other devices every operation has a launch cost, so a whole chunk is processed at once."""

ROWS = 64
"""Rows that are summed together."""


def piecewise(device: torch.device) -> bool:
    """Whether chunks are processed in pieces on this device, instead of at once."""
    return device.type in PIECEWISE


def folded(values: torch.Tensor) -> torch.Tensor:
    """(n, ...) sums over dimension 1 of (n, m, ...) numbers, independent of n. Overwrites the numbers."""
    count = values.shape[1]
    if not count:
        return values.sum(1)
    while count > 1:
        half = (count + 1) // 2
        values[:, : count - half].add_(values[:, half:count])
        count = half
    return values[:, 0].clone()


def spans(values: torch.Tensor, span: int) -> torch.Tensor:
    """The sum of every `span` of (n,) numbers; the last span may be shorter. Overwrites the numbers."""
    import torch

    whole = values.numel() // span * span
    return torch.cat([folded(part) for part in (values[:whole].view(-1, span), values[None, whole:]) if part.numel()])


def in_order(sums: torch.Tensor) -> list[float]:
    """(k, n) float64 numbers on any device -> the k sums of rows, added one after the other."""
    return [added(row) for row in sums.tolist()]


def added(values: Iterable[float], start: float = 0.0) -> float:
    """The sum of numbers by plain additions in order; the built-in `sum` compensates rounding since Python 3.12."""
    return reduce(add, values, start)


class ColumnSums:
    """Column sums of streamed rows: groups of `ROWS` rows are summed at once, then the groups in order."""

    def __init__(self) -> None:
        self._total: torch.Tensor | None = None
        self._rest: torch.Tensor | None = None

    def add(self, rows: torch.Tensor) -> None:
        """Add (n, columns) numbers; may overwrite them."""
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
        """(columns,) sums of all rows; call it after the last row."""
        assert self._rest is not None, "there must be a row"
        if len(self._rest):
            self._sum(self._rest[None])
            self._rest = self._rest[:0]
        assert self._total is not None
        return self._total
