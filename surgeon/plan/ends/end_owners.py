"""Embeddings, final norm and head: their donors, and whether the head is tied to the embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ...checkpoint import TensorEntry
from ...checkpoint.families.naming import Place
from ...checkpoint.tensor_equality import alike, equal
from ...recipe.schema import ENDS, End, Recipe
from ...text import number, one_line, size
from ..findings import Finding
from ..model import Donor, PlannedEnd, PlannedTensor
from ..operands import Convert, Copy
from ..planned_slices import PlannedSlice, single

_COMPARED = 512 << 20
"""Size in bytes up to which planning compares two tables in full."""

MakeTensor = Callable[[Place, Sequence[TensorEntry], "Owner", End], "PlannedTensor | None"]
"""Plans one tensor of an end: its place, each donor's entry, the donors, and the end whose parameters apply."""


@dataclass(frozen=True)
class Owner:
    """The donors of an end: one, or several that a slice's method blends."""

    donors: tuple[Donor, ...]
    part: PlannedSlice

    @property
    def first(self) -> Donor:
        """The donor whose tensors, tokenizer and tied head are decisive."""
        return self.donors[0]

    @property
    def letters(self) -> tuple[str, ...]:
        """Letters of all donors."""
        return tuple(donor.letter for donor in self.donors)


@dataclass(frozen=True)
class Owners:
    """The owner of each end."""

    by_end: Mapping[End, Owner]

    def of(self, end: End) -> Owner:
        """The owner of one end."""
        return self.by_end[end]

    @property
    def embeddings(self) -> Donor:
        """The (first) donor of the embeddings."""
        return self.by_end["embeddings"].first

    @property
    def final_norm(self) -> Donor:
        """The (first) donor of the final norm."""
        return self.by_end["final_norm"].first

    @property
    def lm_head(self) -> Donor:
        """The (first) donor of the head."""
        return self.by_end["lm_head"].first

    @property
    def letters(self) -> set[str]:
        """Letters of all donors of ends."""
        return {letter for owner in self.by_end.values() for letter in owner.letters}


def owners(recipe: Recipe, first: Owner, last: Owner, by_ref: Mapping[str, Donor]) -> Owners:
    """The owner of each end: the donor that the recipe names, else `first` (embeddings) or `last` (norm and head)."""
    chosen: dict[End, Owner] = {}
    for end, default in zip(ENDS, (first, last, last), strict=True):
        value = recipe.end(end)
        named = by_ref.get(value.model) if value and value.model else None
        chosen[end] = Owner((named,), single(named.ref)) if named else default
    return Owners(chosen)


def plan_ends(
    recipe: Recipe, who: Owners, make: MakeTensor, template: Donor
) -> tuple[dict[str, PlannedEnd], list[Finding]]:
    """The three ends with their tensors, and the findings about them.

    Args:
        recipe: the recipe.
        who: the owner of each end.
        make: plans one tensor.
        template: the donor of the config, whose class determines whether there is a language-model head.
    """
    ends: dict[str, PlannedEnd] = {}
    findings: list[Finding] = []
    copied: tuple[End, ...] = ("embeddings", "final_norm")
    for end in copied:
        owner = who.of(end)
        places = {suffix: Place(end, -1, suffix) for suffix in owner.first.checkpoint.ends[end]}
        found = [donor.checkpoint.ends[end] for donor in owner.donors]
        tensors = _made(places, found, owner, end, make, findings)
        ends[end] = PlannedEnd(end, owner.first.letter, _how(owner) if places else "missing", tensors, owner.letters)
    if template.checkpoint.headless:
        ends["lm_head"] = PlannedEnd("lm_head", None, "absent")
    else:
        ends["lm_head"] = _head(recipe, who, make, findings, ends["embeddings"])
        findings += _head_findings(recipe, who, ends["lm_head"])
        if ends["lm_head"].how == "materialised":
            more = _twins(who.of("embeddings"), "embeddings", make, findings)
            ends["embeddings"] = replace(ends["embeddings"], tensors=(*ends["embeddings"].tensors, *more))
    return ends, [*findings, *_missing(recipe, who, ends)]


