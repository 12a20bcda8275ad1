"""A checkpoint as surgeon sees it: tensors, config and layer table, opened in milliseconds from headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import InputError
from ..text import one_line, plural, ranges
from .families import naming as families
from .families.model_config import ModelConfig, layer_attributes
from .header import TensorEntry, quoted, read_header
from .locate import Files, find, read_json_object, weight_files
from .tensor_equality import alike
from .tokenizer.tokenizer_identity import Tokenizer, read_tokenizer

_MAX_DEPTH = 100_000
_QUANTISED = (
    (("qweight", "qzeros"), "GPTQ or AWQ"),
    (("weight_scale_inv",), "fp8"),
    (("weight_packed",), "compressed-tensors"),
    (("absmax",), "bitsandbytes"),
    (("_blocks", "_scales"), "mxfp4"),
)
"""Endings of names that only one quantised format has, all of which must occur."""


@dataclass(frozen=True)
class Layer:
    """One layer of a donor: tensors by their name within the layer, and its own attributes."""

    index: int
    tensors: Mapping[str, TensorEntry]
    attributes: Mapping[str, Any]

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors of the layer."""
        return sum(entry.nbytes for entry in self.tensors.values())

    @cached_property
    def numel(self) -> int:
        """Elements of all tensors of the layer."""
        return sum(entry.numel for entry in self.tensors.values())


@dataclass(frozen=True)
class Checkpoint:
    """What is on disk.

    Attributes:
        ref: the name the user gave.
        path: the folder, or the single file.
        folder: the folder that config and tokenizer lie in.
        files: weight files, in order.
        tensors: every tensor by name.
        config: config.json, or None when there is none.
        naming: how its tensors are named, or None when no known layer prefix occurs.
        layers: the layer table, in order.
        ends: tensors of embeddings, final norm and head, by role and name within the role.
        other: tensors that belong to no layer and to no end.
        head_differs: the config ties the head to the embedding, but a head is stored that is not the embedding.
        problems: why it cannot be spliced, as clauses; empty when it can.
        warnings: what a user should know about it.
    """

    ref: str
    path: Path
    folder: Path
    files: tuple[Path, ...]
    tensors: Mapping[str, TensorEntry]
    config: ModelConfig | None
    naming: families.Naming | None
    layers: tuple[Layer, ...]
    ends: Mapping[str, Mapping[str, TensorEntry]]
    other: Mapping[str, TensorEntry]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    head_differs: bool = False

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.tensors.values())

    @cached_property
    def numel(self) -> int:
        """Elements of all tensors."""
        return sum(entry.numel for entry in self.tensors.values())

    @cached_property
    def token_embedding(self) -> TensorEntry | None:
        """The table with one row per token, or None where no such tensor was found."""
        return _token_embedding(self.ends)

    @cached_property
    def quantisation(self) -> str | None:
        """The quantised format, by the config or else by the names its tensors have; None where nothing says so."""
        return _quantisation(self.config, self.tensors)

    @property
    def headless(self) -> bool:
        """Whether it has no language-model head and needs none: its class has none, and none is stored."""
        return self.config is not None and self.config.headless and not self.ends.get("lm_head")

    @cached_property
    def tied(self) -> bool:
        """Whether the head is the embedding: by config, or, where it and the family are silent, by the files.

        A stored head with other values is used even if the config ties it, as transformers 5 does.
        """
        if self.headless:
            return False
        if self.config is None or not self.config.says_tied:
            return bool(self.ends.get("embeddings")) and not self.ends.get("lm_head")
        return self.config.tied and not self.head_differs

    @cached_property
    def dtypes(self) -> dict[str, int]:
        """safetensors dtype -> bytes held in it, the largest first."""
        held: dict[str, int] = {}
        for entry in self.tensors.values():
            held[entry.dtype] = held.get(entry.dtype, 0) + entry.nbytes
        return dict(sorted(held.items(), key=lambda item: -item[1]))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer's identity (parses tokenizer.json at first use)."""
        return read_tokenizer(self.folder, self.config.text if self.config else {})


