"""Interface to a GPU: everything that surgeon uses of torch.cuda. Tests use other implementations of the protocols."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Mark(Protocol):
    """An event in a stream."""

    def synchronize(self) -> None:
        """Wait until everything before it is done."""


class Stream(Protocol):
    """A queue of one worker's operations on a GPU, run in order; the streams of several workers run in parallel."""

    def entered(self) -> contextlib.AbstractContextManager[None]:
        """Context in which this thread's operations on the GPU go to this stream."""
        ...

    def mark(self) -> Mark:
        """A mark after all operations so far."""
        ...

    def pinned(self, count: int) -> torch.Tensor:
        """(count,) uint8 in pinned CPU memory, which can be copied to and from the GPU asynchronously."""
        ...


class Gpu(Protocol):
    """One GPU.

    Attributes:
        device: as torch names it.
    """

    device: torch.device

    def model(self) -> str:
        """Its product name."""
        ...

    def free(self) -> int:
        """Bytes of its memory that no process uses."""
        ...

    def limit(self, nbytes: int | None) -> None:
        """Limit torch's memory in this process to `nbytes`; None removes the limit."""

    def stream(self) -> Stream:
        """A new stream."""
        ...

    def forget(self) -> None:
        """Release memory that torch caches."""


class CudaStream:
    """A stream of a CUDA device, which for torch includes AMD's GPUs.

    It is not synchronised with torch's default stream, so its tensors must be made, used and dropped inside it.
    """

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

        # A blocking event lets the waiting thread sleep instead of using the core.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record(self._stream)
        return event

    def pinned(self, count: int) -> torch.Tensor:
        """See `Stream`."""
        import torch

        return torch.empty(count, dtype=torch.uint8, pin_memory=True)


class Cuda:
    """The GPU with this index among those that CUDA_VISIBLE_DEVICES shows."""

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
