"""A stand-in for a GPU: torch computes on the CPU, but copies that are not waited for are made as late as they may be.

On a GPU a copy runs on while the program goes on. What is overwritten before its copy has passed, or handed on before
its copy has come, shows as wrong bytes here.
"""

from __future__ import annotations

import contextlib
import random
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
VIEWS = {
    aten.view.default,
    aten.view.dtype,
    aten.slice.Tensor,
    aten.select.int,
    aten.alias.default,
    aten.detach.default,
}
"""What only looks at memory otherwise, and waits for nothing."""


class StandIn:
    """A GPU of so much memory.

    Attributes:
        streams: those that were asked for.
        limits: what `limit` was told.
        fail: raises, sometimes, when something is computed; see `scarce`.
        peak: most bytes that tensors held which were made in its streams.
    """

    device = torch.device("cpu")

    def __init__(self, memory: int = 10**9, name: str = "stand-in") -> None:
        self.memory, self.name = memory, name
        self.streams: list[LateStream] = []
        self.limits: list[int | None] = []
        self.fail: Any = lambda func: None
        self.held = self.peak = self.forgotten = 0

    def model(self) -> str:
        return self.name

    def free(self) -> int:
        return self.memory

    def limit(self, nbytes: int | None) -> None:
        self.limits.append(nbytes)

    def stream(self) -> LateStream:
        self.streams.append(LateStream(self))
        return self.streams[-1]

    def forget(self) -> None:
        self.forgotten += 1

    def holds(self, tensor: torch.Tensor) -> None:
        """Counts memory until nobody has it any more."""
        storage = tensor.untyped_storage()
        if not hasattr(storage, "counted"):
            storage.counted = True  # type: ignore[attr-defined]
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._dropped, storage.nbytes())

    def _dropped(self, count: int) -> None:
        self.held -= count


class LateStream:
    """A stream whose copies are made when they are waited for, or needed by what is asked for next.

    Attributes:
        asked, copied: how many copies were asked for and are made.
        threads: in which it was used; never in two at once.
    """

    def __init__(self, gpu: StandIn) -> None:
        self.gpu = gpu
        self.asked = self.copied = 0
        self.threads: list[int] = []
        self._queue: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._busy = threading.Lock()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        assert self._busy.acquire(blocking=False), "a stream is one worker's"
        self.threads.append(threading.get_ident())
        try:
            with Late(self):
                yield
        finally:
            self._busy.release()

    def mark(self) -> LateMark:
        assert self._busy.locked(), "marks are made inside of the stream"
        return LateMark(self, self.asked)

    def pinned(self, count: int) -> torch.Tensor:
        with _disable_current_modes():
            return torch.full((count,), 0xAA, dtype=torch.uint8)

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        self.asked += 1
        self._queue.append((target, source))

    @property
    def behind(self) -> bool:
        return bool(self._queue)

    def catch_up(self, until: int) -> None:
        with _disable_current_modes():
            while self.copied < until:
                target, source = self._queue.pop(0)
                target.copy_(source)
                self.copied += 1


class LateMark:
    def __init__(self, stream: LateStream, place: int) -> None:
        self._stream, self._place = stream, place

    def synchronize(self) -> None:
        self._stream.catch_up(self._place)


class Late(TorchDispatchMode):
    """Has copies made late in this thread, and counts the memory of what is computed."""

    def __init__(self, stream: LateStream) -> None:
        super().__init__()
        self._stream, self._gpu = stream, stream.gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is aten.copy_.default:
            late = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
            if late or self._stream.behind:
                self._stream.copy(args[0], args[1])
                return args[0]
        elif func not in VIEWS:
            self._stream.catch_up(self._stream.asked)
            self._gpu.fail(func)
        found = func(*args, **kwargs)
        if func not in VIEWS:
            for made in found if isinstance(found, (tuple, list)) else (found,):
                if isinstance(made, torch.Tensor):
                    self._gpu.holds(made)
        return found


def scarce(seed: int, times: int, share: float = 0.02) -> Any:
    """Memory that runs out so many times, at a share of the operations that the seed decides."""
    chance, left = random.Random(seed), [times]

    def fail(func: Any) -> None:
        if left[0] and chance.random() < share:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    return fail
