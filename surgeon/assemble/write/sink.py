"""Where the bytes of tensors go: to their file, into their hash, into the journal once a tensor is whole."""

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
"""Bytes after which the kernel is told to begin writing to disk, so that waiting for it takes little."""

SYNC = 256 * 1024 * 1024
"""Bytes of a file after which they are brought to the disk and marked in the journal: what a power loss costs."""


class Target:
    """An output file that is written from one byte on to another, by this worker; others may write other parts.

    Attributes:
        whole: names of the tensors that were written since the last `sync`.
    """

    def __init__(self, path: Path, flush: bool, nbytes: int = 0, start: int = 0) -> None:
        """Opens or creates `path` with room for `nbytes`, to write from `start` on; `flush`: to the disk, too."""
        self.path, self.whole = path, list[str]()
        # A hidden folder in a place that others may write to could hold a link to anything.
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        if os.fstat(self.fd).st_nlink > 1:
            os.close(self.fd)
            raise SurgeonError(
                "the file has another name, and writing would change it there",
                where=str(path),
                remedy="write the model anew with --restart",
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
        """Everything before `position` is written."""
        if self._flush and position - self._kicked >= KICK:
            start_writeback(self.fd, self._kicked, position - self._kicked)
            self._kicked = position

    def due(self, position: int) -> bool:
        """Whether so much has been written that it is time to `sync`."""
        return self._flush and position - self._synced >= SYNC

    def sync(self, position: int, journal: Notes) -> None:
        """Bring the file to the disk, its name included, where that is asked for, and mark what is whole."""
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
        """Close the file; with `flush`, bring it to the disk before."""
        try:
            if flush and self._flush:
                os.fsync(self.fd)
        finally:
            os.close(self.fd)


class Sink:
    """Takes the bytes of tensors that lie one after the other in a file, in order, however they are cut."""

    def __init__(self, target: Target, tensors: Sequence[Placed], tracker: Counts, journal: Notes) -> None:
        self._target, self._tracker, self._journal = target, tracker, journal
        self._shard = target.path.name
        self._waiting = deque(tensors)
        self._position = tensors[0].offset
        self._hasher = Hasher()
        tracker.begin(tensors[0].tensor.name)
        self._settle()

    def write(self, data: memoryview) -> None:
        """The next bytes, to be written.

        Raises:
            Halted: it is time to stop.
            OSError: they could not be written.
        """
        write_all(self._target.fd, data, self._position)
        self.took(data)

    def took(self, data: memoryview) -> None:
        """The next bytes, which are in the file already; raises what `write` does."""
        self._tracker.advance(len(data), self._shard)
        while data:
            count = min(len(data), self._waiting[0].stop - self._position)
            assert count, "a tensor is larger than was planned"
            self._hasher.update(data[:count])
            self._position += count
            data = data[count:]
            self._settle()
        self._target.reached(self._position)

    def finish(self, warning: str = "") -> None:
        """The last of the tensors is whole, and this is to be said of it."""
        placed = self._waiting.popleft()
        assert placed.stop == self._position and not self._waiting, "a tensor has another size than was planned"
        self._note(placed, warning)

    def _settle(self) -> None:
        """Note the tensors that are whole; the last one waits for `finish`."""
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
