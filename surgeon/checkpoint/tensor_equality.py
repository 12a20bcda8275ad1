"""Byte equality of two tensors on disk, by a sample of pages or by all bytes."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..statefile import open_regular
from .header import TensorEntry

_SAMPLES = 64
_PAGE = 4096
_PIECE = 4 << 20


class _Version(NamedTuple):
    """A tensor and the state of its file, as a cache key."""

    path: str
    inode: int
    size: int
    changed: int
    offset: int
    nbytes: int


def alike(first: TensorEntry, second: TensorEntry, *, samples: int = _SAMPLES) -> bool:
    """Whether two tensors have the same dtype, shape, and bytes in `samples` pages that are spread over them.

    Raises:
        OSError: a file cannot be read.
    """
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    return _pages_equal(_version(first), _version(second), samples)


def equal(first: TensorEntry, second: TensorEntry) -> bool:
    """Whether two tensors have the same dtype, shape and bytes. Results are cached until a file changes.

    Raises:
        OSError: a file cannot be read.
    """
    return alike(first, second) and _bytes_equal(_version(first), _version(second))


def _version(entry: TensorEntry) -> _Version:
    found = os.stat(entry.file)  # noqa: PTH116 - twice as fast, and there may be hundreds of tensors
    return _Version(str(entry.file), found.st_ino, found.st_size, found.st_mtime_ns, entry.offset, entry.nbytes)


@lru_cache(maxsize=65536)
def _pages_equal(first: _Version, second: _Version, samples: int) -> bool:
    nbytes = first.nbytes
    step = max(1, nbytes // samples)
    with _opened(first) as one, _opened(second) as other:
        for start in [*range(0, nbytes, step), max(0, nbytes - _PAGE)]:
            if not _piece_equal(one.fileno(), other.fileno(), first, second, start, _PAGE):
                return False
    return True


@lru_cache(maxsize=1024)
def _bytes_equal(first: _Version, second: _Version) -> bool:
    with _opened(first) as one, _opened(second) as other:
        return all(
            _piece_equal(one.fileno(), other.fileno(), first, second, start, _PIECE)
            for start in range(0, first.nbytes, _PIECE)
        )


def _opened(version: _Version) -> BinaryIO:
    return open_regular(Path(version.path), follow=True)


def _piece_equal(one: int, other: int, first: _Version, second: _Version, start: int, count: int) -> bool:
    count = min(count, first.nbytes - start)
    return os.pread(one, count, first.offset + start) == os.pread(other, count, second.offset + start)
