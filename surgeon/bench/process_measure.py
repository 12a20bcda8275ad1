"""Measure a process from outside: wall time, CPU time and peak memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SurgeonError
from ..machine import busy_seconds
from ..process import shares
from ..text import one_line

INTERVAL = 0.02
"""Seconds between two samples of the memory of a single process."""

SEVERAL = 0.1
"""Seconds between two samples of the memory of several processes, which is slower to read."""

_GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class Sample:
    """One run.

    Attributes:
        wall: seconds from before the start to after the end.
        user, system: seconds of CPU time, including child processes that were waited for.
        peak: maximum resident bytes of the process and its children; shared memory counts once, and of files only
            mapped pages count.
        anonymous: maximum bytes of memory that belongs to no file.
        others: mean number of cores that other processes and the host kept busy; None if it is not known.
    """

    wall: float
    user: float
    system: float
    peak: int
    anonymous: int
    others: float | None


def environment() -> dict[str, str]:
    """The environment of a measured process: this one, but Python may write compiled files."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def measure(command: Sequence[str]) -> Sample:
    """Run a command to its end and discard its output.

    Raises:
        SurgeonError: the command cannot be started or fails; the error has its last line of stderr.
    """
    with tempfile.TemporaryFile() as log:
        busy, start = busy_seconds(), time.perf_counter()
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise SurgeonError(f"cannot start {command[0]}: {error.strerror or error}") from error
        watcher = _Watcher(child.pid)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            _end(child)
            raise
        finally:
            wall = time.perf_counter() - start
            watcher.stop()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SurgeonError(f"{Path(command[0]).name} failed with {_reason(child.returncode)}", why=_last_line(log))
    after, used = busy_seconds(), usage.ru_utime + usage.ru_stime
    others = None if busy is None or after is None else max(0.0, (after - busy - used) / wall)
    return Sample(wall, usage.ru_utime, usage.ru_stime, watcher.peak, watcher.anonymous, others)


def _reason(code: int) -> str:
    return f"code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def _last_line(log: object) -> str:
    log.seek(0)  # type: ignore[attr-defined]
    lines = log.read()[-10_000:].decode("utf-8", "replace").strip().splitlines()  # type: ignore[attr-defined]
    return one_line(lines[-1])[:300].rstrip(".") if lines else ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """Terminate a process and its children; kill them if they do not end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
            return


class _Watcher:
    """A thread that samples the memory of a process and its children.

    Attributes:
        peak, anonymous: the largest bytes seen; see `Sample`.
    """

    def __init__(self, pid: int) -> None:
        self.peak = self.anonymous = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        due = 0.0
        while not self._ended.wait(INTERVAL):
            family = list(_family(self._pid))
            if len(family) == 1:
                # The kernel's high-water mark is exact, but exists per process only.
                self._note(*_held(self._pid))
            elif time.monotonic() >= due:
                found = [shares(pid) for pid in family]
                self._note(sum(held for held, _ in found), sum(own for _, own in found))
                due = time.monotonic() + SEVERAL

    def _note(self, held: int, own: int) -> None:
        self.peak, self.anonymous = max(self.peak, held), max(self.anonymous, own)


def _family(pid: int) -> Iterator[int]:
    """The ids of a process and all its descendants."""
    yield pid
    with contextlib.suppress(OSError, ValueError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - a Path per thread costs the measured process time
            with open(f"/proc/{pid}/task/{task}/children") as file:  # noqa: PTH123
                children = [int(word) for word in file.read().split()]
            for child in children:
                yield from _family(child)


def _held(pid: int) -> tuple[int, int]:
    """Maximum resident bytes so far, and anonymous bytes now; zeros for a process that has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
            table = dict(line.split(":", 1) for line in file)
        most, own = (int(table[key].split()[0]) * 1024 for key in ("VmHWM", "RssAnon"))
    except (OSError, KeyError, ValueError):
        return 0, 0
    return most, own
