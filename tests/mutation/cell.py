"""A place where a mutant can do no harm: namespaces of its own, everything read-only but a small /tmp, limits of time
and memory. Linux only, as root.

`enclose` puts the whole program into one, with a copy of the repository where the repository is. `Cell.run` then forks
a process for every mutant, with modules that are imported already, and puts the mutated file in its place there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("assets", "docs", "recipes", "surgeon", "tests", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE",
          "constraints.txt")  # fmt: skip
GIB = 1 << 30
INSIDE = "SURGEON_MUTATION"
"""The variable of the environment that says that the namespaces are made."""
TEMPORARY = "size=2g,mode=1777"
MEMORY = 8 * GIB
"""Bytes of data that a process of a mutant may have."""

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_CLONE_NEWNS, _CLONE_NEWPID = 0x20000, 0x20000000
_WRITABLE = ("proc", "sysfs", "devtmpfs", "devpts", "mqueue", "cgroup2", "cgroup")
_libc = ctypes.CDLL(None, use_errno=True)


def enclose(scratch: Path) -> None:
    """Go on in namespaces of this program's own: what is here starts the same command there, and ends with it.

    The copy of the repository is made now: what is edited afterwards is not seen.
    """
    if os.environ.get(INSIDE) == "1" and os.getpid() == 1:
        return
    copy = scratch / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    (copy / ".venv").mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, copy / name)
    words = ["unshare", "-m", "-p", "-f", "--mount-proc", sys.executable, "-m", "tests.mutation", *sys.argv[1:]]
    sys.exit(subprocess.run(words, cwd=ROOT, check=False, env=os.environ | {INSIDE: "1"}).returncode)


def settle(scratch: Path) -> None:
    """Put the copy where the repository is, for this process and its children; compile it once; make it read-only."""
    copy = scratch / "copy"
    if (ROOT / ".venv").is_dir():
        _mount(ROOT / ".venv", copy / ".venv", _MS_BIND | _MS_REC)
    _mount(copy, ROOT, _MS_BIND | _MS_REC)
    os.chdir(ROOT)
    for words in (
        ["compileall", "-q", "surgeon"],
        ["pytest", "-qq", "--collect-only", "-n0", "-p", "no:cacheprovider"],
    ):
        subprocess.run([sys.executable, "-m", *words], check=False, stdout=subprocess.DEVNULL)
    _mount(ROOT, ROOT, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)


@dataclass(frozen=True)
class Cell:
    """A cell for one run.

    Attributes:
        share: a folder that stays writable, for what the run reports.
        seconds: after which everything in the cell is killed.
        swapped: a file of the repository and the one that stands in its place.
    """

    share: Path
    seconds: float
    swapped: tuple[str, Path] | None = None

    def start(self, work: Callable[[], int]) -> int:
        """Fork a process that runs `work` in the cell; its id. It exits with 1 over what `work` returns:
        0 when time was up, 128 and more after a signal."""
        child = os.fork()
        if child:
            return child
        code = 125
        try:
            os.setsid()
            code = self._hold(work)
        finally:
            os._exit(code)

    def _hold(self, work: Callable[[], int]) -> int:
        _call(_libc.unshare(_CLONE_NEWNS | _CLONE_NEWPID), "unshare")
        first = os.fork()  # process 1 of the namespace: all others in it are killed when it ends
        if not first:
            code = 124
            try:
                code = self._inside(work)
            finally:
                os._exit(code)
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            done, status = os.waitpid(first, os.WNOHANG)
            if done:
                return min(os.waitstatus_to_exitcode(status) % 256, 255)
            time.sleep(0.02)
        os.kill(first, signal.SIGKILL)
        os.waitpid(first, 0)
        return 0

    def _inside(self, work: Callable[[], int]) -> int:
        """Process 1: it waits for the one that works, and for those which that one leaves behind."""
        self._furnish()
        worker = os.fork()
        if not worker:
            code = 123
            try:
                resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                code = work() + 1
            except BaseException as error:
                print(repr(error), flush=True)
            finally:
                os._exit(code)
        while True:
            done, status = os.wait()
            if done == worker:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code

    def _furnish(self) -> None:
        _mount(None, "/", _MS_REC | _MS_PRIVATE)
        _mount(self.share, self.share, _MS_BIND)
        if self.swapped:
            _mount(self.swapped[1], ROOT / self.swapped[0], _MS_BIND)
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields, kind = line.split(" - ")
            place = fields.split()[4].encode().decode("unicode_escape")
            if place != str(self.share) and kind.split()[0] not in _WRITABLE:
                with contextlib.suppress(OSError):  # a mount that another one covers
                    _mount(place, place, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)
        for place in ("/tmp", "/dev/shm"):
            _mount("tmpfs", place, 0, "tmpfs", TEMPORARY)
        _mount("proc", "/proc", 0, "proc")
        os.environ.update(HOME="/tmp", TMPDIR="/tmp", HYPOTHESIS_STORAGE_DIRECTORY="/tmp/hypothesis")
        os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
        for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
            os.environ.pop(name, None)
        sys.dont_write_bytecode = True


def _mount(source: Path | str | None, target: Path | str, flags: int, kind: str = "", more: str = "") -> None:
    words = [str(word).encode() if word else None for word in (source, target, kind)]
    _call(_libc.mount(*words, ctypes.c_ulong(flags), more.encode() or None), f"mount {target}")


def _call(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
