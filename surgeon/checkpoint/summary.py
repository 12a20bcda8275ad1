"""Facts about a checkpoint as plain data for `inspect`: a summary, the details of a layer, every tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..text import ranges
from .checkpoint import Checkpoint
from .header import TensorEntry

_ATTRIBUTES = ("attention", "window", "rope", "mlp")
_SHOWN_RUNS = 6
_LONGEST_PERIOD = 16


@dataclass(frozen=True)
class LayerRun:
    """Adjacent layers with the same value of an attribute; `first` and `last` are included."""

    value: Any
    first: int
    last: int


@dataclass(frozen=True)
class Attribute:
    """One per-layer attribute (`attention`, `window`, `rope`, `mlp`) as runs over the whole depth."""

    name: str
    runs: tuple[LayerRun, ...]

    @property
    def uniform(self) -> bool:
        """Whether every layer has the same value."""
        return len(self.runs) == 1

    def text(self) -> str:
        """`full`, `5 sliding, 1 full, repeating`, `sliding 0-4, full 5` or `full 3, 11, 12; else sliding`."""
        pairs = [(index, run.value) for run in self.runs for index in range(run.first, run.last + 1)]
        values = [value for _, value in pairs]
        if self.uniform:
            return _word(values[0])
        for period in range(2, min(len(values) // 2, _LONGEST_PERIOD) + 1):
            if all(value == values[index % period] for index, value in enumerate(values)):
                lead = ", ".join(f"{run.last - run.first + 1} {_word(run.value)}" for run in _runs(pairs[:period]))
                return f"{lead}, repeating"
        if len(self.runs) <= _SHOWN_RUNS:
            return ", ".join(f"{_word(run.value)} {ranges(range(run.first, run.last + 1))}" for run in self.runs)
        where: dict[str, list[int]] = {}
        for index, value in pairs:
            where.setdefault(_word(value), []).append(index)
        *rare, common = sorted(where, key=lambda word: len(where[word]))
        return "; ".join([f"{word} {ranges(where[word])}" for word in rare] + [f"else {common}"])


@dataclass(frozen=True)
class TensorRow:
    """One tensor; `dtype` is the safetensors code, `file` is relative to the checkpoint's folder."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    file: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name, "dtype": self.dtype, "shape": list(self.shape), "bytes": self.nbytes, "file": self.file,
        }  # fmt: skip


@dataclass(frozen=True)
class LayerDetail:
    """One layer: its tensors by name within the layer, and its attributes."""

    index: int
    attributes: Mapping[str, Any]
    tensors: tuple[TensorRow, ...]
    parameters: int
    nbytes: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "index": self.index,
            "attributes": dict(self.attributes),
            "parameters": self.parameters,
            "bytes": self.nbytes,
            "tensors": [row.to_dict() for row in self.tensors],
        }


