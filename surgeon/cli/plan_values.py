"""`surgeon plan --values`: the value of each parameter for each tensor, and where it is set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..text import one_line

if TYPE_CHECKING:
    from ..plan import Plan, PlannedTensor


def value_lines(made: Plan) -> Iterator[str]:
    """For each layer and end a heading, then one line per tensor."""
    for layer in made.layers:
        if any(tensor.values for tensor in layer.tensors):
            yield f"  layer {layer.index}  {layer.label}  {one_line(layer.method)}"
            yield from _tensors(layer.tensors, [letter for letter, _ in layer.sources])
    for role, end in made.ends.items():
        if any(tensor.values for tensor in end.tensors):
            yield f"  {role}  {'~'.join(end.donors) or end.donor}"
            yield from _tensors(end.tensors, end.donors)


def _tensors(tensors: Sequence[PlannedTensor], letters: Sequence[str]) -> Iterator[str]:
    from ..plan.layers.value_text import spoken

    width = max(len(one_line(tensor.place.suffix)) for tensor in tensors)
    for tensor in tensors:
        yield f"    {one_line(tensor.place.suffix):<{width}}  {spoken(tensor.values, letters)}"


def to_rows(tensors: Sequence[PlannedTensor], letters: Sequence[str]) -> list[dict[str, Any]]:
    """The values of tensors for JSON, one row per tensor and parameter."""
    return [
        {
            "tensor": tensor.name,
            "parameter": value.name,
            "value": value.value,
            "donor": None if value.donor is None else letters[value.donor],
            "origin": value.origin,
            "filter": value.rule or None,
        }
        for tensor in tensors
        for value in tensor.values
    ]
