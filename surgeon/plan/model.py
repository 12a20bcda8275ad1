"""The plan as immutable values. Assemble, probe and the screens read only these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint, TensorEntry
from ..checkpoint.adapter.lora import Adapter
from ..checkpoint.dtypes import nbytes
from ..checkpoint.families.naming import Naming, Place
from ..methods.registry import Word
from ..recipe.schema import Recipe
from .findings import Finding
from .new_tokenizer import NewTokenizer
from .operands import Blend, Convert, Copy, Operand, Stored, TensorSource, random_seed


@dataclass(frozen=True)
class Donor:
    """A checkpoint with its letter. `ref` is its name in the recipe.

    `overlay` has the computed tensors, by name, of a donor with an adapter or of an unwritten stage. `layer_labels` are
    the sources of each layer of a stage, such as `B16~C16`. `adapter` is the adapter on the checkpoint, if any.
    """

    letter: str
    ref: str
    checkpoint: Checkpoint
    overlay: Mapping[str, Operand] = field(default_factory=dict)
    layer_labels: tuple[str, ...] = ()
    adapter: Adapter | None = None

    def adapted(self, tensors: Mapping[str, TensorEntry]) -> list[str]:
        """The names of those tensors that an adapter changes."""
        if self.adapter is None:
            return []
        return [name for name, entry in tensors.items() if entry.name in self.overlay]

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
class Blended:
    """What the tensors of a blended layer have beside their method and parameters.

    Attributes:
        tables: for each input of a blend, the tensors of its layer by name within the layer.
        numbers: for each input the index of its source in the slice, from which its seed is made.
        seed: the recipe's seed.
    """

    tables: tuple[Mapping[str, TensorEntry], ...]
    numbers: tuple[int, ...]
    seed: int


@dataclass(frozen=True, eq=False)
class LayerContents:
    """The tensors of a layer, wherever in the output it stands. Those of one group differ only in the expert's number.

    Attributes:
        naming: names the tensors.
        order: the names of all tensors within the layer, in the order of the output.
        groups: the same names in groups.
        firsts: the first tensor of each group, as planned for some output layer.
        first: the tensors of the first source, by name within the layer.
        attributes: the layer's attributes.
        blended: what it is blended from; None if it is copied from one donor.
        donors: the donors that it is made from.
    """

    naming: Naming
    order: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    firsts: tuple[PlannedTensor, ...]
    first: Mapping[str, TensorEntry]
    attributes: Mapping[str, Any]
    blended: Blended | None
    donors: tuple[Donor, ...]

    def at(self, index: int) -> tuple[PlannedTensor, ...]:
        """All tensors, for output layer `index`."""
        found = {
            suffix: self._tensor(first, suffix, index)
            for first, group in zip(self.firsts, self.groups, strict=True)
            for suffix in group
        }
        return tuple(found[suffix] for suffix in self.order)

    def _tensor(self, first: PlannedTensor, suffix: str, index: int) -> PlannedTensor:
        place = Place("layer", index, suffix)
        name, source, alone = self.naming.name(place), first.source, suffix == first.place.suffix
        if isinstance(source, Blend) and self.blended is not None:
            made = self.blended
            inputs = source.inputs if alone else tuple(Stored(table[suffix]) for table in made.tables)
            seeds = tuple(random_seed(made.seed, number, name) for number in made.numbers)
            source = replace(source, inputs=inputs, seeds=seeds)
        elif not alone:
            assert not isinstance(source, Blend), "only plain tensors are in a group"
            source = replace(source, entry=self.first[suffix])
        return PlannedTensor(name, first.dtype, first.shape, source, place, first.donor, first.values)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return self.sums[-1]

    @cached_property
    def numel(self) -> int:
        """Elements of all tensors."""
        return sum(first.numel * len(group) for first, group in zip(self.firsts, self.groups, strict=True))

    @cached_property
    def sums(self) -> tuple[int, ...]:
        """The bytes before each tensor, in their order, and last the bytes of all."""
        sizes = {
            suffix: first.nbytes for first, group in zip(self.firsts, self.groups, strict=True) for suffix in group
        }
        return tuple(accumulate((sizes[suffix] for suffix in self.order), initial=0))

    @cached_property
    def by_dtype(self) -> Mapping[str, int]:
        """safetensors code -> bytes of its tensors, in the order in which they first occur."""
        held: dict[str, int] = {}
        for first, group in zip(self.firsts, self.groups, strict=True):
            held[first.dtype] = held.get(first.dtype, 0) + first.nbytes * len(group)
        return held

    @cached_property
    def scaled(self) -> bool:
        """Whether any tensor is multiplied by a factor."""
        return any(isinstance(first.source, Convert) and first.source.factor != 1.0 for first in self.firsts)

    @cached_property
    def leaves(self) -> tuple[int, int]:
        """Number of stored tensors that all tensors are made from, and the largest number for one."""
        counts = [first.source.leaves for first in self.firsts]
        total = sum(count * len(group) for count, group in zip(counts, self.groups, strict=True))
        return total, max(counts, default=0)


@dataclass(frozen=True, eq=False)
class PlannedLayer:
    """One output layer: (letter, layer) of each source, its method, tensors and attributes.

    `contents` is None if a source does not exist; an error finding reports that. `base` is the index of the source that
    the method subtracts from the others; None without one.
    """

    index: int
    sources: tuple[tuple[str, int], ...]
    method: str
    slice_index: int
    contents: LayerContents | None = None
    base: int | None = None

    @cached_property
    def tensors(self) -> tuple[PlannedTensor, ...]:
        """Its tensors in order. They are made here: ask `contents` for what holds for a whole group of them."""
        return self.contents.at(self.index) if self.contents else ()

    @property
    def firsts(self) -> tuple[PlannedTensor, ...]:
        """A tensor of each group; its name and place may be those in another output layer."""
        return self.contents.firsts if self.contents else ()

    @property
    def groups(self) -> Iterator[tuple[PlannedTensor, tuple[str, ...]]]:
        """Each of `firsts` with the names of its group within the layer."""
        return zip(self.contents.firsts, self.contents.groups, strict=True) if self.contents else iter(())

    def name_of(self, first: PlannedTensor) -> str:
        """The name in this layer of one of `firsts`."""
        assert self.contents is not None
        return self.contents.naming.name(replace(first.place, index=self.index))

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes of the layer that it is, or is blended from first."""
        return self.contents.attributes if self.contents else {}

    @property
    def planned(self) -> bool:
        """Whether it has tensors."""
        return bool(self.firsts)

    @property
    def label(self) -> str:
        """Provenance as every output shows it: `B08`, or `A16~B16` for a blend, without a subtracted base model."""
        shown = [source for number, source in enumerate(self.sources) if number != self.base] or self.sources
        return "~".join(f"{letter}{index:02d}" for letter, index in shown)

    @property
    def nbytes(self) -> int:
        """Bytes of the layer."""
        return self.contents.nbytes if self.contents else 0

    @property
    def numel(self) -> int:
        """Elements of the layer."""
        return self.contents.numel if self.contents else 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PlannedLayer):
            return NotImplemented
        mine, theirs = (
            (one.index, one.sources, one.method, one.slice_index, one.base, one.attributes) for one in (self, other)
        )
        return mine == theirs and (self.contents is other.contents or self.tensors == other.tensors)

    __hash__ = None  # type: ignore[assignment]


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
        ends = (tensor for end in self.ends.values() for tensor in end.tensors)
        firsts = (tensor for layer in self.layers for tensor in layer.firsts)
        return any(not isinstance(tensor.source, Copy) for tensor in (*ends, *firsts, *self.extra))

    @property
    def tied(self) -> bool:
        """Whether the output's head is its embedding."""
        return self.ends["lm_head"].how == "tied"
