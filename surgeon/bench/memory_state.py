"""The state that every run finds memory and disk in: it moves the time of a copy several-fold.

On a virtual machine, memory that was free for a while belongs to the host again, and its first use is dear: a copy took
0.3 s in memory just freed and up to 1.9 s in other. So before a run some memory is used and freed, for what a program
needs for itself, and then, last, a copy as large as the output is made and removed: the run's files get its pages.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from ..machine import unused_memory

_BUFFER = 1 << 20
_LEFT = 500_000_000
"""Bytes of unused memory that are not touched: taking the last of it would drive files out of memory."""

_TOUCH = """
import mmap, sys
count = int(sys.argv[1])
block = mmap.mmap(-1, count, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for start in range(0, count, mmap.PAGESIZE):
    block[start] = 1
"""


def prepare(source: Path, out: Path, files: Iterable[Path], touched: int, *, cold: bool) -> None:
    """Bring about the state.

    Args:
        source: a folder as large as the output.
        out: where the output will be; nothing is there afterwards.
        files: what the run will read: in memory afterwards, or, if `cold`, not.
        touched: bytes of unused memory to use and free again.
        cold: see `files`.
    """
    remove(out)
    _touch(min(touched, unused_memory() - _LEFT))
    for path in files:
        _read(path)
    shutil.copytree(source, out)
    remove(out)
    os.sync()
    if cold:
        for path in files:
            _forget(path)


def _touch(count: int) -> None:
    if count > 0 and hasattr(mmap, "MAP_ANONYMOUS"):
        # In a process of its own, whose end frees it for certain.
        subprocess.run([sys.executable, "-I", "-S", "-c", _TOUCH, str(count)], check=False, stderr=subprocess.DEVNULL)


def _read(path: Path) -> None:
    buffer = bytearray(_BUFFER)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _forget(path: Path) -> None:
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remove(folder: Path) -> None:
    """Remove a folder and what a stopped run for it left beside it."""
    for path in (folder, *folder.parent.glob(f".{folder.name}.*")):
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
