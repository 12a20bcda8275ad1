"""What is wrong with single tensors, recorded while they are planned and reported once for all layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..recipe.document import Document
from ..text import one_line
from .findings import Finding, Severity


@dataclass
class PlanningNotes:
    """Records of tensors with the output layer of each; -1 is an end or a tensor outside the layers.

    Attributes:
        frozen: by name, the layers in which a tensor is to be scaled that cannot be.
        unequal: by name and reason, the layers in which a tensor cannot be blended.
        buffers: by severity and donor, then by name, the layers in which a tensor is copied instead of blended.
        problems: by text and slice, the reason, the method and the layers of a wrong parameter.
        cancelling: by method and slice, the layers whose weights sum to 0.
    """

    frozen: dict[str, list[int]] = field(default_factory=dict)
    unequal: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    buffers: dict[tuple[Severity, str], dict[str, list[int]]] = field(default_factory=dict)
    problems: dict[tuple[str, int], tuple[str, str, list[int]]] = field(default_factory=dict)
    cancelling: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    @property
    def of_tensors(self) -> bool:
        """Whether anything is recorded that names a tensor."""
        return bool(self.frozen or self.unequal or self.buffers)

    def add(self, other: PlanningNotes, layer: int, number: int) -> None:
        """Add what is recorded of one layer, for output layer `layer` in slice `number`."""
        for suffix in other.frozen:
            self.frozen.setdefault(suffix, []).append(layer)
        for key in other.unequal:
            self.unequal.setdefault(key, []).append(layer)
        for kind, names in other.buffers.items():
            for name in names:
                self.buffers.setdefault(kind, {}).setdefault(name, []).append(layer)
        for (what, _), (why, method, _) in other.problems.items():
            self.problems.setdefault((what, number), (why, method, []))[2].append(layer)
        for method, _ in other.cancelling:
            self.cancelling.setdefault((method, number), []).append(layer)

    def findings(self, document: Document) -> Iterator[Finding]:
        """The findings about all tensors."""
        yield from self._of_parameters(document)
        yield from _unscalable(self.frozen)
        for (name, why), indices in self.unequal.items():
            layers = tuple(index for index in dict.fromkeys(indices) if index >= 0)
            what = f"{name} cannot be blended" if layers else f"{name} of the ends cannot be blended"
            remedy = "blend donors of one size and kind" + (
                "" if layers else ", or set one donor for the end: `model: ...`"
            )
            yield Finding("error", "blend-shapes", what, why, remedy, layers)

    def _of_parameters(self, document: Document) -> Iterator[Finding]:
        for (what, number), (why, method, layers) in self.problems.items():
            here = tuple(dict.fromkeys(layer for layer in layers if layer >= 0))
            remedy = f"see `surgeon methods {one_line(method)}` for its parameters"
            line = document.line("slices", number) or document.line("parameters") or document.line("models")
            yield Finding("error", "parameter", what, why, remedy, here, line)
        for (method, number), layers in self.cancelling.items():
            yield Finding(
                "warning",
                "weights-cancel",
                f"The weights of {method} sum to 0, so they are not divided by their sum",
                "the result is a difference of the donors, not a mean; mergekit does the same",
                "set other weights, or normalize: false if a difference is intended",
                tuple(dict.fromkeys(layer for layer in layers if layer >= 0)),
                document.line("slices", number) or document.line("models"),
            )

    def copied(self) -> Iterator[Finding]:
        """The findings about tensors that are copied instead of blended."""
        for (severity, letter), by_name in self.buffers.items():
            names = ", ".join(list(by_name)[:3]) + (" and more" if len(by_name) > 3 else "")
            layers = tuple(dict.fromkeys(i for indices in by_name.values() for i in indices if i >= 0))
            if severity == "error":
                what, why = f"{names} cannot be blended", "their numbers are floating-point numbers of 8 bits or fewer"
                remedy = "convert the donors to bfloat16 first"
                yield Finding("error", "blend-dtype", what, why, remedy, layers)
                continue
            differ = ", and the donors' values differ" if severity == "warning" else ""
            yield Finding(
                severity,
                "buffers-copied",
                f"{names} are not blended but copied from {letter}",
                f"their numbers are not floating-point numbers of 16 bits or more{differ}",
                layers=layers,
            )


def _unscalable(asked: Mapping[str, Sequence[int]]) -> Iterator[Finding]:
    """Errors for tensors whose dtype cannot be scaled.

    Args:
        asked: by name, the layers in which the recipe scales such a tensor.
    """
    for name, indices in asked.items():
        yield Finding(
            "error",
            "scale-type",
            f"{one_line(name)} cannot be scaled",
            "its numbers are not floating-point numbers of 16 bits or more",
            "exclude it with a filter",
            tuple(indices),
        )
