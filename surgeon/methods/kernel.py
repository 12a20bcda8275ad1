"""What computes a merge: passes over chunks that survey, then chunk in, chunk out.

All chunks are flat, of the working dtype (float32, or float64 where a donor is), and scratch: a kernel may overwrite
them. Reductions are made block by block (`BLOCK` elements, or whole rows) in float64 and added up in order, so that
nothing depends on how many blocks a chunk has, on threads, or on where a shard ends. A GPU makes those of all blocks of
a chunk at once (`folds`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement
from math import isfinite
from typing import TYPE_CHECKING, Literal, Protocol

from .reductions import ColumnSums, added, folded, in_order, piecewise, spans

if TYPE_CHECKING:
    import torch

BLOCK = 64 * 1024
"""Elements that are reduced together. Chunks of element-wise kernels begin at multiples of it."""

NARROW_SPAN = 1024
"""Elements that are added up in float32, where that does."""

Unit = Literal["element", "row"]


class Inputs(Protocol):
    """The donors' values for one output tensor, read again in every pass.

    Attributes:
        count: number of donors, a base included.
        base: which of them donors are taken relative to, or that is the start; None without one.
        numel: elements of each.
        columns: length of the last dimension (`numel` for a tensor of one dimension).
        seeds: a 64-bit number per donor for what is random, fixed by recipe, donor and tensor.
        device: where chunks live.

    An implementation may also have `narrow`: whether every donor is of 16 bits or fewer. Importances are computed in
    float64 then; without it, as mergekit does, in float32. One whose chunks live on a GPU has `here`: the same donors
    on the CPU.
    """

    count: int
    base: int | None
    numel: int
    columns: int
    seeds: Sequence[int]
    device: torch.device

    @property
    def others(self) -> tuple[int, ...]:
        """The donors without the base, in order."""
        ...

    def chunks(self, which: Sequence[int] | None = None) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """(first element, one chunk per donor) from the first element to the last; `which` donors only, if given."""
        ...

    def read(self, start: int, count: int, which: Sequence[int] | None = None) -> list[torch.Tensor]:
        """Elements `[start, start + count)` of every donor (of `which`, if given), valid until the next call."""
        ...


@dataclass(frozen=True)
class Threshold:
    """One donor's share in one tensor of what is trimmed over a whole model.

    Attributes:
        key: the magnitude from which on elements stay, as `select` writes it.
        equal: how many elements of this tensor have exactly this magnitude.
        need: how many of those stay, the first ones.
    """

    key: int
    equal: int
    need: int


class Kernel:
    """One tensor's arithmetic. An instance is used for one tensor, and keeps what it surveyed in itself.

    `blend` gives an element the same value in whatever chunk it comes, in any order of chunks. Its chunks may be
    float64 where those of `survey` were float32.

    Attributes:
        unit: `row` when every chunk must hold whole rows of the last dimension.
        whole_model: densities per donor of a trim over all blended tensors of the model, which must be the same for
            all of them; `give` must then be called before `survey`, with what `ModelTrim` found. None for most methods.
        spreads: whether NaN or infinity in any donor makes the result so too: then the result alone is looked at.
    """

    unit: Unit = "element"
    spreads: bool = False
    whole_model: tuple[float, ...] | None = None

    def give(self, thresholds: Sequence[Threshold]) -> None:
        """Takes what a trim over the whole model found for this tensor, per donor (the base left out)."""
        raise NotImplementedError

    def room(self, donors: int, width: int) -> int:
        """Bytes per element that survey and blend take on a GPU, at most, beside the chunks of `donors` (a base
        included) in numbers of `width` bytes."""
        return (donors + 3) * width + 32

    def survey(self, inputs: Inputs) -> None:
        """As many passes as it takes to know the numbers that `blend` needs; none for most methods."""

    def blend(self, start: int, chunks: list[torch.Tensor]) -> torch.Tensor:
        """The result for elements from `start` on, given every donor's; may be one of the chunks, overwritten."""
        raise NotImplementedError


def subtract(chunks: list[torch.Tensor], base: int | None) -> list[torch.Tensor]:
    """The donors' chunks, the base subtracted in place and left out; all of them as they are without one."""
    if base is None:
        return chunks
    return [chunk.sub_(chunks[base]) for index, chunk in enumerate(chunks) if index != base]


def differences(inputs: Inputs, which: Sequence[int]) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """(first element, what each of these donors differs from the base by), from the first element to the last."""
    assert inputs.base is not None, "a method that requires a base has one"
    for start, chunks in inputs.chunks((inputs.base, *which)):
        yield start, subtract(chunks, 0)


