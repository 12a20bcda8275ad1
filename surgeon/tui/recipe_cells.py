"""Output layers of a recipe as comparable values, and how those of two recipes differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InputError
from ..recipe import stack
from ..recipe.curves.tracks import Level, tracks
from ..recipe.edits import DepthOf
from ..recipe.schema import Recipe, Slice
from ..text import aligned


class Cell(NamedTuple):
    """An output layer: where it comes from, and every setting that applies to it."""

    sources: tuple[tuple[str, int], ...]
    settings: str


def _layer_settings(recipe: Recipe, part: Slice) -> list[str]:
    """Method, base and parameters of each layer of a slice as comparable text, whichever table sets them."""
    count = stack.length(part)
    head = (part.merge_method or recipe.merge_method, part.base_model or recipe.base_model)
    found: list[list[object]] = [[head] for _ in range(count)]
    for source in part.sources:
        levels = [Level("", table) for table in (source.parameters, part.parameters, recipe.parameters)]
        for name in sorted({name for level in levels for name in level.parameters}):
            try:
                own = tracks(name, count, levels)
            except ValueError:
                own = ()
            for index, line in enumerate(found):
                line.append([name, *((track.filter, track.values[index]) for track in own)])
    return [repr(line) for line in found]


def recipe_cells(recipe: Recipe, depth_of: DepthOf) -> list[Cell]:
    """Every output layer; none if a donor whose depth is needed cannot be opened."""
    try:
        slices = recipe.explicit(depth_of)
    except InputError:
        return []
    settings = [_layer_settings(recipe, part) for part in slices]
    return [Cell(cell.sources, settings[cell.slice_index][cell.offset]) for cell in stack.cells(slices)]


def markers(saved: Sequence[Cell], now: Sequence[Cell]) -> list[str]:
    """A character per output layer: `+` if it is new, `~` if only its settings changed, or blank."""
    kept = aligned([repr(cell.sources) for cell in saved], [repr(cell.sources) for cell in now])
    out = []
    for index, cell in enumerate(now):
        there = saved[kept[index]] if index in kept else None
        changed = there is not None and there.settings != cell.settings
        out.append("+" if there is None else "~" if changed else " ")
    return out


def changed_range(before: Sequence[Cell], now: Sequence[Cell]) -> tuple[int, int] | None:
    """The layers `[start, stop)` that differ; where layers were removed, an empty range; None if all are equal."""
    old, new = list(map(repr, before)), list(map(repr, now))
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    if start == len(old) == len(new):
        return None
    rest = min(len(old), len(new)) - start
    same = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    return start, max(start, len(new) - same)
