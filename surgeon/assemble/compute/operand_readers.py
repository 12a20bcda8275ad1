"""Readers of operands: any range of a stored or computed tensor, in the working dtype.

A reader keeps about one chunk in memory, never a whole tensor, and its bits do not depend on how a range is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from ...checkpoint import TensorEntry
from ...methods import find
from ...methods.kernel import BLOCK, Kernel, Threshold
from ...plan.operands import Adapted, Blend, Operand, Rows, Stored
from ..gpu.staging import Lane
from ..io.byte_copy import Sources
from .adapter_reader import AdaptedReader
from .stored_reader import Reader, Staging, StoredReader
from .token_rows_reader import RowsReader

if TYPE_CHECKING:
    import torch

CHUNK = BLOCK
"""Elements per chunk: few enough that the chunks of several donors stay in a core's cache."""

HERE = 16 * CHUNK
"""Elements per chunk on the CPU for a worker on a GPU. It is a thread, and every operation may wait for Python's
lock, so chunks are larger."""


class Uploaded:
    """Reads another reader's values to a GPU. Stored tensors are copied in their own, often narrower, dtype."""

    def __init__(self, reader: Reader, lane: Lane) -> None:
        self.shape, self.numel = reader.shape, reader.numel
        self.stored = reader if isinstance(reader, StoredReader) else None
        self._reader, self._lane = reader, lane

    def read(self, start: int, out: torch.Tensor) -> None:
        """See `Reader`, but `out` is on the GPU, and a stored tensor's values are not checked."""
        if self.stored:
            self._lane.upload(self.stored.fill, self.stored.dtype, start, out)
        else:
            self._lane.upload(self._reader.read, out.dtype, start, out)


