"""Turns ranges into blends and back, and opens the curves of their parameters."""

from __future__ import annotations

from ...errors import InputError
from ...recipe import stack
from ...recipe.edits import BlendLayers, Edit
from ...recipe.edits.blend_text import span
from ..blend.blend_choice import BlendChoice
from ..curves.drafts import NEW
from ..curves.open_draft import open_draft
from ..navigation import Navigation
from ..session import Session
from .command_line import CommandLine
from .editor import Editor
from .surgery_view import SurgeryView


class Blender:
    """Actions on blends."""

    def __init__(
        self, session: Session, view: SurgeryView, line: CommandLine, editor: Editor, navigation: Navigation
    ) -> None:
        self._session, self._view, self._line, self._editor = session, view, line, editor
        self._navigation = navigation

    def _sources(self, start: int) -> tuple[tuple[str, int], ...]:
        """(reference, layer) of each source of an output layer."""
        return stack.cells(self._session.recipe.explicit(self._session.donors.depth))[start].sources

    def do_blend(self, count: int | None) -> None:
        """Blend the selection: the user chooses donors, method and base, then draws the curves."""
        self._choose(self._editor.span(count, "blend"), only_method=False)

    def _choose(self, found: tuple[int, int] | None, *, only_method: bool) -> None:
        """Open the screen that chooses a blend, or only its method, unless nothing can come of it."""
        if found is None:
            return
        try:
            choice = BlendChoice(self._session, *found, only_method=only_method)
        except InputError as error:
            self._view.refuse(error)
            return
        self._navigation.open_blend(choice, self._chosen)

    def _chosen(self, edit: BlendLayers | None) -> None:
        if edit is not None:
            self._draw(edit.start, edit.stop, edit)

    def do_curves(self, count: int | None) -> None:
        """Draw the parameters of the selection; without one, of the slice under the cursor, or of an end's slice."""
        pane, layers = self._view.pane, self._session.plan.layers
        row = pane.current
        if pane is self._view.stack and row and row.kind == "end" and not pane.selection and layers:
            number = layers[0 if row.role == "embeddings" else -1].slice_index
            self._draw(*self._slice(number), None, ends=True)
            return
        found = self._editor.span(count, "draw curves for")
        if found is not None:
            whole = not pane.selection and not count
            self._draw(*(self._slice(layers[found[0]].slice_index) if whole else found), None)

    def _slice(self, number: int) -> tuple[int, int]:
        """Output layers of a slice."""
        layers = [layer.index for layer in self._session.plan.layers if layer.slice_index == number]
        return layers[0], layers[-1] + 1

    def _draw(self, start: int, stop: int, blend: BlendLayers | None, *, ends: bool = False) -> None:
        """Open the curve editor, with `ends` at their track; a blend without a parameter to draw is made at once."""
        session = self._session
        try:
            opened = open_draft(session.recipe, session.donors.depth, start, stop, blend, tied=session.plan.tied)
        except InputError as error:
            self._view.refuse(error)
            return
        if blend is not None and not any(line.origin == NEW for line in opened.lines):
            self._drawn(opened.result())
            return
        if not opened.lines:
            self._view.refuse(f"{opened.method.name} has no parameters")
            return
        first = next((index for index, line in enumerate(opened.lines) if line.drawn and bool(line.ends) == ends), 0)
        self._navigation.open_curves(opened, first, self._drawn)

    def _drawn(self, edit: Edit | None) -> None:
        if edit is not None:
            self._editor.apply(edit)

    def do_unblend(self, count: int | None) -> None:
        """Begin a command that replaces blends by copies of their first source."""
        found = self._editor.span(count, "unblend")
        if found:
            letter = self._session.letters[self._sources(found[0])[0][0]]
            self._line.open(":", f"unblend {span(*found)} {letter}")

    def do_method(self, count: int | None) -> None:
        """Let the user choose another method for the blends of the selection."""
        self._choose(self._editor.span(count, "blend otherwise"), only_method=True)

    def do_collapse(self, count: int | None) -> None:
        """Begin a command that collapses the selection to one layer."""
        found = self._editor.span(count, "collapse")
        if found:
            self._line.open(":", f"collapse {span(*found)}")

    def do_edges(self, count: int | None) -> None:
        """Begin a command that sets the first or last n layers."""
        layers = self._session.plan.layers
        row = self._view.stack.current
        last = (
            bool(layers) and row is not None and (row.role in ("final_norm", "lm_head") or row.start * 2 >= len(layers))
        )
        self._line.open(":", f"edges {'last' if last else 'first'} {count or 2} ")
