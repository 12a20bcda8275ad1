"""Processes of this machine: which of them live, which is which, and how much memory this one holds."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_LINUX = sys.platform.startswith("linux")


def alive(pid: int) -> bool:
    """Whether a process of that id exists (whoever it belongs to) and has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    # What has ended and was waited for by nobody keeps its number, in a container for ever.
    fields = _stat(pid)
    return not fields or fields[0] not in {"Z", "X"}


def birth(pid: int) -> str:
    """What tells a process from a later one of the same id; empty where the system does not say.

    On Linux it is the boot and the tick since then at which it was started: setting the clock changes neither.
    """
    if fields := _stat(pid):
        return f"{boot()}:{fields[19]}"
    if _LINUX:
        return ""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def is_same(pid: int, born: str) -> bool:
    """Whether the process that had this id and birth still lives."""
    if not alive(pid):
        return False
    now = birth(pid)
    return not born or not now or now == born


@cache
def boot() -> str:
    """What tells this run of the machine from others; empty where the system does not say."""
    with contextlib.suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ""


def resident() -> int | None:
    """Bytes of memory this process holds, None where the system does not say."""
    try:
        pages = int((_PROC / "self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def shares(pid: int) -> tuple[int, int]:
    """Bytes of memory a process holds, and of those the bytes of no file; what several hold together counts in parts.

    Zeros for a process that has ended, and where the system does not say. It costs a millisecond.
    """
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
        table = dict(line.split(":", 1) for line in lines)
        held, own = (int(table[key].split()[0]) * 1024 for key in ("Pss", "Pss_Anon"))
    except (OSError, KeyError, ValueError):
        return 0, 0
    return held, own


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none where there is no such file."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    # The name before them is in parentheses, and may hold some itself.
    fields = text.rpartition(")")[2].split()
    return fields if len(fields) > 19 else []
