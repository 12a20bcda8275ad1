"""Processes: which of them live, which is which, who wrote a record, and how much memory this one holds."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from .statefile import StateRecord

_PROC = Path("/proc")
_LINUX = sys.platform.startswith("linux")
_HIGHEST = 2**31 - 1
"""The largest id that the system's calls take; 0 and negative ones mean groups of processes, or all."""


@dataclass(frozen=True)
class Recorded:
    """A process as a file tells of it.

    Attributes:
        pid: its id.
        birth: see `birth`; empty where it is not known.
        host: the machine's name; empty where it is not known.
        space: the set of processes that see each other (a container has its own); empty where it is not known.
    """

    pid: int
    birth: str = ""
    host: str = ""
    space: str = ""

    @classmethod
    def read(cls, record: StateRecord) -> Recorded | None:
        """The process that a record names; None where it names none."""
        pid = record.count("pid")
        if pid is None or not 0 < pid <= _HIGHEST:
            return None
        return cls(pid, *(record.text(name) or "" for name in ("birth", "host", "space")))

    def record(self) -> dict[str, object]:
        """What `read` takes."""
        return asdict(self)

    def lives(self) -> bool | None:
        """Whether it still runs; None where that cannot be seen from here, as on another host."""
        if self.host and self.host != socket.gethostname():
            return None
        if self.ended_with_boot():
            return False
        if self.space and space() and self.space != space():
            return None
        return is_same(self.pid, self.birth)

    def ended_with_boot(self) -> bool:
        """Whether the machine was started anew since."""
        then = self.birth.partition(":")[0]
        return _LINUX and bool(then and boot()) and then != boot()

    def signal(self, number: int) -> bool:
        """Send it a signal, and gives whether it was sent: only where it surely is this process and no later one."""
        if not self.birth or not self.lives():
            return False
        with contextlib.suppress(OSError):
            os.kill(self.pid, number)
            return True
        return False


def recorded(pid: int) -> Recorded:
    """A process of this machine, to be noted in a file."""
    return Recorded(pid, birth(pid), socket.gethostname(), space())


@cache
def space() -> str:
    """What tells this process's set of visible processes from others; empty where the system does not say."""
    with contextlib.suppress(OSError):
        return str((_PROC / "self/ns/pid").stat().st_ino)
    return ""


def alive(pid: int) -> bool:
    """Whether a process of that id exists (whoever it belongs to) and has not ended."""
    if not 0 < pid <= _HIGHEST:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
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
    return alive(pid) and birth(pid) == born


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
