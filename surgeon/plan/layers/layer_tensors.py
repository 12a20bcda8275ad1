"""Plan the tensors of layers and ends: what each is copied, converted or blended from, and with which parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from ...checkpoint import TensorEntry, dtypes
from ...checkpoint.families.naming import Naming, Place
from ...checkpoint.tensor_equality import alike
from ...recipe.document import Document
from ...recipe.schema import End
from ...text import one_line
from ..ends.end_owners import Owner
from ..ends.token_rows import one_height
from ..findings import Finding, Severity
from ..model import Donor, PlannedLayer, PlannedTensor
from ..operands import Blend, Convert, Copy, Operand, Stored, TensorSource
from ..planned_slices import PlannedSlice, Scope, SliceRow, end_scope, outer_scope
from ..tokenizer.output_vocabulary import Built
from . import unused_tensors
from .blending import Chooser, Chosen, blend, computable, is_moving, promoted


@dataclass
class TensorPlanner:
    """Plans tensors one by one, and records their errors.

    Attributes:
        document: the recipe.
        by_ref: its donors, by reference.
        template: the donor of the config, whose tensor names the output has.
        chooser: looks up parameters.
        vocabulary: the output's vocabulary; None if the recipe asks for none or it cannot be made.
    """

    document: Document
    by_ref: Mapping[str, Donor]
    template: Donor
    chooser: Chooser
    vocabulary: Built | None = None
    _frozen: dict[str, list[int]] = field(default_factory=dict)
    _unequal: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    _buffers: dict[tuple[Severity, str], dict[str, list[int]]] = field(default_factory=dict)
    _moving: dict[str, set[str]] = field(default_factory=dict)

    @property
    def wanted(self) -> str | None:
        """torch's name of the dtype that the recipe sets; None for none."""
        return self.document.recipe.out_dtype or self.document.recipe.dtype

    def layer(self, layer: PlannedLayer, row: SliceRow) -> PlannedLayer:
        """The layer with its tensors; unchanged if a source or the method does not exist."""
        donors = [self.by_ref.get(ref) for ref, _ in row.sources]
        found = [
            unused_tensors.weights(donor.checkpoint, index)
            for donor, (_, index) in zip(donors, row.sources, strict=True)
            if donor is not None and 0 <= index < donor.checkpoint.depth
        ]
        part = row.part
        if part.method is None or len(found) < len(donors) or (part.name == "passthrough" and len(found) > 1):
            return layer
        owner = Owner(tuple(donor for donor in donors if donor is not None), part)
        tensors = []
        for suffix in found[0]:
            entries = [table[suffix] for table in found if suffix in table]
            if len(entries) < len(found):
                self._unequal.setdefault((one_line(suffix), "not every donor has it"), []).append(layer.index)
                continue
            made = self._tensor(Place("layer", layer.index, suffix), entries, owner, row.scope, part)
            tensors += [made] if made else []
        extra = {suffix for table in found[1:] for suffix in table} - found[0].keys()
        for suffix in sorted(extra):
            self._unequal.setdefault((one_line(suffix), "not every donor has it"), []).append(layer.index)
        attributes = dict(owner.first.checkpoint.layers[row.sources[0][1]].attributes)
        return replace(layer, tensors=tuple(tensors), attributes=attributes)

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
        chosen = self.chooser.choose(part, scope, name, _seen(place, entries, owner), place.index)
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
                self._unequal.setdefault((one_line(name if place.index < 0 else place.suffix), shapes), []).append(
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
        self._buffers.setdefault((severity, donor.letter), {}).setdefault(one_line(place.suffix), []).append(
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
            self._frozen.setdefault(place.suffix, []).append(place.index)
        source = _source(operand, dtype, factor)
        values = chosen.values if chosen else ()
        name = _naming(self.template).name(place)
        return PlannedTensor(name, dtype, operand.shape, source, place, donor.letter, values)

    def findings(self) -> Iterator[Finding]:
        """The findings about all tensors planned so far."""
        yield from self.chooser.findings(self.document)
        yield from _unscalable(self._frozen)
        for (name, why), indices in self._unequal.items():
            layers = tuple(index for index in dict.fromkeys(indices) if index >= 0)
            what = f"{name} cannot be blended" if layers else f"{name} of the ends cannot be blended"
            remedy = "blend donors of one size and kind" + (
                "" if layers else ", or set one donor for the end: `model: ...`"
            )
            yield Finding("error", "blend-shapes", what, why, remedy, layers)
        yield from self._at_start()
        for (severity, letter), by_name in self._buffers.items():
            names = ", ".join(list(by_name)[:3]) + (" and more" if len(by_name) > 3 else "")
            layers = tuple(dict.fromkeys(i for indices in by_name.values() for i in indices if i >= 0))
            if severity == "error":
                what, why = f"{names} cannot be blended", "their numbers are floating-point numbers of 8 bits or fewer"
                remedy = "convert the donors to bfloat16 first"
                yield Finding("error", "blend-dtype", what, why, remedy, layers)
                continue
            differ = ", and the donors' values differ" if severity == "warning" else ""
            yield Finding(
                severity,
                "buffers-copied",
                f"{names} are not blended but copied from {letter}",
                f"their numbers are not floating-point numbers of 16 bits or more{differ}",
                layers=layers,
            )

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


def _unscalable(asked: Mapping[str, Sequence[int]]) -> Iterator[Finding]:
    """Errors for tensors whose dtype cannot be scaled.

    Args:
        asked: by name, the layers in which the recipe scales such a tensor.
    """
    for name, indices in asked.items():
        yield Finding(
            "error",
            "scale-type",
            f"{one_line(name)} cannot be scaled",
            "its numbers are not floating-point numbers of 16 bits or more",
            "exclude it with a filter",
            tuple(indices),
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
