"""What `surgeon inspect` says of files that are no checkpoint: LoRA adapters and GGUF files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint.adapter.adapter_text import adapter_facts
from ..checkpoint.adapter.lora import WEIGHTS, Adapter, is_adapter, open_adapter
from ..checkpoint.gguf_header import GgufHeader, read_gguf
from ..checkpoint.locate import find
from ..errors import InputError
from ..files import is_dir, is_file
from ..text import number, one_line, ranges, size
from .table import TableRow


@dataclass(frozen=True)
class Described:
    """Something that is no checkpoint: facts for the table, and data for JSON."""

    ref: str
    facts: Mapping[str, str]
    data: Mapping[str, Any]

    def rows(self) -> list[TableRow]:
        """The rows of its table."""
        return [TableRow(name, (text,)) for name, text in self.facts.items()]


def described(ref: str) -> Described | None:
    """The adapter or the GGUF file that a reference names; None for anything else.

    Raises:
        InputError: it is one, and cannot be read.
    """
    try:
        path = find(ref)
    except InputError:
        return None
    if is_dir(path) and is_adapter(path):
        return _adapter(ref, open_adapter(path))
    gguf = path if is_file(path) and path.suffix == ".gguf" else _only_gguf(path)
    return None if gguf is None else _gguf(ref, gguf, read_gguf(gguf))


def _only_gguf(folder: Path) -> Path | None:
    """The first GGUF file of a folder that has no other weights."""
    if not is_dir(folder) or any(folder.glob("*.safetensors")):
        return None
    return next(iter(sorted(folder.glob("*.gguf"))), None)


def _adapter(ref: str, adapter: Adapter) -> Described:
    facts = adapter_facts(adapter)
    names = [*adapter.factors, *adapter.stored]
    layers = {int(part) for name in names for part in name.split(".") if part.isdecimal() and len(part) < 6}
    nbytes = (adapter.folder / WEIGHTS).stat().st_size
    shown = {
        "path": str(adapter.folder),
        "what": "a LoRA adapter: in a recipe, BASE+ADAPTER is a donor",
        **facts,
        "layers": ranges(sorted(layers)) or "none",
        "bytes": size(nbytes),
    }
    data = {"ref": ref, "path": str(adapter.folder), "what": "adapter", **facts, "layers": sorted(layers)}
    return Described(ref, shown, {**data, "bytes": nbytes})


def _gguf(ref: str, path: Path, header: GgufHeader) -> Described:
    known = {
        "name": header.metadata.get("general.name"),
        "architecture": header.metadata.get("general.architecture"),
        "layers": header.of_architecture("block_count"),
        "hidden size": header.of_architecture("embedding_length"),
        "intermediate": header.of_architecture("feed_forward_length"),
        "heads": header.of_architecture("attention.head_count"),
        "KV heads": header.of_architecture("attention.head_count_kv"),
        "experts": header.of_architecture("expert_count"),
        "vocabulary": header.lengths.get("tokenizer.ggml.tokens"),
        "context": header.of_architecture("context_length"),
        "licence": header.metadata.get("general.license"),
    }
    facts = {name: one_line(value) for name, value in known.items() if value not in (None, "")}
    types = ", ".join(f"{kind} {number(count)}" for kind, count in header.types.items())
    shown = {
        "path": str(path),
        "what": f"a GGUF file, version {header.version}: surgeon does not splice it; use the safetensors that it was "
        "made from",
        **facts,
        "parameters": f"{number(sum(header.types.values()))}: {types}" if types else "0",
        "tensors": str(header.tensors),
        "bytes": size(header.nbytes),
    }
    data = {"ref": ref, "path": str(path), "what": "gguf", **{name: known[name] for name in facts}}
    return Described(ref, shown, {**data, "types": dict(header.types), "bytes": header.nbytes})
