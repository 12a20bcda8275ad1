"""A recipe for mergekit: its documents without own keys, or the reason why there can be none."""

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
from .precision import computed, exactly, loses, output, said
from .refusal import Refusal

_REFERENCES = frozenset({"model", "base_model", "source", "tokenizer_source", "name"})
"""Keys whose words name donors and stages."""


@dataclass(frozen=True)
class Exported:
    """A recipe that mergekit runs to the same tensors.

    Attributes:
        document: it.
        notes: what to know before running it, each a clause.
        changed: it had own keys, or something that mergekit takes otherwise.
    """

    document: Document
    notes: tuple[str, ...]
    changed: bool


@dataclass(frozen=True)
class _One:
    """A document, the others that it may use, and its plan."""

    document: Document
    plan: Plan


def export(document: Document, donors: Donors) -> Exported:
    """The recipe for mergekit 0.1.5. A recipe without own keys stays as it is, comments and all, but for its seed.

    Args:
        document: its donors named as mergekit finds them (`localised`).
        donors: opens them.

    Raises:
        InputError: the recipe has errors, or mergekit cannot express it; with the reason, and the line where there is
            one.
    """
    rest = document.stages
    several = [replace(stage, stages=tuple(other for other in rest if other is not stage)) for stage in rest]
    every = [_One(one, _planned(one, donors)) for one in (*several, document)]
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
    result = _rewritten(document, [said(recipe, {}, ("seed",)) for recipe in recipes])
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
    """Makes a refusal an error that says where."""
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
    """Refuse names of stages that mergekit-multi would take for one wherever they occur."""
    names = {stage.recipe.name for stage in (document, *document.stages) if stage.recipe.name}
    for stage in (document, *document.stages) if document.stages else ():
        for word in _words(as_data(stage.recipe), ""):
            if word in names:
                why = f"mergekit-multi takes every word {one_line(word)} for the stage of that name"
                with _located(stage):
                    raise Refusal(why, "name", remedy="give the stage another name")


def _words(value: Any, key: str) -> Iterator[str]:
    """Every word in a recipe that is meant as no donor."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _words(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item, key)
    elif isinstance(value, str) and key not in _REFERENCES:
        yield value


def _compiled(one: _One, donors: Donors) -> Recipe:
    def planned(recipe: Recipe) -> Plan:
        return resolve(replace(one.document, recipe=recipe, key_problems=()), donors)

    with _located(one.document):
        return compiled(one.document, one.plan, donors.depth, planned)


def _rounding(every: Sequence[_One]) -> Iterator[str]:
    """Whether mergekit rounds more often than surgeon does."""
    stages, last = every[:-1], every[-1]
    out = output(last.document.recipe, last.plan.tensors)
    if any(loses(one.document.recipe, one.plan) for one in every) or any(computed(one.plan) for one in stages):
        keys = f" (`dtype: float32` with `out_dtype: {out}` makes it one)" if out else ""
        yield f"mergekit rounds more than once on the way, so that last digits differ{keys}"


def _rounded_once(every: Sequence[_One], recipes: list[Recipe]) -> tuple[list[Recipe], list[str]]:
    """The recipes computed in float32 where mergekit would else round in between."""
    stages, last = every[:-1], every[-1]
    between = any(computed(one.plan) for one in stages)
    if not between and not any(loses(recipe, one.plan) for recipe, one in zip(recipes, every, strict=True)):
        return recipes, []
    out = output(last.document.recipe, last.plan.tensors)
    if out is None:
        return recipes, ["mergekit rounds more than once on the way, so that last digits differ"]
    note = "mergekit is told to compute in float32 and to round once, as surgeon does"
    return [*(exactly(recipe, None) for recipe in recipes[:-1]), exactly(recipes[-1], out)], [note]


def _rewritten(document: Document, recipes: Sequence[Recipe]) -> Document:
    """The document with other recipes, the last stage's last; comments stay."""
    *stages, last = recipes
    result = _with_recipe(document, last)
    for number, recipe in enumerate(stages):
        written = _with_recipe(result.stages[number], recipe)
        # A stage that stays as it is comes back as itself, without the documents around it.
        result = written if written.stages else result
    return result


def _with_recipe(document: Document, recipe: Recipe) -> Document:
    if raw_dtypes(document) - {None, recipe.dtype, recipe.out_dtype}:
        # Spelled in a way that mergekit does not know, and the same to surgeon.
        document = _same(document, document.with_recipe(said(document.recipe, {}, ("dtype", "out_dtype"))))
    return document.with_recipe(recipe)


def _same(old: Document, new: Document) -> Document:
    """The document of the same name in a text that was parsed anew."""
    return next(one for one in (new, *new.stages) if one.recipe.name == old.recipe.name)


def _verified(document: Document, wanted: Plan, result: Document, donors: Donors) -> Plan:
    """The plan of what is written, the same as the original's."""
    found = _planned(result, donors)
    if differs := difference(wanted, found):
        with _located(document):
            raise Refusal(differs)
    return found
