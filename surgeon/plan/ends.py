"""Embeddings, final norm and head: whose they are, and whether the head is the embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ..checkpoint import TensorEntry
from ..checkpoint.families import Place
from ..recipe.schema import ENDS, End, Recipe
from .types import Donor, Finding, PlannedEnd, PlannedTensor

MakeTensor = Callable[[Place, TensorEntry, Donor, End], PlannedTensor]
"""Plans one tensor of an end: its place, the donor's entry, the donor, and the end whose parameters apply."""


@dataclass(frozen=True)
class Owners:
    """The donor of each end."""

    embeddings: Donor
    final_norm: Donor
    lm_head: Donor

    def of(self, end: End) -> Donor:
        """The donor of one end."""
        donor = getattr(self, end)
        assert isinstance(donor, Donor)
        return donor


def owners(recipe: Recipe, first: Donor, last: Donor, by_ref: Mapping[str, Donor]) -> Owners:
    """Who gives which end: the recipe's own keys, else the first slice's donor (embeddings) and the last one's."""
    chosen = {}
    for end, default in zip(ENDS, (first, last, last), strict=True):
        value = recipe.end(end)
        named = by_ref.get(value.model) if value and value.model else None
        chosen[end] = named or default
    return Owners(**chosen)


def plan_ends(recipe: Recipe, who: Owners, make: MakeTensor) -> tuple[dict[str, PlannedEnd], list[Finding]]:
    """The three ends with their tensors, and what the user should know about the head."""
    ends: dict[str, PlannedEnd] = {}
    findings: list[Finding] = []
    copied: tuple[End, ...] = ("embeddings", "final_norm")
    for end in copied:
        donor = who.of(end)
        entries = donor.checkpoint.ends[end]
        tensors = tuple(make(Place(end, -1, suffix), entry, donor, end) for suffix, entry in entries.items())
        ends[end] = PlannedEnd(end, donor.letter, "copied" if tensors else "missing", tensors)
    ends["lm_head"] = _head(recipe, who, make)
    findings += _head_findings(recipe, who, ends["lm_head"])
    return ends, findings


def _head(recipe: Recipe, who: Owners, make: MakeTensor) -> PlannedEnd:
    donor = who.lm_head
    explicit = recipe.lm_head
    own = donor.checkpoint.ends["lm_head"]
    naming = donor.checkpoint.naming
    if explicit and explicit.tie:
        return PlannedEnd("lm_head", who.embeddings.letter, "tied")
    if donor.checkpoint.tied:
        if donor.letter == who.embeddings.letter:
            # The table is the embedding, but a bias of the head is its own.
            beside = {suffix: entry for suffix, entry in own.items() if not suffix.endswith("weight")}
            tensors = tuple(
                make(Place("lm_head", -1, suffix), entry, donor, "lm_head") for suffix, entry in beside.items()
            )
            return PlannedEnd("lm_head", donor.letter, "tied", tensors)
        assert naming is not None
        table = donor.checkpoint.token_embedding
        tokens = {suffix: entry for suffix, entry in donor.checkpoint.ends["embeddings"].items() if entry is table}
        copies = tuple(make(naming.head_for(suffix), entry, donor, "lm_head") for suffix, entry in tokens.items())
        return PlannedEnd("lm_head", donor.letter, "materialised" if copies else "missing", copies)
    tensors = tuple(make(Place("lm_head", -1, suffix), entry, donor, "lm_head") for suffix, entry in own.items())
    return PlannedEnd("lm_head", donor.letter, "copied" if tensors else "missing", tensors)


def _head_findings(recipe: Recipe, who: Owners, head: PlannedEnd) -> Iterator[Finding]:
    donor = who.lm_head
    if head.how == "materialised":
        yield Finding(
            "note",
            "head-materialised",
            f"The head is written out as a copy of {donor.letter}'s embedding, and tie_word_embeddings becomes false",
            f"{donor.letter} ties its head to its own embedding, but the embedding comes from {who.embeddings.letter}",
            "set `lm_head: {tie: true}` to use the embedding as the head instead",
        )
    elif head.how == "missing":
        yield Finding(
            "error",
            "head-missing",
            f"{donor.letter} has no output head",
            "it is not tied to its embedding, and its files hold none",
            "name another donor under lm_head",
        )
    elif head.how == "tied" and recipe.lm_head and recipe.lm_head.tie and not who.embeddings.checkpoint.tied:
        yield Finding(
            "warning",
            "head-tied",
            f"The head becomes the embedding of {who.embeddings.letter}, which was trained with a head of its own",
            "lm_head: {tie: true} asks for it",
        )
    elif head.how == "copied" and who.embeddings.checkpoint.tied and not donor.checkpoint.tied:
        yield Finding(
            "note",
            "tied-mixed",
            f"The head is {donor.letter}'s own and tie_word_embeddings becomes false",
            f"{who.embeddings.letter}, the donor of the embeddings, ties its head, and {donor.letter} does not",
        )
    stored = any(suffix.endswith("weight") for suffix in donor.checkpoint.ends["lm_head"])
    if head.how == "tied" and stored and donor.checkpoint.tied:
        yield Finding(
            "note",
            "head-ignored",
            f"The head stored in {donor.letter} is left out",
            "its config ties the head to the embedding",
        )
