"""Compute the bytes of converted and blended tensors, chunk by chunk, with one rounding."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from types import ModuleType
from typing import TYPE_CHECKING

from ...checkpoint.dtypes import TORCH_NAMES
from ...errors import SurgeonError
from ...methods.kernel import BLOCK, Threshold
from ...plan.model import PlannedTensor
from ...plan.operands import Blend, Convert, Stored
from ...text import one_line, plural
from ..gpu.cuda import Gpu
from ..gpu.staging import MOST, Lane
from ..io.byte_copy import Sources, read_exactly
from .operand_readers import CHUNK, BlendReader, Readers, kernel_of, need
from .stored_reader import Staging, raw

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Arithmetic:
    """How a plan's tensors are computed; the same for all workers.

    Attributes:
        chunk: elements per chunk on the CPU; the result does not depend on it.
        allow_nonfinite: blend NaN and infinity in donors instead of refusing them.
        gpus: the GPUs for blends; empty to use the CPU. A worker's lane determines the chunks on a GPU.
        vram: bytes of each GPU's memory to use; None for most of what is free.
        trims: by tensor, the thresholds of a trim over the whole model.
    """

    chunk: int = CHUNK
    allow_nonfinite: bool = False
    gpus: tuple[Gpu, ...] = ()
    vram: int | None = None
    trims: Mapping[str, Sequence[Threshold]] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """The device of blends, with the models of GPUs. The bytes do not depend on the number of GPUs."""
        return f"cuda ({', '.join(sorted({gpu.model() for gpu in self.gpus}))})" if self.gpus else "cpu"


PLAIN = Arithmetic()


class Computer:
    """One worker's arithmetic.

    Attributes:
        sources: its open files.
        how: the settings of all workers.
        lane: its share of a GPU; None if blends are computed on the CPU.
        overflowed: number of finite values of the last tensor that its dtype cannot represent.
    """

    def __init__(self, sources: Sources, how: Arithmetic = PLAIN, lane: Lane | None = None) -> None:
        self.sources, self.how, self.lane = sources, how, lane
        self.overflowed = 0
        self._most = self._chunk = self._largest

    @property
    def _largest(self) -> int:
        """Largest number of elements per chunk; on a GPU the lane may reduce it to what fits."""
        return MOST if self.lane else self.how.chunk

    def run(self, tensor: PlannedTensor) -> Iterator[memoryview]:
        """The tensor's bytes, piece by piece; each is valid until the next is requested.

        Raises:
            SurgeonError: a donor's file differs from its header, or a value is not finite.
        """
        self.overflowed = 0
        self._most = self._largest
        if isinstance(tensor.source, Convert):
            return self._converted(tensor, tensor.source)
        assert isinstance(tensor.source, Blend), "copies need no arithmetic"
        return self._blended(tensor, tensor.source)

    def _converted(self, tensor: PlannedTensor, convert: Convert) -> Iterator[memoryview]:
        from ...methods.cast import CHUNK as COUNT
        from ...methods.cast import Converter

        entry = convert.entry
        converter = Converter(entry.dtype, tensor.dtype, convert.factor)
        source = self.sources.get(entry.file)
        for start in range(0, entry.numel, COUNT):
            count = min(COUNT, entry.numel - start)
            piece = converter.source[: count * converter.source_width]
            read_exactly(source, piece, entry.offset + start * converter.source_width)
            yield converter.run(count)
        self.overflowed = converter.overflowed

    def _blended(self, tensor: PlannedTensor, blend: Blend) -> Iterator[memoryview]:
        import torch

        done = 0
        while True:
            try:
                for piece in self._pieces(tensor, self.reader(tensor, blend), done):
                    done += len(piece)
                    yield piece
                return
            except torch.OutOfMemoryError as error:
                self.shrink(tensor, error)
            if self.lane:
                self.lane.gpu.forget()  # here, after the failed attempt has released its chunks

    def shrink(self, tensor: PlannedTensor, error: Exception) -> None:
        """Halve the chunk size; SurgeonError if it is already the smallest."""
        if self._chunk <= BLOCK:
            raise SurgeonError(
                f"{self.how.device} has too little memory for {one_line(tensor.name)}",
                why=one_line(str(error).split(". ", 1)[0]),
                remedy="free some memory, or use --device cpu",
            ) from error
        useful = min(self._chunk, -(-tensor.numel // BLOCK) * BLOCK)
        self._most = max(BLOCK, useful // 2 // BLOCK * BLOCK)
        if self.lane:
            self.lane.room //= 2

    def _pieces(self, tensor: PlannedTensor, reader: BlendReader, done: int) -> Iterator[memoryview]:
        """The bytes of a blend from offset `done` on."""
        import torch

        target: torch.dtype = getattr(torch, TORCH_NAMES[tensor.dtype])
        rounded, narrow = Staging(target), tensor.dtype == "F16"
        for start, result in reader.chunks(done // target.itemsize):
            if self.lane:
                # The conversion comes before the first piece is yielded, so that after an out-of-memory error the work
                # continues with a whole chunk.
                out = result.to(target)
            else:
                out = rounded.take(result.numel())
                out.copy_(result)
            if not isfinite(result.sum().item()) or (narrow and not isfinite(out.sum(dtype=torch.float32).item())):
                self._look(tensor, start, result, out)
            if self.lane:
                yield from self.lane.download(out)
            else:
                yield rounded.raw

    def reader(self, tensor: PlannedTensor, blend: Blend, *, careful: bool = False) -> BlendReader:
        """The reader of an output tensor's blend; `careful` checks donors even if the result shows their errors."""
        import torch

        dtype = torch.float64 if is_wide(tensor, blend) else torch.float32
        how = self.how
        self._chunk = min(self._most, self.lane.chunk(need(blend, dtype.itemsize))) if self.lane else self._most
        allow = how.allow_nonfinite or (not careful and _shows_all(blend))
        readers = Readers(self.sources, chunk=self._chunk, allow_nonfinite=allow, lane=self.lane)
        return readers.blend(blend, dtype, how.trims.get(tensor.name))

    def _look(self, tensor: PlannedTensor, start: int, result: torch.Tensor, out: torch.Tensor) -> None:
        """Examine a chunk that may have non-finite values: count overflows of the dtype, and refuse all others."""
        result, out = result.cpu(), out.cpu()
        finite = result.isfinite()
        self.overflowed += int((finite & ~out.isfinite()).sum())
        if not self.how.allow_nonfinite and not bool(finite.all()):
            assert isinstance(tensor.source, Blend)
            for _ in self.reader(tensor, tensor.source, careful=True).inputs.chunks():
                pass  # The reader of a faulty donor raises the error.
            place = start + int((~finite).nonzero()[0])
            raise SurgeonError(
                f"the merge of {one_line(tensor.name)} is not finite (element {place:,})",
                why=f"{tensor.source.method} has no finite result for the donors' values there",
                remedy="check the parameters with `surgeon plan --values`, or write it anyway with --allow-nonfinite",
            )

    def warning(self, tensor: PlannedTensor) -> str:
        """A warning about the last computed tensor; empty without one."""
        if not self.overflowed:
            return ""
        return (
            f"{plural(self.overflowed, 'value')} of {one_line(tensor.name)} became infinite, because "
            f"{TORCH_NAMES[tensor.dtype]} cannot represent such large numbers. Write the model in bfloat16 or float32."
        )


