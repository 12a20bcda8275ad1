"""A tensor with a low-rank adapter on it, computed when it is read.

LoRA (https://arxiv.org/abs/2106.09685): W' = W + s B A. DoRA (https://arxiv.org/abs/2402.09353): W' = m (W + s B A) /
||W + s B A||, with the norm over the inputs of each output, as peft merges both. Sums, products and norms are float64
and rounded once: in float32, a few results in a million, where W and s B A nearly cancel, differ from the exact ones by
several units in the last place of bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from ...plan.operands import Adapted

if TYPE_CHECKING:
    import torch

    from .stored_reader import Reader

_TILE = 128 * 1024
"""Approximate number of elements that are computed at once."""

_ROWS = 32
"""Fewest rows of a tile: with fewer rows, reading the other factor takes longer than the multiplication."""

_HELD = 1024 * 1024
"""Largest factor, in elements, that is kept in memory; a larger one is read again, in pieces, for every tile."""

_PIECE = 128 * 1024
"""Approximate number of elements of such a piece."""

_AHEAD = 4096
"""Columns of a factor that are read at once, for several tiles, because reading those of one tile is inefficient."""


class AdaptedReader:
    """Reads `Adapted`. Memory does not grow with the tensor.

    The bits do not depend on how a range is cut, because whole tiles are computed: groups of rows whose size depends
    only on the shapes. The last tile is kept.

    Args:
        adapted: the operand.
        whole: reader of the tensor below the adapter, (rows, columns).
        down: reader of A, (rank, in).
        up: reader of B, (out, rank).
        magnitude: reader of DoRA's norms, (out,), or None.
    """

    def __init__(
        self, adapted: Adapted, whole: Reader, down: Reader, up: Reader, magnitude: Reader | None = None
    ) -> None:
        self.shape: tuple[int, ...] = adapted.shape
        self.numel = prod(self.shape)
        self._rows, self._columns = self.shape
        self._rank = up.shape[1]
        self._step = max(_ROWS, _TILE // max(1, self._columns, self._rank), self._rank // 4)
        self._factor, self._transposed = adapted.factor, adapted.transposed
        self._whole, self._down, self._up, self._magnitude = whole, down, up, magnitude
        self._tile: int | None = None
        self._narrow: torch.Tensor
        self._wide: torch.Tensor | None = None
        self._ahead: tuple[int, torch.Tensor] | None = None
        self._held: list[tuple[slice, slice, torch.Tensor]] = []
        self._column_scales: torch.Tensor | None = None

    def read(self, start: int, out: torch.Tensor) -> None:
        """Fill the flat CPU tensor `out` with the elements from `start` on.

        Args:
            start: index of the first element.
            out: (count,) float32 or float64, the same dtype in every call.

        Raises:
            SurgeonError: a file differs from its header, or a value is not finite.
        """
        size, done, stop = self._step * self._columns, start, start + out.numel()
        while done < stop:
            number = done // size
            if self._tile != number:
                self._finish(number, out.dtype)
            first = done - number * size
            count = min(stop - done, size - first)
            out[done - start : done - start + count].copy_(self._narrow[first : first + count])
            done += count

    def _finish(self, number: int, dtype: torch.dtype) -> None:
        """Compute a tile and keep it in `_narrow`, flat, in the working dtype."""
        import torch

        if self._magnitude is not None and self._transposed and self._column_scales is None:
            self._column_scales = self._scales_of_columns(self._magnitude, dtype)
        wide = self._sum(number, dtype)
        if self._column_scales is not None:
            wide *= self._column_scales
        elif self._magnitude is not None:
            magnitudes = _read(self._magnitude, number * self._step, len(wide))
            wide *= _scales(magnitudes, torch.linalg.vector_norm(wide, dim=1))[:, None]
        self._narrow[: wide.numel()].copy_(wide.view(-1))
        self._tile = number

    def _sum(self, number: int, dtype: torch.dtype) -> torch.Tensor:
        """whole + factor * up @ down of a tile's rows, in float64, in memory that the next tile overwrites."""
        first = number * self._step
        rows = min(self._step, self._rows - first)
        self._tile = None
        whole, wide = self._memory(rows * self._columns, dtype)
        self._whole.read(first * self._columns, whole)
        wide.copy_(whole)
        wide = wide.view(rows, self._columns)
        side = self._columns_of_down(first, rows) if self._transposed else self._rows_of_up(first, rows)
        for ranks, columns, piece in self._pieces():
            wide[:, columns].addmm_(side[:, ranks], piece, alpha=self._factor)
        return wide

    def _memory(self, count: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """The first `count` elements of `_narrow` and `_wide`, which are kept, because new memory pages cost more than
        the arithmetic."""
        import torch

        if self._wide is None or self._narrow.dtype != dtype:
            size = min(self._step, self._rows) * self._columns
            self._narrow, self._wide = torch.empty(size, dtype=dtype), torch.empty(size, dtype=torch.float64)
        return self._narrow[:count], self._wide[:count]

    def _rows_of_up(self, first: int, rows: int) -> torch.Tensor:
        return _read(self._up, first * self._rank, rows * self._rank).view(rows, self._rank)

    def _columns_of_down(self, first: int, rows: int) -> torch.Tensor:
        """Some columns of A as rows, as a contiguous copy: the memory layout can change the last bits of a product, and
        a tile's place in the columns read ahead depends on earlier reads."""
        import torch

        span = max(1, min(_AHEAD, _HELD // self._rank) // self._step) * self._step
        start = first // span * span
        if self._ahead is None or self._ahead[0] != start:
            self._ahead = None
            columns = torch.empty(self._rank, min(span, self._rows - start), dtype=torch.float64)
            for index in range(self._rank):
                self._down.read(index * self._rows + start, columns[index])
            self._ahead = start, columns
        return self._ahead[1][:, first - start : first - start + rows].t().contiguous()

    def _pieces(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """The factor that every row of the tensor is multiplied by, in pieces (ranks, columns, values): groups of A's
        rows, or groups of B's rows, transposed."""
        if self._held:
            yield from self._held
            return
        every, few = self._rank * self._columns <= _HELD, slice(None)
        reader, count, width = (
            (self._up, self._columns, self._rank) if self._transposed else (self._down, self._rank, self._columns)
        )
        step = count if every else max(1, _PIECE // width)
        for first in range(0, count, step):
            some = slice(first, min(first + step, count))
            piece = _read(reader, first * width, (some.stop - first) * width).view(-1, width)
            found = (few, some, piece.t().contiguous()) if self._transposed else (some, few, piece)
            if every:
                self._held.append(found)
            yield found

    def _scales_of_columns(self, magnitude: Reader, dtype: torch.dtype) -> torch.Tensor:
        """DoRA's scale of every column of a transposed tensor, (columns,); needs a pass over the whole tensor."""
        import torch

        squares = torch.zeros(self._columns, dtype=torch.float64)
        for number in range(-(-self._rows // self._step)):
            squares += self._sum(number, dtype).square_().sum(0)
        return _scales(_read(magnitude, 0, self._columns), squares.sqrt_())


def _scales(magnitudes: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """magnitude / norm; 0 where the norm is 0, because all scaled values are then 0."""
    return (magnitudes / norms).where(norms != 0, magnitudes.new_zeros(()))


def _read(reader: Reader, start: int, count: int) -> torch.Tensor:
    import torch

    out = torch.empty(count, dtype=torch.float64)
    for first in range(0, count, _PIECE):
        reader.read(start + first, out[first : first + _PIECE])
    return out
