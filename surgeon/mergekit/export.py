"""Exports a recipe to mergekit: its documents without surgeon's own keys, or the reason why that is impossible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError
from ..plan.donors.open_donors import Donors
from ..plan.model import Plan
from ..plan.resolve import resolve
from ..recipe.document import Document, as_data
from ..recipe.schema import Recipe
from ..text import one_line
from . import differences
from .compile import compiled, is_plain, raw_dtypes
from .plan_difference import difference
from .precision import in_float32, output, rounds_repeatedly, rounds_to_16_bits, with_keys
from .refusal import Refusal

_REFERENCES = frozenset({"model", "base_model", "source", "tokenizer_source", "name"})
"""Keys whose values name donors and stages."""


@dataclass(frozen=True)
class Exported:
    """A recipe from which mergekit makes the same tensors.

    Attributes:
        document: the recipe.
        notes: notes for the user before running it, each a clause.
        changed: whether the recipe had own keys, or had another meaning in mergekit.
    """

    document: Document
    notes: tuple[str, ...]
    changed: bool


@dataclass(frozen=True)
class _PlannedDocument:
    """A document with the stages that it may use, and its plan."""

    document: Document
    plan: Plan


def export(document: Document, donors: Donors) -> Exported:
    """The recipe for mergekit 0.1.5. A recipe without own keys stays unchanged with its comments, except for its seed.

    Args:
        document: a recipe whose donors have references for mergekit (`localised`).
        donors: opens the donors.

    Raises:
        InputError: the recipe has errors, or mergekit cannot express it; with the reason and, if known, the line.
    """
    rest = document.stages
    several = [replace(stage, stages=tuple(other for other in rest if other is not stage)) for stage in rest]
    every = [_PlannedDocument(one, _planned(one, donors)) for one in (*several, document)]
    _check_names(document)
    for one in every:
        with _located(one.document):
            differences.check(one.document, one.plan)
    plain = all(is_plain(one.document, donors.depth) for one in every)
    if plain:
        for one in every:
            with _located(one.document):
                slices = one.document.recipe.explicit(donors.depth)
                differences.check_written(one.document, one.plan, one.plan, slices)
        recipes, notes = [one.document.recipe for one in every], list(_rounding(every))
    else:
        found = [_compiled(one, donors) for one in every]
        recipes, notes = _rounded_once(every, found)
    result = _rewritten(document, [with_keys(recipe, {}, ("seed",)) for recipe in recipes])
    plan = every[-1].plan if plain else _verified(document, every[-1].plan, result, donors)
    notes += differences.notes(plan, several=bool(rest))
    return Exported(result, tuple(dict.fromkeys(notes)), not plain)


def _planned(document: Document, donors: Donors) -> Plan:
    plan = resolve(document, donors)
    if not plan.ok:
        finding = plan.errors[0]
        raise InputError(
            f"the recipe has errors: {finding.what}", where=_where(document, finding.line), why=finding.why
        )
    return plan


def _where(document: Document, line: int | None) -> str:
    name = str(document.path) if document.path else "the recipe"
    return f"{name}, line {line}" if line else name


@contextmanager
def _located(document: Document) -> Iterator[None]:
    """Turn a refusal into an error with the place in the document."""
    try:
        yield
    except Refusal as refusal:
        raise InputError(
            "mergekit cannot express this recipe",
            where=_where(document, document.line(*refusal.place) or document.line("models")),
            why=refusal.why,
            remedy=refusal.remedy,
        ) from refusal


def _check_names(document: Document) -> None:
    """Refuse names of stages that also occur as other words: mergekit-multi would read those as the stage."""
    names = {stage.recipe.name for stage in (document, *document.stages) if stage.recipe.name}
    for stage in (document, *document.stages) if document.stages else ():
        for word in _words(as_data(stage.recipe), ""):
            if word in names:
                why = f"mergekit-multi reads every word {one_line(word)} as the stage of that name"
                with _located(stage):
                    raise Refusal(why, "name", remedy="give the stage another name")


def _words(value: Any, key: str) -> Iterator[str]:
    """Every word in a recipe that is not the name of a donor or stage."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _words(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item, key)
    elif isinstance(value, str) and key not in _REFERENCES:
        yield value


def _compiled(one: _PlannedDocument, donors: Donors) -> Recipe:
    def planned(recipe: Recipe) -> Plan:
        return resolve(replace(one.document, recipe=recipe, key_problems=()), donors)

    with _located(one.document):
        return compiled(one.document, one.plan, donors.depth, planned)


def _rounding(every: Sequence[_PlannedDocument]) -> Iterator[str]:
    """A note if mergekit rounds more often than surgeon."""
    stages, last = every[:-1], every[-1]
    out = output(last.document.recipe, last.plan.tensors)
    if any(rounds_repeatedly(one.document.recipe, one.plan) for one in every) or any(
        rounds_to_16_bits(one.plan) for one in stages
    ):
        keys = f" (with `dtype: float32` and `out_dtype: {out}` it rounds once)" if out else ""
        yield f"mergekit rounds more than once, so the last digits differ{keys}"


def _rounded_once(every: Sequence[_PlannedDocument], recipes: list[Recipe]) -> tuple[list[Recipe], list[str]]:
    """The recipes with computation in float32 if mergekit would otherwise round more than once, and notes on it."""
    stages, last = every[:-1], every[-1]
    between = any(rounds_to_16_bits(one.plan) for one in stages)
    if not between and not any(rounds_repeatedly(recipe, one.plan) for recipe, one in zip(recipes, every, strict=True)):
        return recipes, []
    out = output(last.document.recipe, last.plan.tensors)
    if out is None:
        return recipes, ["mergekit rounds more than once, so the last digits differ"]
    note = "the exported recipe makes mergekit compute in float32 and round once, as surgeon does"
    return [*(in_float32(recipe, None) for recipe in recipes[:-1]), in_float32(recipes[-1], out)], [note]


def _rewritten(document: Document, recipes: Sequence[Recipe]) -> Document:
    """The document with other recipes, that of the result last; comments stay."""
    *stages, last = recipes
    result = _with_recipe(document, last)
    for number, recipe in enumerate(stages):
        written = _with_recipe(result.stages[number], recipe)
        # An unchanged stage is returned as it is, without the other documents.
        result = written if written.stages else result
    return result


def _with_recipe(document: Document, recipe: Recipe) -> Document:
    if raw_dtypes(document) - {None, recipe.dtype, recipe.out_dtype}:
        # mergekit does not know this spelling of the dtype, and the recipe compares equal, so it is removed first.
        document = _same(document, document.with_recipe(with_keys(document.recipe, {}, ("dtype", "out_dtype"))))
    return document.with_recipe(recipe)


def _same(old: Document, new: Document) -> Document:
    """The document of the same name in a text that was parsed again."""
    return next(one for one in (new, *new.stages) if one.recipe.name == old.recipe.name)


def _verified(document: Document, wanted: Plan, result: Document, donors: Donors) -> Plan:
    """The plan of the exported recipe; InputError if it differs from the original's."""
    found = _planned(result, donors)
    if differs := difference(wanted, found):
        with _located(document):
            raise Refusal(differs)
    return found
