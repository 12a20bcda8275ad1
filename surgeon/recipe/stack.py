"""A recipe's slices as a stack of layers: cut them at any layer, join what belongs together, read one row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from .parameters import cut
from .schema import LayerRange, Parameters, Slice, Source

MAX_LAYERS = 10_000
"""No model has nearly as many; a longer slice counts as this many, so that a slip of the pen costs no memory."""


class Cell(NamedTuple):
    """One output layer: the (model, layer) pairs it comes from, its slice, and its place within that slice."""

    sources: tuple[tuple[str, int], ...]
    slice_index: int
    offset: int


def span(source: Source) -> LayerRange:
    """The source's range; ranges must be explicit here (`Recipe.explicit`)."""
    assert source.layer_range is not None, "ranges are made explicit before the stack is touched"
    return source.layer_range


def length(part: Slice) -> int:
    """Layers a slice gives: the length of its first source, and 0 for a backward range."""
    start, stop = span(part.sources[0])
    return min(max(0, stop - start), MAX_LAYERS)


def depth(slices: Sequence[Slice]) -> int:
    """Layers of the whole stack."""
    return sum(length(part) for part in slices)


def cells(slices: Sequence[Slice]) -> list[Cell]:
    """The stack, row by row; its first `MAX_LAYERS` rows if it has more."""
    rows = (
        Cell(tuple((source.model, span(source)[0] + offset) for source in part.sources), number, offset)
        for number, part in enumerate(slices)
        for offset in range(length(part))
    )
    return list(islice(rows, MAX_LAYERS))


def piece(part: Slice, start: int, stop: int) -> Slice:
    """The layers `[start, stop)` of one slice as a slice of their own; gradients keep their values layer by layer."""
    count = length(part)
    if (start, stop) == (0, count):
        return part

    def sub(parameters: Parameters) -> Parameters:
        return {name: cut(value, count, start, stop) for name, value in parameters.items()}

    sources = tuple(
        _set(
            source,
            layer_range=(span(source)[0] + start, span(source)[0] + stop),
            parameters=sub(source.parameters),
        )
        for source in part.sources
    )
    return _set(part, sources=sources, parameters=sub(part.parameters))


_Part = TypeVar("_Part", Slice, Source)


def _set(model: _Part, **values: object) -> _Part:
    """A copy with other values, leaving empty parameter tables unsaid."""
    if not values.get("parameters", True):
        values.pop("parameters")
    return model.model_copy(update=values)


def take(slices: Sequence[Slice], start: int, stop: int) -> list[Slice]:
    """The slices, cut as needed, that give output layers `[start, stop)`."""
    out, position = [], 0
    for part in slices:
        count = length(part)
        low, high = max(start - position, 0), min(stop - position, count)
        if low < high:
            out.append(piece(part, low, high))
        position += count
    return out


def singles(slices: Sequence[Slice]) -> list[Slice]:
    """The slices cut into layers."""
    return [piece(part, index, index + 1) for part in slices for index in range(length(part))]


def splice(slices: Sequence[Slice], start: int, stop: int, middle: Sequence[Slice]) -> tuple[Slice, ...]:
    """The stack with its layers `[start, stop)` replaced by `middle`; slices that continue one another are joined.

    Slices without layers stay where they are unless they lie within the layers replaced.
    """
    before: list[Slice] = []
    after: list[Slice] = []
    position = 0
    for part in slices:
        count = length(part)
        if not count and not start < position < stop:
            (before if position <= start else after).append(part)
        before += [piece(part, 0, min(start - position, count))] if count and position < start else []
        after += [piece(part, max(stop - position, 0), count)] if count and position + count > stop else []
        position += count
    joined: list[Slice] = []
    seams = {len(before), len(before) + len(middle)}
    for index, part in enumerate([*before, *middle, *after]):
        whole = _joined(joined[-1], part) if joined and index in seams else None
        if whole is None:
            joined.append(part)
        else:
            joined[-1] = whole
    return tuple(joined)


def _joined(left: Slice, right: Slice) -> Slice | None:
    """Both as one slice, if that says the same: plain copies of neighbouring layers of one donor."""
    if not (left.plain and right.plain and left.sources[0].model == right.sources[0].model):
        return None
    (start, middle), (resumed, stop) = span(left.sources[0]), span(right.sources[0])
    if middle != resumed or start >= middle or resumed >= stop:
        return None
    return Slice(sources=(Source(model=left.sources[0].model, layer_range=(start, stop)),))


def run(model: str, start: int, stop: int) -> Slice:
    """A plain slice of one donor."""
    return Slice(sources=(Source(model=model, layer_range=(start, stop)),))
