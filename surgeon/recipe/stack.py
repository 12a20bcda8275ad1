"""A recipe's slices as a stack of layers: cutting at any layer, joining, and the sources of each output layer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

from .parameters import cut
from .schema import LayerRange, Parameters, Slice, Source

MAX_LAYERS = 10_000
"""Far more than any model has. A longer slice counts as this many layers, so that a typing error costs no memory."""


class Cell(NamedTuple):
    """One output layer: its source (model, layer) pairs, its slice, and its offset in that slice."""

    sources: tuple[tuple[str, int], ...]
    slice_index: int
    offset: int


def span(source: Source) -> LayerRange:
    """The range of a source; it must be explicit (`Recipe.explicit`)."""
    assert source.layer_range is not None, "`Recipe.explicit` fills in ranges before the stack is used"
    return source.layer_range


def length(part: Slice) -> int:
    """Number of layers of a slice: the length of its first source, and 0 for a backward range."""
    start, stop = span(part.sources[0])
    return min(max(0, stop - start), MAX_LAYERS)


def depth(slices: Sequence[Slice]) -> int:
    """Number of layers of the whole stack."""
    return sum(length(part) for part in slices)


def cells(slices: Sequence[Slice]) -> list[Cell]:
    """The output layers in order, at most `MAX_LAYERS` of them."""
    rows = (
        Cell(tuple((source.model, span(source)[0] + offset) for source in part.sources), number, offset)
        for number, part in enumerate(slices)
        for offset in range(length(part))
    )
    return list(islice(rows, MAX_LAYERS))


def piece(part: Slice, start: int, stop: int) -> Slice:
    """Layers `[start, stop)` of one slice as a new slice; each layer keeps its parameter values."""
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
    """A copy with other values; an empty parameter table stays unset."""
    if not values.get("parameters", True):
        values.pop("parameters")
    return model.model_copy(update=values)


def take(slices: Sequence[Slice], start: int, stop: int) -> list[Slice]:
    """Slices for output layers `[start, stop)`, cut as needed."""
    out, position = [], 0
    for part in slices:
        count = length(part)
        low, high = max(start - position, 0), min(stop - position, count)
        if low < high:
            out.append(piece(part, low, high))
        position += count
    return out


def singles(slices: Sequence[Slice]) -> list[Slice]:
    """The slices cut into single layers."""
    return [piece(part, index, index + 1) for part in slices for index in range(length(part))]


def splice(slices: Sequence[Slice], start: int, stop: int, middle: Sequence[Slice]) -> tuple[Slice, ...]:
    """The stack with layers `[start, stop)` replaced by `middle`; slices that continue each other are joined.

    Slices without layers stay in place unless they lie inside the replaced layers.
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
    """Both as one slice if they are plain copies of adjacent layers of one donor; else None."""
    if not (left.plain and right.plain and left.sources[0].model == right.sources[0].model):
        return None
    (start, middle), (resumed, stop) = span(left.sources[0]), span(right.sources[0])
    if middle != resumed or start >= middle or resumed >= stop:
        return None
    return Slice(sources=(Source(model=left.sources[0].model, layer_range=(start, stop)),))


def run(model: str, start: int, stop: int) -> Slice:
    """A plain slice of one donor."""
    return Slice(sources=(Source(model=model, layer_range=(start, stop)),))
