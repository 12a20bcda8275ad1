"""Limit how much work a recipe asks for, before the work is done.

A recipe is untrusted input. Stages, ranges and aliases multiply, so a few lines can ask for more than a machine can
plan. The limits are far above what models need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...recipe import stack
from ...recipe.schema import Recipe
from ..findings import Finding
from ..model import PlannedLayer, PlannedTensor
from ..planned_slices import PlannedSlice

MAX_TAKEN = 40_000
"""Most layers of donors that the slices of a recipe and its stages may take."""

MAX_LOOKUPS = 2_000_000
"""Most look-ups of parameter values: each filter and each number of a gradient counts once per layer."""

MAX_OPERANDS = 10_000
"""Most stored tensors that one output tensor may be made from."""

MAX_ALL_OPERANDS = 2_000_000
"""Most stored tensors that all output tensors together may be made from."""

MAX_FINDINGS = 100
"""Most findings of one kind that are listed one by one."""


def taken(planned: Sequence[PlannedSlice]) -> int:
    """Number of donors' layers that the slices take."""
    return sum(stack.length(part.slice) * len(part.sources) for part in planned)


def too_much(recipe: Recipe, planned: Sequence[PlannedSlice], spent: int) -> Iterator[Finding]:
    """Reasons to refuse a recipe before its layers are planned.

    Args:
        recipe: the recipe.
        planned: its slices.
        spent: number of donors' layers that its stages take.
    """
    count = spent + taken(planned)
    if count > MAX_TAKEN:
        yield _refusal(
            f"The slices take {count:,} layers of donors" + (", with those of the stages" if spent else ""),
            f"the limit is {MAX_TAKEN:,}",
            "check the layer ranges and the number of sources",
        )
    shared = _values(recipe.parameters)
    widest = max((len(part.sources) for part in planned), default=0)
    edges = [edge for edge in (recipe.first_layers, recipe.last_layers) if edge is not None]
    lookups = sum(min(edge.count, stack.MAX_LAYERS) * _values(edge.parameters) * widest for edge in edges)
    for part in planned:
        own = _values(part.slice.parameters) + sum(_values(source.parameters) for source in part.sources)
        # A per-source parameter is looked up in the shared tables once for each source.
        lookups += stack.length(part.slice) * (own + shared * len(part.sources))
    if lookups > MAX_LOOKUPS:
        yield _refusal(
            f"The parameters need {lookups:,} look-ups of values over all layers",
            f"the limit is {MAX_LOOKUPS:,}",
            "use fewer filters or shorter gradients",
        )


def _values(parameters: Mapping[str, Any]) -> int:
    """Number of filters and values, at any depth."""
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


def too_deep(layers: Iterable[PlannedLayer], tensors: Iterable[PlannedTensor]) -> Iterator[Finding]:
    """A reason to refuse layers and tensors outside them that are made from too many stored tensors, through stages."""
    counts = [(tensor.source.leaves, tensor.source.leaves) for tensor in tensors]
    counts += [layer.contents.leaves for layer in layers if layer.contents]
    total, most = sum(count for count, _ in counts), max((count for _, count in counts), default=0)
    if most > MAX_OPERANDS or total > MAX_ALL_OPERANDS:
        many, limit = (most, MAX_OPERANDS) if most > MAX_OPERANDS else (total, MAX_ALL_OPERANDS)
        yield _refusal(
            f"{'A tensor is' if many == most else 'The tensors are'} made from {many:,} tensors of donors",
            f"stages that use other stages several times multiply this number, and the limit is {limit:,}",
            "assemble a stage first, and use the result as a donor",
        )


def _refusal(what: str, why: str, remedy: str) -> Finding:
    return Finding("error", "too-large", what, why, remedy)


def shortened(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The first `MAX_FINDINGS` findings of each kind, and one that counts the rest."""
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
