"""Blending on the surgery screen: ranges become blends, blends become copies, curves are opened."""

from __future__ import annotations

from ...recipe import stack
from ...recipe.blendtext import span
from .surgery_edit import Editing


class Blending(Editing):
    """Actions on blends."""

    def _sources(self, start: int) -> tuple[tuple[str, int], ...]:
        """(reference, layer) of each source of an output layer."""
        return stack.cells(self.session.recipe.explicit(self.session.donors.depth))[start].sources

    def do_blend(self, count: int | None) -> None:
        """The selection blended with another donor."""
        found = self._span(count, "blend")
        if found:
            self.open_line(":", f"blend {span(*found)} ")

    def do_curves(self, count: int | None) -> None:
        """Parameters of the selection."""
        found = self._span(count, "draw curves for")
        if found:
            self.open_line(":", f"param {span(*found)} ")

    def do_unblend(self, count: int | None) -> None:
        """The selection as copies of its first source; the line waits for another to be typed."""
        found = self._span(count, "unblend")
        if found:
            letter = self.session.letters[self._sources(found[0])[0][0]]
            self.open_line(":", f"unblend {span(*found)} {letter}")

    def do_method(self, count: int | None) -> None:
        """Another method for the selection."""
        found = self._span(count, "blend otherwise")
        if found:
            self.open_line(":", f"method {span(*found)} ")

    def do_collapse(self, count: int | None) -> None:
        """The selection as one layer."""
        found = self._span(count, "collapse")
        if found:
            self.open_line(":", f"collapse {span(*found)}")

    def do_edges(self, count: int | None) -> None:
        """What the first or last n layers are."""
        layers = self.session.plan.layers
        row = self.stack.current
        last = (
            bool(layers) and row is not None and (row.role in ("final_norm", "lm_head") or row.start * 2 >= len(layers))
        )
        self.open_line(":", f"edges {'last' if last else 'first'} {count or 2} ")
