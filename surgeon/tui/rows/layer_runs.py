"""The stack in short: runs of neighbouring layers, how often a donor's layers are used, and the barcode."""

from __future__ import annotations

from dataclasses import dataclass

from ...plan import Plan, PlannedLayer
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
        sources = _shown(layer)
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


@dataclass(frozen=True)
class Bar:
    """A cell of the barcode.

    Attributes:
        letter: the donor of its first layer; small for a blend.
        layer: that layer.
        seam: whether here, or at a layer that it also stands for, the stack does not go on as the donor does, although
            the letter before is the same.
    """

    letter: str
    layer: int
    seam: bool = False


def barcode(plan: Plan, width: int) -> list[Bar]:
    """The whole stack in at most `width` cells."""
    depth = len(plan.layers)
    if not depth or width < 1:
        return []
    per_cell = max(1, -(-depth // width))
    return [
        Bar(
            _letter(plan.layers[first]),
            first,
            any(_is_seam(plan, index) for index in range(first, min(first + per_cell, depth))),
        )
        for first in range(0, depth, per_cell)
    ]


def _shown(layer: PlannedLayer) -> tuple[tuple[str, int], ...]:
    """The sources of a layer without a base that is subtracted."""
    return tuple(source for number, source in enumerate(layer.sources) if number != layer.base) or layer.sources


def _letter(layer: PlannedLayer) -> str:
    """The letter of a layer: of a blend that of its first donor, and small."""
    letter = _shown(layer)[0][0]
    return letter.lower() if is_blend(layer) else letter


def _is_seam(plan: Plan, index: int) -> bool:
    """Whether a layer has the letter of the one before, but is not the donor's next layer."""
    if not index:
        return False
    before, here = plan.layers[index - 1], plan.layers[index]
    follows = tuple((letter, number + 1) for letter, number in _shown(before)) == _shown(here)
    return not follows and _letter(before) == _letter(here)
