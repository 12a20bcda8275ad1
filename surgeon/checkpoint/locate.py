"""Resolves a reference that the user typed to files: a folder, one file, or a Hub id in the local cache."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import expanded, is_dir, is_file
from ..statefile import TooDeep, check_depth, open_regular, rest
from .header import quoted

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_HUB_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?:@[\w./-]+)?")
_JSON_LIMIT = 200_000_000
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Files:
    """The files of a checkpoint: its folder, weight files in order, and the index's weight map if it has one."""

    folder: Path
    weights: tuple[Path, ...]
    weight_map: dict[str, str] | None
    warnings: tuple[str, ...] = ()


def read_json(path: Path) -> Any:
    """The value of a JSON file; InputError if it cannot be read, is not JSON, or is nested too deeply."""
    try:
        with open_regular(path, follow=True) as file:
            raw = rest(file, _JSON_LIMIT + 1)
        if len(raw) > _JSON_LIMIT:
            raise InputError("the file is too large for the JSON of a checkpoint", where=str(path))
        value = json.loads(raw.decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise InputError("the file is not valid JSON", where=str(path), why=str(error)) from error
    try:
        check_depth(value, raw)
    except TooDeep as error:
        what = "the file's JSON is nested too deeply"
        raise InputError(what, where=str(path), remedy="do not use this checkpoint") from error
    return value


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; InputError as `read_json`, and if it is not an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError("the file should hold a JSON object", where=str(path))
    return value


def hub_cache() -> Path:
    """The Hub's cache folder, from the same environment variables as in huggingface_hub."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return expanded(os.path.expandvars(cache))
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return expanded(os.path.expandvars(home)) / "hub"


def looks_like_hub_id(ref: str) -> bool:
    """Whether a reference has the form `org/name` or `org/name@revision`."""
    return bool(_HUB_ID.fullmatch(ref))


def cached_snapshot(ref: str) -> Path | None:
    """The folder of a Hub id's snapshot in the local cache; None if it is not there."""
    name, _, revision = ref.partition("@")
    repo = hub_cache() / f"models--{name.replace('/', '--')}"
    revision = revision or "main"
    if ".." in revision.split("/") or revision.startswith("/"):
        return None
    pointer = repo / "refs" / revision
    commit = pointer.read_text(encoding="utf-8", errors="replace").strip() if is_file(pointer) else revision
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]*", commit):
        return None
    snapshot = repo / "snapshots" / commit
    return snapshot if is_dir(snapshot) else None


def find(ref: str, roots: tuple[Path, ...] = ()) -> Path:
    """The folder or file of `ref`, searched in each of `roots`, then the working directory, then the cache.

    Raises:
        InputError: nothing is there; the message names the searched places.
    """
    if not ref:
        raise InputError("the name of a checkpoint is empty", remedy="give a folder, a file or a Hub id")
    path = expanded(ref)
    candidates = [path] if path.is_absolute() else [*(root / path for root in roots), Path.cwd() / path]
    for candidate in candidates:
        if _exists(candidate):
            return _snapshot_in(_plain(candidate))
    if looks_like_hub_id(ref):
        if snapshot := cached_snapshot(ref):
            return snapshot
        raise InputError(
            f"{ref} is neither a folder here nor in the Hub cache ({hub_cache()})",
            remedy=f"fetch it with `surgeon inspect --download {ref}`, or give its folder",
        )
    tried = [str(candidate) for candidate in dict.fromkeys(candidates)]
    raise InputError(
        f"there is no checkpoint at {ref}",
        why=f"{tried[0]} does not exist" if len(tried) == 1 else f"neither {' nor '.join(tried)} exists",
        remedy="give a folder with safetensors, a .safetensors file, or a Hub id like org/name",
    )


def _snapshot_in(path: Path) -> Path:
    """The main revision in the folder of a repository of the Hub cache; any other path as it is."""
    if not path.name.startswith("models--") or not is_dir(path / "snapshots"):
        return path
    pointer = path / "refs" / "main"
    commits = sorted(entry.name for entry in (path / "snapshots").iterdir())
    commit = pointer.read_text(encoding="utf-8", errors="replace").strip() if is_file(pointer) else ""
    commit = commit if commit in commits else commits[0] if len(commits) == 1 else ""
    if not commit:
        what = "no revision" if not commits else f"{len(commits)} revisions and no main one"
        raise InputError(
            f"this folder of the Hub cache holds {what}", where=str(path), remedy="give a folder below its snapshots"
        )
    return path / "snapshots" / commit


