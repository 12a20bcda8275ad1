"""The recipes that were opened or saved last, in a file of the user's state folder."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from ..errors import SurgeonError
from ..files import is_file, write_atomic
from ..jobs.state_folder import state_folder, state_folder_there
from ..statefile import read

MOST = 20
_FOLDER, _FILE = "recent", "recipes.json"


def recent_recipes() -> list[Path]:
    """Absolute paths, the latest first; only files that are still there."""
    folder = state_folder_there(_FOLDER)
    if folder is None:
        return []
    names = read(folder / _FILE).texts("recipes") or ()
    return [Path(name) for name in names[:MOST] if Path(name).is_absolute() and is_file(name)]


def remember_recipe(path: Path) -> None:
    """Put a recipe at the top of the list. A folder that cannot be written is no error here."""
    name = os.path.abspath(path)  # noqa: PTH100 - links are kept
    names = [name, *(str(known) for known in recent_recipes() if str(known) != name)]
    with contextlib.suppress(SurgeonError, OSError):
        write_atomic(state_folder(_FOLDER) / _FILE, json.dumps({"recipes": names[:MOST]}), own=True)
