"""The hidden folder beside an output that it is written in: one for each output, held by one process at a time.

    .NAME.surgeon/model/       what becomes NAME when it is complete
    .NAME.surgeon/journal      which of its tensors are written
    .NAME.surgeon/begun.json   what from: its fingerprint
    .NAME.surgeon/lock         held by the process that writes
    .NAME.surgeon/old/         what had the name before, for the moment between two renames

It stays when a run ends early and has something to show, and the next one goes on from there.
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
"""Seconds that a lock is waited for whose holder does not live."""


_OWN = frozenset({"model", "journal", "begun.json", "lock", "old"})
_HALF_WRITTEN = ".begun.json."
"""What the file is called before it has its name."""


class InUse(SurgeonError):
    """Another process is writing this output."""

    def __init__(self, final: Path, holder: str, lock: Path | None = None) -> None:
        remedy = "wait for it, stop it, or name another folder"
        remedy += f"; if it is there no more, remove {lock}" if lock else ""
        super().__init__(f"{holder} is writing this model", where=str(final), remedy=remedy)


class Workspace:
    """The folder, for the length of a `with`. At its end it is gone, unless it holds what `keep` says is to stay: at
    first, what an earlier run has written.

    Attributes:
        final: the output's own folder.
        folder: the hidden one.
        model: where to write.
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
        """Hold the folder, and put right what a killed run has left.

        Raises:
            InUse: another process holds it.
            SurgeonError: it cannot be made.
            OSError: it cannot be read.
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
                # Some network file systems have no locks; the number of who holds it must do there.
                holder, locks = _holder(fd), isinstance(error, BlockingIOError)
                sure = holder is not None and holder.lives()
                if locks and not sure and time.monotonic() < until:
                    # Who has just taken it is about to sign; workers of who was killed are about to end; who only
                    # looks whether it is held has it for a moment.
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
        """Make the folder, or see that the one that is there is surgeon's.

        Raises:
            SurgeonError: it is not, and would be removed at the end.
        """
        _refuse_link(self.folder)
        try:
            self.folder.mkdir()
            return
        except FileExistsError:
            _refuse_link(self.folder)
        if not self.folder.is_dir():
            raise _foreign(self.folder, "there is a file of the name of the folder that is written in first")
        names = {path.name for path in self.folder.iterdir()}
        if strange := sorted(name for name in names - _OWN if not name.startswith(_HALF_WRITTEN)):
            what = f"the folder that is written in first holds {one_line(strange[0])}, not of surgeon"
            raise _foreign(self.folder, what)

    @staticmethod
    def _is_at(fd: int, path: Path) -> bool:
        """Whether the open file still has its name: who held it before may have removed it with its folder after it
        was opened here. If so, this process is written into it."""
        try:
            if not os.path.samestat(os.fstat(fd), path.stat()):
                return False
        except FileNotFoundError:
            return False
        # On a full disk it says nothing of its holder, and is held all the same.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(recorded(os.getpid()).record()).encode(), 0)
        return True

    def _recover(self) -> None:
        """Put right what a run that was killed between the two renames of `publish` has left."""
        if self._old.is_dir():
            if self.final.exists():
                shutil.rmtree(self._old)
            else:
                self._old.rename(self.final)
        if not self.model.is_dir():
            self.clear()

    def clear(self) -> None:
        """Forget what an earlier run has left."""
        self._kept = False
        for path in (self.journal, self.begun):
            path.unlink(missing_ok=True)
        if self.model.is_dir():
            shutil.rmtree(self.model)
            self.model.mkdir()

    def keep(self, kept: bool) -> None:
        """Whether the folder is to stay for a later run."""
        self._kept = kept

    def __exit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        self._remove_parents()

    def _remove_parents(self) -> None:
        """Remove the folders made for this run that stayed empty."""
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                break

    def publish(self, *, replace: bool, flush: bool) -> None:
        """Give the model its final name.

        Args:
            replace: whether a folder that is there may go.
            flush: wait until the names are on the disk.

        Raises:
            OSError: it could not be renamed; the final name has what it had before.
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
    """SurgeonError for a symbolic link where surgeon keeps a folder: whoever put it there says where to write."""
    if path.is_symlink():
        raise SurgeonError(
            "this is a symbolic link, and surgeon made none here",
            where=str(path),
            remedy="remove it, or name another folder",
        )


def hidden(final: Path) -> Path:
    """The folder that an output is written in."""
    return final.with_name(f".{final.name}.surgeon")


def holder_of(final: Path) -> str:
    """Who is writing an output, such as `process 4711`, as far as can be seen without taking its lock; empty for
    nobody."""
    try:
        file = open_regular(hidden(final) / "lock")
    except OSError:
        return ""
    with file:
        holder = _holder(file.fileno())
        if not _lives(holder):
            return ""
        # The lock itself is the judge of a process that cannot be seen from here.
        unseen = holder is not None and holder.lives() is None
        return "" if unseen and not _is_locked(file.fileno()) else _named(holder)


def _holder(fd: int) -> Recorded | None:
    with contextlib.suppress(OSError, ValueError):
        return Recorded.read(StateRecord(parse(os.pread(fd, 4096, 0))))
    return None


def _lives(holder: Recorded | None) -> bool:
    """Whether a holder is, as far as can be seen from here, still at work; one on another machine is."""
    return holder is not None and holder != recorded(os.getpid()) and holder.lives() is not False


def _is_locked(fd: int) -> bool:
    """Whether a process, on whatever machine, holds the lock; true as well where the file system has no locks."""
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
    """Folders that do not exist yet, the innermost first."""
    while not folder.exists():
        yield folder
        folder = folder.parent
