"""Factors on tensors: what a recipe's `scale` is worth for each, and what it cannot be applied to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..recipe.document import Document
from ..recipe.parameters import Word, filter_of, lookup, rules
from ..recipe.schema import Recipe, Slice, Source
from ..text import nearest, one_line
from .types import Finding, PlannedEnd, PlannedLayer, PlannedTensor


def factor(recipe: Recipe, part: Slice, source: Source, name: str, t: float) -> float | None:
    """The passthrough scale of one tensor, by the name it has in its donor; None when nothing is said.

    Raises:
        ValueError: the setting is no number.
    """
    return finite(lookup("scale", name, t, source.parameters, part.parameters, recipe.parameters))


def finite(value: Word | None) -> float | None:
    """The value, refused when it is not a finite number."""
    if isinstance(value, str):
        raise ValueError(f"{value!r} is not a number")
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return None if value is None else float(value)


def filters(
    document: Document, parts: Sequence[Slice], layers: Sequence[PlannedLayer], ends: Mapping[str, PlannedEnd]
) -> Iterator[Finding]:
    """Filters of a scale that match no tensor they could apply to."""
    outer = {number: [t for end in ends.values() for t in end.tensors] for number in (0, len(parts) - 1)}
    by_slice: dict[int, set[str]] = {number: _names(outer.get(number, [])) for number in range(len(parts))}
    for layer in layers:
        by_slice[layer.slice_index] |= _names(layer.tensors)
    everything = set().union(*by_slice.values())
    yield from _unmatched(document.recipe.parameters, everything, document.line("parameters", "scale"))
    for number, part in enumerate(parts):
        yield from _unmatched(part.parameters, by_slice[number], document.line("slices", number, "parameters"))
        for index, source in enumerate(part.sources):
            line = document.line("slices", number, "sources", index, "parameters")
            yield from _unmatched(source.parameters, by_slice[number], line)


def _names(tensors: Sequence[PlannedTensor]) -> set[str]:
    # A materialised head answers to its own name, a copied tensor to the one it has in its donor.
    return {tensor.name if tensor.place.role == "lm_head" else tensor.source.entry.name for tensor in tensors}


def _unmatched(table: Mapping[str, Any], names: set[str], line: int | None) -> Iterator[Finding]:
    for rule in rules(table.get("scale")):
        wanted = filter_of(rule)
        if wanted != "*" and not any(wanted in name for name in names):
            known = sorted({piece for name in names for piece in name.split(".") if not piece.isdigit()})
            guess = nearest(wanted, known)
            yield Finding(
                "warning",
                "filter",
                f"The filter {one_line(wanted)!r} matches no tensor there",
                "a filter is a part of a tensor's name in its donor, without wildcards",
                f"did you mean {one_line(guess)!r}?" if guess else "see the names with `surgeon inspect --tensors`",
                line=line,
            )


def frozen(asked: Mapping[str, tuple[int, ...]]) -> Iterator[Finding]:
    """Tensors whose type cannot be multiplied, by name, with the layers that ask for it."""
    for name, indices in asked.items():
        yield Finding(
            "error",
            "scale-type",
            f"The scale of {one_line(name)} cannot be carried out",
            "its numbers are not floating-point numbers of 16 bits or more",
            "leave it out with a filter",
            indices,
        )
