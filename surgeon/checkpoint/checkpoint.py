"""A checkpoint: tensors, config and layer table, opened in milliseconds from headers only."""

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
from .layer_weights import LayerWeights, layer_weights
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
"""Endings of tensor names that identify a quantised format; all of a row must occur."""


@dataclass(frozen=True)
class Layer:
    """One layer of a donor: its tensors by name within the layer, and its attributes."""

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
    """An open checkpoint.

    Attributes:
        ref: the reference that the user gave.
        path: the folder, or the single file.
        folder: the folder of config and tokenizer.
        files: weight files, in order.
        tensors: every tensor by name.
        config: config.json; None if there is none.
        naming: the naming of its tensors; None if no known layer prefix occurs.
        layers: the layer table, in order.
        ends: tensors of embeddings, final norm and head, by role and name within the role.
        other: tensors that belong to no layer and to no end.
        head_differs: the config ties the head to the embedding, but a head with other values is stored.
        problems: reasons why it cannot be spliced, as clauses; empty if it can.
        warnings: messages for the user.
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
        """The table with one row per token; None if no such tensor was found."""
        return _token_embedding(self.ends)

    @cached_property
    def quantisation(self) -> str | None:
        """The quantised format, from the config or else from tensor names; None if neither indicates one."""
        return _quantisation(self.config, self.tensors)

    def weights(self, index: int) -> LayerWeights:
        """The tensors of a layer that a model needs, sorted once."""
        if index not in self._weights:
            family = self.config.model_type if self.config else ""
            self._weights[index] = layer_weights(self.layers[index].tensors, family)
        return self._weights[index]

    @cached_property
    def _weights(self) -> dict[int, LayerWeights]:
        return {}

    @cached_property
    def outside(self) -> Mapping[str, TensorEntry]:
        """`other` without the tensors of layers that the config does not count."""
        if self.naming is None:
            return self.other
        return {name: entry for name, entry in self.other.items() if self.naming.place(name).role != "layer"}

    @property
    def headless(self) -> bool:
        """Whether its class has no language-model head and none is stored."""
        return self.config is not None and self.config.headless and not self.ends.get("lm_head")

    @cached_property
    def tied(self) -> bool:
        """Whether the head is the embedding: by the config or the family, or else by the stored tensors.

        A stored head with other values is used even if the config ties the head, as in transformers 5.
        """
        if self.headless:
            return False
        if self.config is None or not self.config.says_tied:
            return bool(self.ends.get("embeddings")) and not self.ends.get("lm_head")
        return self.config.tied and not self.head_differs

    @cached_property
    def dtypes(self) -> dict[str, int]:
        """safetensors dtype -> bytes of its tensors, the largest first."""
        held: dict[str, int] = {}
        for entry in self.tensors.values():
            held[entry.dtype] = held.get(entry.dtype, 0) + entry.nbytes
        return dict(sorted(held.items(), key=lambda item: -item[1]))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer's identity; the first use parses tokenizer.json."""
        return read_tokenizer(self.folder, self.config.text if self.config else {})


def open_checkpoint(ref: str, roots: tuple[Path, ...] = ()) -> Checkpoint:
    """Open a folder, a .safetensors file, or a cached Hub id without reading weights.

    Args:
        ref: the reference that the user typed.
        roots: folders in which a relative `ref` is searched before the working directory.

    Raises:
        InputError: nothing is there, or a file is invalid; names the file and the reason.
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
        warnings.append("config.json ties the head to the embedding, but another head is stored; that one is used")
    return replace(
        made,
        path=path,
        files=files.weights,
        warnings=(*files.warnings, *warnings, *made.warnings),
        metadata=metadata,
        head_differs=head_differs,
    )


def assembled(ref: str, folder: Path, tensors: dict[str, TensorEntry], config: ModelConfig | None) -> Checkpoint:
    """A checkpoint of these tensors, from any files; its tokenizer is the one in `folder`."""
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
    lost = f"layer {ranges(beyond)} lies beyond the {plural(depth, 'layer')} of config.json"
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
                    f"tensor {quoted(entry.name)} is also in {tensors[entry.name].file.name}",
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
                    remedy="download the checkpoint again: index and shards do not match",
                )
        if extra := len(tensors) - len(files.weight_map):
            warnings.append(f"the index lacks {plural(extra, 'tensor')} of the shards")
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
    """Whether a head is stored with other values than the embedding; compares a sample of pages."""
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
        found.append("there is no config.json next to the weights")
    if naming is None:
        wrapped = _wrapper(list(names))
        found.append(wrapped or "no tensor name begins with a known layer prefix")
        return found
    if config is not None:
        if config.depth is None:
            found.append("config.json does not state the number of layers")
        elif config.depth == 0:
            found.append("config.json states 0 layers")
        elif missing := [index for index in range(min(config.depth, _MAX_DEPTH)) if index not in layers]:
            found.append(f"config.json states {config.depth} layers, but the files lack layer {ranges(missing)}")
        if config.raw.get("is_encoder_decoder") and not naming.layout.layers.startswith("decoder."):
            found.append("it is an encoder-decoder with unknown tensor names")
    if quantised and not (config and config.quantisation):
        found.append(f"its tensors are quantised ({quantised}), but config.json does not describe the quantisation")
    if not ends["embeddings"]:
        found.append("no embedding tensor was found")
    return found


_WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "a data-parallel trainer",
    "base_model.model.": "peft",
    "_fsdp_wrapped_module.": "FSDP",
}
"""Prefix of every tensor name -> the module wrapper that adds it."""


def _wrapper(names: Sequence[str]) -> str:
    """A clause about a wrapper prefix that hides a known layout; empty if there is none."""
    prefix, makers = "", []
    while found := next((one for one in _WRAPPERS if all(name.startswith(prefix + one) for name in names)), ""):
        prefix += found
        makers.append(_WRAPPERS[found])
    if not prefix or families.find_naming(name.removeprefix(prefix) for name in names) is None:
        return ""
    return (
        f"every tensor name begins with `{prefix}`, which {' and '.join(makers)} adds: save the model again without "
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
