"""Where the output goes: which folders are refused, and whether there is room."""

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
    """An operating system's error while writing, as a sentence."""
    if error.errno in _FULL:
        return SurgeonError("the disk is full", where=str(where), remedy="make room, or choose another disk")
    return SurgeonError(f"writing failed: {error.strerror or error}", where=str(where))


def locate(out: Path) -> Path:
    """The folder meant by what the user typed, symbolic links resolved; InputError when there can be none."""
    if not out.name and not out.parts:
        raise InputError("no folder is named for the output", remedy="name a folder")
    try:
        return out.expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise InputError("this cannot be a folder", where=str(out), why=str(error)) from error


def check(final: Path, beside: Path, inputs: Iterable[Input], *, force: bool, keep: Iterable[Path] = ()) -> None:
    """Whether the folder may be written.

    Args:
        final: the folder, as `locate` gives it.
        beside: the hidden folder that it is written in first.
        inputs: what must not be touched.
        force: whether a folder that holds something may be replaced.
        keep: further files and folders that must not be inside it.

    Raises:
        InputError: it is a file, or an input's folder, around or inside one, or holds something and `force` is not set.
        OSError: it cannot be looked at.
    """
    where = str(final)
    if final.exists() and not final.is_dir():
        raise InputError("there is a file of that name", where=where, remedy="name a folder")
    for each in inputs:
        _spare(each, final, beside)
    for path in filter(None, (*keep, Path.cwd(), home())):
        for one in (final, beside):
            if any(_holds(one, place) for place in stations(path)):
                what = f"the folder holds {path}, which would be lost"
                raise InputError(what, where=str(one), remedy="name another folder")
    if final.is_mount():
        raise InputError("a mount point cannot be replaced", where=where, remedy="name a folder inside it")
    if final.is_dir() and any(final.iterdir()) and not force:
        raise InputError("the folder is not empty", where=where, remedy="name another, or replace it with --force")


def _spare(each: Input, final: Path, beside: Path) -> None:
    remedy = "name a folder elsewhere; nothing that a recipe reads is ever written to"
    inside = each.path.is_dir()
    for place in each.places():
        if inside and _holds(place, final):
            same = _holds(final, place)
            what = f"this {'is' if same else 'lies inside'} the folder of {each.name}"
            raise InputError(what, where=str(final), remedy=remedy)
        for one in (final, beside):
            if _holds(one, place):
                raise InputError(f"this folder holds {each.name}", where=str(one), remedy=remedy)


def _holds(folder: Path, place: Path) -> bool:
    """Whether `place` is `folder` or lies in it, whatever the two are called: a folder may be mounted twice."""
    if place.is_relative_to(folder):
        return True
    try:
        own = folder.stat()
    except OSError:
        return False
    # The last part is not looked through: a link in the folder that leads out of it is in it.
    return any(_is(own, parent) for parent in place.parents) or (not place.is_symlink() and _is(own, place))


def _is(own: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(own, path.stat())
    except OSError:
        return False


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