def is_wide(tensor: PlannedTensor, blend: Blend) -> bool:
    """Whether a blend is computed in float64 instead of float32."""
    return tensor.dtype == "F64" or any(entry.dtype == "F64" for entry in blend.entries())


def _shows_all(blend: Blend) -> bool:
    """Whether a non-finite value of any donor makes the result non-finite."""
    return kernel_of(blend).spreads and all(isinstance(operand, Stored) for operand in blend.inputs)


@contextmanager
def one_thread() -> Iterator[None]:
    """Context in which torch computes only in the calling thread.

    torch's threads would compete with the workers, and on a busy machine wait for each other at every small chunk,
    which is slower by orders of magnitude and never much faster. One thread also makes reductions independent of the
    number of workers.
    """
    torch = _loaded()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _loaded() -> ModuleType:
    """Import torch. Garbage collection of the million objects that the import makes would take a tenth of a second."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        import torch

        gc.freeze()
    finally:
        if collecting:
            gc.enable()
    return torch


def whole(tensor: PlannedTensor, how: Arithmetic = PLAIN) -> torch.Tensor:
    """A computed tensor in memory, with the same bits as on disk; raises the errors of `Computer.run`."""
    import torch

    sources = Sources()
    dtype: torch.dtype = getattr(torch, TORCH_NAMES[tensor.dtype])
    out = torch.empty(tensor.numel, dtype=dtype)
    target, done = raw(out), 0
    try:
        with one_thread():
            for piece in Computer(sources, how).run(tensor):
                target[done : done + len(piece)] = piece
                done += len(piece)
    finally:
        sources.close()
    return out.view(tensor.shape)
