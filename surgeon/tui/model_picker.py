"""Chooses a donor among the checkpoints nearby, which a child process lists."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ..process import child_command
from ..statefile import StateRecord, parse
from ..text import plural, size
from .completion import paths
from .picker import Choice, Picker

PATIENCE = 5.0
"""Seconds after which the listing child is ended, where a file system does not answer."""


class AdapterChoice(Choice):
    """An entry whose value is the path of an adapter, which is no donor alone."""


class ModelPicker(Picker):
    """Its result has the reference of a checkpoint, or is an `AdapterChoice`.

    Args:
        folders: where to look, the nearest first.
        opened: absolute paths of the donors that are open already.
        families: their model types; models of the same type come first.
    """

    def __init__(self, folders: Sequence[Path], opened: Sequence[str], families: Collection[str] = ()) -> None:
        super().__init__("Open a donor", other="opens that path, or that Hub id from the local cache")
        self.empty = "looking for checkpoints ..."
        self._folders, self._opened, self._families = folders, set(opened), families

    def on_mount(self) -> None:
        """Show the window, and start the listing."""
        super().on_mount()
        self.run_worker(self._list())

    async def _list(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *child_command("surgeon.checkpoint.nearby"),
            *map(str, self._folders),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        try:
            raw = await asyncio.wait_for(process.stdout.read(), PATIENCE)
            await process.wait()
        except asyncio.TimeoutError:
            raw = b""
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        self.empty = "no checkpoint is here or near the donors: type a path, or the id of a cached Hub model"
        found = [choice for line in raw.splitlines() if (choice := self._choice(line)) is not None]
        self.add(sorted(found, key=lambda choice: choice.remark.split(",")[0] not in self._families))

    def more(self, typed: str) -> list[Choice]:
        """Folders whose path begins as what is typed."""
        if "/" not in typed and not typed.startswith("~"):
            return []
        return [Choice(path, path, "folder") for path in paths(typed) if path.endswith("/")]

    def _choice(self, line: bytes) -> Choice | None:
        with contextlib.suppress(ValueError, TypeError):
            found = StateRecord(parse(line))
            ref, kind, family = found.text("ref"), found.text("kind"), found.text("family") or ""
            layers, nbytes = int(found.number("layers") or 0), int(found.number("nbytes") or 0)
            if ref is None or os.path.realpath(ref) in self._opened:
                return None
            if kind == "adapter":
                return AdapterChoice(ref, ref, f"adapter of {family}, {size(nbytes)}" if family else "adapter")
            depth = plural(layers, "layer") if layers else ""
            return Choice(ref, ref, ", ".join(word for word in (family, depth, size(nbytes)) if word))
        return None


def near(folders: Sequence[Path]) -> list[Path]:
    """The folders to look in, as short as they can be written: the working directory, then those that are given."""
    return list(
        dict.fromkeys([Path(), *(Path(min(os.path.relpath(folder), str(folder), key=len)) for folder in folders)])
    )
