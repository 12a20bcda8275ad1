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
    outer = [*(tensor for end in ends.values() for tensor in end.tensors), *extra]
    for table, place, parts in used_tables(document.recipe, planned):
        for name, setting in table.items():
            if all(filter_of(rule) == "*" for rule in rules(setting)):
                continue
            each = any(part.method and part.method.parameters[name].each for part in parts if _takes(part, name))
            numbers = {part.number for part in parts}
            here = [layer for layer in layers if layer.slice_index in numbers]
            around = outer if numbers & {0, len(planned) - 1} else []
            yield from _unmatched(setting, _Names(here, around, each), document.line(*place, name))


class _Names:
    """The names that a filter is compared with: a tensor's names in the donors for a donor's parameter (`each`), else
    its name in the output."""

    def __init__(self, layers: Sequence[PlannedLayer], outer: Sequence[PlannedTensor], each: bool) -> None:
        self._layers, self._outer, self._each = layers, outer, each

    def few(self) -> Iterator[str]:
        """The names of one tensor of each group."""
        for layer in self._layers:
            for tensor in layer.firsts:
                yield from _seen(tensor, True) if self._each else [layer.name_of(tensor)]
        yield from (name for tensor in self._outer for name in _seen(tensor, self._each))

    def match(self, wanted: str) -> bool:
        """Whether a filter matches any name."""
        if any(wanted in name for name in self.few()):
            return True
        if not any(char.isdigit() for char in wanted):
            return False
        every = (tensor for layer in self._layers for tensor in layer.tensors)
        return any(wanted in name for tensor in every for name in _seen(tensor, self._each))


def _takes(part: PlannedSlice, name: str) -> bool:
    return part.method is not None and name in part.method.parameters


def _seen(tensor: PlannedTensor, each: bool) -> list[str]:
    """The names that a filter matches: a tensor's names in the donors for a donor's parameter, else in the output."""
    # A materialised head is matched by its own name, not by that of the embedding it is made from.
    if not each or tensor.place.role == "lm_head":
        return [tensor.name]
    return [entry.name for entry in tensor.source.entries()]


def _unmatched(setting: Any, names: _Names, line: int | None) -> Iterator[Finding]:
    for rule in rules(setting):
        wanted = filter_of(rule)
        if wanted != "*" and not names.match(wanted):
            known = sorted({piece for name in names.few() for piece in name.split(".") if not piece.isdigit()})
            guess = nearest(wanted, known)
            yield Finding(
                "warning",
                "filter",
                f"The filter {one_line(wanted)!r} matches no tensor there",
                "a filter is a part of a tensor's name in its donor, without wildcards",
                f"did you mean {one_line(guess)!r}?" if guess else "list the names with `surgeon inspect --tensors`",
                line=line,
            )
