"""Bytes from a donor's file to an output file, never a whole tensor in memory.

The kernel copies where it can (on btrfs and xfs it only shares the blocks), otherwise one small buffer does. A
source that ends too early is an error: a file with zeros in place of weights would look whole.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import SurgeonError

PIECE = 16 * 1024 * 1024
"""Bytes per copy_file_range call: how often progress is counted and a cancel is seen."""

BUFFER = 512 * 1024
"""Bytes of the fallback's buffer: larger ones leave the second-level cache and are slower."""

MAX_OPEN = 8
"""Source files a worker keeps open."""

_FATAL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of copy_file_range that another way of copying cannot mend."""


@dataclass
class Source:
    """A source file open for reading; `kernel` is whether copy_file_range is still worth a try."""

    path: Path
    fd: int
    kernel: bool = True


class Sources:
    """The source files of one worker: opened at first use, the least recently used one closed first."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, Source] = OrderedDict()
        self.buffer = memoryview(bytearray(BUFFER))

    def get(self, path: Path) -> Source:
        """The open file; SurgeonError when it cannot be opened."""
        if path not in self._open:
            if len(self._open) >= MAX_OPEN:
                os.close(self._open.popitem(last=False)[1].fd)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise _unreadable(path, error) from error
            self._open[path] = Source(path, fd)
        self._open.move_to_end(path)
        return self._open[path]

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            os.close(self._open.popitem()[1].fd)


def copy_range(source: Source, target: int, start: int, offset: int, count: int, buffer: memoryview) -> Iterator[int]:
    """Copy `count` bytes at `start` of the source to `offset` of the open file `target`.

    Yields:
        The number of bytes of each piece, once it is copied.

    Raises:
        SurgeonError: the source ends before `start + count`.
        OSError: reading or writing failed.
    """
    while count and source.kernel and hasattr(os, "copy_file_range"):
        try:
            done = os.copy_file_range(source.fd, target, min(count, PIECE), start, offset)
        except OSError as error:
            if error.errno in _FATAL:
                raise
            done = 0
        if not done:
            # Another file system, an old kernel, a sandbox, an I/O error or the file's end: the buffered copy works
            # in the first three and knows which file it was in the others.
            source.kernel = False
            break
        start, offset, count = start + done, offset + done, count - done
        yield done
    yield from copy_buffered(source, target, start, offset, count, buffer)


def copy_buffered(
    source: Source, target: int, start: int, offset: int, count: int, buffer: memoryview
) -> Iterator[int]:
    """`copy_range` through `buffer`, for where the kernel cannot copy by itself."""
    while count:
        piece = buffer[: min(count, len(buffer))]
        read_exactly(source, piece, start)
        write_all(target, piece, offset)
        start, offset, count = start + len(piece), offset + len(piece), count - len(piece)
        yield len(piece)


def read_exactly(source: Source, into: memoryview, start: int) -> None:
    """Fill `into` from byte `start` on; SurgeonError when the file ends before, or cannot be read."""
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
                why="it was cut short or replaced while it was being copied",
                remedy="do not change a donor during assembly; check the file and start again",
            )
        done += got


def _unreadable(path: Path, error: OSError) -> SurgeonError:
    return SurgeonError(f"cannot read the donor: {error.strerror or error}", where=str(path))


def write_all(target: int, data: memoryview | bytes, offset: int) -> None:
    """Write all of `data` at `offset`."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(target, rest, offset)
        rest, offset = rest[done:], offset + done
