"""A worker's share of a GPU: a stream, a part of its memory, and pinned memory that numbers go there and back by.

While a piece of a donor is copied to the GPU the next one is read from its file, and while a piece of the result is
copied back the one before it is written. That, and several workers on a GPU of which one reads, one computes and one
writes, keeps all three at work.
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
"""Workers on a GPU, unless it is said how many."""

PIECE = 8 * 1024 * 1024
"""Bytes copied to or from a GPU at once, in a fraction of a millisecond: far more than what it takes to begin that."""

MOST = 16 * 1024 * 1024
"""Elements of a chunk at most. Copying so many takes a millisecond per donor, and beginning what is computed of them a
fraction of that: larger chunks would gain nothing, and let those who read, compute and write wait for each other."""

SPARE = 48 * 1024 * 1024
"""Bytes of a GPU that a worker takes beside its chunks: a piece, and what torch's allocator rounds up to segments."""


class Slot:
    """A piece of pinned memory, and the mark of the last copy to or from it."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._memory = stream, stream.pinned(PIECE)
        self._mark: Mark | None = None

    def of(self, dtype: torch.dtype, count: int) -> torch.Tensor:
        """The first bytes as so many numbers."""
        return self._memory.view(dtype)[:count]

    def copying(self) -> None:
        """A copy to or from it was asked for."""
        self._mark = self._stream.mark()

    def wait(self) -> None:
        """Returns once that copy is done."""
        if self._mark is not None:
            self._mark.synchronize()
            self._mark = None


class Ring:
    """Two slots, used in turn."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._slots: deque[Slot] = deque()

    def take(self) -> Slot:
        """The slot whose turn it is, when nothing is copied to or from it any more."""
        slot = self._slots.popleft() if len(self._slots) == 2 else Slot(self._stream)
        self._slots.append(slot)
        slot.wait()
        return slot


class Lane:
    """What one worker has of a GPU; used by one thread at a time, inside of `working`.

    Attributes:
        gpu: the GPU.
        device: where chunks live.
        room: bytes of the GPU that its chunks may take; halved where memory runs out all the same.
    """

    def __init__(self, gpu: Gpu, room: int) -> None:
        self.gpu, self.device, self.room = gpu, gpu.device, room
        self._stream = gpu.stream()
        self._up, self._down = Ring(self._stream), Ring(self._stream)
        self._landing: torch.Tensor | None = None

    def working(self) -> contextlib.AbstractContextManager[None]:
        """In this thread, what is computed on the GPU is asked of this lane's stream."""
        return self._stream.entered()

    def chunk(self, need: int) -> int:
        """Elements of a chunk, of which each takes `need` bytes: a multiple of BLOCK, and at least that."""
        block = kernel.BLOCK
        return max(block, min(MOST, self.room // max(need, 1)) // block * block)

    def upload(
        self, fill: Callable[[int, torch.Tensor], None], dtype: torch.dtype, start: int, out: torch.Tensor
    ) -> None:
        """Fill the flat tensor `out` on the GPU, with elements from `start` on.

        Args:
            fill: fills a flat CPU tensor of `dtype` with elements from a number on.
            dtype: what they are copied to the GPU as, to become what `out` is there.
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
        """A piece of the GPU's memory for numbers as a file has them; what is asked of the stream next overwrites it
        when what was asked before has read it."""
        import torch

        if self._landing is None:
            self._landing = torch.empty(PIECE, dtype=torch.uint8, device=self.device)
        return self._landing.view(dtype)[:count]

    def download(self, values: torch.Tensor) -> Iterator[memoryview]:
        """The bytes of a flat tensor on the GPU, piece by piece; each is valid until the next is asked for."""
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