def open_checkpoint(ref: str, roots: tuple[Path, ...] = ()) -> Checkpoint:
    """Open a folder, a .safetensors file, or a cached Hub id, without reading a weight.

    Args:
        ref: what the user typed.
        roots: folders that a relative `ref` is looked for in before the working directory.

    Raises:
        InputError: nothing there, or something that must not be trusted; says which file and why.
    """
    try:
        return _open(ref, find(ref, roots))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", where=one_line(error.filename or ref)) from error


def _open(ref: str, path: Path) -> Checkpoint:
    files = weight_files(path)
    tensors, metadata, warnings = _read_tensors(files)
    config_path = files.folder / "config.json"
    config = ModelConfig.of(read_json_object(config_path)) if config_path.is_file() else None
    made = assembled(ref, files.folder, tensors, config)
    head_differs = bool(config and config.tied and config.says_tied) and _head_differs(made.ends)
    if head_differs:
        warnings.append("config.json ties the head to the embedding, but the stored head is another; it is used")
    return replace(
        made,
        path=path,
        files=files.weights,
        warnings=(*files.warnings, *warnings, *made.warnings),
        metadata=metadata,
        head_differs=head_differs,
    )


def assembled(ref: str, folder: Path, tensors: dict[str, TensorEntry], config: ModelConfig | None) -> Checkpoint:
    """A checkpoint of these tensors, wherever they lie; its tokenizer is the one in `folder`."""
    naming = families.find_naming(tensors, config.model_type if config else "")
    layers, ends, other = _sort_tensors(tensors, naming)
    stated = config.depth if config else None
    depth = min(max(layers, default=-1) + 1 if stated is None else stated, _MAX_DEPTH)
    attributes = layer_attributes(config, depth) if config else [{}] * depth
    table = tuple(
        Layer(index, MappingProxyType(layers[index]), attributes[index]) for index in range(depth) if index in layers
    )
    beyond = [index for index in layers if index >= depth]
    for index in beyond:
        other.update((entry.name, entry) for entry in layers[index].values())
    lost = f"layer {ranges(beyond)} lies beyond the {plural(depth, 'layer')} that config.json counts"
    return Checkpoint(
        ref=ref,
        path=folder,
        folder=folder,
        files=(),
        tensors=MappingProxyType(tensors),
        config=config,
        naming=naming,
        layers=table,
        ends=MappingProxyType(ends),
        other=MappingProxyType(other),
        problems=tuple(_problems(config, naming, layers, ends, _quantisation(config, tensors), tensors)),
        warnings=(lost,) if beyond else (),
    )


def _read_tensors(files: Files) -> tuple[dict[str, TensorEntry], dict[str, str], list[str]]:
    tensors: dict[str, TensorEntry] = {}
    metadata: dict[str, str] = {}
    for path in files.weights:
        entries, notes = read_header(path)
        metadata.update(notes)
        for entry in entries:
            if entry.name in tensors:
                raise InputError(
                    f"tensor {quoted(entry.name)} is in {tensors[entry.name].file.name} as well",
                    where=str(path),
                    remedy="download the checkpoint again: each tensor may be in one shard only",
                )
            tensors[entry.name] = entry
    if not tensors:
        raise InputError("the checkpoint holds no tensors", where=str(files.folder))
    warnings = []
    if files.weight_map is not None:
        by_path = {path: path for path in files.weights}
        shards = {name: by_path[files.folder / name] for name in set(files.weight_map.values())}
        for name, shard in files.weight_map.items():
            if name not in tensors or tensors[name].file is not shards[shard]:
                raise InputError(
                    f"the index puts tensor {quoted(name)} into {quoted(shard)}, which does not hold it",
                    where=str(files.folder),
                    remedy="download the checkpoint again: index and shards do not belong together",
                )
        if extra := len(tensors) - len(files.weight_map):
            warnings.append(f"{plural(extra, 'tensor')} of the shards not in the index")
    return tensors, metadata, warnings


