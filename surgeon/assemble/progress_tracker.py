"""Progress: the workers count what they have written, and the main thread reports it to the caller."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..errors import SurgeonError
from ..plan.model import Plan
from ..process import resident, shares

Event = dict[str, Any]
OnEvent = Callable[[Event], object]
Where = int | str
"""An output layer's index, or the role of a tensor outside the layers."""

INTERVAL = 0.25
"""Seconds between two progress events."""

WINDOW = 10.0
"""Seconds over which the rate is averaged."""

SETTLED = 2.0
"""Seconds of writing before the remaining time is estimated, if the rate is steady."""

_EVEN = 1.3
"""Largest ratio between the rates of both halves of the window for a steady rate."""


class Cancelled(SurgeonError):
    """The user has cancelled the run (exit code 130, as after Ctrl-C); `kept` says what is kept of it."""

    exit_code = 130

    def __init__(self, kept: str = "nothing was written") -> None:
        super().__init__("cancelled", remedy=kept)


class Halted(Exception):
    """Raised in a worker to stop it after a cancel or another worker's failure."""


def places(plan: Plan) -> dict[str, Where]:
    """The layer or role of each output tensor, by name."""
    found: dict[str, Where] = {tensor.name: layer.index for layer in plan.layers for tensor in layer.tensors}
    found |= {tensor.name: role for role, end in plan.ends.items() for tensor in end.tensors}
    return found | {tensor.name: "other" for tensor in plan.extra}


class Counts(Protocol):
    """Receives a worker's reports of its progress."""

    def check(self) -> None:
        """Raise Halted if the worker must stop."""

    def open(self, file: str, total: int, parts: int) -> None:
        """A worker starts one of the `parts` of a file with `total` bytes of tensors."""

    def close(self, file: str) -> None:
        """A part of a file is written."""

    def begin(self, name: str) -> None:
        """A worker starts a tensor."""

    def advance(self, count: int, file: str = "") -> None:
        """`count` more bytes are written (to an open file); raises Halted if the worker must stop."""

    def finish(self, name: str) -> None:
        """A tensor is completely written."""

    def skip(self, name: str, count: int, file: str) -> None:
        """An earlier run has written this tensor of `count` bytes."""

    def warn(self, sentence: str) -> None:
        """Add a warning for the user; the work continues."""


class Tracker(Counts):
    """Counts the progress of all workers; every method may be called from any thread.

    Attributes:
        done: bytes written, including those of earlier runs.
        earlier: bytes written by earlier runs.
        current: the layer or role that a worker has started last.
        finished: completely written layers and ends, until the main thread reports them.
        files: bytes done and total bytes of every file that is being written.
        files_done: number of files that are written.
        warnings: sentences about the result.
        processes: ids of the worker processes; empty if the workers are threads.
    """

    def __init__(self, where: Mapping[str, Where]) -> None:
        self._where = where
        self._left = Counter(where.values())
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.done = self.earlier = self.files_done = 0
        self.current: Where | None = None
        self.finished: deque[Where] = deque()
        self.files: dict[str, list[int]] = {}
        self._parts: dict[str, int] = {}
        self.warnings: list[str] = []
        self.processes: tuple[int, ...] = ()

    def halt(self) -> None:
        """Make every worker stop at its next piece of bytes."""
        self._stop.set()

    def check(self) -> None:
        if self._stop.is_set():
            raise Halted

    def open(self, file: str, total: int, parts: int = 1) -> None:
        with self._lock:
            self.files.setdefault(file, [0, total])
            self._parts.setdefault(file, parts)

    def close(self, file: str) -> None:
        with self._lock:
            self._parts[file] -= 1
            if not self._parts[file]:
                del self.files[file]
                self.files_done += 1

    def begin(self, name: str) -> None:
        self.current = self._where[name]

    def advance(self, count: int, file: str = "") -> None:
        self.check()
        with self._lock:
            self.done += count
            if file:
                self.files[file][0] += count

    def finish(self, name: str) -> None:
        where = self._where[name]
        with self._lock:
            self._left[where] -= 1
            if not self._left[where]:
                self.finished.append(where)

    def skip(self, name: str, count: int, file: str) -> None:
        with self._lock:
            self.done += count
            self.earlier += count
            self.files[file][0] += count
        self.finish(name)

    def warn(self, sentence: str) -> None:
        with self._lock:
            self.warnings.append(sentence)

    def open_files(self) -> dict[str, list[int]]:
        """A copy of `files`."""
        with self._lock:
            return {name: list(counts) for name, counts in self.files.items()}


class Reporter:
    """Turns a tracker's counts into events; used by the main thread only."""

    def __init__(self, tracker: Tracker, total: int, emit: OnEvent) -> None:
        self._tracker, self._total, self._emit = tracker, total, emit
        self._samples: deque[tuple[float, int]] = deque()
        self._reported = time.monotonic()

    def tick(self, last: bool = False) -> None:
        """Report what is finished, and the progress if `INTERVAL` has passed or this is the last call."""
        while self._tracker.finished:
            where = self._tracker.finished.popleft()
            known = {"event": "layer", "index": where} if isinstance(where, int) else {"event": "end", "role": where}
            self._emit(known)
        now = time.monotonic()
        if last or now - self._reported >= INTERVAL:
            self._reported = now
            self._progress(now)

    def _memory(self) -> int | None:
        """Bytes of memory held by this process and its worker processes; None if unknown."""
        if not self._tracker.processes:
            return resident()
        return sum(shares(pid)[0] for pid in (os.getpid(), *self._tracker.processes)) or resident()

    def _settled(self) -> bool:
        """Whether the rate is measured for long enough and is steady."""
        if self._samples[-1][0] - self._samples[0][0] < SETTLED:
            return False
        middle = len(self._samples) // 2
        one, other = _rate(self._samples, 0, middle), _rate(self._samples, middle, -1)
        return max(one, other) <= _EVEN * min(one, other)

    def _progress(self, now: float) -> None:
        done, fresh = self._tracker.done, self._tracker.done - self._tracker.earlier
        # Time before the first byte belongs to the start of the run, not to writing.
        if fresh:
            self._samples.append((now, fresh))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW:
            self._samples.popleft()
        rate = _rate(self._samples, 0, -1)
        eta = round((self._total - done) / rate, 1) if rate and self._settled() else None
        self._emit(
            {
                "event": "progress",
                "bytes": done,
                "total": self._total,
                "rate": round(rate),
                "eta": 0.0 if done >= self._total else eta,
                "layer": self._tracker.current,
                "memory": self._memory(),
                "files": self._tracker.open_files(),
                "files_done": self._tracker.files_done,
            }
        )


def _rate(samples: Sequence[tuple[float, int]], first: int, last: int) -> float:
    """Bytes per second between two samples; 0 with fewer than two samples."""
    if len(samples) < 2:
        return 0.0
    (since, before), (now, after) = samples[first], samples[last]
    return (after - before) / (now - since) if now > since else 0.0
