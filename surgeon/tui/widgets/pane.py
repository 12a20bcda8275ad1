"""A column of rows with a cursor and a selection: donors and the stack.

Draws line by line. A cursor step redraws the head of two lines and nothing else, and at the edge the view jumps by
half a page, because over SSH a repaint of the whole pane on every step is what makes an interface slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from .. import theme
from ..rows.pane_rows import PaneRow
from .line import Piece, strip_of

if TYPE_CHECKING:
    from typing_extensions import Self

HEAD_WIDTH = 6
"""Cells at the start of a line that cursor and selection change: two marks and the index."""


MAX_LABEL = 24
"""Cells of provenance and value in the stack; longer ones push the rest of their line aside."""


class Pane(Widget, can_focus=True):
    """Rows under a one-line title; `cursor` and the selection are indices of rows.

    A selection is sticky if the user began it: moves extend it. One that an edit left, or that shift and an arrow made,
    is not: it is what the next action applies to, and the next move drops it.
    """

    DEFAULT_CSS = "Pane { height: 1fr; }"

    @dataclass
    class Moved(Message):
        """The cursor or the selection moved."""

        pane: Pane

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.rows: list[PaneRow] = []
        self.title: list[Piece] = []
        self.cursor = 0
        self.mark_row: int | None = None
        self.sticky = False
        self.top = 0

    # -- what is shown

    def show(self, rows: Sequence[PaneRow], title: Sequence[Piece]) -> None:
        """Replace the rows, keeping the cursor where it was as far as it goes; draws only the lines that changed."""
        old, self.rows = self.rows, list(rows)
        old_top, old_title, self.title = self.top, self.title, list(title)
        self.cursor = max(0, min(self.cursor, len(self.rows) - 1))
        if self.mark_row is not None and self.mark_row >= len(self.rows):
            self.mark_row = None
        self._keep_visible()
        if self.top != old_top or not old:
            self.refresh()
            return
        if old_title != self.title:
            self._redraw_line(0)
        for y in range(1, self.size.height):
            index = self.top + y - 1
            before = old[index] if index < len(old) else None
            after = self.rows[index] if index < len(self.rows) else None
            if before != after:
                self._redraw_line(y)

    @property
    def page(self) -> int:
        """Rows that fit under the title."""
        return max(1, self.size.height - 1)

    @property
    def current(self) -> PaneRow | None:
        """The row under the cursor."""
        return self.rows[self.cursor] if self.rows else None

    @property
    def selection(self) -> tuple[int, int] | None:
        """Selected row indices `[start, stop)`, or None."""
        if self.mark_row is None or not self.rows:
            return None
        return min(self.mark_row, self.cursor), max(self.mark_row, self.cursor) + 1

    def layer_span(self, count: int | None = None) -> tuple[int, int] | None:
        """The layers `[start, stop)` that an action applies to; None on an end.

        It is the selection, else `count` rows from the cursor. A count also counts where the selection is not sticky.
        """
        low, high = self.selection or (self.cursor, self.cursor + (count or 1))
        if count is not None and not self.sticky:
            low, high = self.cursor, self.cursor + count
        layers = [row for row in self.rows[low:high] if row.kind != "end"]
        return (layers[0].start, layers[-1].stop) if layers else None

    def row_of_layer(self, layer: int) -> int:
        """The row that holds a layer (the last layer's row when there is none)."""
        found = [index for index, row in enumerate(self.rows) if row.kind != "end" and row.start <= layer < row.stop]
        if found:
            return found[0]
        layers = [index for index, row in enumerate(self.rows) if row.kind != "end"]
        return layers[-1] if layers else 0

    # -- moving

    def go_to(self, row: int, *, quietly: bool = False) -> None:
        """Move the cursor as the user asks: a selection that is not sticky is dropped."""
        if self.mark_row is not None and not self.sticky:
            self.clear_selection()
            if not quietly:
                self.post_message(self.Moved(self))
        self.move_to(row, quietly=quietly)

    def move_to(self, row: int, *, quietly: bool = False) -> None:
        """Put the cursor on a row and keep where the selection began; with `quietly` no message says so."""
        if not self.rows:
            return
        before = self.selection
        old, self.cursor = self.cursor, max(0, min(row, len(self.rows) - 1))
        if self.cursor == old:
            return
        if self._keep_visible():
            self.refresh()
        else:
            changed = {old, self.cursor}
            for span in (before, self.selection):
                changed |= set(range(*span)) if span else set()
            if before and self.selection:
                both = set(range(*before)) & set(range(*self.selection))
                changed = (changed - both) | {old, self.cursor}
            self._redraw_heads(changed)
        if not quietly:
            self.post_message(self.Moved(self))

    def select(self, start: int, stop: int, *, sticky: bool = True) -> None:
        """Select rows `[start, stop)` with the cursor on the last; no message says so."""
        before, old = self.selection, self.cursor
        self.mark_row, self.sticky = start, sticky
        self.cursor = max(start, min(stop - 1, len(self.rows) - 1))
        if self._keep_visible():
            self.refresh()
        else:
            self._redraw_heads({old, *range(*(before or (0, 0))), *range(start, stop)})

    def clear_selection(self) -> None:
        """Select nothing."""
        span, self.mark_row, self.sticky = self.selection, None, False
        if span:
            self._redraw_heads(set(range(*span)))

    def _keep_visible(self) -> bool:
        """Scroll by half pages until the cursor is in view; True if that moved anything."""
        old, half = self.top, max(1, self.page // 2)
        while self.cursor < self.top:
            self.top -= half
        while self.cursor >= self.top + self.page:
            self.top += half
        self.top = max(0, min(self.top, len(self.rows) - self.page))
        return self.top != old

    # -- drawing

    def _redraw_line(self, y: int) -> None:
        self.refresh(Region(0, y, self.size.width, 1))

    def _redraw_heads(self, rows: set[int]) -> None:
        for row in rows:
            y = row - self.top + 1
            if 1 <= y < self.size.height:
                self.refresh(Region(0, y, min(HEAD_WIDTH, self.size.width), 1))

    def render_line(self, y: int) -> Strip:
        """One row of the screen."""
        base = self.rich_style
        if y == 0:
            style = theme.BOLD if self.has_focus else theme.DIM
            return strip_of([(text, style + piece) for text, piece in self.title], self.size.width, base)
        index = self.top + y - 1
        if index >= len(self.rows):
            return strip_of([], self.size.width, base)
        return strip_of(self._pieces(index), self.size.width, base)

    def _pieces(self, index: int) -> list[Piece]:
        row = self.rows[index]
        span = self.selection
        selected = span is not None and span[0] <= index < span[1]
        here = index == self.cursor
        style = theme.SELECTED if selected else theme.PLAIN
        if here and self.has_focus:
            style = theme.CURSOR
        # Where the keys go is seen without colour too.
        gutter = ((">" if self.has_focus else "-") if here else " ") + ("*" if selected else " ")
        return [(f"{gutter}{row.head:>4}", style), *self.pieces_of(row)]

    def pieces_of(self, row: PaneRow) -> list[Piece]:
        """The line of a row behind its head."""
        return [(" " + row.text, theme.DIM)]

    def focus(self, scroll_visible: bool = True) -> Self:
        """Take the focus at once, without drawing the whole pane."""
        if self.is_attached:
            self.screen.set_focus(self, scroll_visible=scroll_visible)
        return self

    def on_focus(self, event: events.Focus) -> None:
        """Draw title and cursor anew; Textual would draw the whole pane."""
        event.prevent_default()
        self._focused(True)
        if self.parent is not None:
            self.parent.post_message(events.DescendantFocus(self))

    def on_blur(self, event: events.Blur) -> None:
        """Draw title and cursor anew."""
        event.prevent_default()
        self._focused(False)
        if self.parent is not None:
            self.parent.post_message(events.DescendantBlur(self))

    def watch_has_focus(self, _has_focus: bool) -> None:
        """Nothing: no rule of the style sheet depends on it, and applying the rules would draw the whole pane."""

    def _focused(self, has_focus: bool) -> None:
        self.has_focus = has_focus
        self._redraw_line(0)
        self._redraw_heads({self.cursor})

    def on_resize(self) -> None:
        """Keep the cursor in view."""
        self._keep_visible()

    def on_click(self, event: events.Click) -> None:
        """A click puts the cursor there."""
        if event.y >= 1:
            self.go_to(self.top + event.y - 1)

    def on_mouse_scroll_down(self) -> None:
        """The wheel moves the cursor."""
        self.go_to(self.cursor + 3)

    def on_mouse_scroll_up(self) -> None:
        """The wheel moves the cursor."""
        self.go_to(self.cursor - 3)


class DonorPane(Pane):
    """One donor's layers."""

    def __init__(self, ref: str) -> None:
        super().__init__()
        self.ref = ref


class StackPane(Pane):
    """The model being built.

    Attributes:
        hint: what is shown under the rows, where there is no layer yet.
    """

    label_width = 8

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.hint: list[str] = []
        self._hinted = False

    def render_line(self, y: int) -> Strip:
        """One row of the screen; under the rows, the hint."""
        under = y - len(self.rows) - 2
        if not 0 <= under < len(self.hint):
            return super().render_line(y)
        return strip_of([("  " + self.hint[under], theme.PLAIN)], self.size.width, self.rich_style)

    def show(self, rows: Sequence[PaneRow], title: Sequence[Piece]) -> None:
        """Replace the rows, with labels as wide as most need."""
        widest = max((len(row.label) + len(row.value) + 1 for row in rows if row.value), default=8)
        width = max(8, min(widest, MAX_LABEL))
        if width != self.label_width or bool(self.hint) != self._hinted:
            self._hinted = bool(self.hint)
            self.label_width = width
            self.refresh()
        super().show(rows, title)

    def pieces_of(self, row: PaneRow) -> list[Piece]:
        """Slice bracket, marker, provenance, value, rest."""
        mark = {"+": theme.ADDED, "!": theme.SEVERITY["warning"]}.get(row.marker, theme.DIM)
        hue = theme.hue(row.letter) if row.letter else theme.PLAIN
        parts: list[Piece] = [
            (f" {row.bracket}", theme.DIM),
            (row.marker, mark),
            ("x" if row.repeat else " ", theme.DIM),
        ]
        if not row.value:
            return [*parts, (f"{row.label:<{self.label_width}}", hue), (" " + row.text, theme.DIM)]
        for number, source in enumerate(row.label.split("~")):
            parts += [("~", theme.DIM)] if number else []
            parts.append((source, theme.hue(source[:1])))
        room = self.label_width - len(row.label) - 1
        return [
            *parts,
            (f" {row.value:<{room}}" if room > 0 else f" {row.value}", theme.PLAIN),
            (" " + row.text, theme.DIM),
        ]
