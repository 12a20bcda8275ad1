"""The plan as plain values. The TUI, `surgeon plan`, assembling and probing all read this and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, Literal

from ..checkpoint import Checkpoint, TensorEntry
from ..checkpoint.dtypes import nbytes
from ..checkpoint.families import Place
from ..methods.registry import Word
from ..recipe.schema import Recipe
from ..text import one_line
from .newtokenizer import NewTokenizer

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
class Stored:
    """An operand: a donor's tensor as it lies on disk."""

    entry: TensorEntry

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.entry.shape

    @property
    def dtype(self) -> str:
        """Its safetensors code."""
        return self.entry.dtype

    leaves = 1

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        yield self.entry


@dataclass(frozen=True)
class Adapted:
    """An operand: a tensor with a low-rank adapter on it, `whole + factor * up @ down`.

    Attributes:
        down: A, (rank, in).
        up: B, (out, rank).
        transposed: the tensor is (in, out), so that the product is added transposed (`fan_in_fan_out`, embeddings).
        magnitude: DoRA's norms, one per output feature: the sum is scaled to them.
    """

    whole: Operand
    down: TensorEntry
    up: TensorEntry
    factor: float
    transposed: bool = False
    magnitude: TensorEntry | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.whole.shape

    @property
    def dtype(self) -> str:
        """Its safetensors code, that of the tensor below the adapter."""
        return self.whole.dtype

    @cached_property
    def leaves(self) -> int:
        """How many tensors `entries` gives, told without going through them."""
        return self.whole.leaves + 2 + (self.magnitude is not None)

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        yield from self.whole.entries()
        yield from (self.down, self.up, *([self.magnitude] if self.magnitude else []))


@dataclass(frozen=True)
class Rows:
    """An operand: a table of token rows put together from the rows of others.

    Row r is the mean of row `take[p][r]` of every part p where that is not negative; zeros where all are. Where the
    first part's number is `MEAN`, it is the mean of all rows of the result for which it is not.

    Attributes:
        take: one packed array of native int32 per part, of as many numbers as the result has rows.
    """

    parts: tuple[Operand, ...]
    take: tuple[bytes, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return (len(self.take[0]) // 4, *self.parts[0].shape[1:])

    @property
    def dtype(self) -> str:
        """Its safetensors code, that of its first part."""
        return self.parts[0].dtype

    @cached_property
    def leaves(self) -> int:
        """How many tensors `entries` gives, told without going through them."""
        return sum(part.leaves for part in self.parts)

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        for part in self.parts:
            yield from part.entries()


MEAN = -2
"""Among the numbers of `Rows.take`: a row made of all others, for tokens and padding that no donor has a row for."""


Settings = tuple[tuple[str, Word], ...]
"""Parameters by name, in an order that does not matter."""


@dataclass(frozen=True)
class Blend:
    """These operands merged by a method. A source of an output tensor, and an operand of another blend.

    Attributes:
        method: its name in `surgeon.methods`.
        inputs: the donors' tensors; those without elements of their own are left out.
        base: which of them is the base; None without one.
        one: values of the parameters that all share.
        each: for every input (in order, without a base that is subtracted) the values of its own parameters.
        seeds: per input, for what is random.
        code: safetensors code of the result where it is an operand.
    """

    method: str
    inputs: tuple[Operand, ...]
    base: int | None
    one: Settings
    each: tuple[Settings, ...]
    seeds: tuple[int, ...]
    code: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.inputs[0].shape

    @property
    def dtype(self) -> str:
        """Its safetensors code."""
        return self.code

    @cached_property
    def leaves(self) -> int:
        """How many tensors `entries` gives, told without going through them: a stage may use another several times."""
        return sum(operand.leaves for operand in self.inputs)

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        for operand in self.inputs:
            yield from operand.entries()


Operand = Stored | Adapted | Rows | Blend


@dataclass(frozen=True)
class Copy:
    """These bytes, unchanged."""

    entry: TensorEntry
    leaves = 1

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        yield self.entry


@dataclass(frozen=True)
class Convert:
    """One tensor times `factor`, in the output's dtype: computed one step wider than the
    tensor (float32 for 16-bit types, float64 for F32 scaled and for F64), rounded once."""

    entry: TensorEntry
    factor: float = 1.0
    leaves = 1

    def entries(self) -> Iterator[TensorEntry]:
        """Every tensor on disk that it is made of."""
        yield self.entry


TensorSource = Copy | Convert | Blend


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
