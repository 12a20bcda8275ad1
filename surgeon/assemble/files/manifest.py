"""`surgeon.json`: what an output is made from and what every byte of it was when it was written.

The hash of a copied tensor is that of the donor's tensor as well: one reading gave both. It has no times, so that the
same recipe on the same donors gives the same file.
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
"""Bytes that a tensor takes in it, about, beside its name."""

_LARGEST = 200_000_000
"""Bytes that are read: a hundred thousand tensors take a quarter."""


@dataclass(frozen=True)
class ManifestRecord:
    """A tensor as it was written.

    Attributes:
        shard: its file.
        hash: of its bytes.
        source: number of the donor's file that it is a copy from; None where it is computed.
    """

    shard: str
    hash: str
    source: int | None = None


@dataclass(frozen=True)
class SafetensorsFile:
    """A file by its name, size and the hash of its header."""

    name: str
    size: int
    header: str

    def matches(self, mark: FileMark) -> bool:
        """Whether a file still is this one, as far as its header and size tell."""
        return (mark.size, mark.header) == (self.size, self.header)


@dataclass(frozen=True)
class Manifest:
    """What of a manifest others go by.

    Attributes:
        tensors: by name.
        shards: the output's weight files.
        sources: the donors' files.
        files: hashes of the small files, by name.
        lenient: whether NaN and infinity in donors were taken as they come.
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
        plan: what is written.
        recipe: the recipe's text.
        layout: where.
        lines: the journal's, for every tensor.
        begun: what from.
        files: hashes of the small files, by name.
    """
    document = _outline(plan, recipe, layout, begun)
    tensors = {name: {**record, "hash": lines[name].hash} for name, record in document["tensors"].items()}
    document |= {"files": dict(files), "tensors": tensors}
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_value(value)}" for key, value in document.items()) + "\n}\n"


def _outline(plan: Plan, recipe: str, layout: OutputLayout, begun: Fingerprint) -> dict[str, Any]:
    """A manifest without the hashes of what it tells of."""
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
    """Whether a folder has, by its manifest, just what a plan and a recipe's text would give there.

    Args:
        begin: makes the fingerprint for a shard size.
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
    """JSON with a line for each entry of a table or list."""
    if isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()) + "\n}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n]"
    return json.dumps(value)


def _donor(plan: Plan, file: str) -> str:
    """The reference of the donor that a file belongs to; empty for what belongs to none alone, such as an adapter."""
    return next(
        (donor.ref for donor in plan.donors.values() if any(str(path) == file for path in donor.checkpoint.files)), ""
    )


def read(folder: Path) -> Manifest | None:
    """The manifest of a checkpoint, None where it has none.

    Raises:
        InputError: there is one that cannot be read or is none.
    """
    path = folder / MANIFEST
    if not is_file(path):
        return None
    try:
        found = _loaded(folder)
        if found["format"] != FORMAT or found["hash"] != HASH:
            kind = f"format {quoted(found['format'])} with {quoted(found['hash'])}"
            raise ValueError(f"it is of {kind}, which this surgeon cannot read")
        return _manifest(found)
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=MANIFEST) from error
    except KeyError as error:
        raise InputError("this is no manifest", where=MANIFEST, why=f"it has no {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError("this is no manifest", where=MANIFEST, why=str(error)) from error


def _loaded(folder: Path) -> Any:
    return parse(read_bytes(folder / MANIFEST, _LARGEST, follow=True))


def _manifest(found: Mapping[str, Any]) -> Manifest:
    sources = tuple(_file(item) for item in found["sources"])
    tensors = {}
    for name, item in found["tensors"].items():
        copy = item.get("copy")
        source = copy["source"] if copy else None
        if not (isinstance(item["shard"], str) and _is_hash(item["hash"])):
            raise ValueError(f"it says nothing of tensor {quoted(name)} that makes sense")
        if source is not None and not (is_count(source) and source < len(sources)):
            raise ValueError(f"it has no donor's file {quoted(source)}")
        tensors[name] = ManifestRecord(item["shard"], item["hash"], source)
    files = found["files"]
    if not all(_is_name(name) and _is_hash(value) for name, value in files.items()):
        raise ValueError("it holds names or hashes that are none")
    return Manifest(
        tensors, tuple(_file(item) for item in found["shards"]), sources, files, bool(found["allow_nonfinite"])
    )


def _file(item: Mapping[str, Any]) -> SafetensorsFile:
    name, size, header = item["file"], item["size"], item["header"]
    if not (_is_name(name) and is_count(size) and _is_hash(header)):
        raise ValueError(f"it says nothing of file {quoted(name)} that makes sense")
    return SafetensorsFile(name, size, header)


def _is_name(value: object) -> bool:
    """Whether something names a file beside the manifest, and leads nowhere else."""
    return isinstance(value, str) and Path(value).name == value and "\0" not in value


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == LENGTH


def size_of(names: Iterable[str], recipe: str) -> int:
    """Bytes of a manifest, about."""
    return sum(len(name) + PER_TENSOR for name in names) + 2 * len(recipe.encode()) + 20_000
