"""A document's slices for mergekit: all pieces as slices of one method, with slices for the ends around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..plan.model import Plan
from ..plan.planned_slices import PlannedSlice
from ..recipe.parameters import has_gradient, over
from ..recipe.schema import ENDS, End, Recipe, Slice, Source
from ..text import one_line
from .copied_layers import copied
from .end_slices import first_end, last_end, widened
from .facts import BASELESS
from .refusal import Refusal
from .stack_pieces import Piece
from .written_parameters import with_default

DepthOf = Callable[[str], int]


@dataclass(frozen=True)
class Stack:
    """The input from which slices for mergekit are made.

    Attributes:
        recipe: the recipe with mergekit's words and references.
        plan: the plan of the original recipe.
        planned: the recipe's slices with their methods.
        pieces: the layers.
        depth_of: gives the number of layers of a donor.
        refs: every donor; blended donors come first.
    """

    recipe: Recipe
    plan: Plan
    planned: Sequence[PlannedSlice]
    pieces: Sequence[Piece]
    depth_of: DepthOf
    refs: Sequence[str]

    def partner(self, ref: str, count: int) -> Source:
        """A donor other than `ref` with `count` layers, for methods that need a second one.

        Raises:
            Refusal: there is none.
        """
        for other in self.refs:
            if other != ref and self.depth_of(other) >= count:
                return Source(model=other, layer_range=(0, count))
        raise Refusal(f"no other donor has the {count} layers that the method needs for a copied layer")

    def methods(self) -> tuple[str, ...]:
        """The methods that could express all its layers.

        Raises:
            Refusal: the document blends by several methods.
        """
        blending = {piece.method: piece.place for piece in self.pieces if piece.method != "passthrough"}
        if len(blending) > 1:
            one, other = list(blending)[:2]
            raise Refusal(
                f"slices are blended by {one} and by {other}, but mergekit has one method for all of them",
                *blending[other],
                remedy="use stages: a document with a `name:` for each method, and one that copies from them",
            )
        ends = [part.name for end, part in self._outer() if self.plan.ends[end].tensors and part.name != "passthrough"]
        return tuple(blending) or tuple(ends[:1]) or ("passthrough", "linear")

    def _outer(self) -> Iterator[tuple[End, PlannedSlice]]:
        """(end, slice) of the ends that are blended or copied with a slice instead of a separate donor."""
        for end, part in zip(ENDS, (self.planned[0], self.planned[-1], self.planned[-1]), strict=True):
            own = self.recipe.end(end)
            if own is None or own.model is None:
                yield end, part


def candidates(made: Stack, method: str) -> Iterator[tuple[Slice, ...] | Refusal]:
    """Candidates for the slices in one method: alone, and with slices for the ends before, after, and on both sides.

    The caller uses the first candidate that gives the right ends. A candidate that cannot be written is a `Refusal`.
    """
    body = [part for piece in made.pieces for part in _body(made, piece, method)]
    for before, after in ((False, False), (True, False), (False, True), (True, True)):
        try:
            slices = list(body)
            if after:
                slices.append(last_end(made.recipe, made.plan, made.planned, method, made.partner).slice())
            if before:
                end = first_end(made.recipe, made.plan, made.planned, method, made.partner)
                slices.insert(0, widened(end, [source.model for source in slices[-1].sources], method).slice())
            yield tuple(slices)
        except Refusal as error:
            yield error


def _body(made: Stack, piece: Piece, method: str) -> Iterator[Slice]:
    """The slices of a piece."""
    if piece.method == method and not piece.alone:
        part = piece.slice
        data = {name: getattr(part, name) for name in part.model_fields_set & {"sources", "parameters"}}
        yield Slice.model_construct(
            _fields_set=set(data) | ({"base_model"} if piece.base else set()), **{**data, "base_model": piece.base}
        )
        return
    assert piece.method == "passthrough", "methods() refuses any other"
    source, scale = _scaled(made.recipe, piece)
    start, stop = source.layer_range or (0, 0)
    longest = stop - start if method in BASELESS else _longest(made, source.model)
    for low in range(start, stop, max(1, longest)):
        high = min(stop, low + longest)
        if scale is not None and (low, high) != (start, stop):
            raise Refusal(f"{method} cannot multiply a copied layer", *piece.place)
        try:
            yield copied(source.model_copy(update={"layer_range": (low, high)}), scale, method, made.partner)
        except Refusal as error:
            why = f"layer {piece.first} is a copy of {one_line(source.model)}, and {error.why}"
            raise Refusal(why, *piece.place) from error


def _longest(made: Stack, ref: str) -> int:
    return max((made.depth_of(other) for other in made.refs if other != ref), default=0)


def _scaled(recipe: Recipe, piece: Piece) -> tuple[Source, object]:
    """The source of a copied piece, and its scale combined from all tables (None without one)."""
    source = piece.slice.sources[0]
    tables: list[Mapping[str, object]] = [source.parameters, piece.slice.parameters]
    shared = recipe.parameters.get("scale")
    if not piece.alone and (piece.whole or not has_gradient(shared)):
        tables.append(recipe.parameters)  # A piece that was cut has its own part of the gradients.
    scale: object = None
    for table in reversed(tables):
        if "scale" in table:
            scale = over(table["scale"], scale)
    if piece.alone and scale is None and shared is not None:
        scale = 1.0
    elif piece.alone and shared is not None:
        scale = with_default(scale, 1.0)
    return Source(model=source.model, layer_range=source.layer_range), scale
