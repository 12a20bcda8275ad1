"""Processes: whether they are alive, their identity in records, and their memory use."""

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
"""The largest process id of system calls; 0 and negative ids mean groups of processes, or all."""


@dataclass(frozen=True)
class Recorded:
    """A process that a file records.

    Attributes:
        pid: the process id.
        birth: identifies its start (see `birth`); empty if unknown.
        host: the name of the machine; empty if unknown.
        space: identifies its process id namespace (a container has its own); empty if unknown.
    """

    pid: int
    birth: str = ""
    host: str = ""
    space: str = ""

    @classmethod
    def read(cls, record: StateRecord) -> Recorded | None:
        """The process in a record; None if the record has no valid process id."""
        pid = record.count("pid")
        if pid is None or not 0 < pid <= _HIGHEST:
            return None
        return cls(pid, *(record.text(name) or "" for name in ("birth", "host", "space")))

    def record(self) -> dict[str, object]:
        """The record that `read` reads."""
        return asdict(self)

    def lives(self) -> bool | None:
        """Whether it still runs; None if that cannot be checked, for example on another host."""
        if self.host and self.host != socket.gethostname():
            return None
        if self.ended_with_boot():
            return False
        if self.space and space() and self.space != space():
            return None
        return is_same(self.pid, self.birth)

    def ended_with_boot(self) -> bool:
        """Whether the machine was restarted since."""
        then = self.birth.partition(":")[0]
        return _LINUX and bool(then and boot()) and then != boot()

    def signal(self, number: int) -> bool:
        """Send a signal, only if the id certainly belongs to this process; return whether it was sent."""
        if not self.birth or not self.lives():
            return False
        with contextlib.suppress(OSError):
            os.kill(self.pid, number)
            return True
        return False


def recorded(pid: int) -> Recorded:
    """A process of this machine, for a record in a file."""
    return Recorded(pid, birth(pid), socket.gethostname(), space())


@cache
def space() -> str:
    """Identifies the process id namespace of this process; empty if unknown."""
    with contextlib.suppress(OSError):
        return str((_PROC / "self/ns/pid").stat().st_ino)
    return ""


def alive(pid: int) -> bool:
    """Whether a process with this id exists, of any user, and has not ended."""
    if not 0 < pid <= _HIGHEST:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    # A zombie process keeps its id; in a container possibly forever.
    fields = _stat(pid)
    return not fields or fields[0] not in {"Z", "X"}


def birth(pid: int) -> str:
    """Distinguishes a process from a later one with the same id; empty if unknown.

    On Linux it is the boot id and the tick of its start, which do not change if the clock is set.
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
    """Whether the process with this id and birth is still alive."""
    return alive(pid) and birth(pid) == born


@cache
def boot() -> str:
    """Identifies the current boot of the machine; empty if unknown."""
    with contextlib.suppress(OSError):
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return ""


def resident() -> int | None:
    """Bytes of resident memory of this process; None if unknown."""
    try:
        pages = int((_PROC / "self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def shares(pid: int) -> tuple[int, int]:
    """(all, anonymous) bytes of memory of a process; shared pages count proportionally.

    Zeros for a process that has ended, or if unknown. A call takes a millisecond.
    """
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
        table = dict(line.split(":", 1) for line in lines)
        held, own = (int(table[key].split()[0]) * 1024 for key in ("Pss", "Pss_Anon"))
    except (OSError, KeyError, ValueError):
        return 0, 0
    return held, own


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty if there is no such file."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return []
    # The name before them is in parentheses and may contain parentheses.
    fields = text.rpartition(")")[2].split()
    return fields if len(fields) > 19 else []


def child_command(module: str) -> list[str]:
    """The command of a child process that calls `main(arguments)` of a module of surgeon; arguments follow it.

    Python would also import modules from the working directory, which may hold files of others.
    """
    run = f"import sys; sys.path[:] = [place for place in sys.path if place]; from {module} import main"
    return [sys.executable, "-c", f"{run}; sys.exit(main(sys.argv[1:]))"]
