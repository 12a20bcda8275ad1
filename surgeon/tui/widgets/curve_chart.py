"""A curve over layers, drawn with eighths of blocks; a step of the cursor redraws one line."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from .. import theme
from ..rows.blend_labels import short_number
from .line import Piece, strip_of

BLOCKS = " ▁▂▃▄▅▆▇█"
AXIS = 7
"""Cells of the scale on the left."""

WIDEST = 9
"""Cells of a layer where there is room."""

UNDER = 3
"""Lines under the curve: values, numbers of layers, cursor and selection."""


def spark(values: Sequence[float], low: float, high: float, width: int) -> str:
    """A curve in one line, a cell per layer or for every few."""
    if not values:
        return ""
    step = max(1, -(-len(values) // max(1, width)))
    return "".join(BLOCKS[1 + round(7 * _share(values[index], low, high))] for index in range(0, len(values), step))


def _share(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0


def bounds(values: Sequence[float], low: float | None, high: float | None) -> tuple[float, float]:
    """Bottom and top of the scale: 0 and 1 if all values are within, else as far as the values go."""
    bottom = min([0.0, *values] if low is None else [low, *values])
    top = max([1.0, *values] if high is None else [high, *values])
    return bottom, top if top > bottom else bottom + 1.0


class CurveChart(Widget, can_focus=True):
    """One track; `cursor` and the selection are indices of its values."""

    DEFAULT_CSS = "CurveChart { height: 1fr; width: 1fr; }"

    class Picked(Message):
        """A layer was clicked."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.values: tuple[float, ...] = ()
        self.names: tuple[str, ...] = ()
        self.low, self.high = 0.0, 1.0
        self.cursor = 0
        self.selection: tuple[int, int] | None = None
        self.left = 0
        self.style: Style = theme.PLAIN

    # -- what is shown

    def show(self, values: Sequence[float], names: Sequence[str], low: float, high: float) -> None:
        """Show a curve; only lines that change are drawn."""
        same = (self.names, self.low, self.high, len(self.values)) == (tuple(names), low, high, len(values))
        old, old_left = self._texts(), self.left
        self.values, self.names, self.low, self.high = tuple(values), tuple(names), low, high
        self._keep_visible()
        if not same or self.left != old_left:
            self.refresh()
            return
        for y, (before, after) in enumerate(zip(old, self._texts(), strict=True)):
            if before != after:
                self._redraw(y)

    def point(self, cursor: int, selection: tuple[int, int] | None) -> None:
        """Move cursor and selection."""
        if (cursor, selection) == (self.cursor, self.selection):
            return
        self.cursor, self.selection = cursor, selection
        if self._keep_visible():
            self.refresh()
        else:
            self._redraw(self.size.height - 1)

    def on_resize(self) -> None:
        """Keep the cursor in view."""
        self._keep_visible()

    def _keep_visible(self) -> bool:
        """Scroll by half the width until the cursor is in view; True if that moved anything."""
        fit, old = self.fit, self.left
        half = max(1, fit // 2)
        while self.cursor < self.left:
            self.left -= half
        while self.cursor >= self.left + fit:
            self.left += half
        self.left = max(0, min(self.left, len(self.values) - fit))
        return self.left != old

    def _redraw(self, y: int) -> None:
        self.refresh(Region(0, y, self.size.width, 1))

    # -- measures

    @property
    def cell(self) -> int:
        """Cells per layer."""
        room = max(1, self.size.width - AXIS - 1)
        return max(1, min(WIDEST, room // max(1, len(self.values))))

    @property
    def fit(self) -> int:
        """Layers in view."""
        return max(1, (self.size.width - AXIS - 1) // self.cell)

    @property
    def rows(self) -> int:
        """Lines of the curve itself."""
        return max(1, self.size.height - UNDER)

    @property
    def _shown(self) -> range:
        return range(self.left, min(self.left + self.fit, len(self.values)))

    # -- drawing

    def _texts(self) -> list[str]:
        return [self._text(y) for y in range(self.size.height)]

    def _text(self, y: int) -> str:
        """A line behind the scale."""
        under = y - self.rows
        if under < 0:
            return self._bars(self.rows - 1 - y)
        if under == 0:
            return self._labels([short_number(self.values[index]) for index in self._shown])
        if under == 1:
            return self._labels([self.names[index] for index in self._shown])
        return self._marks()

    def _bars(self, row: int) -> str:
        """Row `row` from the bottom."""
        gap = self.cell > 2
        out = []
        for index in self._shown:
            eighths = round(_share(self.values[index], self.low, self.high) * self.rows * 8) - 8 * row
            block = BLOCKS[min(8, max(0, eighths))]
            if row == 0 and eighths <= 0:
                block = "_"
            out.append(block * (self.cell - gap) + " " * gap)
        return "".join(out)

    def _labels(self, names: Sequence[str]) -> str:
        """Texts under their layers, as many as fit."""
        out, free = "", 0
        for number, name in enumerate(names):
            start = number * self.cell
            if start >= free and start + len(name) <= len(names) * self.cell + 1:
                out = f"{out:<{start}}{name}"
                free = start + len(name) + 1
        return out

    def _marks(self) -> str:
        span = self.selection or (self.cursor, self.cursor + 1)
        gap = self.cell > 2
        out = []
        for index in self._shown:
            mark = "^" if index == self.cursor else "=" if span[0] <= index < span[1] else " "
            fill = "=" if index == self.cursor and self.selection else mark
            body = mark + fill * (self.cell - gap - 1)
            joined = self.selection is not None and span[0] <= index < span[1] - 1
            out.append(body + ("=" if joined else " ") * gap)
        return "".join(out).rstrip()

    def _scale(self, y: int) -> str:
        if y == 0:
            return short_number(self.high)
        if y == self.rows - 1:
            return short_number(self.low)
        middle = self.rows // 2
        return short_number((self.low + self.high) / 2) if y == middle and self.rows >= 5 and self.rows % 2 else ""

    def render_line(self, y: int) -> Strip:
        """One row of the screen."""
        if not self.values or y >= self.size.height:
            return strip_of([], self.size.width, self.rich_style)
        under = y - self.rows
        scale = self._scale(y) if under < 0 else ""
        edge = " " if under >= 0 else "┤" if scale else "│"
        style = self.style if under < 0 else theme.PLAIN if under == 0 else theme.DIM if under == 1 else theme.BOLD
        more = "‹" if self.left and under == 1 else " "
        beyond = "›" if self._shown.stop < len(self.values) and under == 1 else ""
        pieces: list[Piece] = [(f"{scale:>{AXIS - 2}}{edge}{more}", theme.DIM)]
        pieces.append((self._text(y), style))
        if beyond:
            pieces.append((beyond, theme.DIM))
        return strip_of(pieces, self.size.width, self.rich_style)

    def on_click(self, event: events.Click) -> None:
        """A click picks the layer."""
        index = self.left + (event.x - AXIS) // self.cell
        if event.x >= AXIS and 0 <= index < len(self.values):
            self.post_message(self.Picked(index))
