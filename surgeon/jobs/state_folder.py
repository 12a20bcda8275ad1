"""The folder of surgeon's own files: jobs, swap files, recipes that are tried. Only their user can read it."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from ..errors import SurgeonError
from ..files import is_dir, user_folder


def state_folder(name: str) -> Path:
    """surgeon's folder `name` (`jobs`, `swap`) in the user's state directory; created if it is missing.

    Raises:
        SurgeonError: the folder cannot be created or written to.
    """
    root = user_folder("state")
    if root is None:
        raise SurgeonError(
            "there is no folder for surgeon's own files",
            why="the user has no home",
            remedy="set XDG_STATE_HOME to a folder that can be written",
        )
    folder = root / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "it cannot be written")
    except OSError as error:
        raise SurgeonError(
            "surgeon cannot write its own files",
            where=str(folder),
            why=error.strerror or str(error),
            remedy="set XDG_STATE_HOME to a folder that can be written",
        ) from error
    for path in (root, folder):
        _close(path)
    return folder


def state_folder_there(name: str) -> Path | None:
    """Like `state_folder`, for reading only: None if the folder is missing."""
    root = user_folder("state")
    return root / name if root is not None and is_dir(root / name) else None


def _close(folder: Path) -> None:
    """Remove other users' access to a folder of this user; earlier versions created readable ones."""
    with contextlib.suppress(OSError):
        about = folder.stat()
        if about.st_uid == os.geteuid() and stat.S_IMODE(about.st_mode) & 0o077:
            folder.chmod(0o700)
