"""Facts about the machine: memory, cores, load, and the names of its parts. Standard library only."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path


def memory(proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> tuple[int | None, int | None]:
    """(total, available) bytes of memory, within the container's limit if there is one; None if unknown."""
    total, available = _meminfo(proc, "MemTotal"), _meminfo(proc, "MemAvailable")
    if total is None or available is None:
        available = None
        try:
            total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, AttributeError):
            return None, None
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if limit is not None and limit < total:
        room = limit - (used or 0)
        total, available = limit, room if available is None else min(available, room)
    return total, available


def unused_memory() -> int:
    """Bytes of free memory, the page cache not included; 0 if unknown."""
    free, (_, available) = _meminfo(Path("/proc/meminfo"), "MemFree"), memory()
    return min(free or 0, available or 0)


def _meminfo(proc: Path, key: str) -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in proc.read_text().splitlines() if ":" in line)
        return int(lines[key].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> float | None:
    """Mean number of running processes in the last minute; None if unknown."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def busy_seconds() -> float | None:
    """Seconds of work of all cores together since the machine started; None if unknown."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[1:9])
        return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Machine:
    """The machine of a measurement.

    Attributes:
        cpu: the name of the processor.
        cores: number of cores that may be used.
        memory: bytes; None if unknown.
        system: the kernel and its release.
        python: the version of Python.
        load: mean number of running processes in the minute before; None if unknown.
    """

    cpu: str
    cores: int
    memory: int | None
    system: str
    python: str
    load: float | None

    @classmethod
    def here(cls) -> Machine:
        """This machine in its current state."""
        return cls(
            _cpu(), cores(), memory()[0], f"{platform.system()} {platform.release()}", platform.python_version(), load()
        )


def _cpu(proc: Path = Path("/proc/cpuinfo")) -> str:
    try:
        names = [line.partition(":")[2].strip() for line in proc.read_text().splitlines() if line.startswith("model n")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def file_system(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system of a folder, such as ext4; empty if unknown."""
    try:
        rows = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    here = folder.resolve()
    found = [(row[1], row[2]) for row in rows if len(row) > 2 and here.is_relative_to(row[1])]
    # Of two mounts on the same folder, the later one is visible.
    return max(enumerate(found), key=lambda item: (len(item[1][0]), item[0]))[1][1] if found else ""
