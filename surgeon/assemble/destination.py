"""Where the output goes: which folders are refused, the hidden folder it is written in, and how it gets its name.

Nothing ever lies half-written under the final name: everything goes into a hidden sibling, which is renamed at the
end. An old output that is to be replaced is renamed away first, comes back if anything fails, and goes last.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import InputError, SurgeonError
from ..plan.types import Donor
from ..process import alive
from ..text import size

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ASIDE = ".old"


def failed(error: OSError, where: Path) -> SurgeonError:
    """An operating system's error while writing, as a sentence."""
    if error.errno in _FULL:
        return SurgeonError(
            "the disk is full", where=str(where), remedy="make room, or choose another disk; nothing was written"
        )
    return SurgeonError(f"writing failed: {error.strerror or error}", where=str(where), remedy="nothing was written")


def locate(out: Path) -> Path:
    """The folder meant by what the user typed, symbolic links resolved; InputError when there can be none."""
    try:
        return out.expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise InputError("this cannot be a folder", where=str(out), why=str(error)) from error


def check(final: Path, donors: Iterable[Donor], *, force: bool, keep: Iterable[Path] = ()) -> None:
    """Whether the folder may be written.

    Args:
        final: the folder, as `locate` gives it.
        donors: checkpoints that must not be touched.
        force: whether a folder that holds something may be replaced.
        keep: further files and folders that must not be inside it.

    Raises:
        InputError: it is a file, a donor's folder, around or inside one, or holds something and `force` is not set.
        OSError: it cannot be looked at.
    """
    where = str(final)
    if final.exists() and not final.is_dir():
        raise InputError("there is a file of that name", where=where, remedy="name a folder")
    for donor in donors:
        _spare_donor(final, donor)
    for path in (*keep, Path.cwd(), Path.home()):
        if path.resolve().is_relative_to(final):
            raise InputError(f"the folder holds {path}, which would be lost", where=where, remedy="name another folder")
    if final.is_mount():
        raise InputError("a mount point cannot be replaced", where=where, remedy="name a folder inside it")
    if final.is_dir() and any(final.iterdir()) and not force:
        raise InputError("the folder is not empty", where=where, remedy="name another, or replace it with --force")


def _spare_donor(final: Path, donor: Donor) -> None:
    checkpoint = donor.checkpoint
    folder = checkpoint.folder.resolve()
    remedy = "name a folder elsewhere; a donor is never written to"
    # A lone .safetensors file may lie in any folder: only the file itself is the donor then.
    if checkpoint.path.is_dir() and final.is_relative_to(folder):
        what = "is" if final == folder else "lies inside"
        raise InputError(f"this {what} the folder of donor {donor.letter}", where=str(final), remedy=remedy)
    held = [checkpoint.path, *checkpoint.files]
    if any(path.absolute().is_relative_to(final) or path.resolve().is_relative_to(final) for path in held):
        raise InputError(f"this folder holds donor {donor.letter}", where=str(final), remedy=remedy)


def _existing(path: Path) -> Path:
    """The nearest folder above (or at) `path` that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def check_space(final: Path, needed: int) -> None:
    """SurgeonError when the disk that `final` will be on has fewer than `needed` bytes free."""
    free = shutil.disk_usage(_existing(final)).free
    if free < needed:
        raise SurgeonError(
            f"the model needs {size(needed)} and the disk has {size(free)} free",
            where=str(final),
            remedy=f"make {size(needed - free)} of room, or choose another disk",
        )


def sweep(final: Path) -> None:
    """Tidy up after runs for the same output that were killed: whatever nobody is writing any more goes."""
    if not final.parent.is_dir():
        return
    pattern = re.compile(re.escape(f".{final.name}.surgeon-") + rf"(\d+)({re.escape(_ASIDE)})?")
    for folder in list(final.parent.iterdir()):
        match = pattern.fullmatch(folder.name)
        if not match or folder.is_symlink() or not folder.is_dir() or _writing(int(match[1])) or _locked(folder):
            continue
        if match[2] and not final.exists():
            # Killed between its two renames: this is the only copy of what was there before.
            folder.rename(final)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _writing(pid: int) -> bool:
    """Whether another process may still write the folder named after it."""
    return pid != os.getpid() and alive(pid)


def _locked(folder: Path) -> bool:
    """Whether a live process holds the folder; it sees processes that a container's own numbers hide."""
    try:
        fd = os.open(folder, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


class Workspace:
    """The hidden folder beside the final one, for the length of a `with`; gone afterwards unless published.

    Attributes:
        folder: where to write.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.folder = final.parent / f".{final.name}.surgeon-{os.getpid()}"
        self._lock = -1
        self._made: list[Path] = []

    def __enter__(self) -> Workspace:
        self._made = list(_missing(self.final.parent))
        try:
            self.final.parent.mkdir(parents=True, exist_ok=True)
            self.folder.mkdir()
            self._lock = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            self._remove_parents()
            why = "another run is writing this model" if self.folder.is_dir() else error.strerror or ""
            raise SurgeonError("cannot create the folder", where=str(self.final), why=why) from error
        # Some network file systems lock no folders; the process number in the name must do there.
        with contextlib.suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._remove_parents()

    def _remove_parents(self) -> None:
        """Remove the folders made for this run that stayed empty."""
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                break

    def publish(self, *, replace: bool, flush: bool) -> None:
        """Give the folder its final name.

        Args:
            replace: whether a folder that is there may go.
            flush: wait until the names are on the disk.

        Raises:
            OSError: it could not be renamed; the final name has what it had before.
        """
        if flush:
            _sync_folder(self.folder)
        aside = self.folder.with_name(self.folder.name + _ASIDE)
        moved = replace and self.final.is_dir()
        if moved:
            self.final.rename(aside)
        try:
            self.folder.rename(self.final)
        except BaseException:
            if moved:
                aside.rename(self.final)
            raise
        if flush:
            _sync_folder(self.final.parent)
        if moved:
            shutil.rmtree(aside, ignore_errors=True)


def _missing(folder: Path) -> Iterator[Path]:
    """Folders that do not exist yet, the innermost first."""
    while not folder.exists():
        yield folder
        folder = folder.parent


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        # Not every file system can flush a folder; those that cannot keep their names by other means.
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)
