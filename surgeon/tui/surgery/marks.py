"""Marks: letters for layers, to come back to them."""

from __future__ import annotations

from dataclasses import dataclass

from ...text import one_line
from ..action_screen import ActionScreen
from ..session import Session
from ..widgets.pane import DonorPane, Pane
from .surgery_view import SurgeryView


@dataclass(frozen=True)
class Mark:
    """A marked layer.

    Attributes:
        ref: the donor whose column it is in; empty for the stack.
        layer: the layer, in the column's own counting.
        sources: where an output layer comes from; by it, it is found again after edits.
    """

    ref: str
    layer: int
    sources: tuple[tuple[str, int], ...] = ()


class Marks:
    """Actions that set marks and go to them."""

    def __init__(self, screen: ActionScreen, session: Session, view: SurgeryView) -> None:
        self._screen, self._session, self._view = screen, session, view
        self._marks: dict[str, Mark] = {}

    def do_mark(self, count: int | None) -> None:
        """Mark the layer under the cursor with the letter that is typed next."""
        row = self._view.pane.current
        if row is None or row.kind == "end":
            self._view.refuse("there is no layer here to mark")
            return
        self._screen.take_next_key(self._set)
        self._view.say("mark with which letter?")

    async def _set(self, key: str) -> None:
        pane = self._view.pane
        if len(key) != 1 or not key.isalnum() or pane.current is None:
            self._view.refuse("a mark is a letter or a digit")
            return
        ref = pane.ref if isinstance(pane, DonorPane) else ""
        layer = pane.current.start
        sources = () if ref else self._session.plan.layers[layer].sources
        self._marks[key] = Mark(ref, layer, sources)
        self._view.say(f"marked {self._name(self._marks[key])} as {key}: ` {key} goes there")

    def _name(self, mark: Mark) -> str:
        if mark.ref:
            return f"layer {mark.layer} of {self._session.letters.get(mark.ref, '')} {one_line(mark.ref)}"
        return f"{'~'.join(f'{letter}{index:02d}' for letter, index in mark.sources)} of the stack"

    def do_to_mark(self, count: int | None) -> None:
        """Go to the mark whose letter is typed next."""
        if not self._marks:
            self._view.refuse("there are no marks yet: M and a letter marks a layer")
            return
        self._screen.take_next_key(self._go)
        self._view.say("go to: " + ", ".join(f"{key} {self._name(mark)}" for key, mark in sorted(self._marks.items())))

    async def _go(self, key: str) -> None:
        self._view.show_status()
        mark = self._marks.get(key)
        if mark is None:
            self._view.refuse(f"there is no mark {one_line(key)}")
        elif not mark.ref:
            self._to_stack(mark)
        elif mark.ref in self._session.shown_models:
            await self._view.show_donor(mark.ref)
            _to_layer(self._view.pane, mark.layer)
        else:
            self._view.refuse(f"{one_line(mark.ref)} is not open any more")

    def _to_stack(self, mark: Mark) -> None:
        """Go to the output layer with the mark's sources that is nearest to where it was."""
        layers = self._session.plan.layers
        same = [layer.index for layer in layers if layer.sources == mark.sources]
        if not same:
            self._view.refuse(f"{self._name(mark)} is not in the stack any more")
            return
        self._view.stack.focus()
        _to_layer(self._view.stack, min(same, key=lambda index: abs(index - mark.layer)))


def _to_layer(pane: Pane, layer: int) -> None:
    pane.clear_selection()
    pane.move_to(pane.row_of_layer(layer))
