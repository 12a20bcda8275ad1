"""Where the output goes: which folders are refused, and whether there is room."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError, SurgeonError
from ..files import home
from ..plan.types import Donor
from ..text import size

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def failed(error: OSError, where: Path) -> SurgeonError:
    """An operating system's error while writing, as a sentence."""
    if error.errno in _FULL:
        return SurgeonError("the disk is full", where=str(where), remedy="make room, or choose another disk")
    return SurgeonError(f"writing failed: {error.strerror or error}", where=str(where))


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
    for path in filter(None, (*keep, Path.cwd(), home())):
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


def check_space(final: Path, needed: int, there: Path) -> None:
    """SurgeonError when the disk that `final` will be on has fewer than `needed` bytes free.

    Args:
        there: a folder whose files have some of those bytes already.
    """
    free = shutil.disk_usage(_existing(final)).free
    needed -= sum(path.stat().st_blocks * 512 for path in there.iterdir()) if there.is_dir() else 0
    if free < needed:
        raise SurgeonError(
            f"the model needs {size(needed)} and the disk has {size(free)} free",
            where=str(final),
            remedy=f"make {size(needed - free)} of room, or choose another disk",
        )
