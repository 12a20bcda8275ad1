"""Makes the curve editor's draft from a recipe, or from a blend that is about to be made."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import InputError
from ...methods import Method, Parameter
from ...methods.formulas.linear import WITHOUT_EFFECT
from ...plan.planned_slices import PlannedSlice, parts
from ...recipe import stack
from ...recipe.curves.tracks import REST, Level, Track, tracks
from ...recipe.edits import BlendLayers, DepthOf
from ...recipe.parameters import Word, lookup
from ...recipe.schema import ENDS, End, Recipe
from ...text import one_line
from .drafts import END_TENSORS, ENDS_TRACK, NEW, CurveLine, Draft, fit_value, update_ends


def open_draft(
    recipe: Recipe, depth_of: DepthOf, start: int, stop: int, edit: BlendLayers | None = None, *, tied: bool = False
) -> Draft:
    """The tracks of output layers `[start, stop)`, as the recipe has them, or as a blend would make them.

    Args:
        tied: the head is the embedding, and has no value of its own.

    Raises:
        InputError: their methods, sources or filters differ too much to be drawn together.
    """
    if edit is not None:
        recipe = edit.apply(recipe, depth_of)
    slices = recipe.explicit(depth_of)
    planned = parts(recipe, slices, depth_of)
    cells = stack.cells(slices)
    here = cells[start:stop]
    planned_slices = [planned[number] for number in dict.fromkeys(cell.slice_index for cell in here)]
    method = _one_method(planned_slices)
    base = planned_slices[0].base if method.subtracts else None
    last = max(start, stop - 1 - here[-1].offset)
    ends = [
        end
        for end in ENDS
        if (start == 0 if end == "embeddings" else stop == len(cells)) and not (tied and end == "lm_head")
    ]
    lines: list[CurveLine] = []
    for parameter in method.parameters.values():
        if parameter.help == WITHOUT_EFFECT:
            continue
        for source in range(len(planned_slices[0].slice.sources)) if parameter.each else (None,):
            if not parameter.each or source != base:
                lines += _lines(recipe, parameter, source, planned_slices, here)
        if not parameter.each and parameter.kind == "float":
            lines += _end_line(recipe, parameter, ends, last - start)
    found = update_ends(tuple(lines))
    starts = [index for index, cell in enumerate(here) if not index or cell.slice_index != here[index - 1].slice_index]
    pieces = tuple(zip(starts, [*starts[1:], len(here)], strict=True))
    cuts = bool(here[0].offset) or here[-1].offset + 1 < stack.length(planned_slices[-1].slice)
    final = len(cells) - 1 - cells[-1].offset
    moved = stop if final < stop < len(cells) else start if final < start else final
    sources = tuple(cell.sources for cell in here)
    ends_at = None if moved == final else moved
    return Draft(start, stop, edit, method, sources, planned_slices[0].base, pieces, cuts, ends_at, last, found, found)


def _one_method(planned_slices: Sequence[PlannedSlice]) -> Method:
    if not planned_slices:
        raise InputError("there is no layer")
    names = list(dict.fromkeys(part.name for part in planned_slices))
    if len(names) > 1 or planned_slices[0].method is None:
        why = f"they are made by {' and '.join(map(one_line, names))}"
        raise InputError("these layers have no parameters in common", why=why, remedy="draw one slice at a time")
    if len({(len(part.slice.sources), part.base) for part in planned_slices}) > 1:
        raise InputError("these layers have different numbers of sources", remedy="draw one slice at a time")
    return planned_slices[0].method


def _lines(
    recipe: Recipe,
    parameter: Parameter,
    source: int | None,
    planned_slices: Sequence[PlannedSlice],
    cells: Sequence[stack.Cell],
) -> list[CurveLine]:
    """The tracks of one parameter: those that filters say, and the rest."""
    by_slice: dict[int, tuple[Track, ...]] = {}
    for part in planned_slices:
        own = [] if source is None else [Level("source", part.slice.sources[source].parameters)]
        levels = [*own, Level("slice", part.slice.parameters), Level("recipe", recipe.parameters)]
        try:
            by_slice[part.number] = tracks(parameter.name, stack.length(part.slice), levels)
        except ValueError as error:
            raise InputError(f"{error}: a curve cannot show that", remedy="change them in the file") from error
    filters = [[track.filter for track in found if track.filter != REST] for found in by_slice.values()]
    if any(names != filters[0] for names in filters):
        raise InputError(f"the slices have different filters for {parameter.name}", remedy="draw one slice at a time")
    part = planned_slices[0]
    donors = len(part.slice.sources) - (part.base is not None and part.method is not None and part.method.subtracts)
    out = []
    for rule in (*filters[0], REST):
        found = {number: next((t for t in own if t.filter == rule), None) for number, own in by_slice.items()}
        origins = {track.origin if track else _origin_of_default(parameter) for track in found.values()}
        values = []
        for cell in cells:
            track = found[cell.slice_index]
            values.append(track.values[cell.offset] if track else _default_value(parameter, donors))
        # A rest that only some of the slices say themselves is said anew for all of them.
        origin = origins.pop() if len(origins) == 1 else "slice" if source is None else "source"
        out.append(CurveLine(parameter, source, rule, tuple(_typed(parameter, value) for value in values), origin))
    return out


def _typed(parameter: Parameter, value: Word) -> Word:
    """A value out of the recipe; one that the method refuses as the nearest that it takes."""
    try:
        return parameter.typed(value)
    except ValueError:
        with_number = parameter.kind in ("float", "int") and not isinstance(value, str)
        return fit_value(parameter, value) if with_number else _default_value(parameter, 1)


def _origin_of_default(parameter: Parameter) -> str:
    return NEW if parameter.required else "default"


def _default_value(parameter: Parameter, donors: int) -> Word:
    """Where a parameter begins that nothing gives a value: its default, the middle, equal shares."""
    if not parameter.required:
        return parameter.default
    if parameter.each:
        return float(f"{1 / donors:.2g}") if donors > 1 else 1.0
    return 0.5


def _end_line(recipe: Recipe, parameter: Parameter, ends: Sequence[End], last: int) -> list[CurveLine]:
    """A track for the ends of the network that are blended with these layers."""
    found: list[End] = []
    values: list[Word] = []
    follows: list[int] = []
    for end in ends:
        own = recipe.end(end)
        if own and (own.model or own.tie):
            continue
        value = lookup(parameter.name, END_TENSORS[end], 0.0, own.parameters) if own else None
        found.append(end)
        values.append(0.0 if value is None else _typed(parameter, value))
        follows.append(-1 if value is not None else 0 if end == "embeddings" else last)
    return [CurveLine(parameter, None, REST, tuple(values), ENDS_TRACK, tuple(found), tuple(follows))] if found else []
