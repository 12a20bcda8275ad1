"""Check the output folder before writing: folders that are refused, and free disk space."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError, SurgeonError
from ..files import home
from ..plan.inputs import Input, stations
from ..text import size

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def failed(error: OSError, where: Path) -> SurgeonError:
    """The error to raise for an operating system's error while writing."""
    if error.errno in _FULL:
        return SurgeonError("the disk is full", where=str(where), remedy="free some space, or choose another disk")
    return SurgeonError(f"writing failed: {error.strerror or error}", where=str(where))


def locate(out: Path) -> Path:
    """The folder that the user typed, with symbolic links resolved; InputError if it cannot be a folder."""
    if not out.name and not out.parts:
        raise InputError("the name of the output folder is empty", remedy="name a folder")
    try:
        return out.expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise InputError("the path cannot be a folder", where=str(out), why=str(error)) from error


def check(final: Path, working: Path, inputs: Iterable[Input], *, force: bool, keep: Iterable[Path] = ()) -> None:
    """Check that the folder may be written.

    Args:
        final: the folder, as returned by `locate`.
        working: the hidden folder next to it, in which the output is written first.
        inputs: the files and folders that must not be changed.
        force: whether a folder that is not empty may be replaced.
        keep: further files and folders that it must not contain.

    Raises:
        InputError: it is a file; it is, contains or is in an input's folder; or it is not empty and `force` is unset.
        OSError: it cannot be examined.
    """
    where = str(final)
    if final.exists() and not final.is_dir():
        raise InputError("there is a file of that name", where=where, remedy="name a folder")
    for each in inputs:
        _spare(each, final, working)
    for path in filter(None, (*keep, Path.cwd(), home())):
        for one in (final, working):
            if any(_holds(one, place) for place in stations(path)):
                what = f"the folder contains {path}, which would be lost"
                raise InputError(what, where=str(one), remedy="name another folder")
    if final.is_mount():
        raise InputError("a mount point cannot be replaced", where=where, remedy="name a folder inside it")
    if final.is_dir() and any(final.iterdir()) and not force:
        raise InputError("the folder is not empty", where=where, remedy="name another, or replace it with --force")


def _spare(each: Input, final: Path, working: Path) -> None:
    remedy = "name a folder elsewhere, because surgeon never writes to anything that a recipe reads"
    inside = each.path.is_dir()
    for place in each.places():
        if inside and _holds(place, final):
            same = _holds(final, place)
            what = f"the output folder {'is' if same else 'is inside'} the folder of {each.name}"
            raise InputError(what, where=str(final), remedy=remedy)
        for one in (final, working):
            if _holds(one, place):
                raise InputError(f"the output folder contains {each.name}", where=str(one), remedy=remedy)


def _holds(folder: Path, place: Path) -> bool:
    """Whether `place` is `folder` or inside it, by device and inode too, because a folder may be mounted twice."""
    if place.is_relative_to(folder):
        return True
    try:
        own = folder.stat()
    except OSError:
        return False
    # The last part is not resolved: a link in the folder is in the folder, wherever it leads.
    return any(_is(own, parent) for parent in place.parents) or (not place.is_symlink() and _is(own, place))


def _is(own: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(own, path.stat())
    except OSError:
        return False


def _existing(path: Path) -> Path:
    """The nearest existing folder at or above `path`."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def check_space(final: Path, needed: int, there: Path) -> None:
    """Raise SurgeonError if the disk of `final` has fewer than `needed` bytes free.

    Args:
        final: the output folder, which may not exist yet.
        needed: size of the output in bytes.
        there: the folder with the files that are already written, which count as free.
    """
    free = shutil.disk_usage(_existing(final)).free
    needed -= sum(path.stat().st_blocks * 512 for path in there.iterdir()) if there.is_dir() else 0
    if free < needed:
        raise SurgeonError(
            f"the model needs {size(needed)}, but the disk has only {size(free)} free",
            where=str(final),
            remedy=f"free {size(needed - free)}, or choose another disk",
        )
