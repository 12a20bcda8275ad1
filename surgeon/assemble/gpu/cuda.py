"""A GPU, as far as surgeon knows one: all that is asked of torch.cuda. Tests put others of this shape in its place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Mark(Protocol):
    """A place in a stream."""

    def synchronize(self) -> None:
        """Waits until everything before it is done."""


class Stream(Protocol):
    """What one worker asks of a GPU, in that order; the streams of several workers run beside each other."""

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """In this thread, what is computed on the GPU is asked of this stream."""
        ...

    def mark(self) -> Mark:
        """A mark behind all that was asked so far."""
        ...

    def pinned(self, count: int) -> torch.Tensor:
        """(count,) uint8 of the CPU's memory that copies to and from the GPU run on without it."""
        ...


class Gpu(Protocol):
    """One GPU.

    Attributes:
        device: as torch names it.
    """

    device: torch.device

    def model(self) -> str:
        """What it is sold as."""
        ...

    def free(self) -> int:
        """Bytes of its memory that nobody has taken, this process included."""
        ...

    def limit(self, nbytes: int | None) -> None:
        """Lets torch in this process run out of memory at so many bytes; None: where there is no more."""

    def stream(self) -> Stream:
        """A stream of one's own."""
        ...

    def forget(self) -> None:
        """Gives back memory that torch holds for later."""


class CudaStream:
    """A stream of a GPU that torch calls a CUDA device (those of AMD are, too). Nothing in it waits for torch's default
    stream or the other way round: what it works on must be made, used and dropped inside of it."""

    def __init__(self, index: int) -> None:
        import torch

        self._index = index
        self._stream: torch.cuda.Stream = torch.cuda.Stream(index)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """See `Stream`."""
        import torch

        with torch.cuda.device(self._index), torch.cuda.stream(self._stream):
            yield

    def mark(self) -> Mark:
        """See `Stream`."""
        import torch

        # Who waits for it leaves the core to others.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def pinned(self, count: int) -> torch.Tensor:
        """See `Stream`."""
        import torch

        return torch.empty(count, dtype=torch.uint8, pin_memory=True)


class Cuda:
    """The GPU of this number among those that CUDA_VISIBLE_DEVICES lets be seen."""

    def __init__(self, index: int) -> None:
        import torch

        self._index = index
        self.device = torch.device("cuda", index)

    def model(self) -> str:
        """See `Gpu`."""
        import torch

        return torch.cuda.get_device_name(self._index)

    def free(self) -> int:
        """See `Gpu`."""
        import torch

        return torch.cuda.mem_get_info(self._index)[0]

    def limit(self, nbytes: int | None) -> None:
        """See `Gpu`."""
        import torch

        total = torch.cuda.get_device_properties(self._index).total_memory
        fraction = 1.0 if nbytes is None else min(1.0, nbytes / total)
        torch.cuda.set_per_process_memory_fraction(fraction, self._index)

    def stream(self) -> Stream:
        """See `Gpu`."""
        return CudaStream(self._index)

    def forget(self) -> None:
        """See `Gpu`."""
        import torch

        with torch.cuda.device(self._index):
            torch.cuda.empty_cache()
