"""Planned slices: their method, all their sources, and the tables in which their parameters are looked up."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..methods import Method, find
from ..recipe import stack
from ..recipe.parameters import filters, position, settled
from ..recipe.schema import EdgePolicy, End, Recipe, Slice, Source


class Table(NamedTuple):
    """A parameter table, its place in the recipe, and the position (0 to 1) on its gradients."""

    origin: str
    parameters: Mapping[str, Any]
    t: float


@dataclass(frozen=True)
class Taper:
    """Interpolation between an edge policy's values and the slice's; `weight` is the share of the policy's."""

    table: Table
    weight: float


@dataclass(frozen=True)
class Scope:
    """The parameter tables that apply to a tensor.

    Attributes:
        sources: the table of each source.
        shared: the tables of the slice and of the recipe.
        edge: the table of an edge policy or an end, which precedes all others; None without one.
        taper: an edge policy with a taper, instead of `edge`.
    """

    sources: tuple[Table, ...]
    shared: tuple[Table, ...]
    edge: Table | None = None
    taper: Taper | None = None

    def levels(self, source: int | None) -> list[Table]:
        """The tables for a parameter of one source (None: a shared parameter), the most specific first."""
        first = [self.edge] if self.edge else []
        return [*first, *([] if source is None else [self.sources[source]]), *self.shared]


class SettledScope(NamedTuple):
    """A scope at its gradient position, without what its method does not read.

    Attributes:
        tables: every setting that is looked up. Scopes with equal tables give every tensor the same values.
        numbered: whether a filter has a digit, so that it may match by the number of a layer or an expert.
    """

    tables: Hashable
    numbered: bool


def settled_scope(scope: Scope, method: Method) -> SettledScope:
    """The scope of a layer as its tensors see it."""
    numbered = False

    def settle(table: Table) -> Hashable:
        nonlocal numbered
        read = [name for name in table.parameters if name in method.parameters]
        numbered = numbered or any(
            char.isdigit() for name in read for text in filters(table.parameters[name]) for char in text
        )
        return table.origin, tuple((name, settled(table.parameters[name], table.t)) for name in read)

    tables = tuple(map(settle, (*scope.sources, *scope.shared)))
    edge = settle(scope.edge) if scope.edge else None
    taper = (settle(scope.taper.table), scope.taper.weight) if scope.taper else None
    return SettledScope((tables, edge, taper), numbered)


@dataclass(frozen=True)
class PlannedSlice:
    """A slice with its method.

    Attributes:
        slice: the slice with its sources, including the base model if the method needs one.
        number: index of the slice in the recipe; -1 for a copy from one donor outside the slices.
        name: the method's name.
        method: the method; None if there is none of that name.
        base: index of the source that is the method's base model; None without one.
        base_ref: the donor that the recipe names as base model.
        only_base: the recipe's method, if the base model is the only source and is therefore copied; else empty.
    """

    slice: Slice
    number: int
    name: str
    method: Method | None
    base: int | None
    base_ref: str | None
    only_base: str = ""

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources."""
        return self.slice.sources

    def scope(self, recipe: Recipe, t: float) -> Scope:
        """The tables in which parameters are looked up at gradient position `t`."""
        sources = tuple(Table("source", source.parameters, t) for source in self.sources)
        return Scope(sources, (Table("slice", self.slice.parameters, t), Table("recipe", recipe.parameters, t)))


@dataclass(frozen=True)
class SliceRow:
    """One output layer.

    Attributes:
        index: its index in the output.
        part: its slice; if an edge policy names a donor, a slice of that donor alone.
        sources: (reference, layer) of every source.
        scope: the tables in which its parameters are looked up.
        slice_index: index of its slice in the recipe.
    """

    index: int
    part: PlannedSlice
    sources: tuple[tuple[str, int], ...]
    scope: Scope
    slice_index: int


def parts(recipe: Recipe, slices: Sequence[Slice], depth_of: Callable[[str], int]) -> tuple[PlannedSlice, ...]:
    """The slices with their methods and base models.

    Args:
        slices: slices with explicit ranges.
        depth_of: returns the number of layers of a donor.
    """
    return tuple(_part(recipe, part, number, depth_of) for number, part in enumerate(slices))


def _part(recipe: Recipe, part: Slice, number: int, depth_of: Callable[[str], int]) -> PlannedSlice:
    name = part.merge_method or recipe.merge_method
    method, ref = find(name), part.base_model or recipe.base_model
    listed = next((index for index, source in enumerate(part.sources) if source.model == ref), None)
    if method is None or ref is None or (method.base == "none" and not _counts(recipe, method)):
        return PlannedSlice(part, number, name, method, None, ref)
    if method.subtracts and [source.model for source in part.sources] == [ref]:
        # There is no task vector to add: the result is the base model, with its adapter if it has one.
        return PlannedSlice(part, number, "passthrough", find("passthrough"), None, ref, only_base=name)
    whole = recipe.models is not None
    if listed is None and (whole or method.base in ("start", "required")):
        span = (0, depth_of(ref)) if whole else _common_range(part)
        if span is not None:
            part = part.model_copy(update={"sources": (*part.sources, Source(model=ref, layer_range=span))})
            listed = len(part.sources) - 1
    return PlannedSlice(part, number, name, method, None if method.base in ("member", "none") else listed, ref)


def _counts(recipe: Recipe, method: Method) -> bool:
    """Whether mergekit uses an unlisted base model as one more donor: in `models:`, if the recipe sets `weight`."""
    return recipe.models is not None and method.donors[1] is None and "weight" in recipe.parameters


def _common_range(part: Slice) -> tuple[int, int] | None:
    """The layer range that all sources share; None if they differ."""
    spans = {stack.span(source) for source in part.sources}
    return spans.pop() if len(spans) == 1 else None


def rows(recipe: Recipe, planned: Sequence[PlannedSlice], depth_of: Callable[[str], int]) -> list[SliceRow]:
    """The output stack: the slices' layers, with the edge policies applied to the outermost."""
    cells = stack.cells([part.slice for part in planned])
    made = []
    for index, cell in enumerate(cells):
        part = planned[cell.slice_index]
        t = position(cell.offset, stack.length(part.slice))
        row = SliceRow(index, part, cell.sources, part.scope(recipe, t), cell.slice_index)
        made.append(_edged(recipe, row, len(cells), depth_of))
    return made


