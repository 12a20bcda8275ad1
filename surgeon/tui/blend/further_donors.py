"""The donors that layers can be blended with, and why others cannot. It has no widget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import SurgeonError
from ...plan import resolve
from ...recipe import document as documents
from ...recipe import stack
from ...recipe.schema import EndSource, Recipe, Slice, Source
from ..session import Session

Run = tuple[str, int, int]


@dataclass(frozen=True)
class Offer:
    """A donor's layers.

    Attributes:
        run: the donor and its layers `[start, stop)`.
        why_not: why they cannot be blended with those in place; empty if they can.
    """

    run: Run
    why_not: str = ""


def further_donors(session: Session, sources: Sequence[Sequence[tuple[str, int]]]) -> list[Offer]:
    """For each donor its layers of the same numbers, or the nearest that it has; those that can be blended first.

    Args:
        sources: for each layer the donors and layers that it consists of.
    """
    first, count = sources[0][0][1], len(sources)
    offers: list[Offer] = []
    for ref in session.models:
        checkpoint = session.checkpoint(ref)
        if checkpoint is None or checkpoint.depth < count:
            continue
        start = min(first, checkpoint.depth - count)
        if (ref, start) not in sources[0]:
            run = (ref, start, start + count)
            offers.append(Offer(run, why_not(session, sources, run)))
    return sorted(offers, key=lambda offer: bool(offer.why_not))


def why_not(session: Session, sources: Sequence[Sequence[tuple[str, int]]], run: Run) -> str:
    """Why layers cannot be blended with a run of the same length, as the plan says it; empty if they can.

    The first and the last layer stand for all.
    """
    ref, start, _ = run
    for offset in dict.fromkeys((0, len(sources) - 1)):
        here = [*sources[offset], (ref, start + offset)]
        if found := _plan_error(session, here):
            return found
    return ""


def _plan_error(session: Session, sources: Sequence[tuple[str, int]]) -> str:
    """The error of a plan that blends these layers and nothing else; empty without one."""
    # The ends are those of the first donor: whether they can be blended is another question.
    end = EndSource(model=sources[0][0])
    blended = tuple(
        Source(model=model, layer_range=(layer, layer + 1), parameters={"weight": 1.0}) for model, layer in sources
    )
    recipe = Recipe(
        merge_method="linear", base_model=sources[0][0], embeddings=end, final_norm=end, lm_head=end,
        slices=(Slice(sources=blended),),
    )  # fmt: skip
    try:
        errors = resolve(documents.fresh(recipe), session.donors).errors
    except SurgeonError as error:
        return error.sentence()
    if not errors:
        return ""
    telling = next((finding for finding in errors if finding.code in _TELLING), errors[0])
    why = f": {telling.why}" if telling.code == "blend-shapes" else ""
    what = telling.what
    return (what[0].lower() + what[1:] if what.startswith("The ") else what) + why


_TELLING = ("family", "hidden-size", "heads", "kv-heads", "head-dim", "intermediate-size")
"""Codes of findings that say more than which tensors differ."""


def in_place(session: Session, start: int, stop: int) -> list[tuple[tuple[str, int], ...]]:
    """The donors and layers that each of the output layers `[start, stop)` consists of."""
    slices = session.recipe.explicit(session.donors.depth)
    return [cell.sources for cell in stack.cells(slices)][start:stop]
