"""A LoRA adapter on disk, in peft's format: its settings, its factors by module, and tensors stored in full."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from ...errors import InputError
from ...text import one_line
from ..dtypes import ARITHMETIC
from ..header import TensorEntry, quoted, read_header
from ..locate import INDEX, SINGLE
from ..tokenizer.tokenizer_identity import Tokenizer, read_tokenizer
from .adapter_config import CONFIG, AdapterConfig, read_adapter_config

WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)(?:\.default)?(?:\.weight)?")
_WRAPPED = re.compile(r"\.(base_layer|original_module|modules_to_save(?:\.default)?)\.")
"""Name parts that peft inserts between a module's name and the names of its tensors."""


@dataclass(frozen=True)
class Factors:
    """The tensors of one adapted module.

    Attributes:
        down: A, (rank, in); for an embedding (rank, tokens).
        up: B, (out, rank); for an embedding (width, rank).
        magnitude: DoRA's norms, one per output feature; None without DoRA.
        embedding: the module is an embedding.
    """

    down: TensorEntry
    up: TensorEntry
    magnitude: TensorEntry | None
    embedding: bool


@dataclass(frozen=True)
class Adapter:
    """An open adapter. Names are those of the model that it was trained on, without the parts that peft adds.

    Attributes:
        config: its settings.
        factors: by the name of the adapted module, in the order of the file.
        stored: tensors stored in full (fully trained modules, biases, embeddings), in the order of the file.
        originals: the untrained tensors of fully trained modules; tensors tied to those modules use them.
    """

    folder: Path
    config: AdapterConfig
    factors: Mapping[str, Factors]
    stored: Mapping[str, TensorEntry]
    originals: Mapping[str, TensorEntry]

    @property
    def base(self) -> str:
        """The name of its base as stored in the file; untrusted text, possibly empty."""
        return self.config.base

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer in its folder; with resized embeddings, it has the added tokens."""
        return read_tokenizer(self.folder, {})


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    if (folder / SINGLE).exists() or (folder / INDEX).exists():
        return False
    return any((folder / name).exists() for name in (CONFIG, WEIGHTS, "adapter_model.bin"))


def open_adapter(path: Path) -> Adapter:
    """Open an adapter's folder (or the weights file in it) without reading weights.

    Raises:
        InputError: it is not an adapter, is invalid, or cannot be merged exactly; names the file and the reason.
    """
    folder = path.parent if path.name == WEIGHTS else path
    try:
        if not (folder / CONFIG).is_file():
            raise InputError(f"there is no {CONFIG}", where=one_line(folder), why="a LoRA adapter needs its settings")
        config = read_adapter_config(folder)
        entries, _ = read_header(_weights(folder))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=one_line(folder)) from error
    if not entries:
        raise _bad(folder, "the adapter holds no tensors")
    factors, stored, originals = _sorted(folder, entries)
    return Adapter(
        folder=folder,
        config=config,
        factors=MappingProxyType({module: _factors(folder, config, parts) for module, parts in factors.items()}),
        stored=MappingProxyType(stored),
        originals=MappingProxyType(originals),
    )


def _weights(folder: Path) -> Path:
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    if (folder / "adapter_model.bin").exists():
        raise InputError(
            "the adapter's weights are a pickle, which runs code when it is loaded, so surgeon does not open it",
            where=one_line(folder / "adapter_model.bin"),
            remedy="load it with peft in an environment that you trust, and save it again, which writes safetensors",
        )
    raise InputError(f"there is no {WEIGHTS}", where=one_line(folder), remedy="finish the download")


_Table = dict[str, TensorEntry]


def _sorted(folder: Path, entries: list[TensorEntry]) -> tuple[dict[str, _Table], _Table, _Table]:
    """Factors by module and kind; tensors stored in full, and the originals of those, by their names in the base."""
    factors: dict[str, _Table] = {}
    stored: _Table = {}
    copies: _Table = {}
    originals: _Table = {}
    for entry in entries:
        if entry.dtype not in ARITHMETIC:
            raise _bad(folder, f"tensor {quoted(entry.name)} is {entry.dtype}, which surgeon cannot calculate with")
        name = entry.name.removeprefix(_PREFIX)
        wrapped = _WRAPPED.search(name)
        if match := _FACTOR.fullmatch(name):
            table, key = factors.setdefault(_WRAPPED.sub(".", match[1]), {}), match[2]
        elif any(part.startswith(("lora_", "token_adapter")) for part in name.split(".")):
            raise _bad(
                folder,
                f"tensor {quoted(entry.name)} does not exist in plain LoRA",
                why="only A, B and DoRA's magnitudes, without biases, are supported",
                remedy="merge it with the tool that made it",
            )
        else:
            table = stored
            if wrapped and wrapped[1] != "base_layer":
                table = originals if wrapped[1] == "original_module" else copies
            key = _WRAPPED.sub(".", name)
        if key in table:
            raise _bad(folder, f"tensors {quoted(table[key].name)} and {quoted(entry.name)} are for the same weight")
        table[key] = entry
    # With a resized vocabulary, peft writes fully trained modules under both names.
    return factors, copies | stored, originals


def _factors(folder: Path, config: AdapterConfig, parts: Mapping[str, TensorEntry]) -> Factors:
    embedding = any(kind.startswith("embedding") for kind in parts)
    kinds = ("embedding_A", "embedding_B") if embedding else ("A", "B")
    some = next(iter(parts.values()))
    for kind in kinds:
        if kind not in parts:
            raise _bad(folder, f"tensor {quoted(some.name)} has no matching lora_{kind}", remedy="download it again")
    extra = parts.keys() - {*kinds, "magnitude_vector"}
    if extra:
        raise _bad(folder, f"tensor {quoted(parts[min(extra)].name)} adapts a module that has embedding factors too")
    magnitude = parts.get("magnitude_vector")
    if config.dora is not (magnitude is not None):
        raise _bad(
            folder,
            f"{quoted(some.name)} has {'no matching DoRA magnitudes' if config.dora else 'DoRA magnitudes'}",
            why=f"{CONFIG} states use_dora: {str(config.dora).lower()}",
        )
    return Factors(parts[kinds[0]], parts[kinds[1]], magnitude, embedding)


def _bad(folder: Path, what: str, *, why: str = "", remedy: str = "") -> InputError:
    return InputError(what, where=one_line(folder / WEIGHTS), why=why, remedy=remedy)
