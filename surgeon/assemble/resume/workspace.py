"""The hidden folder next to an output in which it is written; one process at a time holds its lock.

    .NAME.surgeon/model/       the model, renamed to NAME when it is complete
    .NAME.surgeon/journal      the tensors that are written
    .NAME.surgeon/begun.json   the fingerprint of the inputs
    .NAME.surgeon/lock         locked by the writing process
    .NAME.surgeon/old/         the previous folder NAME, between two renames

If a run ends early after it has written tensors, the folder stays, and a later run can resume it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ...errors import SurgeonError
from ...process import Recorded, recorded
from ...statefile import StateRecord, open_regular, parse
from ...text import one_line
from ..io.system_calls import sync_folder
from . import journal

_PATIENCE = 2.0
"""Seconds to wait for a lock whose holder is not known to be alive."""


_OWN = frozenset({"model", "journal", "begun.json", "lock", "old"})
_HALF_WRITTEN = ".begun.json."
"""Prefix of begun.json's temporary name."""


class InUse(SurgeonError):
    """Another process is writing this output."""

    def __init__(self, final: Path, holder: str, lock: Path | None = None) -> None:
        remedy = "wait for it, stop it, or name another folder"
        remedy += f"; if that process no longer exists, remove {lock}" if lock else ""
        super().__init__(f"{holder} is writing this model", where=str(final), remedy=remedy)


class Workspace:
    """Context manager of the hidden folder. Its end removes the folder, unless `keep` says that it stays.

    Until `keep` is called, the folder stays if an earlier run has written tensors.

    Attributes:
        final: the output folder.
        folder: the hidden folder.
        model: the folder in it to write the model to.
        journal, begun: files in it.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.folder = hidden(final)
        self.model, self.journal, self.begun = (self.folder / name for name in ("model", "journal", "begun.json"))
        self._old = self.folder / "old"
        self._lock = -1
        self._made: list[Path] = []
        self._kept = False

    def __enter__(self) -> Workspace:
        """Lock the folder, and repair the state that a killed run has left.

        Raises:
            InUse: another process holds the lock.
            SurgeonError: the folder cannot be made.
            OSError: the folder cannot be read.
        """
        self._made = list(_missing(self.final.parent))
        try:
            self.final.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._hold()
        except OSError as error:
            self._remove_parents()
            raise SurgeonError("cannot create the folder", where=str(self.final), why=error.strerror or "") from error
        self._kept = True
        try:
            for path in (self.model, self._old):
                _refuse_link(path)
            self._recover()
            self._kept = bool(journal.read(self.journal))
            self.model.mkdir(exist_ok=True)
        except BaseException:
            self._release()
            raise
        return self

    def _hold(self) -> int:
        until = time.monotonic() + _PATIENCE
        while True:
            self._make_folder()
            path = self.folder / "lock"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                # Some network file systems have no locks; there the recorded process id decides.
                holder, locks = _holder(fd), isinstance(error, BlockingIOError)
                sure = holder is not None and holder.lives()
                if locks and not sure and time.monotonic() < until:
                    # The lock may be free in a moment: a new holder has not recorded its id yet, workers of a killed
                    # process are ending, or another process only tests the lock.
                    os.close(fd)
                    time.sleep(0.01)
                    continue
                if locks or _lives(holder):
                    os.close(fd)
                    raise InUse(self.final, _named(holder), None if locks else path) from error
            if self._is_at(fd, path):
                return fd
            os.close(fd)

    def _make_folder(self) -> None:
        """Make the folder, or check that the existing one is surgeon's.

        Raises:
            SurgeonError: it is not surgeon's, so it must not be removed at the end.
        """
        _refuse_link(self.folder)
        try:
            self.folder.mkdir()
            return
        except FileExistsError:
            _refuse_link(self.folder)
        if not self.folder.is_dir():
            raise _foreign(self.folder, "a file has the name of surgeon's working folder")
        names = {path.name for path in self.folder.iterdir()}
        if strange := sorted(name for name in names - _OWN if not name.startswith(_HALF_WRITTEN)):
            what = f"surgeon's working folder contains {one_line(strange[0])}, which surgeon did not write"
            raise _foreign(self.folder, what)

    @staticmethod
    def _is_at(fd: int, path: Path) -> bool:
        """Record this process in the open lock file; False if the file has lost its name.

        The previous holder may have removed it with its folder after it was opened here.
        """
        try:
            if not os.path.samestat(os.fstat(fd), path.stat()):
                return False
        except FileNotFoundError:
            return False
        # On a full disk the record is missing, but the lock is valid.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(recorded(os.getpid()).record()).encode(), 0)
        return True

    def _recover(self) -> None:
        """Repair the state after a run that was killed between the two renames of `publish`."""
        if self._old.is_dir():
            if self.final.exists():
                shutil.rmtree(self._old)
            else:
                self._old.rename(self.final)
        if not self.model.is_dir():
            self.clear()

    def clear(self) -> None:
        """Remove everything that an earlier run has written."""
        self._kept = False
        for path in (self.journal, self.begun):
            path.unlink(missing_ok=True)
        if self.model.is_dir():
            shutil.rmtree(self.model)
            self.model.mkdir()

    def keep(self, kept: bool) -> None:
        """Set whether the folder stays for a later run."""
        self._kept = kept

    def __exit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        self._remove_parents()

    def _remove_parents(self) -> None:
        """Remove the folders that this run has made and that are still empty."""
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                break

    def publish(self, *, replace: bool, flush: bool) -> None:
        """Give the model its final name.

        Args:
            replace: whether an existing folder may be replaced.
            flush: wait until the names are on the disk.

        Raises:
            OSError: renaming failed; the final name is unchanged.
        """
        if flush:
            sync_folder(self.model)
        moved = replace and self.final.is_dir()
        if moved:
            self.final.rename(self._old)
        try:
            self.model.rename(self.final)
        except BaseException:
            if moved:
                self._old.rename(self.final)
            raise
        if flush:
            sync_folder(self.folder)
            sync_folder(self.final.parent)
        self._kept = False


def _foreign(path: Path, what: str) -> SurgeonError:
    return SurgeonError(what, where=str(path), remedy="move it away, or name another output folder")


def _refuse_link(path: Path) -> None:
    """Raise SurgeonError for a symbolic link in place of surgeon's folder, because it could lead anywhere."""
    if path.is_symlink():
        raise SurgeonError(
            "this is a symbolic link that surgeon did not make",
            where=str(path),
            remedy="remove it, or name another folder",
        )


