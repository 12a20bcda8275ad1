"""Kernels: the arithmetic of a merge. Survey passes read all chunks first; then each chunk is blended on its own.

All chunks are flat and of the working dtype: float32, or float64 if a donor is F64. A kernel may overwrite them.
Reductions are made block by block (`BLOCK` elements, or whole rows) in float64, and the block results are added in
order. So the result does not depend on the number of blocks in a chunk, on threads, or on shard boundaries. A GPU
reduces all blocks of a chunk at once (`reductions.folded`).
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
"""Elements that are reduced together. Chunks of element-wise kernels start at multiples of it."""

NARROW_SPAN = 1024
"""Elements that are summed in float32 where that is precise enough."""

Unit = Literal["element", "row"]


class Inputs(Protocol):
    """The donors' values for one output tensor, read again in every pass.

    Attributes:
        count: number of donors, including a base.
        base: number of the donor that is the base (task vectors are relative to it) or the start; None without one.
        numel: elements of each donor.
        columns: length of the last dimension (`numel` for a tensor of one dimension).
        seeds: a 64-bit seed per donor for random masks, fixed by recipe, donor and tensor.
        device: the device of the chunks.

    An implementation may also have `narrow`: whether every donor has 16 bits or fewer. With it, importances are
    computed in float64; without it, in float32 as in mergekit. An implementation with chunks on a GPU has `here`: the
    same donors on the CPU.
    """

    count: int
    base: int | None
    numel: int
    columns: int
    seeds: Sequence[int]
    device: torch.device

    @property
    def others(self) -> tuple[int, ...]:
        """The numbers of the donors without the base, in order."""
        ...

    def chunks(self, which: Sequence[int] | None = None) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """(first element, one chunk per donor) from the first element to the last; only of donors `which`, if given."""
        ...

    def read(self, start: int, count: int, which: Sequence[int] | None = None) -> list[torch.Tensor]:
        """Elements `[start, start + count)` of every donor (of donors `which`, if given), valid until the next call."""
        ...


@dataclass(frozen=True)
class Threshold:
    """The result of a trim over the whole model for one donor and one tensor.

    Attributes:
        key: the smallest magnitude that is kept, as a key of `kth_largest`.
        equal: number of elements of this tensor with exactly this magnitude.
        need: number of those that are kept, the ones with the lowest index.
    """

    key: int
    equal: int
    need: int


class Kernel:
    """The arithmetic of one tensor. An instance is used for one tensor and stores the results of its survey.

    The value that `blend` gives an element does not depend on the chunk or on the order of chunks. Chunks of `blend`
    may be float64 where those of `survey` are float32.

    Attributes:
        unit: `row` if every chunk must hold whole rows of the last dimension.
        whole_model: densities per donor of a trim over all blended tensors of the model, the same for all tensors. If
            set, `give` must be called with the results of `ModelTrim` before `survey`. None for most methods.
        spreads: whether NaN or infinity in a donor always appears in the result, so that only the result is checked.
    """

    unit: Unit = "element"
    spreads: bool = False
    whole_model: tuple[float, ...] | None = None

    def give(self, thresholds: Sequence[Threshold]) -> None:
        """Receive the results of a trim over the whole model for this tensor, per donor without the base."""
        raise NotImplementedError

    def scratch_bytes(self, donors: int, width: int) -> int:
        """Most bytes per element that survey and blend allocate on a GPU.

        The chunks of `donors` donors (base included) of `width` bytes per number are not counted.
        """
        return (donors + 3) * width + 32

    def survey(self, inputs: Inputs) -> None:
        """Make the passes over the donors that `blend` depends on; most methods need none."""

    def blend(self, start: int, chunks: list[torch.Tensor]) -> torch.Tensor:
        """The result for elements from `start` on, from one chunk per donor; it may be an overwritten chunk."""
        raise NotImplementedError


def subtract(chunks: list[torch.Tensor], base: int | None) -> list[torch.Tensor]:
    """Subtract the base from the other chunks in place and return these; without a base, return all chunks."""
    if base is None:
        return chunks
    return [chunk.sub_(chunks[base]) for index, chunk in enumerate(chunks) if index != base]


def differences(inputs: Inputs, which: Sequence[int]) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """(first element, task vector of each of these donors), from the first element to the last."""
    assert inputs.base is not None, "a method that requires a base has one"
    for start, chunks in inputs.chunks((inputs.base, *which)):
        yield start, subtract(chunks, 0)


class Scratch:
    """A reused buffer for converted chunks: a new allocation in torch costs as much as the arithmetic."""

    def __init__(self) -> None:
        self._all: torch.Tensor | None = None

    def of(self, values: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
        """A copy of (n,) values with the dtype and device of `like` (without it: float64 on their own device).

        It is valid until the next call.
        """
        import torch

        dtype, device = (torch.float64, values.device) if like is None else (like.dtype, like.device)
        count = values.numel()
        if self._all is None or self._all.numel() < count or self._all.dtype != dtype:
            self._all = torch.empty(count, dtype=dtype, device=device)
        return self._all[:count].copy_(values)


def blocks(chunk: torch.Tensor) -> Iterator[torch.Tensor]:
    """The blocks of a chunk."""
    for start in range(0, chunk.numel(), BLOCK):
        yield chunk[start : start + BLOCK]


class Sum:
    """A float64 sum of streamed numbers. It does not depend on the chunks or on the number of threads."""

    def __init__(self, scratch: Scratch | None = None, span: int | None = None, *, narrow: bool = False) -> None:
        """Each span is summed first, then the spans in order.

        Args:
            scratch: buffer for the conversion to float64; several sums can share it.
            span: elements per span (a row; default: a part of a block).
            narrow: sum spans in float32, which takes a quarter of the time. For donors of 16 bits. The error over a
                tensor is about 1e-8; the result is not finite if the range of float32 is too small.
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
        """Add (n,) numbers; the first one starts a span."""
        import torch

        if not piecewise(values.device):
            self._waiting.append(spans(self._scratch.of(values), self._span))  # `value` synchronises once for all
            return
        wide = values if self._narrow or values.dtype == torch.float64 else self._scratch.of(values)
        whole = wide.numel() // self._span * self._span
        for part in (wide[:whole].view(-1, self._span), wide[None, whole:]):
            if part.numel():
                self._value = added(part.sum(1).tolist(), self._value)

    def add_squares(self, values: torch.Tensor) -> None:
        """Add the squares of (n,) numbers; may overwrite them."""
        self.add((values if self._narrow else self._scratch.of(values)).square_())


