"""Random masks of rows in which the probability to keep an element grows with the rank of its magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .reductions import piecewise

if TYPE_CHECKING:
    import torch

LANES = 1 << 16
"""Number of values of a random lane; probabilities are multiples of 1 / LANES."""


def ranked_limits(density: float, epsilon: float, count: int) -> Any:
    """(count,) uint16 limits per rank: an element is kept if its random lane is below the limit of its rank.

    Probabilities grow linearly from density - epsilon at rank 0 to density + epsilon at rank count - 1.
    """
    import numpy as np

    ranks = np.arange(count) / (count - 1) if count > 1 else np.full(count, 0.5)
    return np.clip(np.rint((density - epsilon + 2 * epsilon * ranks) * LANES), 1, LANES - 1).astype(np.uint16)


class Draws:
    """The random masks of one donor's rows.

    An element is kept if its random lane is below the limit of its rank. The inverse is faster: each lane has a rank
    with the nearest limit, and the element is compared with the magnitude of this rank. A larger element is kept, a
    smaller one is dropped, and an equal one is kept if the lane is below that limit. So rows are sorted by value only,
    without indices, and most lanes keep or drop any element. Equal magnitudes each have the mean probability of their
    ranks. Values that are not finite count as equal to each other and as the largest.

    Attributes:
        columns: elements of a row.
    """

    def __init__(self, limits: Any) -> None:
        """`limits` are those of `ranked_limits`."""
        import numpy as np

        self.columns = len(limits)
        self._limits = limits
        halfway = (limits[:-1].astype(np.uint32) + limits[1:] + 1) // 2
        cuts, lanes = np.concatenate([limits[:1], halfway, limits[-1:]]), np.arange(LANES)
        # For each lane: 2 * nearest rank (-1: all elements are kept, number of columns: none), plus 1 if the lane is
        # below that rank's limit.
        nearest = np.searchsorted(cuts, lanes, side="right") - 1
        self._table = 2 * nearest + (lanes < np.concatenate([limits, [0, LANES]])[nearest])
        self._buffers: tuple[Any, Any, Any] = (np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0, np.int64))

    def stay(self, rows: torch.Tensor, drawn: Any) -> torch.Tensor:
        """(n * m,) uint8 mask on the rows' device, 1 for kept elements.

        Args:
            rows: (n, m) float32 or float64; signs are ignored.
            drawn: (n * m,) uint16 lanes (NumPy).
        """
        import torch

        if not rows.numel():
            return torch.empty(0, dtype=torch.uint8, device=rows.device)
        if piecewise(rows.device):
            return torch.from_numpy(self._mask_in_pieces(rows, drawn))
        return self._mask_at_once(rows, drawn)

    def divided(self, rows: torch.Tensor, drawn: Any) -> torch.Tensor:
        """(n, m) factors of the rows' dtype: 0 for dropped elements, 1 / probability for kept ones."""
        import torch

        ordered, places = _magnitudes(rows).sort(dim=1)
        ranks = torch.arange(self.columns, device=rows.device).expand_as(places)
        new = torch.ones_like(places, dtype=torch.bool)
        new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        lowest = torch.where(new, ranks, 0).cummax(1).values
        last = torch.ones_like(new)
        last[:, :-1] = new[:, 1:]
        highest = torch.where(last, ranks, self.columns - 1).flip(1).cummin(1).values.flip(1)
        limits = torch.from_numpy(self._limits.astype("f8")).to(rows.device)
        factors = 2 * LANES / (limits[lowest] + limits[highest])
        found = torch.empty_like(rows).scatter_(1, places, factors.to(rows.dtype))
        return found.mul_(self.stay(rows, drawn).view(rows.shape))

    def _mask_in_pieces(self, rows: torch.Tensor, lanes: Any) -> Any:
        """`stay` on the CPU. Only lanes between the lowest and the highest limit need a comparison."""
        import numpy as np

        single, ordered, starts = self._reused(*rows.shape)
        np.abs(rows.numpy(), out=single, casting="same_kind")
        ordered[:] = single
        ordered.sort(axis=1)
        if not np.isfinite(ordered[:, -1].max()):
            for values in (single, ordered):
                np.nan_to_num(values, copy=False, nan=np.inf, posinf=np.inf)
        low, high = self._limits[0], self._limits[-1]
        stays = (lanes < low).view("u1")
        places = np.flatnonzero(lanes - low < high - low)
        table = self._table.take(lanes.take(places))
        values = single.reshape(-1).take(places)
        edges = ordered.reshape(-1).take(starts.take(places) + (table >> 1))
        stays[places] = (values > edges) | ((values == edges) & (table & 1 > 0))
        return stays

    def _mask_at_once(self, rows: torch.Tensor, lanes: Any) -> torch.Tensor:
        """`stay` with operations on all rows at once; the result has the same bits."""
        import torch

        single = _magnitudes(rows)
        drawn = torch.from_numpy(lanes.astype("i4")).to(rows.device).view(rows.shape)
        table = torch.from_numpy(self._table).to(rows.device)[drawn]
        nearest, below = table >> 1, (table & 1).bool()
        edges = single.sort(dim=1).values.gather(1, nearest.clamp(0, self.columns - 1))
        above = (single > edges) | ((single == edges) & below)
        return ((nearest < 0) | ((nearest < self.columns) & above)).view(-1).to(torch.uint8)

    def _reused(self, n: int, m: int) -> tuple[Any, Any, Any]:
        """Two (n, m) float32 buffers, and (n * m,) starts of each element's row. They are reused: allocating new pages
        takes a large part of the time of a sort."""
        import numpy as np

        if self._buffers[0].size < n * m:
            self._buffers = np.empty(n * m, np.float32), np.empty(n * m, np.float32), np.repeat(np.arange(n) * m, m)
        single, ordered, starts = self._buffers
        return single[: n * m].reshape(n, m), ordered[: n * m].reshape(n, m), starts


def _magnitudes(rows: torch.Tensor) -> torch.Tensor:
    """(n, m) float32 magnitudes; NaN becomes infinity."""
    return rows.float().abs().nan_to_num_(nan=float("inf"), posinf=float("inf"))
