"""The swap file: unsaved work on disk after every edit, so that a crash or a lost connection loses nothing."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import SurgeonError
from ..files import write_atomic
from ..jobs.state_folder import state_folder, state_folder_there
from ..process import Recorded, recorded
from ..statefile import read


@dataclass(frozen=True)
class Swap:
    """What a session that ended without saving left behind.

    Attributes:
        host: where its session may still run, which cannot be seen from here; empty where that has surely ended.
    """

    file: Path
    host: str
    recipe_path: Path | None
    folder: Path | None
    refs: tuple[str, ...]
    text: str
    written: float

    @property
    def age(self) -> float:
        """Seconds since it was written."""
        return max(0.0, time.time() - self.written)


@cache
def _name(pid: int) -> str:
    """The file of a process. Ids of processes repeat, on other hosts and after a reboot: the name does not."""
    return f"{pid}-{secrets.token_hex(8)}.json"


def own() -> Path:
    """This session's file."""
    return state_folder("swap") / _name(os.getpid())


def write(text: str, refs: Sequence[str], recipe_path: Path | None) -> str:
    """Keep this session's recipe; returns why it could not be kept, or an empty string."""
    try:
        record = {
            **recorded(os.getpid()).record(),
            "recipe_path": os.path.realpath(recipe_path) if recipe_path else None,
            "folder": str(Path.cwd()),
            "refs": list(refs),
            "text": text,
            "written": time.time(),
        }
        write_atomic(own(), json.dumps(record), own=True)
    except (SurgeonError, OSError) as error:
        return _why(error)
    return ""


def _why(error: SurgeonError | OSError) -> str:
    """The reason first: a narrow line has no room for more."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{error.why or error.what} ({error.where})" if error.where else error.why or error.what


def problem() -> str:
    """Why no swap file can be written; empty when one can."""
    try:
        state_folder("swap")
    except SurgeonError as error:
        return _why(error)
    return ""


def clear() -> None:
    """Delete this session's swap file: the work is saved, or dropped on purpose."""
    with contextlib.suppress(OSError, SurgeonError):
        own().unlink()


def discard(swap: Swap) -> None:
    """Delete the swap file of another session: it was recovered or is not wanted."""
    with contextlib.suppress(OSError):
        swap.file.unlink()


def left_behind(recipe_path: Path | None) -> Swap | None:
    """The newest swap for this recipe (or, without one, of an unnamed recipe in this folder) of a session that has
    ended, or that may have ended on another host."""
    wanted = Path(os.path.realpath(recipe_path)) if recipe_path else None
    found = []
    folder = state_folder_there("swap")
    if folder is None:
        return None
    try:
        for file in folder.glob("*.json"):
            swap = _read(file)
            if swap is not None and swap.recipe_path == wanted and (wanted is not None or swap.folder == Path.cwd()):
                found.append(swap)
    except OSError:
        return None
    return max(found, key=lambda swap: swap.written, default=None)


def _read(file: Path) -> Swap | None:
    """The swap in a file; None where there is none, or its session still runs."""
    record = read(file)
    process, text, refs = Recorded.read(record), record.text("text"), record.texts("refs")
    if process is None or text is None or refs is None or (lives := process.lives()):
        return None
    path = record.path("recipe_path")
    if path is None and record.values.get("recipe_path") is not None:
        return None
    host = process.host or "another host" if lives is None else ""
    return Swap(file, host, path, record.path("folder"), refs, text, record.number("written") or 0.0)
