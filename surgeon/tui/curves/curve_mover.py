"""Moves the cursor over layers and tracks of the curve editor, and selects layers."""

from __future__ import annotations

from .curve_state import CurveState
from .curve_view import CurveView


class CurveMover:
    """Actions that change no value."""

    def __init__(self, state: CurveState, view: CurveView) -> None:
        self._state, self._view = state, view

    def move(self, to: int) -> None:
        """Put the cursor on a value; a selection that is not extended by moves is cleared."""
        if self._state.mark is not None and not self._state.sticky:
            self._state.mark = None
        self._point(to)

    def _point(self, to: int) -> None:
        self._state.cursor = max(0, min(to, len(self._state.line.values) - 1))
        self._state.asked_to_leave = False
        self._view.point()

    def do_right(self, count: int | None) -> None:
        """Go n layers up the stack."""
        self.move(self._state.cursor + (count or 1))

    def do_left(self, count: int | None) -> None:
        """Go n layers down the stack."""
        self.move(self._state.cursor - (count or 1))

    def do_first(self, count: int | None) -> None:
        """Go to the first layer."""
        self.move(0)

    def do_last(self, count: int | None) -> None:
        """Go to the last layer, or to layer n."""
        line = self._state.line
        first = 0 if line.ends else self._state.draft.start
        self.move(len(line.values) - 1 if count is None else count - first)

    def do_next_track(self, count: int | None) -> None:
        """Another track."""
        self._turn(+1)

    def do_previous_track(self, count: int | None) -> None:
        """Another track."""
        self._turn(-1)

    def _turn(self, step: int) -> None:
        self._state.track = (self._state.track + step) % len(self._state.draft.lines)
        self._state.mark = None
        self._view.fill()

    def do_select(self, count: int | None) -> None:
        """Start or end a selection; one that a change left is not ended, but a new one started."""
        if self._state.mark is None or not self._state.sticky:
            self._state.mark, self._state.sticky = self._state.cursor, True
            self._point(self._state.cursor + (count or 1) - 1)
        else:
            self.clear_selection()

    def do_select_all(self, count: int | None) -> None:
        """Select every layer."""
        self._state.mark, self._state.sticky = 0, True
        self._point(len(self._state.line.values) - 1)

    def do_extend_right(self, count: int | None) -> None:
        """Select towards the right."""
        self._extend(count or 1)

    def do_extend_left(self, count: int | None) -> None:
        """Select towards the left."""
        self._extend(-(count or 1))

    def _extend(self, step: int) -> None:
        if self._state.mark is None:
            self._state.mark, self._state.sticky = self._state.cursor, False
        self._point(self._state.cursor + step)

    def clear_selection(self) -> None:
        """Select nothing."""
        self._state.mark = None
        self._point(self._state.cursor)
