"""Planned layers, kept for the next plan: an edit plans the layers that it changed."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from .model import LayerContents
from .planning_notes import PlanningNotes

_MOST = 1024
"""Most layers that are kept beyond those of the present plan."""


@dataclass(frozen=True)
class KeptLayer:
    """A planned layer.

    Attributes:
        contents: its tensors.
        notes: what was recorded while they were planned.
        alive: what the key names by its id, so that nothing else gets that id.
    """

    contents: LayerContents
    notes: PlanningNotes
    alive: tuple[object, ...]


@dataclass
class LayerCache:
    """Planned layers by everything that they depend on; the least recently used are dropped first."""

    _kept: dict[Hashable, KeptLayer] = field(default_factory=dict)

    def get(self, key: Hashable) -> KeptLayer | None:
        """The layer of that key; None if it is not kept."""
        found = self._kept.pop(key, None)
        if found is not None:
            self._kept[key] = found
        return found

    def keep(self, key: Hashable, layer: KeptLayer) -> None:
        """Keep a layer."""
        self._kept[key] = layer

    def trim(self, used: int) -> None:
        """Drop what a plan of `used` layers leaves beyond the limit."""
        for key in list(self._kept)[: max(0, len(self._kept) - used - _MOST)]:
            del self._kept[key]

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()
