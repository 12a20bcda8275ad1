"""Atomic writes of small files, and checks of paths that do not raise."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Literal

from .errors import SurgeonError


def exists(path: str | Path) -> bool:
    """Whether a path exists; False if the system cannot check it, for example if the name is too long."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for some names


def is_file(path: str | Path) -> bool:
    """Whether a path is a file; see `exists`."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for some names


def is_dir(path: str | Path) -> bool:
    """Whether a path is a folder; see `exists`."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises for some names


def is_link(path: str | Path) -> bool:
    """Whether a path is a symbolic link; see `exists`."""
    return os.path.islink(path)  # noqa: PTH114 - Path.is_symlink raises for some names


def expanded(text: str | Path) -> Path:
    """A path with `~` expanded; unchanged if there is no such user."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises for an unknown user


def home() -> Path | None:
    """The user's home folder; None if it is unknown."""
    found = expanded("~")
    return found if found.is_absolute() else None


def user_folder(kind: Literal["state", "data"]) -> Path | None:
    """The folder of surgeon's state or data files for this user; None if the home folder is unknown."""
    import platformdirs

    places = {"state": platformdirs.user_state_path, "data": platformdirs.user_data_path}
    try:
        found = places[kind]("surgeon", appauthor=False)
    except RuntimeError:
        return None
    return found if found.is_absolute() else None


def write_atomic(path: Path, text: str, *, own: bool = False) -> None:
    """Write `text` to `path` atomically: a reader sees the old file or the new one.

    A symbolic link is followed, and an existing file keeps its permissions. A device or a pipe is written to and not
    replaced.

    Args:
        own: the file is part of surgeon's state: only the user can read it, and anything at `path` is replaced.

    Raises:
        SurgeonError: the file cannot be written.
    """
    temporary: str | None = None
    try:
        target = path.resolve() if path.is_symlink() and not own else path
        if exists(target) and not is_file(target) and not own:
            # A pipe that nobody reads is an error; without O_NONBLOCK, opening it would wait for a reader.
            fd = os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(fd, True)
            with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            return
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if not own:
            Path(temporary).chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask())
        Path(temporary).replace(target)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        why = getattr(error, "strerror", None) or error
        raise SurgeonError(f"cannot write the file: {why}", where=str(path)) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
