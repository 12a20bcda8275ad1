"""System calls that Python lacks, each with a fallback for systems without it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ...machine import file_system

SHARING = frozenset({"btrfs", "xfs", "bcachefs", "ocfs2", "zfs", "nfs", "nfs4", "cifs", "smb3"})
"""File systems on which copy_file_range may share blocks, or copy on the server, instead of copying here."""

_WRITE = 2
_PARENT_ENDS = 1
_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@cache
def _function(name: str, *arguments: Any) -> Callable[..., int] | None:
    """A function of the C library; None if there is none, and on other systems than Linux."""
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is not None:
        function.argtypes = arguments
    return function


def start_writeback(fd: int, offset: int, count: int) -> None:
    """Let the kernel start writing a range of a file to the disk; a failure costs only speed."""
    if function := _function("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint):
        function(fd, offset, count, _WRITE)


def reserve(fd: int, nbytes: int) -> None:
    """Reserve disk space for the first `nbytes` of a file, which may become longer. Does nothing if unsupported.

    posix_fallocate is no substitute: on file systems without support, C libraries write to every block instead.

    Raises:
        OSError: there is not enough space.
    """
    function = _function("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if function is None or not nbytes:
        return
    while function(fd, 0, 0, nbytes):
        code = ctypes.get_errno()
        if code in _ROOM:
            raise OSError(code, os.strerror(code))
        if code != errno.EINTR:
            return


def end_with_parent(parent: int) -> None:
    """Have this process killed when its parent with that id ends, for whatever reason. Does nothing except on Linux.

    The kernel watches the thread that forked, so that thread must live as long as the parent.
    """
    if function := _function("prctl", ctypes.c_int, ctypes.c_ulong):
        function(_PARENT_ENDS, signal.SIGKILL)
        if os.getppid() != parent:  # The parent ended before the call.
            os._exit(1)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        # Some file systems cannot flush a folder; they persist names by other means.
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)


def shares_blocks(folder: Path) -> bool:
    """Whether copy_file_range to files in this folder may be faster than reading and writing."""
    return hasattr(os, "copy_file_range") and file_system(folder) in SHARING
