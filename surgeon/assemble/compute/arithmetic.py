"""Tensors that are more than a copy, as bytes of the output: converted or blended, chunk by chunk, rounded once."""

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
        chunk: elements per chunk; the result does not depend on it.
        allow_nonfinite: take NaN and infinity in donors as they come.
        gpus: where blends are computed, if not on the CPU; then chunks are as large as a worker's lane has them.
        vram: bytes of each GPU that may be taken; None for what is free.
        trims: by tensor, what a trim over the whole model found.
    """

    chunk: int = CHUNK
    allow_nonfinite: bool = False
    gpus: tuple[Gpu, ...] = ()
    vram: int | None = None
    trims: Mapping[str, Sequence[Threshold]] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """What blends are computed on. The bytes do not depend on how many GPUs of one model there are."""
        return f"cuda ({', '.join(sorted({gpu.model() for gpu in self.gpus}))})" if self.gpus else "cpu"


PLAIN = Arithmetic()


class Computer:
    """One worker's arithmetic.

    Attributes:
        sources: its open files.
        how: what all workers do alike.
        lane: what it has of a GPU, if blends are not computed on the CPU.
        overflowed: finite values of the last tensor that its dtype could not hold.
    """

    def __init__(self, sources: Sources, how: Arithmetic = PLAIN, lane: Lane | None = None) -> None:
        self.sources, self.how, self.lane = sources, how, lane
        self.overflowed = 0
        self._most = self._chunk = self._largest

    @property
    def _largest(self) -> int:
        """Elements of the chunks that a tensor begins with; on a GPU its lane says how many of them fit."""
        return MOST if self.lane else self.how.chunk

    def run(self, tensor: PlannedTensor) -> Iterator[memoryview]:
        """The tensor's bytes, piece by piece; each is valid until the next is asked for.

        Raises:
            SurgeonError: a donor's file is not what its header says, or a value is not finite.
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
                self.lane.gpu.forget()  # not before what has failed has let go of its chunks

    def shrink(self, tensor: PlannedTensor, error: Exception) -> None:
        """Compute in chunks of half the size; SurgeonError where they are the smallest."""
        if self._chunk <= BLOCK:
            raise SurgeonError(
                f"{self.how.device} has too little memory for {one_line(tensor.name)}",
                why=one_line(str(error).split(". ", 1)[0]),
                remedy="free some of it, or merge with --device cpu",
            ) from error
        useful = min(self._chunk, -(-tensor.numel // BLOCK) * BLOCK)
        self._most = max(BLOCK, useful // 2 // BLOCK * BLOCK)
        if self.lane:
            self.lane.room //= 2

    def _pieces(self, tensor: PlannedTensor, reader: BlendReader, done: int) -> Iterator[memoryview]:
        """The bytes of a blend from byte `done` on."""
        import torch

        target: torch.dtype = getattr(torch, TORCH_NAMES[tensor.dtype])
        rounded, narrow = Staging(target), tensor.dtype == "F16"
        for start, result in reader.chunks(done // target.itemsize):
            if self.lane:
                # Nothing but copying is left to do when the first piece of a chunk is given away: where memory runs
                # out, it is gone on with whole chunks.
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
        """The reader of the blend that an output tensor is; `careful`: donors are looked at even where the result is
        going to show what is wrong with them."""
        import torch

        dtype = torch.float64 if is_wide(tensor, blend) else torch.float32
        how = self.how
        self._chunk = min(self._most, self.lane.chunk(need(blend, dtype.itemsize))) if self.lane else self._most
        allow = how.allow_nonfinite or (not careful and _shows_all(blend))
        readers = Readers(self.sources, chunk=self._chunk, allow_nonfinite=allow, lane=self.lane)
        return readers.blend(blend, dtype, how.trims.get(tensor.name))

    def _look(self, tensor: PlannedTensor, start: int, result: torch.Tensor, out: torch.Tensor) -> None:
        """A chunk that may hold what is not finite: count what the dtype is too narrow for, refuse the rest."""
        result, out = result.cpu(), out.cpu()
        finite = result.isfinite()
        self.overflowed += int((finite & ~out.isfinite()).sum())
        if not self.how.allow_nonfinite and not bool(finite.all()):
            assert isinstance(tensor.source, Blend)
            for _ in self.reader(tensor, tensor.source, careful=True).inputs.chunks():
                pass  # A donor's fault is told of by its reader.
            place = start + int((~finite).nonzero()[0])
            raise SurgeonError(
                f"the merge of {one_line(tensor.name)} is not finite (element {place:,})",
                why=f"{tensor.source.method} cannot make a number of what the donors hold there",
                remedy="see the parameters with `surgeon plan --values`, or write it as it is with --allow-nonfinite",
            )

    def warning(self, tensor: PlannedTensor) -> str:
        """What to tell of the tensor just computed; empty for nothing."""
        if not self.overflowed:
            return ""
        return (
            f"{plural(self.overflowed, 'value')} of {one_line(tensor.name)} became infinite, because "
            f"{TORCH_NAMES[tensor.dtype]} holds nothing that large. Write the model in bfloat16 or float32."
        )


def is_wide(tensor: PlannedTensor, blend: Blend) -> bool:
    """Whether a blend is computed in float64 and not in float32."""
    return tensor.dtype == "F64" or any(entry.dtype == "F64" for entry in blend.entries())


def _shows_all(blend: Blend) -> bool:
    """Whether what is not finite in any donor is not finite in the result either."""
    return kernel_of(blend).spreads and all(isinstance(operand, Stored) for operand in blend.inputs)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes in the calling thread alone.

    Its threads would fight with the workers, and on a busy machine wait for each other at every small chunk: slower by
    orders of magnitude there, and never much faster. Reductions are the same for any number of workers, too.
    """
    torch = _loaded()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _loaded() -> ModuleType:
    """Torch. Its import makes a million objects that stay: looking for garbage among them takes a tenth of a second."""
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
    """A computed tensor in memory, to the bit what is written to disk; see `Computer.run` for what is raised."""
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