class ReaderInputs:
    """The donors of one blend, chunk by chunk; see `surgeon.methods.kernel.Inputs`."""

    def __init__(
        self,
        blend: Blend,
        readers: Sequence[Reader],
        dtype: torch.dtype,
        unit: str,
        chunk: int,
        device: torch.device,
        here: ReaderInputs | None = None,
    ) -> None:
        """`here`: the same donors on the CPU; None if this reads to the CPU."""
        self._here = here
        self.count, self.base = len(readers), blend.base
        self.seeds: Sequence[int] = blend.seeds
        self.shape, self.numel = blend.shape, prod(blend.shape)
        self.columns = self.shape[-1] if len(self.shape) > 1 else self.numel
        self.device = device
        # Wider importances are cheap and closer to the formula; float32 donors are compared as in mergekit.
        self.narrow = all(operand.dtype in ("BF16", "F16") for operand in blend.inputs)
        self.step = chunk if unit == "element" else max(1, chunk // max(1, self.columns)) * max(1, self.columns)
        self._readers, self._dtype = readers, dtype
        self._scratch: dict[int, Staging] = {}
        self._spare: dict[int, Staging] = {}

    @property
    def here(self) -> ReaderInputs:
        """The same donors on the CPU."""
        return self._here or self

    @property
    def others(self) -> tuple[int, ...]:
        """The donors without the base, in order."""
        return tuple(index for index in range(self.count) if index != self.base)

    def chunks(self, which: Sequence[int] | None = None) -> Iterator[tuple[int, list[torch.Tensor]]]:
        """(first element, one chunk per donor), from the first element to the last."""
        for start in range(0, self.numel, self.step):
            yield start, self.at(start, min(self.step, self.numel - start), which)

    def at(self, start: int, count: int, which: Sequence[int] | None = None) -> list[torch.Tensor]:
        """One chunk of every donor (or of those in `which`), in scratch memory that the next call overwrites."""
        return self._fill(self._scratch, start, count, which)

    def read(self, start: int, count: int, which: Sequence[int] | None = None) -> list[torch.Tensor]:
        """Like `at`, in other memory, so that the chunks in use are not overwritten."""
        return self._fill(self._spare, start, count, which)

    def _fill(
        self, kept: dict[int, Staging], start: int, count: int, which: Sequence[int] | None
    ) -> list[torch.Tensor]:
        found = []
        size = 0 if kept is self._spare else min(self.step, self.numel)
        for index in range(self.count) if which is None else which:
            if index not in kept:
                kept[index] = Staging(self._dtype, self.device)
            out = kept[index].take(count, size)
            self._readers[index].read(start, out)
            found.append(out)
        if self._here:
            self._look(start, found, which)
        return found

    def _look(self, start: int, found: Sequence[torch.Tensor], which: Sequence[int] | None) -> None:
        """Check all values from donors' files on a GPU at once, because each check waits for the GPU."""
        import torch

        readers = self._readers if which is None else [self._readers[index] for index in which]
        pairs = zip(readers, found, strict=True)
        there = [(reader.stored, out) for reader, out in pairs if isinstance(reader, Uploaded) and reader.stored]
        if there := [(stored, out) for stored, out in there if stored.looks]:
            totals = torch.stack([out.sum() for _, out in there]).tolist()
            for (stored, out), total in zip(there, totals, strict=True):
                stored.look(start, out, total)


class BlendReader:
    """Reads a blend, computed when it is read. Its survey runs once, at the first read."""

    def __init__(
        self,
        blend: Blend,
        readers: Sequence[Reader],
        dtype: torch.dtype,
        chunk: int,
        lane: Lane | None = None,
        given: Sequence[Threshold] | None = None,
    ) -> None:
        """
        Args:
            blend: the blend.
            readers: the readers of its donors, on the CPU; those of blends may be on a GPU.
            dtype: the working dtype.
            chunk: elements per chunk.
            lane: the worker's share of a GPU; None to compute on the CPU.
            given: the thresholds of a trim over the whole model for this tensor; None without such a trim.
        """
        import torch

        self.shape, self.numel = blend.shape, prod(blend.shape)
        self._given = given
        self.kernel = kernel_of(blend)
        unit, cpu = self.kernel.unit, torch.device("cpu")
        if lane is None:
            self.inputs = ReaderInputs(blend, readers, dtype, unit, chunk, cpu)
        else:
            there = [reader if isinstance(reader, BlendReader) else Uploaded(reader, lane) for reader in readers]
            here = ReaderInputs(blend, readers, dtype, unit, HERE, cpu)
            self.inputs = ReaderInputs(blend, there, dtype, unit, chunk, lane.device, here)

    @cached_property
    def ready(self) -> Kernel:
        """The kernel, after its survey."""
        if self.numel:
            if self._given is not None:
                self.kernel.give(self._given)
            self.kernel.survey(self.inputs)
        return self.kernel

    def chunks(self, first: int = 0) -> Iterator[tuple[int, torch.Tensor]]:
        """(first element, result), from element `first` to the last."""
        kernel, inputs = self.ready, self.inputs
        for start in range(first, inputs.numel, inputs.step):
            yield start, kernel.blend(start, inputs.at(start, min(inputs.step, inputs.numel - start)))

    def read(self, start: int, out: torch.Tensor) -> None:
        """See `Reader`; `out` may also be on the GPU. Computes whole blocks or rows, as for the whole tensor."""
        stop = start + out.numel()
        unit = max(1, self.inputs.columns) if self.kernel.unit == "row" else BLOCK
        kernel, step = self.ready, self.inputs.step
        for low in range(start // unit * unit, stop, step):
            high = min(low + step, -(-stop // unit) * unit, self.numel)
            result = kernel.blend(low, self.inputs.at(low, high - low))
            first, last = max(low, start), min(high, stop)
            out[first - start : last - start].copy_(result[first - low : last - low])


def kernel_of(blend: Blend) -> Kernel:
    """The kernel of a blend, before its survey."""
    method = find(blend.method)
    assert method is not None, f"the plan has accepted an unknown method: {blend.method}"
    return method.kernel(dict(blend.one), [dict(table) for table in blend.each])


def need(operand: Operand, width: int) -> int:
    """Most bytes per element of a chunk that an operand needs on a GPU, with numbers of `width` bytes."""
    match operand:
        case Blend():
            count = len(operand.inputs)
            own = count * width + kernel_of(operand).scratch_bytes(count, width)
            return own + sum(need(donor, width) for donor in operand.inputs)
        case Adapted():
            return need(operand.whole, width)
        case Rows():
            return sum(need(part, width) for part in operand.parts)
    return 0


class Readers:
    """Makes readers of operands for one worker.

    Attributes:
        chunk: elements per chunk, a multiple of BLOCK.
        lane: the worker's share of a GPU; None to compute on the CPU.
    """

    def __init__(
        self, sources: Sources, *, chunk: int = CHUNK, allow_nonfinite: bool = False, lane: Lane | None = None
    ) -> None:
        self.chunk, self.lane = chunk, lane
        self._sources, self._allow = sources, allow_nonfinite
        self._staged: dict[str, Staging] = {}

    def of(self, operand: Operand, dtype: torch.dtype) -> Reader:
        """The reader of an operand, in the working dtype `dtype`."""
        match operand:
            case Stored(entry):
                return self._stored(entry)
            case Blend():
                return self.blend(operand, dtype)
            case Adapted():
                pieces = (operand.down, operand.up, *([operand.magnitude] if operand.magnitude else []))
                parts = map(self._stored, pieces)
                return AdaptedReader(operand, self.of(operand.whole, dtype), *parts)
            case Rows():
                return RowsReader(operand, [self.of(part, dtype) for part in operand.parts])

    def _stored(self, entry: TensorEntry) -> StoredReader:
        return StoredReader(entry, self._sources, self._allow, self._staged)

    def blend(self, blend: Blend, dtype: torch.dtype, given: Sequence[Threshold] | None = None) -> BlendReader:
        """The reader of a blend; `given` as in `BlendReader`."""
        readers = [self.of(operand, dtype) for operand in blend.inputs]
        return BlendReader(blend, readers, dtype, self.chunk, self.lane, given)
