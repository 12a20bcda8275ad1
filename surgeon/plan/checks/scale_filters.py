"""Check that every filter of a parameter matches a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...recipe.document import Document
from ...recipe.parameters import filter_of, rules
from ...text import nearest, one_line
from ..findings import Finding
from ..model import PlannedEnd, PlannedLayer, PlannedTensor
from ..planned_slices import PlannedSlice, used_tables


def filters(
    document: Document,
    planned: Sequence[PlannedSlice],
    layers: Sequence[PlannedLayer],
    ends: Mapping[str, PlannedEnd],
    extra: Sequence[PlannedTensor],
) -> Iterator[Finding]:
    """Filters that match no tensor of the layers and ends that their parameter applies to."""
    by_slice: dict[int, list[PlannedTensor]] = {part.number: [] for part in planned}
    for number in {0, len(planned) - 1}:
        by_slice[number] += [*(tensor for end in ends.values() for tensor in end.tensors), *extra]
    for layer in layers:
        by_slice[layer.slice_index] += layer.tensors
    for table, place, parts in used_tables(document.recipe, planned):
        for name, setting in table.items():
            if all(filter_of(rule) == "*" for rule in rules(setting)):
                continue
            each = any(part.method and part.method.parameters[name].each for part in parts if _takes(part, name))
            names = {seen for part in parts for tensor in by_slice[part.number] for seen in _seen(tensor, each)}
            yield from _unmatched(setting, names, document.line(*place, name))


def _takes(part: PlannedSlice, name: str) -> bool:
    return part.method is not None and name in part.method.parameters


def _seen(tensor: PlannedTensor, each: bool) -> list[str]:
    """The names that a filter matches: a tensor's names in the donors for a donor's parameter, else in the output."""
    # A materialised head is matched by its own name, not by that of the embedding it is made from.
    if not each or tensor.place.role == "lm_head":
        return [tensor.name]
    return [entry.name for entry in tensor.source.entries()]


def _unmatched(setting: Any, names: set[str], line: int | None) -> Iterator[Finding]:
    for rule in rules(setting):
        wanted = filter_of(rule)
        if wanted != "*" and not any(wanted in name for name in names):
            known = sorted({piece for name in names for piece in name.split(".") if not piece.isdigit()})
            guess = nearest(wanted, known)
            yield Finding(
                "warning",
                "filter",
                f"The filter {one_line(wanted)!r} matches no tensor there",
                "a filter is a part of a tensor's name in its donor, without wildcards",
                f"did you mean {one_line(guess)!r}?" if guess else "list the names with `surgeon inspect --tensors`",
                line=line,
            )
