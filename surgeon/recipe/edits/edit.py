"""The base class of edits, and the application of an edited stack to a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import InputError
from ...methods import find
from ...text import plural
from .. import stack
from ..parameters import has_gradient, over
from ..schema import Parameters, Recipe, Slice, Source

DepthOf = Callable[[str], int]
"""Gives the number of layers of a donor by its reference; raises InputError if the donor cannot be opened."""


@dataclass(frozen=True)
class Edit:
    """One change of a recipe."""

    verb: ClassVar[str]
    usage: ClassVar[str]
    help: ClassVar[str]

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        """The recipe after the edit; InputError if the edit cannot be applied to this recipe."""
        return restacked(recipe, depth_of, lambda slices: self.stack(slices, depth_of))

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        """The slices after the edit; only for edits that change the stack."""
        raise NotImplementedError

    def touched(self) -> tuple[int, int] | None:
        """Output layers `[start, stop)` that the edit made or moved, to select them after it."""
        return None

    def moved_to(self, start: int, stop: int) -> Edit:
        """The edit for another selection, for repeat."""
        return self


def restacked(recipe: Recipe, depth_of: DepthOf, change: Callable[[Sequence[Slice]], Sequence[Slice]]) -> Recipe:
    """The recipe with changed slices. A slice that is cut gets its part of gradients that the recipe sets for all."""
    slices = _with_base(recipe, recipe.explicit(depth_of), depth_of)
    shared = {name: value for name, value in recipe.parameters.items() if has_gradient(value)}
    held = [_holding(part, shared) for part in slices] if shared else list(slices)
    originals = {id(part): original for part, original in zip(held, slices, strict=True)}
    changed = tuple(originals.get(id(part), part) for part in change(held))
    if changed == slices and recipe.slices is not None:
        return recipe
    if stack.depth(changed) > max(stack.MAX_LAYERS, stack.depth(slices)):
        raise InputError(
            f"the stack would have {stack.depth(changed):,} layers", why=f"the limit is {stack.MAX_LAYERS:,}"
        )
    return _with_slices(recipe, changed)


def _with_base(recipe: Recipe, slices: tuple[Slice, ...], depth_of: DepthOf) -> tuple[Slice, ...]:
    """The slice of `models:`, with the base added as a source if the method uses a base."""
    method, base = find(recipe.merge_method), recipe.base_model
    if recipe.models is None or recipe.slices is not None or base is None or method is None or method.base == "none":
        return slices
    if not slices or any(source.model == base for source in slices[0].sources):
        return slices
    more = Source(model=base, layer_range=(0, depth_of(base)))
    return (slices[0].model_copy(update={"sources": (*slices[0].sources, more)}),)


def _holding(part: Slice, shared: Parameters) -> Slice:
    """A slice that holds the parameters that the recipe sets for all slices."""
    own = {name: over(part.parameters.get(name), value) for name, value in shared.items()}
    return part.model_copy(update={"parameters": {**part.parameters, **own}})


def _with_slices(recipe: Recipe, slices: tuple[Slice, ...]) -> Recipe:
    data: dict[str, Any] = {name: getattr(recipe, name) for name in recipe.model_fields_set - {"models"}}
    if not recipe.slices and not recipe.models:
        data.setdefault("merge_method", recipe.merge_method)
    return Recipe.model_construct(_fields_set=set(data) | {"slices"}, **{**data, "slices": slices})


def check_range(start: int, stop: int, depth: int, what: str = "the stack") -> None:
    """InputError if layers `[start, stop)` do not all exist or are empty."""
    if start < 0 or stop > depth:
        absent = f"is no layer {start}" if stop == start + 1 else f"are no layers {start}-{stop - 1}"
        has = f"0-{depth - 1}" if depth else "none"
        raise InputError(f"there {absent} in {what}", why=f"it has {plural(depth, 'layer')} ({has})")
    if start >= stop:
        raise InputError("the range is empty", remedy="write it first-last, such as 8-23")


def check_donor(model: str, start: int, stop: int, depth_of: DepthOf) -> None:
    """InputError if a donor does not have layers `[start, stop)`."""
    check_range(start, stop, depth_of(model), model)
