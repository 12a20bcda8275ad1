"""Plan the tensors of layers and ends: what each is copied, converted or blended from, and with which parameters."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ...checkpoint import TensorEntry, dtypes
from ...checkpoint.families.naming import Naming, Place
from ...checkpoint.layer_weights import LayerWeights
from ...checkpoint.tensor_equality import alike
from ...recipe.document import Document
from ...recipe.schema import End
from ...text import one_line
from ..ends.end_owners import Owner
from ..ends.token_rows import one_height
from ..findings import Finding, Severity
from ..layer_cache import KeptLayer, LayerCache
from ..model import Blended, Donor, LayerContents, PlannedLayer, PlannedTensor
from ..operands import Blend, Convert, Copy, Operand, Settings, Stored, TensorSource
from ..planned_slices import PlannedSlice, Scope, SettledScope, SliceRow, end_scope, outer_scope, settled_scope
from ..planning_notes import PlanningNotes
from ..tokenizer.output_vocabulary import Built
from .blending import Chooser, Chosen, blend, computable, is_moving, promoted, source_order


@dataclass
class TensorPlanner:
    """Plans tensors one by one, and records their errors.

    Attributes:
        document: the recipe.
        by_ref: its donors, by reference.
        template: the donor of the config, whose tensor names the output has.
        kept: layers that were planned before.
        vocabulary: the output's vocabulary; None if the recipe asks for none or it cannot be made.
        notes: what is wrong with the tensors planned so far.
    """

    document: Document
    by_ref: Mapping[str, Donor]
    template: Donor
    kept: LayerCache
    vocabulary: Built | None = None
    notes: PlanningNotes = field(default_factory=PlanningNotes)
    _moving: dict[str, set[str]] = field(default_factory=dict)
    _sound: dict[tuple[str, Settings, tuple[Settings, ...]], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._chooser = Chooser(self.notes, self._sound)

    @property
    def wanted(self) -> str | None:
        """torch's name of the dtype that the recipe sets; None for none."""
        return self.document.recipe.out_dtype or self.document.recipe.dtype

    def layer(self, layer: PlannedLayer, row: SliceRow) -> PlannedLayer:
        """The layer with its tensors; unchanged if a source or the method does not exist."""
        donors = [self.by_ref.get(ref) for ref, _ in row.sources]
        found = [
            donor.checkpoint.weights(index)
            for donor, (_, index) in zip(donors, row.sources, strict=True)
            if donor is not None and 0 <= index < donor.checkpoint.depth
        ]
        part = row.part
        if part.method is None or len(found) < len(donors) or (part.name == "passthrough" and len(found) > 1):
            return layer
        owner = Owner(tuple(donor for donor in donors if donor is not None), part)
        scope = settled_scope(row.scope, part.method)
        key = self._key(layer.index, row, owner, scope)
        known = self.kept.get(key)
        if known is None:
            known = self._planned(layer.index, row, owner, found, numbered=scope.numbered)
            if not known.notes.problems:  # these name a tensor of the output
                self.kept.keep(key, known)
        self.notes.add(known.notes, layer.index, part.number)
        return replace(layer, contents=known.contents)

    def _key(self, index: int, row: SliceRow, owner: Owner, scope: SettledScope) -> Hashable:
        """Everything that a layer's tensors depend on, except where it stands."""
        part = row.part
        sources = tuple(
            (donor.ref, donor.letter, id(donor.checkpoint), id(donor.overlay), number)
            for donor, (_, number) in zip(owner.donors, row.sources, strict=True)
        )
        frame = (_naming(self.template), self.wanted, self.document.recipe.seed)
        # A filter with a number may match one index of a layer and not another.
        return (frame, part.name, id(part.method), part.base, sources, scope.tables, index if scope.numbered else None)

    def _planned(
        self, index: int, row: SliceRow, owner: Owner, found: Sequence[LayerWeights], *, numbered: bool
    ) -> KeptLayer:
        """Plan a layer, the tensors of a group at once unless something sets them apart."""
        alike = not numbered and all(one.partition == found[0].partition for one in found)
        alike = alike and not any(donor.overlay for donor in owner.donors)
        if alike and len(found[0].groups) < len(found[0].tensors):
            kept = self._by_groups(index, row, owner, found, found[0].groups)
            if not kept.notes.of_tensors:  # what is said of a tensor names it
                return kept
        return self._by_groups(index, row, owner, found, [(suffix,) for suffix in found[0].tensors])

    def _by_groups(
        self, index: int, row: SliceRow, owner: Owner, found: Sequence[LayerWeights], groups: Sequence[tuple[str, ...]]
    ) -> KeptLayer:
        """Plan the first tensor of each group."""
        apart = replace(self, notes=PlanningNotes())
        tables, part = [one.tensors for one in found], row.part
        made: list[tuple[tuple[str, ...], PlannedTensor]] = []
        for group in groups:
            entries = [table[group[0]] for table in tables if group[0] in table]
            if len(entries) < len(tables):
                apart.notes.unequal.setdefault((one_line(group[0]), "not every donor has it"), []).append(index)
                continue
            first = apart._tensor(Place("layer", index, group[0]), entries, owner, row.scope, part)
            made += [(group, first)] if first else []
        for suffix in sorted({suffix for table in tables[1:] for suffix in table} - tables[0].keys()):
            apart.notes.unequal.setdefault((one_line(suffix), "not every donor has it"), []).append(index)
        held = {suffix for group, _ in made for suffix in group}
        numbers = source_order(part)
        blended = None
        if part.name != "passthrough":
            blended = Blended(tuple(tables[n] for n in numbers), tuple(numbers), self.document.recipe.seed)
        contents = LayerContents(
            naming=_naming(self.template),
            order=tuple(suffix for suffix in tables[0] if suffix in held),
            groups=tuple(group for group, _ in made),
            firsts=tuple(first for _, first in made),
            first=tables[0],
            attributes=owner.first.checkpoint.layers[row.sources[0][1]].attributes,
            blended=blended,
            donors=owner.donors,
        )
        return KeptLayer(contents, apart.notes, (part.method,))

    def end(self, place: Place, entries: Sequence[TensorEntry], owner: Owner, end: End) -> PlannedTensor | None:
        """A tensor of an end, with its slice's parameters at the start of gradients, as in mergekit."""
        scope = end_scope(self.document.recipe, owner.part, end)
        made = self._tensor(place, entries, owner, scope, owner.part)
        if made is not None and len(owner.donors) > 1 and end != "embeddings":
            seen = _seen(place, entries, owner)
            for value in made.values:
                if is_moving(value, scope, made.name if value.donor is None else seen[value.donor]):
                    self._moving.setdefault(end, set()).add(value.name)
        return made

    def unplaced(
        self, place: Place, entries: Sequence[TensorEntry], owner: Owner, *, head: bool
    ) -> PlannedTensor | None:
        """A tensor outside layers and ends; `head` gives it the parameters of `lm_head`. None if these have errors."""
        if head:
            scope = end_scope(self.document.recipe, owner.part, "lm_head")
        else:
            scope = outer_scope(self.document.recipe, owner.part)
        return self._tensor(place, entries, owner, scope, owner.part)

    def plain(self, place: Place, entry: TensorEntry, donor: Donor) -> PlannedTensor:
        """A donor's tensor with no change but the output's dtype."""
        return self._one(place, donor.operand(entry), donor, 1.0, None)

    def _tensor(
        self, place: Place, entries: Sequence[TensorEntry], owner: Owner, scope: Scope, part: PlannedSlice
    ) -> PlannedTensor | None:
        name = _naming(self.template).name(place)
        operands = [self._operand(place, donor, entry) for donor, entry in zip(owner.donors, entries, strict=True)]
        chosen = self._chooser.choose(part, scope, name, _seen(place, entries, owner), place.index)
        if chosen is None:
            return None
        if part.name == "passthrough":
            return self._one(place, operands[0], owner.first, float(dict(chosen.each[0])["scale"]), chosen)
        return self._blended(place, name, operands, owner, part, chosen)

    def _operand(self, place: Place, donor: Donor, entry: TensorEntry) -> Operand:
        """A donor's tensor; the rows of a token table follow the output's vocabulary."""
        own = donor.operand(entry)
        tokens = place.role == "lm_head" or entry is donor.checkpoint.token_embedding
        if self.vocabulary is None or not tokens:
            return own
        tables = {other.letter: table for other in self.by_ref.values() if (table := _table(other, place)) is not None}
        return self.vocabulary.operand(donor.letter, {**tables, donor.letter: own})

    def _blended(
        self, place: Place, name: str, operands: list[Operand], owner: Owner, part: PlannedSlice, chosen: Chosen
    ) -> PlannedTensor | None:
        if not computable(operands):
            return self._buffer(place, operands, owner, part)
        if len({operand.shape for operand in operands}) > 1:
            cut = one_height(operands, owner.donors) if place.role in ("embeddings", "lm_head") else None
            if cut is None:
                shapes = ", ".join(
                    f"{list(o.shape)} in {d.letter}" for o, d in zip(operands, owner.donors, strict=True)
                )
                self.notes.unequal.setdefault((one_line(name if place.index < 0 else place.suffix), shapes), []).append(
                    place.index
                )
                return None
            operands = cut
        dtype = dtypes.FROM_TORCH[self.wanted] if self.wanted else promoted([operand.dtype for operand in operands])
        source = blend(part, chosen, operands, self.document.recipe.seed, name, dtype)
        return PlannedTensor(name, dtype, operands[0].shape, source, place, owner.first.letter, chosen.values)

    def _buffer(self, place: Place, operands: Sequence[Operand], owner: Owner, part: PlannedSlice) -> PlannedTensor:
        """A copy from the base model, or else the first donor, of tensors whose dtypes cannot be blended."""
        number = part.base or 0
        operand = operands[number]
        assert isinstance(operand, Stored), "only stored tensors have other dtypes"
        donor = owner.donors[number]
        severity: Severity = "note"
        if any(o.dtype in dtypes.NARROW_FLOATS for o in operands):
            severity = "error"
        elif not all(isinstance(o, Stored) and _same_bytes(operand.entry, o.entry) for o in operands):
            severity = "warning"
        self.notes.buffers.setdefault((severity, donor.letter), {}).setdefault(one_line(place.suffix), []).append(
            place.index
        )
        return PlannedTensor(
            _naming(self.template).name(place), operand.dtype, operand.shape, Copy(operand.entry), place, donor.letter
        )

    def _one(self, place: Place, operand: Operand, donor: Donor, factor: float, chosen: Chosen | None) -> PlannedTensor:
        """One donor's tensor: a copy if its numbers do not change, else a conversion."""
        dtype = operand.dtype
        if dtype in dtypes.ARITHMETIC:
            dtype = dtypes.FROM_TORCH[self.wanted] if self.wanted else dtype
        elif factor != 1.0:
            self.notes.frozen.setdefault(place.suffix, []).append(place.index)
        source = _source(operand, dtype, factor)
        values = chosen.values if chosen else ()
        name = _naming(self.template).name(place)
        return PlannedTensor(name, dtype, operand.shape, source, place, donor.letter, values)

    def findings(self) -> Iterator[Finding]:
        """The findings about all tensors planned so far."""
        yield from self.notes.findings(self.document)
        yield from self._at_start()
        yield from self.notes.copied()

    def _at_start(self) -> Iterator[Finding]:
        """Notes that final norm and head are blended with the first value of every gradient, which few users expect."""
        for end, names in self._moving.items():
            shown = ", ".join(map(one_line, sorted(names)))
            yield Finding(
                "note",
                "end-gradient",
                f"{end} is blended with the first value of each gradient ({shown})",
                "mergekit evaluates all ends at the start of gradients, also those of the last slice",
                f"set `{end}: {{parameters: {{...}}}}` or `{end}: {{model: ...}}` to choose other values",
                line=self.document.line("slices") or self.document.line("models"),
            )


