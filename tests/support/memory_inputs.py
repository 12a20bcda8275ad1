"""Donors in memory, for kernels: what the engine gives them from files, and a blend of a whole tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from surgeon.methods import kernel as kernels
from surgeon.methods.catalogue import find
from surgeon.methods.kernel import Kernel


@dataclass
class MemoryInputs:
    """The donors' values for one output tensor.

    Buffers are filled with NaN once they are no longer valid, so that a kernel that keeps one is found out.

    Attributes:
        tensors: the donors' tensors, of one shape, of any floating dtypes.
        base: as in `Inputs`.
        chunk_size: elements per chunk; rounded up to whole rows where `rows` is set.
        rows: chunks hold whole rows.
        dtype: of the chunks; by default float64 where a donor is, else float32.
        passes: how often all chunks were asked for.
    """

    tensors: Sequence[torch.Tensor]
    base: int | None = None
    chunk_size: int = 64 * 1024
    rows: bool = False
    dtype: torch.dtype | None = None
    seeds: Sequence[int] = ()
    passes: int = 0
    _lent: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.count = len(self.tensors)
        self.numel = self.tensors[0].numel()
        self.columns = self.tensors[0].shape[-1] if self.tensors[0].ndim else 1
        self.device = self.tensors[0].device
        self.narrow = all(tensor.itemsize <= 2 for tensor in self.tensors)
        self.seeds = self.seeds or [1000 + index for index in range(self.count)]
        wide = any(tensor.dtype == torch.float64 for tensor in self.tensors)
        self.dtype = self.dtype or (torch.float64 if wide else torch.float32)
        if self.rows and self.columns:
            self.chunk_size = -(-self.chunk_size // self.columns) * self.columns

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(index for index in range(self.count) if index != self.base)

    def chunks(self, which: Sequence[int] | None = None) -> Iterator[tuple[int, list[torch.Tensor]]]:
        self.passes += 1
        for start in range(0, self.numel, self.chunk_size):
            yield start, self.read(start, min(self.chunk_size, self.numel - start), which)

    def read(self, start: int, count: int, which: Sequence[int] | None = None) -> list[torch.Tensor]:
        assert start >= 0 and start + count <= self.numel and count > 0
        for lent in self._lent:
            lent.fill_(torch.nan)
        chosen = range(self.count) if which is None else which
        flat = [self.tensors[index].reshape(-1)[start : start + count] for index in chosen]
        self._lent = [values.to(self.dtype, copy=True) for values in flat]
        return self._lent


def made(name: str, one: Mapping[str, Any], each: Sequence[Mapping[str, Any]]) -> Kernel:
    """A method's kernel, parameters that are not given at their defaults."""
    method = find(name)
    assert method is not None, name
    declared = method.parameters.values()
    shared = {p.name: p.typed(one.get(p.name, p.default)) for p in declared if not p.each}
    own = [{p.name: p.typed(table.get(p.name, p.default)) for p in declared if p.each} for table in each]
    unknown = {*one, *(key for table in each for key in table)} - {p.name for p in declared}
    assert not unknown, unknown
    return method.kernel(shared, own)


def blended(
    name: str,
    tensors: Sequence[torch.Tensor],
    base: int | None = None,
    one: Mapping[str, Any] | None = None,
    each: Sequence[Mapping[str, Any]] | None = None,
    *,
    chunk_size: int | None = None,
    dtype: torch.dtype | None = None,
    out: torch.dtype | None = None,
    seeds: Sequence[int] = (),
) -> torch.Tensor:
    """The blend of whole tensors by a method, in the donors' dtype (or `out`); `each` without a subtracted base."""
    method = find(name)
    assert method is not None, name
    donors = len(tensors) - (method.subtracts and base is not None)
    kernel = made(name, one or {}, each or [{} for _ in range(donors)])
    return run(kernel, tensors, base, chunk_size=chunk_size, dtype=dtype, out=out, seeds=seeds)


def run(
    kernel: Kernel,
    tensors: Sequence[torch.Tensor],
    base: int | None = None,
    *,
    chunk_size: int | None = None,
    dtype: torch.dtype | None = None,
    out: torch.dtype | None = None,
    seeds: Sequence[int] = (),
) -> torch.Tensor:
    """Survey and blend of whole tensors. `dtype` is that of the blend's chunks, the survey has its default."""
    size = chunk_size or kernels.BLOCK
    inputs = MemoryInputs(tensors, base, size, kernel.unit == "row", seeds=seeds)
    kernel.survey(inputs)
    result = torch.empty(inputs.numel, dtype=out or tensors[0].dtype)
    again = MemoryInputs(tensors, base, size, kernel.unit == "row", dtype, seeds)
    for start, chunks in again.chunks():
        values = kernel.blend(start, chunks)
        result[start : start + values.numel()].copy_(values)
    return result.view(tensors[0].shape)
