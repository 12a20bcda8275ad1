"""A copy of the unwritten recipe on disk, for the process that loads it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from ...errors import SurgeonError
from ...files import write_atomic
from ...jobs.state_folder import state_folder


def write_recipe_copy(text: str) -> Path:
    """Write a recipe to a new file that only this user can read.

    Raises:
        SurgeonError: there is no folder in which it can be written.
    """
    failed = SurgeonError("there is no folder for the recipe")
    # Where there is no state folder, or it is full, any other will do.
    for own in (True, False):
        try:
            folder = state_folder("try") if own else Path(tempfile.gettempdir())
            handle, name = tempfile.mkstemp(".yaml", "surgeon-", folder)
        except SurgeonError as error:
            failed = error
            continue
        except OSError as error:
            failed = SurgeonError(f"cannot write the recipe: {error.strerror or error}")
            continue
        os.close(handle)
        try:
            write_atomic(Path(name), text, own=True)
        except SurgeonError as error:
            failed = error
            with contextlib.suppress(OSError):
                Path(name).unlink()
            continue
        return Path(name)
    raise failed
