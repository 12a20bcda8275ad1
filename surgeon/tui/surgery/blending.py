"""Blending on the surgery screen: ranges become blends, blends become copies, curves are opened."""

from __future__ import annotations

from ...errors import InputError
from ...recipe import stack
from ...recipe.edits import BlendLayers, Edit
from ...recipe.edits.blend_text import span
from .editing import Editing


class Blending(Editing):
    """Actions on blends."""

    def _sources(self, start: int) -> tuple[tuple[str, int], ...]:
        """(reference, layer) of each source of an output layer."""
        return stack.cells(self.session.recipe.explicit(self.session.donors.depth))[start].sources

    def do_blend(self, count: int | None) -> None:
        """The selection blended: donors, method and base are chosen, then its curves drawn."""
        found = self._span(count, "blend")
        if found is None:
            return
        from ..blend.blend_screen import BlendScreen, Choice

        try:
            choice = Choice(self.session, *found)
        except InputError as error:
            self.refuse(error)
            return
        self.app.push_screen(BlendScreen(choice), self._chosen)

    def _chosen(self, edit: BlendLayers | None) -> None:
        if edit is not None:
            self._draw(edit.start, edit.stop, edit)

    def do_curves(self, count: int | None) -> None:
        """The parameters of the selection; of the whole slice without one, or of the slice that an end belongs to."""
        pane, layers = self.pane, self.session.plan.layers
        row = pane.current
        if pane is self.stack and row and row.kind == "end" and not pane.selection and layers:
            number = layers[0 if row.role == "embeddings" else -1].slice_index
            self._draw(*self._slice(number), None, ends=True)
            return
        found = self._span(count, "draw curves for")
        if found is not None:
            whole = not pane.selection and not count
            self._draw(*(self._slice(layers[found[0]].slice_index) if whole else found), None)

    def _slice(self, number: int) -> tuple[int, int]:
        """Output layers of a slice."""
        layers = [layer.index for layer in self.session.plan.layers if layer.slice_index == number]
        return layers[0], layers[-1] + 1

    def _draw(self, start: int, stop: int, blend: BlendLayers | None, *, ends: bool = False) -> None:
        """Open the curve editor (at a track of ends); a blend that has nothing to be drawn is made at once."""
        from ..curves.curve_screen import CurveScreen
        from ..curves.drafts import NEW
        from ..curves.open_draft import draft

        session = self.session
        try:
            opened = draft(session.recipe, session.donors.depth, start, stop, blend, tied=session.plan.tied)
        except InputError as error:
            self.refuse(error)
            return
        if blend is not None and not any(line.origin == NEW for line in opened.lines):
            self._drawn(opened.result())
            return
        if not opened.lines:
            self.refuse(f"{opened.method.name} has no parameters")
            return
        first = next((index for index, line in enumerate(opened.lines) if line.drawn and bool(line.ends) == ends), 0)
        self.app.push_screen(CurveScreen(opened, session.letters, first), self._drawn)

    def _drawn(self, edit: Edit | None) -> None:
        if edit is not None:
            self.edit(edit)

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