def edge_of(recipe: Recipe, index: int, depth: int) -> tuple[str, EdgePolicy, int] | None:
    """The edge policy of an output layer: its key, the policy, and the layer's index within it, in stack order."""
    for key, policy in (("first_layers", recipe.first_layers), ("last_layers", recipe.last_layers)):
        if policy is not None:
            place = index if key == "first_layers" else index - (depth - policy.count)
            if 0 <= place < policy.count:
                return key, policy, place
    return None


def _edged(recipe: Recipe, row: SliceRow, depth: int, depth_of: Callable[[str], int]) -> SliceRow:
    found = edge_of(recipe, row.index, depth)
    if found is None:
        return row
    key, policy, place = found
    table = Table(key, policy.parameters, position(place, policy.count))
    if policy.model is not None:
        layer = next((layer for ref, layer in row.sources if ref == policy.model), None)
        if layer is None:
            layer = place if key == "first_layers" else depth_of(policy.model) - policy.count + place
        source = Source(model=policy.model, layer_range=(layer, layer + 1))
        part = PlannedSlice(Slice(sources=(source,)), row.part.number, "passthrough", find("passthrough"), None, None)
        return SliceRow(
            row.index, part, ((policy.model, layer),), Scope((Table("source", {}, 0.0),), (), table), row.slice_index
        )
    scope = Scope(row.scope.sources, row.scope.shared, table)
    if policy.taper:
        outer = place if key == "first_layers" else policy.count - 1 - place
        scope = Scope(row.scope.sources, row.scope.shared, None, Taper(table, 1 - outer / policy.count))
    return SliceRow(row.index, row.part, row.sources, scope, row.slice_index)


def end_scope(recipe: Recipe, part: PlannedSlice, end: End) -> Scope:
    """The tables for an end's parameters: its own, then its slice's, all at the start of gradients.

    The slice does not apply to an end for which the recipe names a donor.
    """
    own = recipe.end(end)
    table = Table(end, own.parameters, 0.0) if own and own.parameters else None
    scope = outer_scope(recipe, part)
    return Scope(scope.sources, scope.shared, table)


def outer_scope(recipe: Recipe, part: PlannedSlice) -> Scope:
    """The tables for the parameters of a tensor outside the layers: its slice's, at the start of gradients."""
    return Scope((Table("source", {}, 0.0),), ()) if part.number < 0 else part.scope(recipe, 0.0)


def single(ref: str) -> PlannedSlice:
    """A copy from one donor, outside the recipe's slices."""
    return PlannedSlice(Slice(sources=(Source(model=ref),)), -1, "passthrough", find("passthrough"), None, None)


def used_tables(
    recipe: Recipe, planned: Sequence[PlannedSlice]
) -> Iterator[tuple[Mapping[str, Any], tuple[str | int, ...], list[PlannedSlice]]]:
    """Every parameter table of a recipe, its place, and the slices that it applies to."""
    yield recipe.parameters, ("parameters",), list(planned)
    for part in planned:
        yield part.slice.parameters, ("slices", part.number, "parameters"), [part]
        for index, source in enumerate(part.sources):
            where: tuple[str | int, ...] = ("slices", part.number, "sources", index)
            if recipe.models is not None:
                where = ("models", index)
            yield source.parameters, (*where, "parameters"), [part]
    for key, edge in (("first_layers", recipe.first_layers), ("last_layers", recipe.last_layers)):
        if edge is not None:
            yield edge.parameters, (key, "parameters"), [] if edge.model else list(planned)