def _plain(path: Path) -> Path:
    """A path without `..`. Links are kept, so that a removed link is noticed as a missing donor."""
    plain = Path(os.path.abspath(path))  # noqa: PTH100 - the next line handles a link before `..`
    return plain if plain.exists() and plain.samefile(path) else path.resolve()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"the path cannot be read: {error.strerror or error}", where=quoted(path)) from error


def weight_files(path: Path) -> Files:
    """The weight files of a checkpoint folder or of a single file.

    Raises:
        InputError: there are no safetensors or only pickles, or a shard is missing or outside the folder.
    """
    if path.is_file():
        return _single_file(path)
    if not path.is_dir():
        raise InputError("this is neither a folder nor a file", where=str(path))
    single, index = path / SINGLE, path / INDEX
    if single.is_file():
        stale = (f"there are both {INDEX} and {SINGLE}; transformers loads {SINGLE} and ignores the shards",)
        return Files(path, (single,), None, stale if index.exists() else ())
    if index.is_file():
        return _sharded(path, index)
    found = sorted(path.glob("*.safetensors"))
    adapter = (path / "adapter_config.json").is_file() or (found and found[0].name == "adapter_model.safetensors")
    if len(found) == 1 and not adapter:
        return Files(path, (found[0],), None)
    raise _no_weights(path, found)


def _single_file(path: Path) -> Files:
    if path.suffix in {".bin", ".pt", ".pth", ".ckpt"}:
        raise _pickle(path)
    if path.suffix == ".gguf":
        raise _gguf(path)
    if path.suffix == ".json":
        raise InputError("this file holds no weights", where=str(path), remedy=f"give its folder, {path.parent}")
    if path.suffix != ".safetensors":
        # An adapter may name any file as its base, so only files with a weight suffix are opened.
        raise InputError(
            "this is not a .safetensors file", where=str(path), remedy="give a folder, or a .safetensors file"
        )
    return Files(path.parent, (path,), None)


def _gguf(path: Path) -> InputError:
    return InputError(
        "surgeon does not read GGUF files", where=str(path), remedy="use the safetensors that it was made from"
    )


def _pickle(path: Path) -> InputError:
    return InputError(
        "these weights are a pickle, which runs code when it is loaded, so surgeon does not open it",
        where=str(path),
        remedy='convert it once in an environment that you trust: python -c "from transformers import '
        "AutoModelForCausalLM as M; M.from_pretrained('IN', dtype='auto').save_pretrained('OUT')\"",
    )


def _no_weights(path: Path, found: list[Path]) -> InputError:
    names = [file.name for file in found]
    if "adapter_model.safetensors" in names or (path / "adapter_config.json").is_file():
        return InputError(
            "this is a LoRA adapter, not a whole checkpoint",
            where=str(path),
            remedy="in a recipe write BASE+ADAPTER, or set base_model to its base",
        )
    if found:
        return InputError(
            f"the folder holds {len(found)} safetensors files but no {INDEX}",
            where=str(path),
            remedy="name one file, or download the index",
        )
    for pattern in _PICKLES:
        for pickle in sorted(path.glob(pattern)):
            return _pickle(pickle)
    if cached := sorted(path.glob("models--*")):
        first = cached[0].name.removeprefix("models--").replace("--", "/")
        return InputError(
            f"this is a Hub cache with {len(cached)} {'model' if len(cached) == 1 else 'models'}, not a checkpoint",
            where=str(path),
            remedy=f"name one by its id, such as {first}",
        )
    if any(path.glob("*.gguf")):
        return _gguf(path)
    return InputError("the folder holds no safetensors", where=str(path), remedy="give the folder of a checkpoint")


def _sharded(folder: Path, index: Path) -> Files:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("the index has no weight_map", where=str(index), remedy="download the index again")
    names: dict[str, Path] = {}
    for tensor, name in weight_map.items():
        if isinstance(name, str) and name in names:
            continue
        if not _is_inside(name):
            raise InputError(
                f"the index puts tensor {quoted(tensor)} into {quoted(name)}, not a file of this folder",
                where=str(index),
                remedy="do not use this checkpoint: its index points outside its folder",
            )
        names[name] = folder / name
    missing = sorted(name for name, path in names.items() if not is_file(path))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"the index names {quoted(missing[0])}{more}, which the folder does not hold",
            where=str(index),
            remedy="finish the download",
        )
    return Files(folder, tuple(names[name] for name in sorted(names)), weight_map)


def _is_inside(name: object) -> bool:
    if not isinstance(name, str) or not name or "\\" in name or "\0" in name:
        return False
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and path.suffix == ".safetensors"
