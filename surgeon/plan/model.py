"""The plan as plain values. Assembling, probing and the screens read this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint, TensorEntry
from ..checkpoint.dtypes import nbytes
from ..checkpoint.families.naming import Place
from ..methods.registry import Word
from ..recipe.schema import Recipe
from .findings import Finding
from .new_tokenizer import NewTokenizer
from .operands import Copy, Operand, Stored, TensorSource


@dataclass(frozen=True)
class Donor:
    """A checkpoint under its letter; `ref` is how the recipe names it.

    Tensors of a donor that is more than a checkpoint (one with an adapter, an unwritten merge) are in `overlay`.
    """

    letter: str
    ref: str
    checkpoint: Checkpoint
    overlay: Mapping[str, Operand] = field(default_factory=dict)

    def operand(self, entry: TensorEntry) -> Operand:
        """One of its tensors, to compute with."""
        return self.overlay.get(entry.name) or Stored(entry)


@dataclass(frozen=True)
class Value:
    """What one parameter is worth for one output tensor, and where that was said.

    Attributes:
        name: the parameter.
        value: its number or word.
        donor: number of the slice's source whose value it is; None for a parameter that all share.
        origin: `source`, `slice`, `recipe`, `default`, an end or an edge policy of the recipe.
        rule: the filter that matched, where there was one.
    """

    name: str
    value: Word
    donor: int | None
    origin: str
    rule: str = ""


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output.

    Attributes:
        dtype: safetensors code.
        place: where it belongs.
        donor: letter of its donor; of a blend's first one.
        values: the method's parameters for it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: TensorSource
    place: Place
    donor: str
    values: tuple[Value, ...] = ()

    @property
    def entry(self) -> TensorEntry:
        """The tensor on disk that it is made of, the first one of several."""
        return next(self.source.entries())

    @cached_property
    def nbytes(self) -> int:
        """Bytes in the output."""
        count = nbytes(self.dtype, self.numel)
        assert count is not None
        return count

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class PlannedLayer:
    """One output layer: (letter, layer) of each source, its method, tensors and own attributes.

    `tensors` is empty when the source does not exist (there is an error finding then). `base` is the source that the
    others are taken relative to, where the method subtracts one.
    """

    index: int
    sources: tuple[tuple[str, int], ...]
    method: str
    slice_index: int
    tensors: tuple[PlannedTensor, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    base: int | None = None

    @property
    def label(self) -> str:
        """Provenance as it is shown everywhere: `B08`, or `A16~B16` for a blend, without a base that is subtracted."""
        shown = [source for number, source in enumerate(self.sources) if number != self.base] or self.sources
        return "~".join(f"{letter}{index:02d}" for letter, index in shown)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the layer."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def numel(self) -> int:
        """Elements of the layer."""
        return sum(tensor.numel for tensor in self.tensors)


@dataclass(frozen=True)
class PlannedEnd:
    """An end of the network: where it comes from (a letter; None when nothing is written), how, and its tensors.

    `how` is `copied`, `blended`, `tied` (the head is the embedding, nothing is written), `materialised` (the head is a
    copy, or blend, of tied donors' embeddings), `absent` (the class has no language-model head) or `missing`. `donors`
    are the letters of all that are blended.
    """

    role: str
    donor: str | None
    how: str
    tensors: tuple[PlannedTensor, ...] = ()
    donors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimates:
    """Sizes, all in bytes unless named otherwise.

    Attributes:
        parameters: elements of the output, a tied head counted once.
        nbytes: weights on disk.
        shards: files at the shard size asked for.
        kv_per_token: key-value cache of one token in the output's 16-bit dtype (32-bit for float32 models).
        run_context: tokens of context that `run_bytes` reckons with.
        run_bytes: weights and key-value cache for `run_context` tokens.
        disk_bytes: free space assembling needs.
    """

    parameters: int = 0
    nbytes: int = 0
    shards: int = 0
    kv_per_token: int = 0
    run_context: int = 0
    run_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """A recipe resolved.

    Attributes:
        recipe: what was resolved.
        donors: by letter, in order; a donor that could not be opened is missing here and named in an error finding.
        layers: the output stack.
        ends: embeddings, final_norm, lm_head.
        extra: tensors outside layers and ends, taken from the config's donor.
        config: the output's config.json; None when there is no donor to make it from.
        config_donor: letter of the donor of config, tokenizer and generation config.
        files: files to copy, by their name in the output (tokenizer, generation config, ...).
        made: small files that are written anew, by name, as text.
        tokenizer: what tokenizer files are made from; None where the config's donor's are copied.
        findings: errors first.
        estimates: sizes.
    """

    recipe: Recipe
    donors: Mapping[str, Donor]
    layers: tuple[PlannedLayer, ...]
    ends: Mapping[str, PlannedEnd]
    extra: tuple[PlannedTensor, ...]
    config: dict[str, Any] | None
    config_donor: str | None
    files: Mapping[str, Path]
    findings: tuple[Finding, ...]
    estimates: Estimates
    made: Mapping[str, str] = field(default_factory=dict)
    tokenizer: NewTokenizer | None = None

    @cached_property
    def tensors(self) -> tuple[PlannedTensor, ...]:
        """Every output tensor in the order it is written: embeddings, layers, norm, head, the rest."""
        return (
            *self.ends["embeddings"].tensors,
            *(tensor for layer in self.layers for tensor in layer.tensors),
            *self.ends["final_norm"].tensors,
            *self.ends["lm_head"].tensors,
            *self.extra,
        )

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What stops assembling."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether the plan can be carried out."""
        return not self.errors

    @cached_property
    def needs_arithmetic(self) -> bool:
        """Whether any tensor is more than a byte copy (so that torch is needed)."""
        return any(not isinstance(tensor.source, Copy) for tensor in self.tensors)

    @property
    def tied(self) -> bool:
        """Whether the output's head is its embedding."""
        return self.ends["lm_head"].how == "tied"
