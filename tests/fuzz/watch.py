"""What `tests/fuzz/run.py` holds an input to: where it may write and read, its processor time, its memory."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECONDS = 5.0
"""Processor time that an input may take."""
GRACE = 3.0
"""Seconds of processor time after which the kernel ends a process that does not come back to Python."""
WALL = 120
"""Seconds after which an input that waits for something is ended."""
MEMORY = 250_000_000
"""Bytes that memory may grow by for an input."""
ADDRESSES = 2_000_000_000
"""Bytes of addresses that the process may ask for beyond those it starts with."""
FILE = 50_000_000
"""Bytes of a file that an input may make."""

OUT = "out"
_OUTPUTS = {OUT, f"{OUT}.yaml"}
FORBIDDEN = frozenset({"/etc/passwd", "/dev/zero"})
"""What nothing in a checkpoint may lead to, besides `/proc` and the folder for that purpose."""

_WATCHED = {
    "open", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "os.utime", "shutil.rmtree",
}  # fmt: skip
_NEVER = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "socket.getaddrinfo")
_FOLDERS = {"os.remove": (1,), "os.rmdir": (1,), "os.mkdir": (2,), "os.chmod": (2,), "os.utime": (3,)}
"""Events with the descriptors of the folders that their paths are relative to."""


class TooSlow(BaseException):
    """An input took more than `SECONDS`; no code under test catches it."""


def is_output(path: Path, case: Path) -> bool:
    """Whether a path belongs to the output of a case: OUT itself, or a hidden name beside it that begins with it."""
    try:
        first = path.relative_to(case).parts[0]
    except (ValueError, IndexError):
        return False
    return first in _OUTPUTS or first.startswith(f".{OUT}.")


class Watch:
    """An audit hook: what is opened, written, removed or started while an input runs. It stays for good."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._active = False
        self._case = Path()
        self._secret: Path | None = None
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def over(self, case: Path, secret: Path | None) -> Iterator[None]:
        """While it lasts, nothing may be written but the case's output, nor anything of `secret` be opened.

        Args:
            secret: a folder; without one (a recipe may name any donor) only writing is watched.
        """
        self._case, self._secret, self.violations, self._active = case, secret, [], True
        try:
            yield
        finally:
            self._active = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event == "os.kill" and arguments[1] and arguments[0] != os.getpid():
            self.violations.append(f"a signal to {arguments[0]}")
            raise ProcessLookupError("no signals are sent here")
        if event.startswith(_NEVER):
            self.violations.append(f"{event} {arguments[:2]!r}"[:300])
        elif event in _WATCHED:
            # What looking does is not looked at.
            self._active = False
            try:
                self._look(event, arguments)
            finally:
                self._active = True

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        for where in _places(event, arguments):
            if event == "open" and not _writes(arguments):
                if self._secret is not None and self._is_secret(where):
                    self.violations.append(f"opened {where}")
            elif not (
                is_output(where, self._case)
                or where == Path(os.devnull)
                or (event == "os.mkdir" and where.is_dir())  # which does nothing
            ):
                self.violations.append(f"{event} {where}")

    def _is_secret(self, where: Path) -> bool:
        # /proc/self/status and the like are how surgeon asks for the machine's memory; /proc/self/mem is not.
        device = str(where) in FORBIDDEN or (where.is_relative_to("/proc") and where.name == "mem")
        return device or (self._secret is not None and where.is_relative_to(self._secret))


def _places(event: str, arguments: tuple[Any, ...]) -> list[Path]:
    """Every path that an event changes or opens, with no link left in it."""
    if event == "os.rename":
        pairs = [(arguments[0], arguments[2]), (arguments[1], arguments[3])]
    elif event in ("os.link", "os.symlink"):
        pairs = [(arguments[1], arguments[-1])]
    else:
        pairs = [(arguments[0], *(arguments[place] for place in _FOLDERS.get(event, ())), -1)[:2]]
    found = []
    for path, folder in pairs:
        if isinstance(path, (str, bytes, os.PathLike)):
            around = Path(f"/proc/self/fd/{folder}" if isinstance(folder, int) and folder >= 0 else "")
            whole = around / os.fsdecode(path)
            # These change, or refuse, a link itself and not what it leads to.
            stays = event in ("os.remove", "os.rename") or (event == "open" and _flags(arguments) & os.O_NOFOLLOW)
            found.append(Path(os.path.realpath(whole.parent)) / whole.name if stays else Path(os.path.realpath(whole)))
    return found


def _writes(arguments: tuple[Any, ...]) -> bool:
    return bool(_flags(arguments) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND))


def _flags(arguments: tuple[Any, ...]) -> int:
    return arguments[2] if len(arguments) > 2 and isinstance(arguments[2], int) else 0


Snapshot = dict[str, tuple[int, ...]]


def snapshot(root: Path, case: Path) -> Snapshot:
    """Everything under `root` but the case's output: kind and rights, size, time of change and inode of every path."""
    found: Snapshot = {}
    waiting = [str(root)]
    own = str(case)
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if is_output(Path(entry.path), case):
                    continue
                about = entry.stat(follow_symlinks=False)
                found[entry.path] = (about.st_mode, about.st_ino)
                # The case's own folder changes when its output is put there.
                if entry.path != own:
                    found[entry.path] += (about.st_size, about.st_mtime_ns)
                if stat.S_ISDIR(about.st_mode):
                    waiting.append(entry.path)
    return found


def difference(before: Snapshot, after: Snapshot) -> str:
    """The first path that is new, gone or changed; empty where all is as it was."""
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            what = "new" if path not in before else "gone" if path not in after else "changed"
            return f"{what}: {path}"
    return ""


def limit_process() -> None:
    """What the kernel holds the process to from here on: addresses, sizes of files, no core dump."""
    held = resident("VmSize")
    if held:
        resource.setrlimit(resource.RLIMIT_AS, (held + ADDRESSES, held + ADDRESSES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGXFSZ, signal.SIGXCPU, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, _ring)


def _ring(_number: int, _frame: object) -> None:
    raise TooSlow(f"more than {SECONDS:g} s of processor time")


@contextlib.contextmanager
def bounded_time() -> Iterator[None]:
    """Raises TooSlow, with a traceback, after `SECONDS`; what does not come back to Python is ended by the kernel."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + SECONDS + GRACE), most))
    signal.setitimer(signal.ITIMER_REAL, WALL)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def resident(key: str) -> int:
    """A number of bytes from what Linux says of this process: VmRSS, VmHWM, VmSize; 0 elsewhere."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open() as file:
        for line in file:
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0


def forget_peak() -> None:
    """Let VmHWM begin anew."""
    with contextlib.suppress(OSError), Path("/proc/self/clear_refs").open("w") as file:
        file.write("5")