def _missing(recipe: Recipe, who: Owners, ends: Mapping[str, PlannedEnd]) -> Iterator[Finding]:
    """Errors for the recipe's keys of an end that its donor does not have, because they would have no effect."""
    for end in ("embeddings", "final_norm"):
        donor = who.of(end).first
        if recipe.end(end) is not None and not ends[end].tensors and not donor.checkpoint.ends[end]:
            yield Finding(
                "error",
                "end-missing",
                f"`{end}` has no effect",
                f"surgeon finds no {end.replace('_', ' ')} tensor in {donor.letter} ({one_line(donor.ref)})",
                f"remove `{end}`, or list the tensor names with `surgeon inspect --tensors`",
            )


def _how(owner: Owner) -> str:
    return "blended" if len(owner.donors) > 1 else "copied"


def _made(
    places: Mapping[str, Place],
    found: Sequence[Mapping[str, TensorEntry]],
    owner: Owner,
    end: End,
    make: MakeTensor,
    findings: list[Finding],
) -> tuple[PlannedTensor, ...]:
    """The tensors of an end, each from all its donors; adds a finding for each tensor that a donor lacks."""
    tensors = []
    for suffix, place in places.items():
        entries = [table[suffix] for table in found if suffix in table]
        if len(entries) < len(owner.donors):
            lacking = next(d for d, table in zip(owner.donors, found, strict=True) if suffix not in table)
            findings.append(_lacks(end, suffix, owner.first, lacking))
        elif (tensor := make(place, entries, owner, end)) is not None:
            tensors.append(tensor)
    return tuple(tensors)


def _lacks(end: End, suffix: str, one: Donor, other: Donor) -> Finding:
    return Finding(
        "error",
        "end-tensors",
        f"The {end} of {one.letter} and {other.letter} cannot be blended",
        f"{one.letter} has {one_line(suffix)}, but {other.letter} does not",
        f"set one donor for {end}: `{end}: {{model: ...}}`",
    )


def _head(recipe: Recipe, who: Owners, make: MakeTensor, findings: list[Finding], embeddings: PlannedEnd) -> PlannedEnd:
    owner, explicit = who.of("lm_head"), recipe.lm_head
    letter, heads = owner.first.letter, [donor.checkpoint.ends["lm_head"] for donor in owner.donors]
    if explicit and explicit.tie:
        return PlannedEnd("lm_head", who.embeddings.letter, "tied")
    if all(donor.checkpoint.tied for donor in owner.donors):
        # The weight is the embedding, but the bias of a tied head is stored separately.
        places = {name: Place("lm_head", -1, name) for name in heads[0] if not name.endswith("weight")}
        biases = _made(places, heads, owner, "lm_head", make, findings)
        if owner.letters == who.of("embeddings").letters:
            return PlannedEnd("lm_head", letter, "tied", biases, owner.letters)
        places, tables = _tables(owner)
        copies = _made(places, tables, owner, "lm_head", make, findings)
        same_operation = len(copies) == 1 and any(_same_operation(copies[0], tensor) for tensor in embeddings.tensors)
        if same_operation and _one_table(owner, who.of("embeddings")):
            return PlannedEnd("lm_head", letter, "tied", biases, owner.letters)
        how = "materialised" if places else "missing"
        biases += _twins(owner, "lm_head", make, findings)
        return PlannedEnd("lm_head", letter, how, (*copies, *biases), owner.letters)
    if any(donor.checkpoint.tied for donor in owner.donors):
        # If only some donors are tied, the embedding of a tied donor is blended as its head.
        _, tables = _tables(owner)
        weight = next((name for head, donor in zip(heads, owner.donors, strict=True) if not donor.checkpoint.tied
                       for name in head if name.endswith("weight")), "weight")  # fmt: skip
        heads = [
            {weight: next(iter(table.values()))} if donor.checkpoint.tied and table else head
            for donor, head, table in zip(owner.donors, heads, tables, strict=True)
        ]
    places = {suffix: Place("lm_head", -1, suffix) for head in heads for suffix in head}
    tensors = _made(places, heads, owner, "lm_head", make, findings)
    return PlannedEnd("lm_head", letter, _how(owner) if places else "missing", tensors, owner.letters)


