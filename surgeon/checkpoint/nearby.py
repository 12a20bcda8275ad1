"""Finds checkpoints and adapters in folders and in the Hub cache, from names, sizes and configs alone."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..statefile import parse, read_bytes
from ..text import one_line
from .adapter.adapter_config import CONFIG as ADAPTER_CONFIG
from .locate import cached_snapshot, hub_cache

DEPTH = 2
"""Levels of folders below a root that are searched."""
MAX_FOUND = 500
MAX_ENTRIES = 20_000
"""Most directory entries that are looked at."""
SECONDS = 1.0
_CONFIG_BYTES = 2_000_000


@dataclass(frozen=True)
class FoundModel:
    """A checkpoint or an adapter on disk, as far as its small files tell.

    Attributes:
        ref: what opens it: a path, or the id of a repository in the Hub cache.
        kind: `model` or `adapter`.
        family: the config's `model_type`; for an adapter its base. Empty if unknown.
        layers: number of layers by the config; 0 if unknown.
        nbytes: bytes of the safetensors files.
    """

    ref: str
    kind: str
    family: str
    layers: int
    nbytes: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def find_models(folders: Sequence[Path], *, hub: bool = True, seconds: float = SECONDS) -> Iterator[FoundModel]:
    """Yield the checkpoints in `folders`, two levels deep, then those of the Hub cache, each once.

    No symbolic link is followed out of the folder that is searched. The search ends after `MAX_FOUND` checkpoints,
    `MAX_ENTRIES` directory entries or `seconds`; the nearest folders come first.
    """
    deadline = time.monotonic() + seconds
    seen: set[str] = set()
    entries = found = 0
    for root in folders:
        inside = os.path.realpath(root)
        waiting = deque([(Path(root), 0)])
        while waiting:
            folder, level = waiting.popleft()
            real = os.path.realpath(folder)
            if real in seen or (real != inside and not real.startswith(inside.rstrip("/") + "/")):
                continue
            seen.add(real)
            names, below, used = _listed(folder, MAX_ENTRIES - entries)
            entries += used
            if (model := _model(str(folder), folder, names)) is not None:
                yield model
                found += 1
            elif level < DEPTH:
                waiting.extend((folder / name, level + 1) for name in below)
            if found >= MAX_FOUND or entries >= MAX_ENTRIES or time.monotonic() > deadline:
                return
    for model in _cached_models() if hub else ():
        yield model
        found += 1
        if found >= MAX_FOUND or time.monotonic() > deadline:
            return


def _listed(folder: Path, most: int) -> tuple[set[str], list[str], int]:
    """Names of a folder's regular files, names of its visible subfolders in order, and the number of entries read."""
    files: set[str] = set()
    below: list[str] = []
    used = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                used += 1
                if used > most:
                    break
                try:
                    if entry.is_dir():
                        below += [] if entry.name.startswith(".") else [entry.name]
                    elif entry.is_file():
                        files.add(entry.name)
                except OSError:
                    continue
    except OSError:
        pass
    return files, sorted(below), used


def _model(ref: str, folder: Path, names: set[str]) -> FoundModel | None:
    """The checkpoint or adapter in a folder with these files; None if there is none."""
    weights = [name for name in names if name.endswith(".safetensors")]
    if not weights:
        return None
    nbytes = sum(_size(folder / name) for name in weights)
    if ADAPTER_CONFIG in names:
        base = _json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
        return FoundModel(ref, "adapter", one_line(base) if isinstance(base, str) else "", 0, nbytes)
    if "config.json" not in names:
        return None
    config = _json(folder / "config.json")
    return FoundModel(ref, "model", _family(config), _layers(config), nbytes)


def _cached_models() -> Iterator[FoundModel]:
    """The models of the Hub cache whose main revision is there; in a repository, links lead to its own blobs."""
    for name in _listed(hub_cache(), MAX_ENTRIES)[1]:
        if not name.startswith("models--"):
            continue
        ref = name.removeprefix("models--").replace("--", "/")
        folder = cached_snapshot(ref)
        if folder is not None and (model := _model(ref, folder, _listed(folder, MAX_ENTRIES)[0])) is not None:
            yield model


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _json(path: Path) -> dict[str, Any]:
    try:
        value = parse(read_bytes(path, _CONFIG_BYTES, follow=True))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _family(config: dict[str, Any]) -> str:
    kind = config.get("model_type")
    return one_line(kind)[:40] if isinstance(kind, str) else ""


def _layers(config: dict[str, Any]) -> int:
    """The number of layers under the usual names, in the config or in its `text_config`."""
    inner = config.get("text_config")
    for table in (config, inner if isinstance(inner, dict) else {}):
        for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers"):
            value = table.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 100_000:
                return value
    return 0


def main(arguments: Sequence[str]) -> None:
    """Print the models in the folders that are given, and in the Hub cache, as lines of JSON."""
    for model in find_models([Path(name) for name in arguments]):
        print(json.dumps(model.to_dict()), flush=True)
