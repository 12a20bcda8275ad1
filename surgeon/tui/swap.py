"""Unsaved work on disk after every edit, so that a crash or a lost connection costs nothing."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SurgeonError
from ..files import write_atomic
from ..jobs.job import state_folder
from ..process import alive


@dataclass(frozen=True)
class Swap:
    """What a session that ended without saving left behind."""

    file: Path
    pid: int
    recipe_path: Path | None
    folder: Path
    refs: tuple[str, ...]
    text: str
    written: float

    @property
    def age(self) -> float:
        """Seconds since it was written."""
        return time.time() - self.written


def _own() -> Path:
    return state_folder("swap") / f"{os.getpid()}.json"


def write(text: str, refs: Sequence[str], recipe_path: Path | None) -> None:
    """Keep this session's recipe; a disk that refuses is not worth an interruption."""
    record = {
        "pid": os.getpid(),
        "recipe_path": str(recipe_path.resolve()) if recipe_path else None,
        "folder": str(Path.cwd()),
        "refs": list(refs),
        "text": text,
        "written": time.time(),
    }
    with contextlib.suppress(SurgeonError, OSError):
        write_atomic(_own(), json.dumps(record))


def clear() -> None:
    """Forget this session's swap: saved, or thrown away on purpose."""
    with contextlib.suppress(OSError):
        _own().unlink()


def discard(swap: Swap) -> None:
    """Delete a swap that was recovered or is not wanted."""
    with contextlib.suppress(OSError):
        swap.file.unlink()


def left_behind(recipe_path: Path | None) -> Swap | None:
    """The newest swap of a dead session for this recipe (or, without one, of an unnamed recipe in this folder)."""
    found = []
    wanted = recipe_path.resolve() if recipe_path else None
    for file in state_folder("swap").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            swap = _read(file)
            same = swap.recipe_path == wanted and (wanted is not None or swap.folder == Path.cwd())
            if same and not alive(swap.pid):
                found.append(swap)
    return max(found, key=lambda swap: swap.written, default=None)


def _read(file: Path) -> Swap:
    record = json.loads(file.read_text(encoding="utf-8"))
    path = record["recipe_path"]
    return Swap(
        file,
        int(record["pid"]),
        Path(path) if path else None,
        Path(record["folder"]),
        tuple(str(ref) for ref in record["refs"]),
        str(record["text"]),
        float(record["written"]),
    )
