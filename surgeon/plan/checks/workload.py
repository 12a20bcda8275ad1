"""How much a recipe asks for: refused before the work is done, where a short text would make it endless.

A recipe is untrusted input. Stages, ranges and aliases multiply, so that a few lines can ask for more than a machine
can plan. The limits are far beyond what models have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...recipe import stack
from ...recipe.schema import Recipe
from ..findings import Finding
from ..model import PlannedTensor
from ..planned_slices import PlannedSlice

MAX_TAKEN = 40_000
"""Layers of donors that all slices of a recipe take, its stages included."""

MAX_LOOKUPS = 2_000_000
"""Values (filters and numbers of gradients count each) times layers that they are looked up for."""

MAX_OPERANDS = 10_000
"""Tensors that one tensor is made of."""

MAX_ALL_OPERANDS = 2_000_000
"""Tensors that all of them are made of."""

MAX_FINDINGS = 100
"""Findings of one kind that are told one by one."""


def taken(planned: Sequence[PlannedSlice]) -> int:
    """How many layers of donors the slices take."""
    return sum(stack.length(part.slice) * len(part.sources) for part in planned)


def too_much(recipe: Recipe, planned: Sequence[PlannedSlice], spent: int) -> Iterator[Finding]:
    """Why the layers of a recipe are not planned.

    Args:
        recipe: it.
        planned: its slices.
        spent: layers that its stages have taken.
    """
    count = spent + taken(planned)
    if count > MAX_TAKEN:
        yield _refusal(
            f"The slices take {count:,} layers of donors" + (", with those of the stages" if spent else ""),
            f"the most is {MAX_TAKEN:,}",
            "see the layer ranges and the number of sources",
        )
    shared = _values(recipe.parameters)
    widest = max((len(part.sources) for part in planned), default=0)
    edges = [edge for edge in (recipe.first_layers, recipe.last_layers) if edge is not None]
    lookups = sum(min(edge.count, stack.MAX_LAYERS) * _values(edge.parameters) * widest for edge in edges)
    for part in planned:
        own = _values(part.slice.parameters) + sum(_values(source.parameters) for source in part.sources)
        # A parameter of each source is looked up in the shared tables for each of them.
        lookups += stack.length(part.slice) * (own + shared * len(part.sources))
    if lookups > MAX_LOOKUPS:
        yield _refusal(
            f"The parameters have {lookups:,} values to look up, counted for each layer",
            f"the most is {MAX_LOOKUPS:,}",
            "use fewer filters or shorter gradients",
        )


def _values(parameters: Mapping[str, Any]) -> int:
    """Filters, and values within them at any depth."""
    count, waiting = 0, list(parameters.values())
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, (list, tuple)):
            waiting += value
        else:
            count += 1
    return count


def too_deep(tensors: Iterable[PlannedTensor]) -> Iterator[Finding]:
    """Why tensors that are made of stages are not looked at any further."""
    total = most = 0
    for tensor in tensors:
        total += tensor.source.leaves
        most = max(most, tensor.source.leaves)
    if most > MAX_OPERANDS or total > MAX_ALL_OPERANDS:
        many, limit = (most, MAX_OPERANDS) if most > MAX_OPERANDS else (total, MAX_ALL_OPERANDS)
        yield _refusal(
            f"{'A tensor is' if many == most else 'The tensors are'} made of {many:,} tensors of donors",
            f"stages that use other stages several times multiply, and the most is {limit:,}",
            "assemble a stage first, and use the result as a donor",
        )


def _refusal(what: str, why: str, remedy: str) -> Finding:
    return Finding("error", "too-large", what, why, remedy)


def shortened(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings; of those of one kind the first ones, and how many more there are."""
    seen: dict[tuple[str, str], int] = {}
    more: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kind = finding.severity, finding.code
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= MAX_FINDINGS:
            yield finding
        else:
            more.setdefault(kind, []).append(finding)
    for rest in more.values():
        layers = tuple(sorted({index for finding in rest for index in finding.layers}))
        first = rest[0]
        what = f"{len(rest):,} more findings of the kind {first.code} are not listed"
        yield Finding(first.severity, first.code, what, layers=layers, line=first.line)
