"""A worker's share of a GPU: a stream, a part of its memory, and pinned staging buffers for copies in both directions.

While one piece of a donor is copied to the GPU, the next is read from its file; while one piece of the result is copied
back, the previous one is written. With several workers per GPU, reading, computing and writing overlap.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ...methods import kernel
from .cuda import Gpu, Mark, Stream

if TYPE_CHECKING:
    import torch

PER_GPU = 3
"""Default number of workers per GPU."""

PIECE = 8 * 1024 * 1024
"""Bytes per copy to or from a GPU: a fraction of a millisecond, but far longer than the latency of starting a copy."""

MOST = 16 * 1024 * 1024
"""Largest chunk in elements. Copying it takes a millisecond per donor, much more than starting its kernels takes:
larger chunks would gain nothing, and would reduce the overlap of reading, computing and writing."""

SPARE = 48 * 1024 * 1024
"""Bytes of a GPU that a worker needs in addition to its chunks: one piece, and the rounding of torch's allocator."""


class Slot:
    """A piece of pinned memory, and the mark of the last copy to or from it."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._memory = stream, stream.pinned(PIECE)
        self._mark: Mark | None = None

    def of(self, dtype: torch.dtype, count: int) -> torch.Tensor:
        """The first `count` numbers of the memory, viewed as `dtype`."""
        return self._memory.view(dtype)[:count]

    def copying(self) -> None:
        """Record that a copy to or from it was started."""
        self._mark = self._stream.mark()

    def wait(self) -> None:
        """Wait until that copy is done."""
        if self._mark is not None:
            self._mark.synchronize()
            self._mark = None


class Ring:
    """Two slots, used in turn."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._slots: deque[Slot] = deque()

    def take(self) -> Slot:
        """The next slot, after its last copy is done."""
        slot = self._slots.popleft() if len(self._slots) == 2 else Slot(self._stream)
        self._slots.append(slot)
        slot.wait()
        return slot


class Lane:
    """A worker's share of a GPU; used by one thread at a time, inside `working`.

    Attributes:
        gpu: the GPU.
        device: torch's device of the chunks.
        room: bytes of the GPU that its chunks may take; halved when memory runs out.
    """

    def __init__(self, gpu: Gpu, room: int) -> None:
        self.gpu, self.device, self.room = gpu, gpu.device, room
        self._stream = gpu.stream()
        self._up, self._down = Ring(self._stream), Ring(self._stream)
        self._landing: torch.Tensor | None = None

    def working(self) -> contextlib.AbstractContextManager[None]:
        """Context in which this thread's operations on the GPU go to this lane's stream."""
        return self._stream.entered()

    def chunk(self, need: int) -> int:
        """Number of elements per chunk, a multiple of BLOCK, if each element takes `need` bytes."""
        block = kernel.BLOCK
        return max(block, min(MOST, self.room // max(need, 1)) // block * block)

    def upload(
        self, fill: Callable[[int, torch.Tensor], None], dtype: torch.dtype, start: int, out: torch.Tensor
    ) -> None:
        """Fill the flat tensor `out` on the GPU with the elements from `start` on.

        Args:
            fill: fills a flat CPU tensor of `dtype` with the elements from a given index on.
            dtype: the dtype in which they are copied; the GPU converts them to that of `out`.
            start: index of the first element.
            out: (count,) on the GPU.
        """
        step = PIECE // dtype.itemsize
        for first in range(0, out.numel(), step):
            part, slot = out[first : first + step], self._up.take()
            here = slot.of(dtype, part.numel())
            fill(start + first, here)
            there = part if dtype == out.dtype else self._landed(dtype, part.numel())
            there.copy_(here, non_blocking=True)
            slot.copying()
            if there is not part:
                part.copy_(there)

    def _landed(self, dtype: torch.dtype, count: int) -> torch.Tensor:
        """A buffer on the GPU for numbers in a file's dtype; the order of the stream makes it safe to overwrite."""
        import torch

        if self._landing is None:
            self._landing = torch.empty(PIECE, dtype=torch.uint8, device=self.device)
        return self._landing.view(dtype)[:count]

    def download(self, values: torch.Tensor) -> Iterator[memoryview]:
        """The bytes of a flat tensor on the GPU, piece by piece; each is valid until the next is requested."""
        import torch

        step, ready = PIECE // values.dtype.itemsize, None
        for first in range(0, values.numel(), step):
            part, slot = values[first : first + step], self._down.take()
            here = slot.of(values.dtype, part.numel())
            here.copy_(part, non_blocking=True)
            slot.copying()
            if ready:
                yield self._done(*ready)
            ready = slot, here.view(torch.uint8)
        if ready:
            yield self._done(*ready)

    @staticmethod
    def _done(slot: Slot, here: torch.Tensor) -> memoryview:
        slot.wait()
        found: memoryview = here.numpy().data
        return found
