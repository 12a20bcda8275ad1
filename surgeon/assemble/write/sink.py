"""Write the bytes of tensors to their file, hash them, and record each complete tensor in the journal."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from ...errors import SurgeonError
from ..io.byte_copy import write_all
from ..io.digest import Hasher
from ..io.system_calls import reserve, start_writeback, sync_folder
from ..layout import Placed
from ..progress_tracker import Counts
from ..resume.journal import JournalLine, Notes

KICK = 32 * 1024 * 1024
"""Bytes after which the kernel is asked to start writing to the disk, so that a later flush is short."""

SYNC = 256 * 1024 * 1024
"""Bytes of a file between two flushes to the disk with a mark in the journal: the most that a power loss costs."""


class Target:
    """An output file of which this worker writes one part.

    Attributes:
        path: the file.
        fd: its file descriptor.
        whole: names of the tensors that were completed since the last `sync`.
    """

    def __init__(self, path: Path, flush: bool, nbytes: int = 0, start: int = 0) -> None:
        """Open or create `path` and reserve `nbytes`, to write from `start` on; `flush`: flush to the disk."""
        self.path, self.whole = path, list[str]()
        # If others can write to the folder, it may contain a link to any file.
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        if os.fstat(self.fd).st_nlink > 1:
            os.close(self.fd)
            raise SurgeonError(
                "the file has a second name (hard link), and writing would change that file too",
                where=str(path),
                remedy="write the model from scratch with --restart",
            )
        self._flush = flush
        self._named = False
        self._kicked = self._synced = start
        try:
            reserve(self.fd, nbytes)
        except OSError:
            os.close(self.fd)
            raise

    def reached(self, position: int) -> None:
        """Note that everything before `position` is written."""
        if self._flush and position - self._kicked >= KICK:
            start_writeback(self.fd, self._kicked, position - self._kicked)
            self._kicked = position

    def due(self, position: int) -> bool:
        """Whether enough bytes are written to `sync`."""
        return self._flush and position - self._synced >= SYNC

    def sync(self, position: int, journal: Notes) -> None:
        """Flush the file and its name to the disk, and mark the complete tensors; does nothing without `flush`."""
        if not self._flush:
            return
        if not self._named:
            sync_folder(self.path.parent)
            self._named = True
        os.fdatasync(self.fd) if hasattr(os, "fdatasync") else os.fsync(self.fd)
        self._synced = position
        journal.mark(self.whole)
        self.whole = []

    def close(self, flush: bool) -> None:
        """Close the file; with `flush`, flush it to the disk first."""
        try:
            if flush and self._flush:
                os.fsync(self.fd)
        finally:
            os.close(self.fd)


class Sink:
    """Takes the bytes of consecutive tensors of a file in order, in pieces of any size."""

    def __init__(self, target: Target, tensors: Sequence[Placed], tracker: Counts, journal: Notes) -> None:
        self._target, self._tracker, self._journal = target, tracker, journal
        self._shard = target.path.name
        self._waiting = deque(tensors)
        self._position = tensors[0].offset
        self._hasher = Hasher()
        tracker.begin(tensors[0].tensor.name)
        self._settle()

    def write(self, data: memoryview) -> None:
        """Write the next bytes.

        Raises:
            Halted: the worker must stop.
            OSError: writing failed.
        """
        write_all(self._target.fd, data, self._position)
        self.took(data)

    def took(self, data: memoryview) -> None:
        """Take the next bytes, which are already in the file; raises the same errors as `write`."""
        self._tracker.advance(len(data), self._shard)
        while data:
            count = min(len(data), self._waiting[0].stop - self._position)
            assert count, "a tensor is larger than planned"
            self._hasher.update(data[:count])
            self._position += count
            data = data[count:]
            self._settle()
        self._target.reached(self._position)

    def finish(self, warning: str = "") -> None:
        """Record the last tensor, with a warning if there is one."""
        placed = self._waiting.popleft()
        assert placed.stop == self._position and not self._waiting, "a tensor has another size than planned"
        self._note(placed, warning)

    def _settle(self) -> None:
        """Record the complete tensors, except the last one, which waits for `finish`."""
        while len(self._waiting) > 1 and self._waiting[0].stop <= self._position:
            self._note(self._waiting.popleft(), "")
            self._tracker.begin(self._waiting[0].tensor.name)

    def _note(self, placed: Placed, warning: str) -> None:
        name = placed.tensor.name
        self._journal.add(JournalLine(name, self._shard, self._hasher.hexdigest(), warning))
        self._hasher = Hasher()
        self._target.whole.append(name)
        self._tracker.finish(name)
        if warning:
            self._tracker.warn(warning)
        if self._target.due(self._position):
            self._target.sync(self._position, self._journal)