def _sort_tensors(
    tensors: Mapping[str, TensorEntry], naming: families.Naming | None
) -> tuple[dict[int, dict[str, TensorEntry]], dict[str, dict[str, TensorEntry]], dict[str, TensorEntry]]:
    layers: dict[int, dict[str, TensorEntry]] = {}
    ends: dict[str, dict[str, TensorEntry]] = {role: {} for role in families.END_ROLES}
    other: dict[str, TensorEntry] = {}
    for name, entry in tensors.items():
        place = naming.place(name) if naming else families.Place("other", -1, name)
        if place.role == "layer":
            layers.setdefault(place.index, {})[place.suffix] = entry
        elif place.role == "other":
            other[name] = entry
        else:
            ends[place.role][place.suffix] = entry
    return dict(sorted(layers.items())), ends, other


def _head_differs(ends: Mapping[str, Mapping[str, TensorEntry]]) -> bool:
    """Whether a head is stored whose values are not the embedding's, told by some pages of both."""
    head = next((entry for name, entry in ends["lm_head"].items() if name.endswith("weight")), None)
    table = _token_embedding(ends)
    return head is not None and table is not None and not alike(head, table)


def _token_embedding(ends: Mapping[str, Mapping[str, TensorEntry]]) -> TensorEntry | None:
    tables = (entry for name, entry in ends["embeddings"].items() if name.startswith(families.TOKEN_EMBEDDINGS))
    return next((entry for entry in tables if len(entry.shape) == 2), None)


def _problems(
    config: ModelConfig | None,
    naming: families.Naming | None,
    layers: Mapping[int, Any],
    ends: Mapping[str, Mapping[str, TensorEntry]],
    quantised: str | None,
    names: Iterable[str],
) -> list[str]:
    found = []
    if config is None:
        found.append("there is no config.json beside the weights")
    if naming is None:
        wrapped = _wrapper(list(names))
        found.append(wrapped or "no tensor name begins with a known layer prefix")
        return found
    if config is not None:
        if config.depth is None:
            found.append("config.json does not say how many layers there are")
        elif config.depth == 0:
            found.append("config.json says that it has no layers")
        elif missing := [index for index in range(min(config.depth, _MAX_DEPTH)) if index not in layers]:
            found.append(f"config.json says {config.depth} layers, but the files lack layer {ranges(missing)}")
        if config.raw.get("is_encoder_decoder") and not naming.layout.layers.startswith("decoder."):
            found.append("it is an encoder-decoder, and its tensors are not named as those of a known one")
    if quantised and not (config and config.quantisation):
        found.append(f"its tensors are quantised ({quantised}), and config.json does not say how")
    if not ends["embeddings"]:
        found.append("no embedding tensor was found")
    return found


_WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "a data-parallel trainer",
    "base_model.model.": "peft",
    "_fsdp_wrapped_module.": "FSDP",
}
"""What wrappers of modules put before every name, and what puts it there."""


def _wrapper(names: Sequence[str]) -> str:
    """A clause about a prefix that all names have and that hides a known layout; empty where there is none."""
    prefix, makers = "", []
    while found := next((one for one in _WRAPPERS if all(name.startswith(prefix + one) for name in names)), ""):
        prefix += found
        makers.append(_WRAPPERS[found])
    if not prefix or families.find_naming(name.removeprefix(prefix) for name in names) is None:
        return ""
    return (
        f"every tensor name begins with `{prefix}`, as {' and '.join(makers)} leaves it: save the model again without "
        "that prefix (unwrap it before save_pretrained, or rename the tensors)"
    )


def _quantisation(config: ModelConfig | None, tensors: Mapping[str, TensorEntry]) -> str | None:
    if config and config.quantisation:
        return config.quantisation
    last = {name.rpartition(".")[2] for name in tensors}
    for endings, name in _QUANTISED:
        if all(any(word.endswith(ending) for word in last) for ending in endings):
            return name
    return None
