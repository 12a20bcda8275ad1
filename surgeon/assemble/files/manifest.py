"""The manifest `surgeon.json`: the inputs of an output, and the hashes of everything that was written.

The hash of a copied tensor is also that of the donor's tensor, because the same bytes were read. The manifest has no
times, so the same recipe on the same donors gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...checkpoint.header import quoted
from ...errors import InputError
from ...files import is_file
from ...plan.model import Plan
from ...plan.operands import Copy
from ...statefile import is_count, parse, read_bytes
from ..io.digest import HASH, LENGTH, FileMark, digest
from ..layout import OutputLayout, lay_out
from ..resume.fingerprint import Fingerprint
from ..resume.journal import JournalLine

MANIFEST = "surgeon.json"
FORMAT = 1
PER_TENSOR = 240
"""Approximate bytes per tensor, without its name."""

_LARGEST = 200_000_000
"""Most bytes that are read; a hundred thousand tensors take a quarter of it."""


@dataclass(frozen=True)
class ManifestRecord:
    """A tensor as it was written.

    Attributes:
        shard: its file.
        hash: the hash of its bytes.
        source: index of the donor's file that it is copied from; None if it is computed.
    """

    shard: str
    hash: str
    source: int | None = None


@dataclass(frozen=True)
class SafetensorsFile:
    """A safetensors file, identified by its name, size in bytes and the hash of its header."""

    name: str
    size: int
    header: str

    def matches(self, mark: FileMark) -> bool:
        """Whether a file has the same size and header."""
        return (mark.size, mark.header) == (self.size, self.header)


@dataclass(frozen=True)
class Manifest:
    """The parts of a manifest that verification uses.

    Attributes:
        tensors: the tensors by name.
        shards: the output's weight files.
        sources: the donors' files.
        files: hashes of the small files, by name.
        lenient: whether NaN and infinity in donors were blended.
    """

    tensors: Mapping[str, ManifestRecord]
    shards: tuple[SafetensorsFile, ...]
    sources: tuple[SafetensorsFile, ...]
    files: Mapping[str, str]
    lenient: bool


def compose(
    plan: Plan,
    recipe: str,
    layout: OutputLayout,
    lines: Mapping[str, JournalLine],
    begun: Fingerprint,
    files: Mapping[str, str],
) -> str:
    """The text of an output's manifest.

    Args:
        plan: the plan.
        recipe: the recipe's text.
        layout: the layout of the weight files.
        lines: the journal's lines of all tensors, by name.
        begun: the fingerprint of the inputs.
        files: hashes of the small files, by name.
    """
    document = _outline(plan, recipe, layout, begun)
    tensors = {name: {**record, "hash": lines[name].hash} for name, record in document["tensors"].items()}
    document |= {"files": dict(files), "tensors": tensors}
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_value(value)}" for key, value in document.items()) + "\n}\n"


def _outline(plan: Plan, recipe: str, layout: OutputLayout, begun: Fingerprint) -> dict[str, Any]:
    """A manifest without the hashes of tensors and small files."""
    numbers = {name: number for number, name in enumerate(begun.sources)}
    tensors: dict[str, Any] = {}
    for shard in layout.shards:
        for placed in shard.tensors:
            source = placed.tensor.source
            record: dict[str, Any] = {"shard": shard.name}
            if isinstance(source, Copy):
                record["copy"] = {"source": numbers[str(source.entry.file)], "tensor": source.entry.name}
            tensors[placed.tensor.name] = record
    return {
        "format": FORMAT,
        "hash": HASH,
        "programs": dict(begun.programs),
        "recipe": recipe,
        "seed": plan.recipe.seed,
        "allow_nonfinite": begun.allow_nonfinite,
        "device": begun.device,
        "shard_size": begun.shard_size,
        "donors": {letter: donor.ref for letter, donor in plan.donors.items()},
        "sources": [
            {"file": Path(name).name, "donor": _donor(plan, name), "size": mark.size, "header": mark.header}
            for name, mark in begun.sources.items()
        ],
        "shards": [
            {"file": shard.name, "size": shard.nbytes, "header": digest(shard.header)} for shard in layout.shards
        ],
        "files": {},
        "tensors": tensors,
    }


def is_complete(folder: Path, plan: Plan, recipe: str, begin: Callable[[int], Fingerprint]) -> bool:
    """Whether a folder's manifest is the one that a plan and a recipe's text would give.

    Args:
        folder: the output folder.
        plan: the plan.
        recipe: the recipe's text.
        begin: returns the fingerprint for a shard size.
    """
    try:
        found = _loaded(folder)
        size = found["shard_size"]
        if not is_count(size) or size < 1:
            return False
        for record in found["tensors"].values():
            del record["hash"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False
    begun = begin(size)
    return {**found, "files": {}} == _outline(plan, recipe, lay_out(plan.tensors, size), begun)


def _value(value: Any) -> str:
    """JSON with one line for each entry of a table or list."""
    if isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()) + "\n}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n]"
    return json.dumps(value)


def _donor(plan: Plan, file: str) -> str:
    """The reference of the donor that a file belongs to; empty if there is none."""
    return next(
        (donor.ref for donor in plan.donors.values() if any(str(path) == file for path in donor.checkpoint.files)), ""
    )


def read(folder: Path) -> Manifest | None:
    """The manifest of a checkpoint; None without one.

    Raises:
        InputError: the file cannot be read or is not a manifest.
    """
    path = folder / MANIFEST
    if not is_file(path):
        return None
    try:
        found = _loaded(folder)
        if found["format"] != FORMAT or found["hash"] != HASH:
            kind = f"format {quoted(found['format'])} with {quoted(found['hash'])}"
            raise ValueError(f"it has {kind}, which this version of surgeon cannot read")
        return _manifest(found)
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=MANIFEST) from error
    except KeyError as error:
        raise InputError("this is not a manifest", where=MANIFEST, why=f"it has no {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError("this is not a manifest", where=MANIFEST, why=str(error)) from error


def _loaded(folder: Path) -> Any:
    return parse(read_bytes(folder / MANIFEST, _LARGEST, follow=True))


def _manifest(found: Mapping[str, Any]) -> Manifest:
    sources = tuple(_file(item) for item in found["sources"])
    tensors = {}
    for name, item in found["tensors"].items():
        copy = item.get("copy")
        source = copy["source"] if copy else None
        if not (isinstance(item["shard"], str) and _is_hash(item["hash"])):
            raise ValueError(f"its entry of tensor {quoted(name)} is invalid")
        if source is not None and not (is_count(source) and source < len(sources)):
            raise ValueError(f"it has no donor's file {quoted(source)}")
        tensors[name] = ManifestRecord(item["shard"], item["hash"], source)
    files = found["files"]
    if not all(_is_name(name) and _is_hash(value) for name, value in files.items()):
        raise ValueError("it contains invalid names or hashes of files")
    return Manifest(
        tensors, tuple(_file(item) for item in found["shards"]), sources, files, bool(found["allow_nonfinite"])
    )


def _file(item: Mapping[str, Any]) -> SafetensorsFile:
    name, size, header = item["file"], item["size"], item["header"]
    if not (_is_name(name) and is_count(size) and _is_hash(header)):
        raise ValueError(f"its entry of file {quoted(name)} is invalid")
    return SafetensorsFile(name, size, header)


def _is_name(value: object) -> bool:
    """Whether a value is the plain name of a file in the manifest's folder."""
    return isinstance(value, str) and Path(value).name == value and "\0" not in value


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == LENGTH


def size_of(names: Iterable[str], recipe: str) -> int:
    """Approximate size of a manifest in bytes."""
    return sum(len(name) + PER_TENSOR for name in names) + 2 * len(recipe.encode()) + 20_000