def hidden(final: Path) -> Path:
    """The hidden folder in which an output is written."""
    return final.with_name(f".{final.name}.surgeon")


def holder_of(final: Path) -> str:
    """The process that is writing an output, such as `process 4711`; empty without one. Does not take the lock."""
    try:
        file = open_regular(hidden(final) / "lock")
    except OSError:
        return ""
    with file:
        holder = _holder(file.fileno())
        if not _lives(holder):
            return ""
        # For a process that is not visible from here, the lock decides.
        unseen = holder is not None and holder.lives() is None
        return "" if unseen and not _is_locked(file.fileno()) else _named(holder)


def _holder(fd: int) -> Recorded | None:
    with contextlib.suppress(OSError, ValueError):
        return Recorded.read(StateRecord(parse(os.pread(fd, 4096, 0))))
    return None


def _lives(holder: Recorded | None) -> bool:
    """Whether a holder may still be running; a process on another machine counts as running."""
    return holder is not None and holder != recorded(os.getpid()) and holder.lives() is not False


def _is_locked(fd: int) -> bool:
    """Whether a process on any machine holds the lock; also true if the file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def _named(holder: Recorded | None) -> str:
    if holder is None:
        return "another process"
    here = holder.host in ("", socket.gethostname())
    return f"process {holder.pid}" + ("" if here else f" on {one_line(holder.host)}")


def _missing(folder: Path) -> Iterator[Path]:
    """The folders that do not exist yet, the innermost first."""
    while not folder.exists():
        yield folder
        folder = folder.parent
