"""One worker's job: one output file, from its header to its fsync."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path

from .compute import PLAIN, Arithmetic, Computer
from .copy import Sources, copy_range, write_all
from .layout import Placed, Run, Shard, steps
from .tracker import Tracker

KICK = 32 * 1024 * 1024
"""Bytes after which the kernel is told to begin writing to disk, so that the fsync at the end has little left."""


class Target:
    """An output file being written."""

    def __init__(self, path: Path, flush: bool) -> None:
        """Creates `path`, which must not exist; with `flush`, its data is on the disk when it is closed."""
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._flush = flush
        self._kicked = 0

    def reached(self, position: int) -> None:
        """Everything before `position` is written."""
        if self._flush and position - self._kicked >= KICK:
            start_writeback()(self.fd, self._kicked, position - self._kicked)
            self._kicked = position

    def close(self, complete: bool) -> None:
        """Close the file, and flush it if it is complete."""
        try:
            if complete and self._flush:
                os.fsync(self.fd)
        finally:
            os.close(self.fd)


@cache
def start_writeback() -> Callable[[int, int, int], object]:
    """sync_file_range(fd, offset, nbytes, WRITE), which Python lacks; does nothing where the system lacks it too."""
    if not sys.platform.startswith("linux"):
        return lambda fd, offset, count: None
    import ctypes

    function = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if function is None:
        return lambda fd, offset, count: None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    write = 2
    # Its failure costs speed only: the fsync at the end decides.
    return lambda fd, offset, count: function(fd, offset, count, write)


def write_shard(shard: Shard, folder: Path, tracker: Tracker, flush: bool, how: Arithmetic = PLAIN) -> None:
    """Write one file; `how` its blends are computed.

    Raises:
        Halted: the tracker was halted.
        SurgeonError: a source is not what its header says.
        OSError: reading or writing failed.
    """
    target, sources, complete = Target(folder / shard.name, flush), Sources(), False
    computer = Computer(sources, how)
    try:
        write_all(target.fd, shard.header, 0)
        for step in steps(shard):
            if isinstance(step, Run):
                _copy(step, target, sources, tracker)
            else:
                _compute(step, target, computer, tracker)
        complete = True
    finally:
        sources.close()
        target.close(complete)


def _copy(run: Run, target: Target, sources: Sources, tracker: Tracker) -> None:
    waiting, position = deque(run.tensors), run.offset
    source = sources.get(run.file)
    tracker.begin(waiting[0].tensor.name)
    for count in copy_range(source, target.fd, run.start, run.offset, run.nbytes, sources.buffer):
        tracker.advance(count)
        position += count
        target.reached(position)
        _settle(waiting, position, tracker)
    _settle(waiting, position, tracker)


def _settle(waiting: deque[Placed], position: int, tracker: Tracker) -> None:
    while waiting and waiting[0].stop <= position:
        tracker.finish(waiting.popleft().tensor.name)
        if waiting:
            tracker.begin(waiting[0].tensor.name)


def _compute(placed: Placed, target: Target, computer: Computer, tracker: Tracker) -> None:
    """One tensor that is more than a copy."""
    tensor, position = placed.tensor, placed.offset
    tracker.begin(tensor.name)
    for piece in computer.run(tensor):
        write_all(target.fd, piece, position)
        position += len(piece)
        tracker.advance(len(piece))
        target.reached(position)
    tracker.finish(tensor.name)
    if warning := computer.warning(tensor):
        tracker.warn(warning)
