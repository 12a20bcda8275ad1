"""Writing small files whole or not at all, and asking what is there without failing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Literal

from .errors import SurgeonError


def exists(path: str | Path) -> bool:
    """Whether something is there; nothing is where the system cannot look, as for a name that is too long."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises for some of that


def is_file(path: str | Path) -> bool:
    """Whether a file is there; see `exists`."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for some of that


def is_dir(path: str | Path) -> bool:
    """Whether a folder is there; see `exists`."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises for some of that


def expanded(text: str | Path) -> Path:
    """A path with its `~` filled in; as it stands where there is no such user."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises then


def home() -> Path | None:
    """The user's home; None where the system knows of none."""
    found = expanded("~")
    return found if found.is_absolute() else None


def user_folder(kind: Literal["state", "data"]) -> Path | None:
    """Where surgeon's files of a kind go for this user; None where the system knows of no home."""
    import platformdirs

    places = {"state": platformdirs.user_state_path, "data": platformdirs.user_data_path}
    try:
        found = places[kind]("surgeon", appauthor=False)
    except RuntimeError:
        return None
    return found if found.is_absolute() else None


def write_atomic(path: Path, text: str, *, own: bool = False) -> None:
    """Put `text` at `path` so that a reader sees the old file or the new one; SurgeonError when that fails.

    A symbolic link is followed, and an existing file keeps its permissions. What is no file, such as a device or a
    pipe, is written into and stays what it is.

    Args:
        own: it is a file of surgeon's state: nobody else may read it, and whatever has its name is replaced.
    """
    temporary: str | None = None
    try:
        target = path.resolve() if path.is_symlink() and not own else path
        if exists(target) and not is_file(target) and not own:
            with target.open("w", encoding="utf-8", newline="") as file:
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
    except (OSError, RuntimeError) as error:  # the latter for a loop of links
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        why = getattr(error, "strerror", None) or error
        raise SurgeonError(f"cannot write the file: {why}", where=str(path)) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
