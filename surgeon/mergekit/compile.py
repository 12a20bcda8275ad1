"""Compiles one document to a recipe without surgeon's own keys, and compares it with the document's plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..plan.model import Plan
from ..plan.planned_slices import PlannedSlice, parts, rows
from ..recipe.document import Document
from ..recipe.schema import ENDS, Parameters, Recipe, Slice, Source
from ..text import one_line
from .differences import check_written
from .donor_paths import respelled
from .facts import BASELESS, METHODS
from .plan_difference import difference
from .precision import with_keys
from .refusal import Refusal
from .slices import DepthOf, Stack, candidates
from .stack_pieces import pieces
from .written_parameters import has_steps, translated

_OWN = (*ENDS, "first_layers", "last_layers", "seed")
Resolve = Callable[[Recipe], Plan]


def is_plain(document: Document, depth_of: DepthOf) -> bool:
    """Whether the document, except for `seed`, has the same meaning for mergekit as for surgeon."""
    recipe = document.recipe
    if any(getattr(recipe, key) for key in _OWN[:-1]) or "merge_method" not in recipe.model_fields_set:
        return False
    if recipe.merge_method not in METHODS or raw_dtypes(document) - {None, "bfloat16", "float16", "float32"}:
        return False
    if recipe.dtype not in (None, "float32", recipe.out_dtype or recipe.dtype):
        return False
    if any(source.layer_range is None for part in recipe.slices or () for source in part.sources):
        return False
    slices = recipe.explicit(depth_of)
    planned = parts(recipe, slices, depth_of)
    if len(planned[0].sources) < len(planned[-1].sources):
        return False
    return all(_is_plain_slice(recipe, part, given) for part, given in zip(planned, slices, strict=True))


def _is_plain_slice(recipe: Recipe, part: PlannedSlice, given: Slice) -> bool:
    refs = [source.model for source in given.sources]
    if given.merge_method is not None or len(set(refs)) < len(refs) or part.method is None:
        return False
    base = given.base_model or recipe.base_model
    whole = recipe.models is not None
    if part.name in BASELESS:
        # mergekit adds the base to `models:` for every method.
        if whole and base is not None and base not in refs and part.name != "karcher":
            return False
    elif (base is None and part.method.base != "optional") or (base is not None and base not in refs and not whole):
        return False
    tables = (recipe.parameters, given.parameters, *(source.parameters for source in given.sources))
    return all(_is_plain_value(part.name, name, value) for table in tables for name, value in table.items())


def _is_plain_value(method: str, name: str, value: Any) -> bool:
    return name in METHODS[method] and not has_steps(value) and (name != "rescale" or not _has_words(value))


def _has_words(value: Any) -> bool:
    if isinstance(value, dict):
        return _has_words(value.get("value"))
    return any(map(_has_words, value)) if isinstance(value, (list, tuple)) else isinstance(value, str)


def raw_dtypes(document: Document) -> set[str | None]:
    """The dtype names in the text of the document."""
    tree = document.tree
    found: set[str | None] = set()
    for key, item in tree.entries() if tree is not None and tree.kind == "map" else ():
        if key is not None and key.value in ("dtype", "out_dtype"):
            found.add(str(item.value).removeprefix("torch.") if item.value is not None else None)
    return found


def compiled(document: Document, plan: Plan, depth_of: DepthOf, resolve: Resolve) -> Recipe:
    """The document's recipe without surgeon's own keys.

    Args:
        document: a document whose plan has no errors.
        plan: the plan of the document.
        depth_of: gives the number of layers of a donor.
        resolve: plans another recipe in place of the document's.

    Raises:
        Refusal: mergekit cannot express the recipe.
    """
    made = _stack(document, plan, depth_of)
    refusals: list[Refusal] = []
    for method in made.methods():
        for recipe in _recipes(made, method, refusals):
            found = resolve(recipe)
            try:
                _check(document, plan, recipe, found, depth_of)
            except Refusal as refusal:
                refusals.append(refusal)
                continue
            return recipe
    raise refusals[-1]


def _stack(document: Document, plan: Plan, depth_of: DepthOf) -> Stack:
    recipe = document.recipe
    names = frozenset(
        {recipe.merge_method, *(part.merge_method or recipe.merge_method for part in recipe.slices or ())}
    )
    recipe = respelled(_spelled(recipe, names))
    planned = parts(recipe, recipe.explicit(depth_of), depth_of)
    found = rows(recipe, planned, depth_of)
    made = pieces(recipe, planned, found, plan.layers)
    blended = [source.model for piece in made if piece.method != "passthrough" for source in piece.slice.sources]
    refs = tuple(dict.fromkeys([*blended, *recipe.model_refs()]))
    return Stack(recipe, plan, planned, made, depth_of, refs)


def _spelled(recipe: Recipe, methods: frozenset[str]) -> Recipe:
    """The recipe with mergekit's values for surgeon's words, and without parameters that mergekit does not have."""
    methods |= {"passthrough"}

    def table(parameters: Parameters) -> Parameters:
        return translated(parameters, methods)

    def source(given: Source) -> Source:
        return given.model_copy(update={"parameters": table(given.parameters)}) if given.parameters else given

    def part(given: Slice) -> Slice:
        update: dict[str, Any] = {"sources": tuple(map(source, given.sources))}
        if given.parameters:
            update["parameters"] = table(given.parameters)
        return given.model_copy(update=update)

    values: dict[str, Any] = {"parameters": table(recipe.parameters) or None}
    if recipe.slices is not None:
        values["slices"] = tuple(map(part, recipe.slices))
    if recipe.models is not None:
        values["models"] = tuple(
            entry.model_copy(update={"parameters": table(entry.parameters)}) if entry.parameters else entry
            for entry in recipe.models
        )
    for key in ("first_layers", "last_layers"):
        edge = getattr(recipe, key)
        if edge is not None:
            values[key] = edge.model_copy(update={"parameters": table(edge.parameters)})
    return with_keys(recipe, values)


def _recipes(made: Stack, method: str, refusals: list[Refusal]) -> Iterator[Recipe]:
    """Recipes of one method without surgeon's own keys, the simplest first; refusals are added to `refusals`."""
    recipe = made.recipe
    parameters = {name: value for name, value in recipe.parameters.items() if name in METHODS.get(method, {})} or None
    base = recipe.base_model or made.pieces[0].base
    if recipe.models is not None and len(made.pieces) == 1 and made.pieces[0].whole and _lists(recipe, base, made):
        yield with_keys(recipe, {"merge_method": method, "parameters": parameters, "base_model": base}, _OWN)
    for slices in candidates(made, method):
        if isinstance(slices, Refusal):
            refusals.append(slices)
            continue
        base, slices = _based(made, method, slices)
        values = {"merge_method": method, "parameters": parameters, "base_model": base, "slices": slices}
        yield with_keys(recipe, values, (*_OWN, "models", "base_model"))