def sums(inputs: Inputs, count: int, fill: Callable[[list[Sum]], None], span: int | None = None) -> list[float]:
    """Values of `count` sums that `fill` adds to; spans are float32 if the donors have 16 bits (see `Sum`).

    `fill` is called again with float64 spans if a float32 sum is not finite.
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
"""(n, k, k) float64 Gram matrices of k vectors -> (n, k) float64 coefficients of the vectors."""


@dataclass
class Combination(Kernel):
    """A linear combination of the donors whose coefficients depend only on their Gram matrix.

    With `relative`, the task vectors are combined and the base is added.

    Attributes:
        coefficients: the formula.
        per: the vectors: the whole `tensor`, each `row` (last dimension), or each `column`.
        relative: subtract the base from the donors, if there is one.
        needs_gram: False if the coefficients do not depend on the Gram matrix; then no survey is made.
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

    def scratch_bytes(self, donors: int, width: int) -> int:
        return super().scratch_bytes(donors, width) + (0 if self.per == "tensor" else 8 * donors)

    def survey(self, inputs: Inputs) -> None:
        import torch

        self._base = inputs.base if self.relative else None
        self._columns = inputs.columns
        k = inputs.count - (self._base is not None)
        if self.per == "column" and inputs.numel == inputs.columns:
            self.per = "row"  # a tensor of one dimension is one vector in both cases
        if not self.needs_gram:
            self._fixed = self.coefficients(torch.zeros(1, k, k, dtype=torch.float64))
        elif self.per == "tensor":
            narrow = getattr(inputs, "narrow", False)
            gram = self._gram(inputs, k, narrow)
            if narrow and not bool(gram.isfinite().all()):  # squares exceed the range of float32
                gram = self._gram(inputs, k, narrow=False)
            self._fixed = self.coefficients(gram[None])
        elif self.per == "column":
            self._fixed = self.coefficients(self._column_grams(inputs, k))
        if self._fixed is not None and self.per == "tensor":
            self._values = self._fixed[0].tolist()

    def _gram(self, inputs: Inputs, k: int, narrow: bool) -> torch.Tensor:
        """(k, k) float64 Gram matrix of whole tensors, computed block by block.

        With `narrow` (donors of 16 bits), a block is computed in float32. Products are exact in float32, and the sum of
        a block has an error of about 1e-7, a ten-thousandth of the rounding of the donors. This error is visible in
        results near 0, where donors cancel out. A GPU would make a different error, so the CPU computes these sums.
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
        """`_gram` in float64 on a GPU: all blocks of a chunk at once, with one synchronisation after the last chunk."""
        import torch

        found = []
        for _, chunks in inputs.chunks():
            pairs = combinations_with_replacement(subtract(chunks, self._base), 2)
            products = (one.to(torch.float64, copy=True).mul_(other) for one, other in pairs)
            found.append(torch.stack([spans(product, BLOCK) for product in products]))
        totals = torch.tensor(in_order(torch.cat(found, 1)), dtype=torch.float64)
        return _symmetric(totals[:, None], k)[0]

    def _column_grams(self, inputs: Inputs, k: int) -> torch.Tensor:
        """(columns, k, k) float64 Gram matrices of columns, accumulated row by row."""
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
        """The result with coefficients per row or column."""
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
    """(k (k + 1) / 2, n) upper triangles of n symmetric matrices, in row order -> (n, k, k) matrices on the CPU."""
    import torch

    grams = torch.empty(triangles.shape[1], k, k, dtype=torch.float64)
    for values, (i, j) in zip(triangles.cpu(), combinations_with_replacement(range(k), 2), strict=True):
        grams[:, i, j] = grams[:, j, i] = values
    return grams