def _same_bytes(one: TensorEntry, other: TensorEntry) -> bool:
    """Whether two small tensors hold the same bytes; False if they cannot be read."""
    with suppress(OSError):
        return alike(one, other)
    return False


def _seen(place: Place, entries: Sequence[TensorEntry], owner: Owner) -> list[str]:
    """The name of a tensor in each donor that filters match; for a materialised head, the head's name."""
    if place.role != "lm_head":
        return [entry.name for entry in entries]
    return [_naming(donor).name(place) for donor in owner.donors]


def _source(operand: Operand, dtype: str, factor: float) -> TensorSource:
    if not isinstance(operand, Stored):
        return Blend("passthrough", (operand,), None, (), ((("scale", factor),),), (0,), dtype)
    if dtype not in dtypes.ARITHMETIC or (dtype == operand.dtype and factor == 1.0):
        return Copy(operand.entry)
    return Convert(operand.entry, factor)


def _table(donor: Donor, place: Place) -> Operand | None:
    """The donor's token table at a place: its embedding, its head (the embedding if tied), or the head's bias; None if
    it has none."""
    entry = donor.checkpoint.token_embedding
    if place.role == "lm_head" and not (donor.checkpoint.tied and place.suffix.endswith("weight")):
        entry = donor.checkpoint.ends["lm_head"].get(place.suffix)
    return None if entry is None else donor.operand(entry)


def _naming(donor: Donor) -> Naming:
    assert donor.checkpoint.naming is not None, "a donor without naming is not spliceable"
    return donor.checkpoint.naming
