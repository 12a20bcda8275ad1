"""The stack cut at the boundaries of edge policies; each piece has the parameters that apply to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..methods.registry import Word
from ..plan.model import PlannedLayer
from ..plan.planned_slices import PlannedSlice, SliceRow, edge_of
from ..recipe import stack
from ..recipe.parameters import cut, has_gradient, over
from ..recipe.schema import EdgePolicy, Parameters, Recipe, Slice, Source
from .refusal import Place
from .written_parameters import has_steps, written


@dataclass(frozen=True)
class Piece:
    """A run of output layers that becomes one slice.

    Attributes:
        slice: its sources, base included, and its parameters.
        method: the name of its method.
        base: the donor that is the base of the method; None without one.
        first: its first output layer.
        whole: it is an unchanged slice, so the recipe's parameters for all slices apply unchanged.
        alone: it comes from the donor of an edge policy, so the recipe's parameters do not apply.
        place: its place in the recipe.
    """

    slice: Slice
    method: str
    base: str | None
    first: int
    whole: bool
    alone: bool
    place: Place


@dataclass(frozen=True)
class _Run:
    """Rows that can form one piece: they belong to one slice, and to one edge policy or to none."""

    rows: Sequence[SliceRow]
    offset: int
    edge: tuple[str, EdgePolicy, int] | None


def pieces(
    recipe: Recipe, planned: Sequence[PlannedSlice], rows: Sequence[SliceRow], layers: Sequence[PlannedLayer]
) -> list[Piece]:
    """The stack as pieces.

    Args:
        recipe: the recipe with mergekit's words and references.
        planned: its slices with their methods.
        rows: its layers.
        layers: the planned layers, with the value of every parameter of every tensor.
    """
    held = {name: value for name, value in recipe.parameters.items() if has_gradient(value)}
    made = []
    for run in _runs(recipe, planned, rows):
        row, count = run.rows[0], len(run.rows)
        part = planned[row.slice_index]
        if run.edge is not None and run.edge[1].model is not None:
            made.append(_edge_donor(run))
            continue
        whole = run.edge is None and count == stack.length(part.slice)
        piece = Piece(part.slice, part.name, base_of(part), row.index, whole, False, ("slices", part.number))
        if not whole:
            piece = replace(piece, slice=stack.piece(_holding(part.slice, held), run.offset, run.offset + count))
        if run.edge is not None:
            piece = replace(piece, slice=_edged(piece.slice, part, run, layers[row.index]))
        made.append(piece)
    return made


def base_of(part: PlannedSlice) -> str | None:
    """The donor that is the base of a slice's method; without base_model, a method that starts at it uses the first."""
    if part.base is not None:
        return part.sources[part.base].model
    return part.sources[0].model if part.method is not None and part.method.base == "start" else None


def _runs(recipe: Recipe, planned: Sequence[PlannedSlice], rows: Sequence[SliceRow]) -> Iterator[_Run]:
    starts, place = [], 0
    for part in planned:
        starts.append(place)
        place += stack.length(part.slice)
    single = [any(map(has_steps, _values(recipe, part))) for part in planned]
    current: list[SliceRow] = []
    for row in rows:
        if current and not _continues(recipe, current[-1], row, len(rows), single[row.slice_index]):
            yield _run(recipe, current, starts, len(rows))
            current = []
        current.append(row)
    if current:
        yield _run(recipe, current, starts, len(rows))


def _run(recipe: Recipe, rows: list[SliceRow], starts: Sequence[int], depth: int) -> _Run:
    return _Run(tuple(rows), rows[0].index - starts[rows[0].slice_index], edge_of(recipe, rows[0].index, depth))


def _continues(recipe: Recipe, before: SliceRow, row: SliceRow, depth: int, single: bool) -> bool:
    one, other = edge_of(recipe, before.index, depth), edge_of(recipe, row.index, depth)
    if (one and one[0]) != (other and other[0]):
        return False
    if other is not None and other[1].model is not None:
        (ref, layer), (following, next_layer) = before.sources[0], row.sources[0]
        return (ref, layer + 1) == (following, next_layer)
    return before.slice_index == row.slice_index and not single and not (other and other[1].taper)


def _values(recipe: Recipe, part: PlannedSlice) -> Iterator[Any]:
    known = part.method.parameters if part.method else {}
    tables = (recipe.parameters, part.slice.parameters, *(source.parameters for source in part.sources))
    for table in tables:
        yield from (value for name, value in table.items() if name in known)


def _holding(part: Slice, shared: Parameters) -> Slice:
    """A slice that holds the parameters that the recipe sets for all slices."""
    if not shared:
        return part
    own = {name: over(part.parameters.get(name), value) for name, value in shared.items()}
    return part.model_copy(update={"parameters": {**part.parameters, **own}})


def _edge_donor(run: _Run) -> Piece:
    """Layers of an edge policy's donor, with the parameters of the policy."""
    assert run.edge is not None
    key, policy, place = run.edge
    model, layer = run.rows[0].sources[0]
    count = len(run.rows)
    source = Source(model=model, layer_range=(layer, layer + count))
    own = {name: _portion(value, policy, place, count) for name, value in policy.parameters.items()}
    part = Slice(sources=(source,), parameters=own) if own else Slice(sources=(source,))
    return Piece(part, "passthrough", None, run.rows[0].index, False, True, (key,))


def _edged(piece: Slice, part: PlannedSlice, run: _Run, layer: PlannedLayer) -> Slice:
    """A piece whose parameters are overridden by those of an edge policy."""
    assert run.edge is not None and part.method is not None
    _, policy, place = run.edge
    known = {name: part.method.parameters[name] for name in policy.parameters if name in part.method.parameters}
    if policy.taper:
        return _tapered(piece, known, layer)
    shared = dict(piece.parameters)
    sources = list(piece.sources)
    for name, parameter in known.items():
        value = _portion(policy.parameters[name], policy, place, len(run.rows))
        if not parameter.each:
            shared[name] = over(value, shared.get(name))
            continue
        for index, source in enumerate(sources):
            if not (part.method.subtracts and index == part.base):
                sources[index] = _set(source, name, over(value, source.parameters.get(name)))
    return piece.model_copy(update={"sources": tuple(sources), "parameters": shared})


def _portion(value: Any, policy: EdgePolicy, place: int, count: int) -> Any:
    """A policy's setting for `count` of its layers from `place` on."""
    return value if count == policy.count else cut(value, policy.count, place, place + count)


def _tapered(piece: Slice, known: Any, layer: PlannedLayer) -> Slice:
    """A piece of one layer with the parameter values that its tensors have in the plan."""
    values: dict[tuple[str, int | None], dict[str, Word]] = {}
    for tensor in layer.tensors:
        for value in tensor.values:
            if value.name in known:
                values.setdefault((value.name, value.donor), {})[tensor.place.suffix] = value.value
    shared, sources = dict(piece.parameters), list(piece.sources)
    for (name, donor), found in values.items():
        if donor is None:
            shared[name] = written(found)
        else:
            sources[donor] = _set(sources[donor], name, written(found))
    return piece.model_copy(update={"sources": tuple(sources), "parameters": shared})


def _set(source: Source, name: str, value: Any) -> Source:
    return source.model_copy(update={"parameters": {**source.parameters, name: value}})
