"""Selects layers in the focused pane."""

from __future__ import annotations

from ..action_screen import ActionScreen
from ..session import Session
from ..widgets.pane import StackPane
from .surgery_view import SurgeryView


class Selector:
    """Actions that start, extend and clear a selection."""

    def __init__(self, screen: ActionScreen, session: Session, view: SurgeryView) -> None:
        self._screen, self._session, self._view = screen, session, view

    def do_select(self, count: int | None) -> None:
        """Start or end a selection at the cursor; one that an edit left is not ended, but a new one started."""
        pane = self._view.pane
        if pane.mark_row is None or not pane.sticky:
            pane.select(pane.cursor, pane.cursor + 1)
            if count and count > 1:
                pane.move_to(pane.cursor + count - 1)
        else:
            pane.clear_selection()
        self._view.say_selection()

    def do_select_slice(self, count: int | None) -> None:
        """Select the slice around the cursor; in a donor, every layer."""
        pane = self._view.pane
        layers = [i for i, row in enumerate(pane.rows) if row.kind != "end"]
        if not layers or pane.current is None:
            self._view.refuse("there is no layer to select")
            return
        if isinstance(pane, StackPane) and pane.current.kind == "layer":
            own = self._session.plan.layers[pane.current.start].slice_index
            layers = [i for i in layers if self._session.plan.layers[pane.rows[i].start].slice_index == own]
        pane.select(layers[0], layers[-1] + 1)
        self._view.say_selection()

    def do_extend_down(self, count: int | None) -> None:
        """Select downwards; the next plain move clears it."""
        self._extend(count or 1)

    def do_extend_up(self, count: int | None) -> None:
        """Select upwards; the next plain move clears it."""
        self._extend(-(count or 1))

    def _extend(self, step: int) -> None:
        pane = self._view.pane
        if pane.mark_row is None:
            pane.select(pane.cursor, pane.cursor + 1)
        pane.sticky = False  # also of one begun with v, as other programs do it
        pane.move_to(pane.cursor + step)

    def do_escape(self, count: int | None) -> None:
        """Clear selection, count and message."""
        self._screen.keys.clear()
        self._view.pane.clear_selection()
        self._view.show_status()
