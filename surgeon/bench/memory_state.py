"""Bring memory and disk into the same state before each run; the state changes the time of a copy several-fold.

On a virtual machine, memory that is free for a while goes back to the host, and its next first use is slow: a copy took
0.3 s in memory that was just freed, and up to 1.9 s in other memory. So before a run some memory is used and freed, for
the program itself. Then a copy as large as the output is made and removed, so that the run's files get its pages.
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
"""Bytes of unused memory that are not touched: using all of it would evict files from the page cache."""

_TOUCH = """
import mmap, sys
count = int(sys.argv[1])
block = mmap.mmap(-1, count, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for start in range(0, count, mmap.PAGESIZE):
    block[start] = 1
"""


def prepare(source: Path, out: Path, files: Iterable[Path], touched: int, *, cold: bool) -> None:
    """Prepare memory and disk for a run.

    Args:
        source: a folder as large as the output.
        out: the output folder; it is removed.
        files: the files that the run reads; afterwards in the page cache, or not if `cold`.
        touched: bytes of unused memory to use and free.
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
        # A child process: its end surely frees the memory.
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
    """Remove an output folder and what unfinished runs have left next to it."""
    for path in (folder, *folder.parent.glob(f".{folder.name}.*")):
        with contextlib.suppress(OSError):
            shutil.rmtree(path)
