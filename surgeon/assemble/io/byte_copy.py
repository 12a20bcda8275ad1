"""Copy bytes from a donor's file to an output file, without a whole tensor in memory, and yield them for hashing.

The bytes pass through one small buffer and are hashed while they are in the core's cache; bytes that the kernel copies
must be read again. The kernel therefore copies only if the file system shares blocks between files or copies on its
server. A source that ends too early is an error, because a file with zeros instead of weights would look complete.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import SurgeonError
from ...statefile import descriptor

PIECE = 16 * 1024 * 1024
"""Bytes per copy_file_range call."""

BUFFER = 512 * 1024
"""Bytes read and written at a time: more would not fit the second-level cache and would be slower."""

MAX_OPEN = 8
"""Most source files that a worker keeps open."""

_FATAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of copy_file_range that another way of copying would raise too."""


@dataclass
class OpenFile:
    """A source file open for reading; `kernel` says whether to (still) try copy_file_range."""

    path: Path
    fd: int
    kernel: bool = False


class Sources:
    """The source files of one worker: opened at first use, the least recently used one closed first."""

    def __init__(self, kernel: bool = False) -> None:
        """`kernel`: let the kernel copy as long as that works."""
        self._open: OrderedDict[Path, OpenFile] = OrderedDict()
        self._kernel = kernel
        self.buffer = memoryview(bytearray(BUFFER))

    def get(self, path: Path) -> OpenFile:
        """The open file; SurgeonError if it cannot be opened."""
        if path not in self._open:
            if len(self._open) >= MAX_OPEN:
                os.close(self._open.popitem(last=False)[1].fd)
            try:
                fd = descriptor(path, follow=True)
            except OSError as error:
                raise _unreadable(path, error) from error
            self._open[path] = OpenFile(path, fd, self._kernel)
        self._open.move_to_end(path)
        return self._open[path]

    def close(self) -> None:
        """Close all files."""
        while self._open:
            os.close(self._open.popitem()[1].fd)


def copy_range(
    source: OpenFile, target: int, start: int, offset: int, count: int, buffer: memoryview
) -> Iterator[memoryview]:
    """Copy `count` bytes at `start` of the source to `offset` of the open file `target`.

    Yields:
        The bytes, piece by piece, each after it is copied; it is valid until the next is requested.

    Raises:
        SurgeonError: the source ends before `start + count`, or cannot be read.
        OSError: writing failed.
    """
    while count and source.kernel:
        done = _copied_by_kernel(source, target, start, offset, min(count, PIECE))
        yield from read_pieces(source, start, done, buffer)
        start, offset, count = start + done, offset + done, count - done
    for piece in read_pieces(source, start, count, buffer):
        write_all(target, piece, offset)
        offset += len(piece)
        yield piece


def _copied_by_kernel(source: OpenFile, target: int, start: int, offset: int, count: int) -> int:
    """The number of bytes that the kernel has copied, up to `count`; after 0 it is not tried again for this source."""
    done = 0
    try:
        if hasattr(os, "copy_file_range"):
            done = os.copy_file_range(source.fd, target, count, start, offset)
    except OSError as error:
        if error.errno in _FATAL:
            raise
    # 0 means another file system, an old kernel, a sandbox, an I/O error or the file's end. Reading and writing works
    # in the first three cases, and reports which file failed in the others.
    source.kernel = done > 0
    return done


def read_pieces(source: OpenFile, start: int, count: int, buffer: memoryview) -> Iterator[memoryview]:
    """A range of a file, piece by piece in `buffer`; SurgeonError if the file is too short or cannot be read."""
    for at in range(start, start + count, len(buffer)):
        piece = buffer[: min(len(buffer), start + count - at)]
        read_exactly(source, piece, at)
        yield piece


def read_exactly(source: OpenFile, into: memoryview, start: int) -> None:
    """Fill `into` from byte `start` on; SurgeonError if the file is too short or cannot be read."""
    done = 0
    while done < len(into):
        try:
            got = os.preadv(source.fd, [into[done:]], start + done)
        except OSError as error:
            raise _unreadable(source.path, error) from error
        if not got:
            raise SurgeonError(
                f"the file ends at byte {os.fstat(source.fd).st_size:,}, before the weights its header promises",
                where=str(source.path),
                why="it was cut short or replaced while it was being read",
                remedy="do not change a donor during assembly; check the file",
            )
        done += got


def _unreadable(path: Path, error: OSError) -> SurgeonError:
    return SurgeonError(f"cannot read the file: {error.strerror or error}", where=str(path))


def write_all(target: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of `data` at `offset`."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(target, rest, offset)
        rest, offset = rest[done:], offset + done