@dataclass(frozen=True)
class TokenizerSummary:
    """The tokenizer's identity; `digest` is empty without a tokenizer, and None if its files cannot be read."""

    digest: str | None
    tokens: int | None
    special: Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """A whole checkpoint.

    Attributes:
        what: the kind of model in words, if it is not a decoder that generates text; else empty.
        vocabulary: number of tokens in the config; `embedding_rows` is the number of rows of the tensor.
        dtypes: safetensors dtype -> bytes of its tensors, the largest first.
        parameters: elements of all tensors; packed elements of quantised formats count as stored.
        layer_parameters: the smallest and the largest number of elements of a layer; None without layers.
        other: tensors that belong to no layer and to no end.
        problems: reasons why it cannot be spliced.
    """

    ref: str
    path: str
    what: str
    architecture: str
    model_type: str
    layers: int
    hidden_size: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    intermediate_size: int | None
    experts: int | None
    vocabulary: int | None
    embedding_rows: int | None
    context: int | None
    rope: Mapping[str, Any]
    attributes: tuple[Attribute, ...]
    tied: bool
    quantisation: str | None
    dtypes: Mapping[str, int]
    parameters: int
    layer_parameters: tuple[int, int] | None
    embedding_parameters: int
    head_parameters: int
    nbytes: int
    files: int
    tensors: int
    other: tuple[str, ...]
    tokenizer: TokenizerSummary
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; every key is always present."""
        least, most = self.layer_parameters or (None, None)
        return {
            "ref": self.ref,
            "path": self.path,
            "architecture": self.architecture,
            "model_type": self.model_type,
            "layers": self.layers,
            "hidden_size": self.hidden_size,
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "experts": self.experts,
            "vocabulary": self.vocabulary,
            "embedding_rows": self.embedding_rows,
            "context": self.context,
            "rope": dict(self.rope),
            "attributes": {
                attribute.name: [{"value": run.value, "first": run.first, "last": run.last} for run in attribute.runs]
                for attribute in self.attributes
            },
            "tied": self.tied,
            "quantisation": self.quantisation,
            "dtypes": dict(self.dtypes),
            "parameters": {
                "total": self.parameters,
                "per_layer": {"min": least, "max": most},
                "embeddings": self.embedding_parameters,
                "head": self.head_parameters,
            },
            "bytes": self.nbytes,
            "files": self.files,
            "tensors": self.tensors,
            "other_tensors": len(self.other),
            "tokenizer": {
                "digest": self.tokenizer.digest,
                "tokens": self.tokenizer.tokens,
                "special": dict(self.tokenizer.special),
            },
            "problems": list(self.problems),
            "warnings": list(self.warnings),
            "what": self.what,
        }


def summarise(checkpoint: Checkpoint) -> Summary:
    """The summary of an open checkpoint. It reads the tokenizer; an invalid one becomes a warning."""
    config = checkpoint.config
    counts = [layer.numel for layer in checkpoint.layers]
    tokenizer, complaint = _tokenizer(checkpoint)
    table = checkpoint.token_embedding
    return Summary(
        ref=checkpoint.ref,
        path=str(checkpoint.path),
        what=_what(checkpoint),
        architecture=config.architecture if config else "",
        model_type=config.model_type if config else "",
        layers=checkpoint.depth,
        hidden_size=config.hidden_size if config else (table.shape[1] if table else None),
        heads=config.heads if config else None,
        kv_heads=config.kv_heads if config else None,
        head_dim=config.head_dim if config else None,
        intermediate_size=config.intermediate_size if config else None,
        experts=config.experts if config else None,
        vocabulary=config.vocab_size if config else None,
        embedding_rows=table.shape[0] if table else None,
        context=config.context if config else None,
        rope=config.rope if config else {},
        attributes=_attributes(checkpoint),
        tied=checkpoint.tied,
        quantisation=checkpoint.quantisation,
        dtypes=checkpoint.dtypes,
        parameters=checkpoint.numel,
        layer_parameters=(min(counts), max(counts)) if counts else None,
        embedding_parameters=_numel(checkpoint.ends["embeddings"].values()),
        head_parameters=_numel(checkpoint.ends["lm_head"].values()),
        nbytes=checkpoint.nbytes,
        files=len(checkpoint.files),
        tensors=len(checkpoint.tensors),
        other=tuple(checkpoint.other),
        tokenizer=tokenizer,
        problems=checkpoint.problems,
        warnings=(*checkpoint.warnings, *complaint),
    )


def _what(checkpoint: Checkpoint) -> str:
    """What kind of model this is, where it does not generate text as a decoder does."""
    config = checkpoint.config
    if config is not None and config.raw.get("is_encoder_decoder"):
        return "an encoder-decoder: the layers of its decoder are spliced and blended, the encoder comes along"
    names = [entry.name for layer in checkpoint.layers[:1] for entry in layer.tensors.values()]
    if names and all("encoder.layer." in name for name in names):
        return "an encoder: its layers are spliced and blended; it reads text and generates none"
    if checkpoint.headless:
        return "a model without a language-model head: it is spliced and blended, and generates no text"
    return ""


def layer_detail(checkpoint: Checkpoint, index: int) -> LayerDetail:
    """The details of one layer; InputError if there is no such layer."""
    layer = next((layer for layer in checkpoint.layers if layer.index == index), None)
    if layer is None:
        have = ranges(layer.index for layer in checkpoint.layers)
        raise InputError(
            f"there is no layer {index}",
            where=checkpoint.ref,
            remedy=f"its layers are {have}" if have else "surgeon recognises no layers in it",
        )
    rows = tuple(_row(checkpoint, name, entry) for name, entry in sorted(layer.tensors.items()))
    return LayerDetail(index, layer.attributes, rows, layer.numel, layer.nbytes)


def tensor_rows(checkpoint: Checkpoint) -> list[TensorRow]:
    """Every tensor, in the order of files and offsets."""
    return [_row(checkpoint, name, entry) for name, entry in checkpoint.tensors.items()]


def _row(checkpoint: Checkpoint, name: str, entry: TensorEntry) -> TensorRow:
    file = entry.file
    inside = file.relative_to(checkpoint.folder) if file.is_relative_to(checkpoint.folder) else file
    return TensorRow(name, entry.dtype, entry.shape, entry.nbytes, str(inside))


def _numel(entries: Iterable[TensorEntry]) -> int:
    return sum(entry.numel for entry in entries)


def _tokenizer(checkpoint: Checkpoint) -> tuple[TokenizerSummary, tuple[str, ...]]:
    try:
        found = checkpoint.tokenizer
    except InputError as error:
        return TokenizerSummary(None, None, {}), (f"the tokenizer cannot be read ({error.what})",)
    return TokenizerSummary(found.digest, found.tokens, found.special), ()


def _attributes(checkpoint: Checkpoint) -> tuple[Attribute, ...]:
    present = {name for layer in checkpoint.layers for name in layer.attributes}
    names = [name for name in _ATTRIBUTES if name in present] + sorted(present - {*_ATTRIBUTES})
    columns = {name: [(layer.index, layer.attributes.get(name)) for layer in checkpoint.layers] for name in names}
    return tuple(Attribute(name, tuple(_runs(pairs))) for name, pairs in columns.items())


def _runs(pairs: Sequence[tuple[int, Any]]) -> list[LayerRun]:
    """The runs of (layer, value) pairs, which are in the order of layers; a missing layer ends a run."""
    runs: list[LayerRun] = []
    for index, value in pairs:
        if runs and runs[-1].value == value and runs[-1].last == index - 1:
            runs[-1] = LayerRun(value, runs[-1].first, index)
        else:
            runs.append(LayerRun(value, index, index))
    return runs


def _word(value: Any) -> str:
    if value is None:
        return "none"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
