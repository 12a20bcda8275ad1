"""A scrolling list of styled lines with an optional cursor: findings, YAML, differences, logs, details."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from .. import theme
from ..cells import wrapped as wrapped
from .line import Piece, strip_of

Lines = Sequence[Sequence[Piece]]


class TextPane(Widget, can_focus=True):
    """Lines of pieces; with `pointed`, one of them carries a cursor, which stands on every line or only on `stops`."""

    DEFAULT_CSS = "TextPane { height: 1fr; width: 1fr; }"

    def __init__(self, *, pointed: bool = False, follow: bool = False, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: list[list[Piece]] = []
        self.stops: Sequence[int] = ()
        self.pointed = pointed
        self.follow = follow
        self.cursor = 0
        self.top = 0

    @property
    def text(self) -> str:
        """Everything the pane holds, as plain text."""
        return "\n".join("".join(text for text, _ in line) for line in self.lines)

    def show(self, lines: Lines, stops: Sequence[int] | None = None) -> None:
        """Replace the lines; only those in view that changed are drawn.

        Args:
            stops: the lines on which the cursor may stand, in order; None for all.
        """
        old, old_top = self.lines, self.top
        self.lines = [list(line) for line in lines]
        self.stops = range(len(self.lines)) if stops is None else stops
        self.cursor = self.stops[self._stop] if self.stops else 0
        last = max(0, len(self.lines) - self.size.height)
        if self.follow and old_top >= max(0, len(old) - self.size.height):
            self.top = last
        self.top = min(self.top, last)
        if self.top != old_top or not old:
            self.refresh()
            return
        for y in range(self.size.height):
            index = self.top + y
            if (old[index] if index < len(old) else None) != (self.lines[index] if index < len(self.lines) else None):
                self.refresh(Region(0, y, self.size.width, 1))

    def reveal(self, line: int) -> None:
        """Scroll, if need be, until a line is in view, with some of what is around it."""
        height = max(1, self.size.height)
        if not self.top <= line < self.top + height:
            old, self.top = self.top, max(0, min(line - height // 3, len(self.lines) - height))
            if self.top != old:
                self.refresh()

    @property
    def _stop(self) -> int:
        """The number of the cursor's stop, or of the last one before it."""
        return max(0, bisect_right(self.stops, self.cursor) - 1)

    def page(self, share: float) -> None:
        """Move by a share of the pane's height."""
        lines = max(1, int(abs(share) * self.size.height))
        sign = 1 if share > 0 else -1
        if not self.pointed or not self.stops:
            self.move(sign * lines)
            return
        target = self.cursor + sign * lines
        to = bisect_right(self.stops, target) - 1 if sign > 0 else bisect_left(self.stops, target)
        self.move(to - self._stop or sign)

    def move(self, step: int) -> None:
        """Move the cursor, or the view where there is none."""
        if not self.pointed:
            old, self.top = self.top, max(0, min(self.top + step, len(self.lines) - self.size.height))
            if old != self.top:
                self.refresh()
            return
        if not self.stops:
            return
        old = self.cursor
        stop = max(0, min(self._stop + step, len(self.stops) - 1))
        self.cursor = self.stops[stop]
        if not self.size.height:
            return  # It is not laid out yet; `on_resize` brings the cursor into view.
        after = self.stops[stop + 1] if stop + 1 < len(self.stops) else len(self.lines)
        top = self.top
        half = max(1, self.size.height // 2)
        while self.cursor < self.top:
            self.top = max(0, self.top - half)
        # An entry of several lines is shown to its end, if it fits.
        while max(self.cursor, min(after - 1, self.cursor + half)) >= self.top + self.size.height:
            self.top += half
        if top != self.top:
            self.refresh()
        elif old != self.cursor:
            for index in (old, self.cursor):
                self.refresh(Region(0, index - self.top, self.size.width, 1))

    def on_resize(self) -> None:
        """Keep the cursor in view."""
        if self.pointed:
            self.reveal(self.cursor)

    def render_line(self, y: int) -> Strip:
        """One row of the screen."""
        index = self.top + y
        if index >= len(self.lines):
            return strip_of([], self.size.width, self.rich_style)
        pieces = self.lines[index]
        if self.pointed:
            # Where two lists are on a screen, the mark shows which of them the keys move in.
            mark = " " if index != self.cursor else ">" if self.has_focus or not self.screen.is_current else "·"
            pieces = [(mark, theme.BOLD), *pieces]
        return strip_of(pieces, self.size.width, self.rich_style)

    def on_focus(self) -> None:
        """The mark of the cursor changes."""
        self._redraw_cursor()

    def on_blur(self) -> None:
        """The mark of the cursor changes."""
        self._redraw_cursor()

    def _redraw_cursor(self) -> None:
        if self.pointed:
            self.refresh(Region(0, self.cursor - self.top, self.size.width, 1))

    def on_mouse_scroll_down(self) -> None:
        """The wheel scrolls."""
        self.move(3)

    def on_mouse_scroll_up(self) -> None:
        """The wheel scrolls."""
        self.move(-3)
