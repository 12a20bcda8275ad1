"""The stack in short: runs of neighbouring layers, how often a donor's layers are used, and the barcode."""

from __future__ import annotations

from dataclasses import dataclass

from ...plan import Plan
from .blend_labels import is_blend


@dataclass(frozen=True)
class StackRun:
    """Output layers `[start, stop)` that are neighbouring layers of the same donors, in one slice.

    `sources` are the letters with the first layer of each, without a base that is subtracted.
    """

    start: int
    stop: int
    sources: tuple[tuple[str, int], ...]

    @property
    def label(self) -> str:
        """`B 8-15`, or `A 16-23~B 8-15` for a blend."""
        count = self.stop - self.start
        return "~".join(f"{letter} {first}-{first + count - 1}" if count > 1 else f"{letter} {first}"
                        for letter, first in self.sources)  # fmt: skip


def runs(plan: Plan) -> list[StackRun]:
    """The stack as runs."""
    found: list[StackRun] = []
    for layer in plan.layers:
        sources = tuple(source for number, source in enumerate(layer.sources) if number != layer.base)
        sources = sources or layer.sources
        if found:
            last = found[-1]
            before = plan.layers[last.start]
            step = layer.index - last.start
            goes_on = tuple((letter, first + step) for letter, first in last.sources) == sources
            if goes_on and (before.slice_index, before.method) == (layer.slice_index, layer.method):
                found[-1] = StackRun(last.start, last.stop + 1, last.sources)
                continue
        found.append(StackRun(layer.index, layer.index + 1, sources))
    return found


def uses(plan: Plan, letter: str, depth: int) -> list[int]:
    """How often the stack takes each layer of a donor."""
    counts = [0] * depth
    for layer in plan.layers:
        for source, index in layer.sources:
            if source == letter and 0 <= index < depth:
                counts[index] += 1
    return counts


def barcode(plan: Plan, width: int) -> list[tuple[str, int]]:
    """The whole stack in `width` cells: a letter per cell (small for a blend), and the first layer it stands for."""
    depth = len(plan.layers)
    if not depth or width < 1:
        return []
    per_cell = max(1, -(-depth // width))
    firsts = [plan.layers[index] for index in range(0, depth, per_cell)]
    return [(layer.sources[0][0].lower() if is_blend(layer) else layer.sources[0][0], layer.index) for layer in firsts]
