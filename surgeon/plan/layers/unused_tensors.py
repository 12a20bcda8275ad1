"""Donors' tensors that no output needs: buffers that a load recomputes, and layers that the config does not count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...checkpoint import Checkpoint, TensorEntry
from ...text import one_line, plural
from ..findings import Finding
from ..model import Donor


def others(template: Checkpoint, moved: bool) -> Mapping[str, TensorEntry]:
    """The tensors outside layers and ends that the output keeps; `moved` excludes layers that the config omits."""
    return template.outside if moved else template.other


def findings(template: Donor, used: list[Donor], moved: bool) -> Iterator[Finding]:
    """Findings about tensors that are left out."""
    kept = others(template.checkpoint, moved)
    uncounted = [name for name in template.checkpoint.other if name not in kept]
    if uncounted:
        yield Finding(
            "warning",
            "uncounted-layers",
            f"{plural(len(uncounted), 'tensor')} of {template.letter} are left out",
            "they belong to layers that its config.json does not count, and their names could mean other layers in the "
            f"output (for instance {one_line(uncounted[0])})",
        )
    for donor in used:
        buffers = _buffers(donor.checkpoint)
        if buffers:
            yield Finding(
                "note",
                "buffers",
                f"{plural(len(buffers), 'buffer')} of {donor.letter} are left out",
                f"they are recomputed when a model is loaded (for instance {one_line(buffers[0])})",
            )


def _buffers(donor: Checkpoint) -> list[str]:
    return [name for index in range(donor.depth) for name in donor.weights(index).buffers]