def _same_operation(one: PlannedTensor, other: PlannedTensor) -> bool:
    """Whether both tensors are copied, or both converted with the same dtype and factor."""
    mine, theirs = one.source, other.source
    if isinstance(mine, Convert) and isinstance(theirs, Convert):
        return (one.dtype, mine.factor) == (other.dtype, theirs.factor)
    return isinstance(mine, Copy) and isinstance(theirs, Copy)


def _one_table(one: Owner, other: Owner, *, sampled: bool = False) -> bool:
    """Whether two donors' token embeddings hold the same bytes; `sampled` compares only some pages."""
    first, second = (owner.first.checkpoint.token_embedding for owner in (one, other))
    if first is None or second is None or len(one.donors) > 1 or len(other.donors) > 1:
        return False
    if first.name in one.first.overlay or second.name in other.first.overlay:
        return False
    with suppress(OSError):
        return alike(first, second) if sampled else first.nbytes <= _COMPARED and equal(first, second)
    return False


def _tables(owner: Owner) -> tuple[dict[str, Place], list[dict[str, TensorEntry]]]:
    """The place of a head made from embeddings, and each donor's embedding table, both by the table's name."""
    naming = owner.first.checkpoint.naming
    assert naming is not None
    found = []
    for donor in owner.donors:
        ends, table = donor.checkpoint.ends["embeddings"], donor.checkpoint.token_embedding
        found.append({suffix: entry for suffix, entry in ends.items() if entry is table})
    return {suffix: naming.head_for(suffix) for suffix in found[0]}, found


def _twins(owner: Owner, end: End, make: MakeTensor, findings: list[Finding]) -> tuple[PlannedTensor, ...]:
    """Tensors that a tied model stores once and an untied one under two names: the ones with the second name."""
    found = [donor.checkpoint.ends[end] for donor in owner.donors]
    naming = owner.first.checkpoint.naming
    made: tuple[PlannedTensor, ...] = ()
    stacks = {"decoder", *(held.partition(".")[0] for held in found[0])}
    for name, other in naming.layout.twins if naming else ():
        if name in found[0] and other not in found[0] and other.partition(".")[0] in stacks:
            made += _made({name: Place(end, -1, other)}, found, owner, end, make, findings)
    return made


def _head_findings(recipe: Recipe, who: Owners, head: PlannedEnd) -> Iterator[Finding]:
    donor = who.lm_head
    if head.how == "materialised":
        cost = f"{number(sum(t.numel for t in head.tensors))} parameters, {size(sum(t.nbytes for t in head.tensors))}"
        same = _one_table(who.of("lm_head"), who.of("embeddings"), sampled=True)
        yield Finding(
            "warning",
            "head-materialised",
            f"The head is written as a copy of {donor.letter}'s embedding ({cost} more), and tie_word_embeddings "
            "becomes false",
            f"{donor.letter} ties its head to its own embedding, but the embedding comes from {who.embeddings.letter}"
            + ("; their sampled pages are the same, but they are too large to compare in full" if same else ""),
            "set `lm_head: {tie: true}` to use the embedding as the head instead",
        )
    elif head.how == "missing":
        yield Finding(
            "error",
            "head-missing",
            f"{donor.letter} has no output head",
            "its head is not tied to the embedding, and its files contain none",
            "name another donor under lm_head",
        )
    elif head.how == "tied" and recipe.lm_head and recipe.lm_head.tie and not who.embeddings.checkpoint.tied:
        yield Finding(
            "warning",
            "head-tied",
            f"The embedding of {who.embeddings.letter} becomes the head, although it was trained with a separate head",
            "the recipe sets lm_head: {tie: true}",
        )
    elif head.how == "copied" and who.embeddings.checkpoint.tied and not donor.checkpoint.tied:
        yield Finding(
            "note",
            "tied-mixed",
            f"The head is {donor.letter}'s, and tie_word_embeddings becomes false",
            f"{who.embeddings.letter}, the donor of the embeddings, ties its head, but {donor.letter} does not",
        )
    stored = any(suffix.endswith("weight") for suffix in donor.checkpoint.ends["lm_head"])
    if head.how == "tied" and stored and donor.checkpoint.tied:
        yield Finding(
            "note",
            "head-ignored",
            f"The head stored in {donor.letter} is left out",
            "its config ties the head to the embedding",
        )
