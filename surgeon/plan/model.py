"""The plan as immutable values. Assemble, probe and the screens read only these."""

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
    """A checkpoint with its letter. `ref` is its name in the recipe.

    `overlay` has the computed tensors, by name, of a donor with an adapter or of an unwritten stage. `layer_labels` are
    the sources of each layer of a stage, such as `B16~C16`.
    """

    letter: str
    ref: str
    checkpoint: Checkpoint
    overlay: Mapping[str, Operand] = field(default_factory=dict)
    layer_labels: tuple[str, ...] = ()

    def operand(self, entry: TensorEntry) -> Operand:
        """The operand that gives one of its tensors: from `overlay`, else the stored tensor."""
        return self.overlay.get(entry.name) or Stored(entry)


@dataclass(frozen=True)
class Value:
    """The value of one parameter for one output tensor, and where the recipe sets it.

    Attributes:
        name: the parameter.
        value: a number, truth value or word.
        donor: index of the slice's source that the value belongs to; None for a parameter that all sources share.
        origin: `source`, `slice`, `recipe`, `default`, or the recipe's key of an end or an edge policy.
        rule: the filter that matched; empty without one.
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
        place: its role, layer and name within the layer.
        donor: letter of its donor, or of the first donor of a blend.
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
        """The stored tensor that it is made from; the first one of several."""
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
    """One output layer: (letter, layer) of each source, its method, tensors and attributes.

    `tensors` is empty if a source does not exist; an error finding reports that. `base` is the index of the source that
    the method subtracts from the others; None without one.
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
        """Provenance as every output shows it: `B08`, or `A16~B16` for a blend, without a subtracted base model."""
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
    """An end of the network: its donor, how it is made, and its tensors.

    `donor` is a letter; None if there is nothing to write. `how` is `copied`, `blended`, `tied` (the head is the
    embedding and is not written), `materialised` (the head is a copy or blend of tied donors' embeddings), `absent`
    (the class has no language-model head) or `missing`. `donors` are the letters of all donors of a blend.
    """

    role: str
    donor: str | None
    how: str
    tensors: tuple[PlannedTensor, ...] = ()
    donors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimates:
    """Estimated sizes, in bytes unless stated otherwise.

    Attributes:
        parameters: number of elements of the output; a tied head counts once.
        nbytes: weights on disk.
        shards: number of files at the requested shard size.
        kv_per_token: key-value cache of one token in the output's 16-bit dtype (32-bit for float32 models).
        run_context: number of context tokens that `run_bytes` assumes.
        run_bytes: weights and key-value cache for `run_context` tokens.
        disk_bytes: free disk space that assembling needs.
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
    """A resolved recipe.

    Attributes:
        recipe: the recipe that was resolved.
        donors: by letter, in order; without donors that cannot be opened, which error findings name.
        layers: the output stack.
        ends: embeddings, final_norm, lm_head.
        extra: tensors outside layers and ends.
        config: the output's config.json; None without a donor to make it from.
        config_donor: letter of the donor of config, tokenizer and generation config.
        files: files to copy (tokenizer, generation config, ...), by their name in the output.
        made: texts of small files that are generated, by name.
        tokenizer: how the tokenizer files are made; None if they are copied from the config's donor.
        findings: errors first, then warnings and notes.
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
        """Every output tensor in file order: embeddings, layers, final norm, head, the rest."""
        return (
            *self.ends["embeddings"].tensors,
            *(tensor for layer in self.layers for tensor in layer.tensors),
            *self.ends["final_norm"].tensors,
            *self.ends["lm_head"].tensors,
            *self.extra,
        )

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that prevent assembling."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def ok(self) -> bool:
        """Whether the plan can be assembled: it has no errors."""
        return not self.errors

    @cached_property
    def needs_arithmetic(self) -> bool:
        """Whether any tensor is more than a byte copy, so that torch is needed."""
        return any(not isinstance(tensor.source, Copy) for tensor in self.tensors)

    @property
    def tied(self) -> bool:
        """Whether the output's head is its embedding."""
        return self.ends["lm_head"].how == "tied"