class Scratch:
    """Memory that chunks are converted into, used again and again: what torch takes anew costs as much as the work."""

    def __init__(self) -> None:
        self._all: torch.Tensor | None = None

    def of(self, values: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
        """A copy of (n,) values of the dtype and on the device of `like` (in float64 where they are, without it).

        It is valid until the next call.
        """
        import torch

        dtype, device = (torch.float64, values.device) if like is None else (like.dtype, like.device)
        count = values.numel()
        if self._all is None or self._all.numel() < count or self._all.dtype != dtype:
            self._all = torch.empty(count, dtype=dtype, device=device)
        return self._all[:count].copy_(values)


def blocks(chunk: torch.Tensor) -> Iterator[torch.Tensor]:
    """A chunk in blocks."""
    for start in range(0, chunk.numel(), BLOCK):
        yield chunk[start : start + BLOCK]


class Sum:
    """A float64 sum of numbers that stream past; it depends neither on the chunks nor on the number of threads."""

    def __init__(self, scratch: Scratch | None = None, span: int | None = None, *, narrow: bool = False) -> None:
        """`span` numbers (a row; else a part of a block) are added up first, then spans in order.

        Args:
            scratch: what numbers are made float64 in; several sums can share it.
            span: elements.
            narrow: add up spans in float32, a quarter of the work; it errs by some 1e-8 over a tensor, and is not
                finite where float32 is too narrow. For donors of 16 bits.
        """
        self._value = 0.0
        self._waiting: list[torch.Tensor] = []
        self._span = span or max(min(BLOCK // 4, NARROW_SPAN if narrow else BLOCK), 1)
        self._scratch, self._narrow = scratch or Scratch(), narrow

    @property
    def value(self) -> float:
        """The sum so far."""
        import torch

        waiting, self._waiting = self._waiting, []
        if waiting:
            self._value = added(torch.cat(waiting).tolist(), self._value)
        return self._value

    def add(self, values: torch.Tensor) -> None:
        """Adds (n,) numbers, of which the first begins a span."""
        import torch

        if not piecewise(values.device):
            self._waiting.append(spans(self._scratch.of(values), self._span))  # `value` waits for all of them, once
            return
        wide = values if self._narrow or values.dtype == torch.float64 else self._scratch.of(values)
        whole = wide.numel() // self._span * self._span
        for part in (wide[:whole].view(-1, self._span), wide[None, whole:]):
            if part.numel():
                self._value = added(part.sum(1).tolist(), self._value)

    def add_squares(self, values: torch.Tensor) -> None:
        """Adds the squares of (n,) numbers, which it may overwrite."""
        self.add((values if self._narrow else self._scratch.of(values)).square_())


def sums(inputs: Inputs, count: int, fill: Callable[[list[Sum]], None], span: int | None = None) -> list[float]:
    """Values of `count` sums that `fill` adds to, in float32 spans where the donors let that do; see `Sum`.

    `fill` is called once more where float32 turns out to be too narrow.
    """
    narrow = getattr(inputs, "narrow", False)
    for fine in (True, False) if narrow else (False,):
        scratch = Scratch()
        found = [Sum(scratch, span, narrow=fine) for _ in range(count)]
        fill(found)
        if all(isfinite(total.value) for total in found):
            break
    return [total.value for total in found]


Coefficients = Callable[["torch.Tensor"], "torch.Tensor"]
"""(n, k, k) float64 inner products of k vectors, n times -> (n, k) float64 coefficients of each."""


@dataclass
class Combination(Kernel):
    """A linear combination of the donors whose coefficients depend on their inner products alone.

    With `relative`, of their differences from the base, which is added again.

    Attributes:
        coefficients: the formula.
        per: what one vector is: the whole `tensor`, each `row` (last dimension), or each `column`.
        relative: take donors relative to the base if there is one.
        needs_gram: False for coefficients that do not look at the inner products: no survey is made then.
    """

    coefficients: Coefficients
    per: Literal["tensor", "row", "column"] = "tensor"
    relative: bool = False
    needs_gram: bool = True
    spreads: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        self.unit: Unit = "element" if self.per == "tensor" else "row"
        self._base: int | None = None
        self._columns = 0
        self._fixed: torch.Tensor | None = None
        self._values: list[float] = []

    def room(self, donors: int, width: int) -> int:
        return super().room(donors, width) + (0 if self.per == "tensor" else 8 * donors)

    def survey(self, inputs: Inputs) -> None:
        import torch

        self._base = inputs.base if self.relative else None
        self._columns = inputs.columns
        k = inputs.count - (self._base is not None)
        if self.per == "column" and inputs.numel == inputs.columns:
            self.per = "row"  # a tensor of one dimension is one vector either way
        if not self.needs_gram:
            self._fixed = self.coefficients(torch.zeros(1, k, k, dtype=torch.float64))
        elif self.per == "tensor":
            narrow = getattr(inputs, "narrow", False)
            gram = self._gram(inputs, k, narrow)
            if narrow and not bool(gram.isfinite().all()):  # squares leave float32's range
                gram = self._gram(inputs, k, narrow=False)
            self._fixed = self.coefficients(gram[None])
        elif self.per == "column":
            self._fixed = self.coefficients(self._column_grams(inputs, k))
        if self._fixed is not None and self.per == "tensor":
            self._values = self._fixed[0].tolist()

    def _gram(self, inputs: Inputs, k: int, narrow: bool) -> torch.Tensor:
        """(k, k) float64 inner products of whole tensors, block by block.

        `narrow`: those of a block in float32, for donors of 16 bits. Their products are exact in it, and the sum of a
        block errs by some 1e-7, a ten-thousandth of what rounded the donors. How it errs shows in results near 0, where
        donors cancel out: a GPU, which would err otherwise, leaves these to the CPU.
        """
        import torch

        if narrow:
            inputs = getattr(inputs, "here", inputs)
        elif not piecewise(inputs.device):
            return self._gram_at_once(inputs, k)
        dtype = torch.float32 if narrow else torch.float64
        wide = torch.empty(k, min(BLOCK, inputs.numel), dtype=torch.float64, device=inputs.device)
        pairs = list(combinations_with_replacement(range(k), 2))
        totals = torch.zeros(len(pairs), dtype=torch.float64)
        for _, chunks in inputs.chunks():
            for pieces in zip(*map(blocks, subtract(chunks, self._base)), strict=True):
                rows = pieces
                if pieces[0].dtype != dtype:
                    rows = tuple(row[: piece.numel()].copy_(piece) for row, piece in zip(wide, pieces, strict=True))
                totals += torch.stack([torch.dot(rows[one], rows[other]) for one, other in pairs]).cpu()
        return _symmetric(totals[:, None], k)[0]

    def _gram_at_once(self, inputs: Inputs, k: int) -> torch.Tensor:
        """The same in float64, for all blocks of a chunk at once; waits for none of them before the last chunk."""
        import torch

        found = []
        for _, chunks in inputs.chunks():
            pairs = combinations_with_replacement(subtract(chunks, self._base), 2)
            products = (one.to(torch.float64, copy=True).mul_(other) for one, other in pairs)
            found.append(torch.stack([spans(product, BLOCK) for product in products]))
        totals = torch.tensor(in_order(torch.cat(found, 1)), dtype=torch.float64)
        return _symmetric(totals[:, None], k)[0]

    def _column_grams(self, inputs: Inputs, k: int) -> torch.Tensor:
        """(columns, k, k) float64 inner products of columns, row by row."""
        import torch

        if not piecewise(inputs.device):
            sums = [ColumnSums() for _ in range(k * (k + 1) // 2)]
            for _, chunks in inputs.chunks():
                tables = [chunk.view(-1, inputs.columns).double() for chunk in subtract(chunks, self._base)]
                for total, (one, other) in zip(sums, combinations_with_replacement(tables, 2), strict=True):
                    total.add(one * other)
            return _symmetric(torch.stack([total.total() for total in sums]), k)
        totals = torch.zeros(k * (k + 1) // 2, inputs.columns, dtype=torch.float64, device=inputs.device)
        for _, chunks in inputs.chunks():
            tables = [chunk.view(-1, inputs.columns).double() for chunk in subtract(chunks, self._base)]
            for row in zip(*tables, strict=True):
                for total, (one, other) in zip(totals, combinations_with_replacement(row, 2), strict=True):
                    total.addcmul_(one, other)
        return _symmetric(totals, k)

    def blend(self, start: int, chunks: list[torch.Tensor]) -> torch.Tensor:
        base = None if self._base is None else chunks[self._base]
        vectors = subtract(chunks, self._base)
        if self.per != "tensor":
            return self._by_line(base, vectors)
        values = self._values
        if base is None:
            out = vectors[0] if values[0] == 1 else vectors[0].mul_(values[0])
            vectors, values = vectors[1:], values[1:]
        else:
            out = base
        for vector, value in zip(vectors, values, strict=True):
            out.add_(vector, alpha=value)
        return out

    def _by_line(self, base: torch.Tensor | None, vectors: list[torch.Tensor]) -> torch.Tensor:
        """Coefficients per row or column."""
        import torch

        tables = [vector.view(-1, self._columns) for vector in vectors]
        if self.per == "row":
            wide = [table.double() for table in tables]
            sums = (lambda table: table.sum(1)) if piecewise(tables[0].device) else folded
            products = [sums(one * other) for one, other in combinations_with_replacement(wide, 2)]
            found = self.coefficients(_symmetric(torch.stack(products), len(wide)))
            factors = [found[:, index, None] for index in range(len(tables))]
        else:
            assert self._fixed is not None
            factors = [self._fixed[None, :, index] for index in range(len(tables))]
        pairs = [(table, factor.to(table.device, table.dtype)) for table, factor in zip(tables, factors, strict=True)]
        out = pairs[0][0].mul_(pairs[0][1])
        for table, factor in pairs[1:]:
            out.addcmul_(table, factor)
        return (out if base is None else base.view(-1, self._columns).add_(out)).view(-1)


def _symmetric(triangles: torch.Tensor, k: int) -> torch.Tensor:
    """(k (k + 1) / 2, n) upper triangles of n symmetric matrices, row by row -> (n, k, k) matrices on the CPU."""
    import torch

    grams = torch.empty(triangles.shape[1], k, k, dtype=torch.float64)
    for values, (i, j) in zip(triangles.cpu(), combinations_with_replacement(range(k), 2), strict=True):
        grams[:, i, j] = grams[:, j, i] = values
    return grams
