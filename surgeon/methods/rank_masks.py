"""Which elements of a row stay at random, where that is likelier the higher the rank of their magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .reductions import piecewise

if TYPE_CHECKING:
    import torch

LANES = 1 << 16
"""Values of a random lane: probabilities are multiples of 1 / LANES."""


def ranked_limits(density: float, epsilon: float, count: int) -> Any:
    """(count,) uint16: below which random lane the element of each rank stays.

    Probabilities grow evenly from density - epsilon at rank 0 to density + epsilon at rank count - 1.
    """
    import numpy as np

    ranks = np.arange(count) / (count - 1) if count > 1 else np.full(count, 0.5)
    return np.clip(np.rint((density - epsilon + 2 * epsilon * ranks) * LANES), 1, LANES - 1).astype(np.uint16)


class Draws:
    """One donor's draws, a row at a time.

    An element stays if its random lane is below the limit of its rank. Turned around, each lane has a rank whose limit
    is the nearest, and an element is held against the magnitude that has this rank: a larger one stays, a smaller one
    goes, and an equal one stays if the lane is below that limit. So rows need to be sorted by value alone, not by
    place, and most lanes let any element stay, or none. Several equal magnitudes have the mean probability of their
    ranks each. What is not finite counts as equal, and as the largest.

    Attributes:
        columns: elements of a row.
    """

    def __init__(self, limits: Any) -> None:
        """`limits`: as `ranked_limits` gives them."""
        import numpy as np

        self.columns = len(limits)
        self._limits = limits
        halfway = (limits[:-1].astype(np.uint32) + limits[1:] + 1) // 2
        cuts, lanes = np.concatenate([limits[:1], halfway, limits[-1:]]), np.arange(LANES)
        # For each lane twice the nearest rank (-1 where all stay, the number of columns where none does), and whether
        # the lane is below that rank's limit.
        nearest = np.searchsorted(cuts, lanes, side="right") - 1
        self._table = 2 * nearest + (lanes < np.concatenate([limits, [0, LANES]])[nearest])
        self._room: tuple[Any, Any, Any] = (np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0, np.int64))

    def stay(self, rows: torch.Tensor, drawn: Any) -> torch.Tensor:
        """(n * m,) uint8, 1 for what stays, on the rows' device.

        Args:
            rows: (n, m) float32 or float64; signs do not matter.
            drawn: (n * m,) uint16 lanes of NumPy.
        """
        import torch

        if not rows.numel():
            return torch.empty(0, dtype=torch.uint8, device=rows.device)
        if piecewise(rows.device):
            return torch.from_numpy(self._held_against(rows, drawn))
        return self._held_against_at_once(rows, drawn)

    def divided(self, rows: torch.Tensor, drawn: Any) -> torch.Tensor:
        """(n, m) of the rows' dtype: 0 for what goes, 1 / its probability for what stays."""
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

    def _held_against(self, rows: torch.Tensor, lanes: Any) -> Any:
        """`stay` on the CPU, where only the lanes between are looked at."""
        import numpy as np

        single, ordered, starts = self._rooms(*rows.shape)
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

    def _held_against_at_once(self, rows: torch.Tensor, lanes: Any) -> torch.Tensor:
        """The same bits by operations on whole rows."""
        import torch

        single = _magnitudes(rows)
        drawn = torch.from_numpy(lanes.astype("i4")).to(rows.device).view(rows.shape)
        table = torch.from_numpy(self._table).to(rows.device)[drawn]
        nearest, below = table >> 1, (table & 1).bool()
        edges = single.sort(dim=1).values.gather(1, nearest.clamp(0, self.columns - 1))
        above = (single > edges) | ((single == edges) & below)
        return ((nearest < 0) | ((nearest < self.columns) & above)).view(-1).to(torch.uint8)

    def _rooms(self, n: int, m: int) -> tuple[Any, Any, Any]:
        """(n, m) float32 twice, and (n * m,) where each element's row begins; kept: fresh pages cost much of a sort."""
        import numpy as np

        if self._room[0].size < n * m:
            self._room = np.empty(n * m, np.float32), np.empty(n * m, np.float32), np.repeat(np.arange(n) * m, m)
        single, ordered, starts = self._room
        return single[: n * m].reshape(n, m), ordered[: n * m].reshape(n, m), starts


def _magnitudes(rows: torch.Tensor) -> torch.Tensor:
    """(n, m) float32 magnitudes, infinity for what is not finite."""
    return rows.float().abs().nan_to_num_(nan=float("inf"), posinf=float("inf"))
