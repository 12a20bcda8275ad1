"""The plan as plain values. The TUI, `surgeon plan`, assembling and probing all read this and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..checkpoint import Checkpoint, TensorEntry
from ..checkpoint.dtypes import nbytes
from ..checkpoint.families import Place
from ..recipe.schema import Recipe
from ..text import one_line

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Something a user should know before writing: what, why, and what to do.

    Attributes:
        severity: an `error` stops assembling; a `warning` is likely wrong; a `note` says what is done.
        code: a stable short name, such as `hidden-size`.
        what: one sentence without a full stop.
        why: the reason.
        remedy: what to do about it; may be empty.
        layers: output layers it is about.
        line: line of the recipe, from 1.
    """

    severity: Severity
    code: str
    what: str
    why: str = ""
    remedy: str = ""
    layers: tuple[int, ...] = ()
    line: int | None = None

    def sentence(self) -> str:
        """All of it as text, safe for a terminal."""
        text = f"{self.what}: {self.why}." if self.why else f"{self.what}."
        if self.remedy:
            end = "" if self.remedy.endswith("?") else "."
            text += f" {self.remedy[0].upper()}{self.remedy[1:]}{end}"
        return one_line(text)


@dataclass(frozen=True)
class Donor:
    """A checkpoint under its letter; `ref` is how the recipe names it."""

    letter: str
    ref: str
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Copy:
    """These bytes, unchanged."""

    entry: TensorEntry


@dataclass(frozen=True)
class Convert:
    """One tensor times `factor`, in the output's dtype: computed one step wider than the
    tensor (float32 for 16-bit types, float64 for F32 scaled and for F64), rounded once."""

    entry: TensorEntry
    factor: float = 1.0


TensorSource = Copy | Convert


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output; `dtype` is the safetensors code, `place` where it belongs, `donor` its letter."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    source: TensorSource
    place: Place
    donor: str

    @cached_property
    def nbytes(self) -> int:
        """Bytes in the output."""
        count = nbytes(self.dtype, self.source.entry.numel)
        assert count is not None
        return count

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.source.entry.numel


@dataclass(frozen=True)
class PlannedLayer:
    """One output layer: (letter, layer) of each source, its method, tensors and own attributes.

    `tensors` is empty when the source does not exist (there is an error finding then).
    """

    index: int
    sources: tuple[tuple[str, int], ...]
    method: str
    slice_index: int
    tensors: tuple[PlannedTensor, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Provenance as it is shown everywhere: `B08`, or `A16~B16` for a blend."""
        return "~".join(f"{letter}{index:02d}" for letter, index in self.sources)

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

    `how` is `copied`, `tied` (the head is the embedding, nothing is written), `materialised` (the head is a copy of
    a tied donor's embedding) or `missing`.
    """

    role: str
    donor: str | None
    how: str
    tensors: tuple[PlannedTensor, ...] = ()


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