def _lists(recipe: Recipe, base: str | None, made: Stack) -> bool:
    """Whether `models:`, to which mergekit adds the base, has the same donors as the slice."""
    refs = [entry.model for entry in recipe.models or ()]
    taken = [source.model for source in made.pieces[0].slice.sources]
    return [*refs, *([base] if base and base not in refs else [])] == taken


def _based(made: Stack, method: str, slices: tuple[Slice, ...]) -> tuple[str | None, tuple[Slice, ...]]:
    """The base of the whole recipe, and the slices without bases that equal it."""
    config = made.plan.donors[made.plan.config_donor or ""].ref
    base: str | None = made.recipe.base_model or config
    if method in BASELESS:
        return base, tuple(_without_base(part) for part in slices)
    if any(part.base_model is None for part in slices):
        # A slice cannot override a base of the recipe with none.
        return None, slices
    return base, tuple(_without_base(part) if part.base_model == base else part for part in slices)


def _without_base(part: Slice) -> Slice:
    data = {name: getattr(part, name) for name in part.model_fields_set - {"base_model"}}
    return Slice.model_construct(_fields_set=set(data), **data)


def _check(document: Document, wanted: Plan, recipe: Recipe, found: Plan, depth_of: DepthOf) -> None:
    if not found.ok:
        raise Refusal(f"the exported recipe has an error: {one_line(found.errors[0].what)}")
    tie = document.recipe.lm_head is not None and document.recipe.lm_head.tie
    if tie and found.ends["lm_head"].how in ("copied", "blended"):
        raise Refusal("mergekit writes a separate head if a donor of the last slice has one", "lm_head", "tie")
    if differs := difference(wanted, found):
        raise Refusal(differs)
    check_written(document, wanted, found, recipe.explicit(depth_of))
