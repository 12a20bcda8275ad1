"""One line of styled text: header, status, footer."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from ...text import one_line
from ..cells import MORE

Piece = tuple[str, Style]


def strip_of(pieces: Sequence[Piece], width: int, base: Style) -> Strip:
    """Pieces as a strip of exactly `width` cells over `base`; `…` ends text that does not fit."""
    segments: list[Segment] = []
    whole = "".join(text for text, _ in pieces)
    if cell_len(whole) > width and cell_len(whole.rstrip()) > width:
        pieces = _cut(pieces, width)
    room = width
    for text, style in pieces:
        if room <= 0:
            break
        length = cell_len(text)
        if length > room:
            text, length = set_cell_size(text, room), room
        look = base + style
        if segments and segments[-1].style == look:
            # Each change of style costs some 25 bytes on the wire.
            segments[-1] = Segment(segments[-1].text + text, look)
        else:
            segments.append(Segment(text, look))
        room -= length
    if room > 0 and segments and not (segments[-1].style or base).reverse:
        # Spaces look the same in any foreground.
        segments[-1] = Segment(segments[-1].text + " " * room, segments[-1].style)
    elif room > 0:
        segments.append(Segment(" " * room, base))
    return Strip(segments, width)


def _cut(pieces: Sequence[Piece], width: int) -> list[Piece]:
    """The pieces that fit into `width` cells with `…` behind them."""
    found: list[Piece] = []
    room = width - 1
    for text, style in pieces:
        if cell_len(text) > room:
            return [*found, (set_cell_size(text, max(0, room)) + MORE, style)]
        found.append((text, style))
        room -= cell_len(text)
    return found


class Line(Widget):
    """Shows pieces on one row; draws only when they change."""

    DEFAULT_CSS = "Line { height: 1; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.pieces: list[Piece] = []
        self.right: Piece | None = None

    def show_right(self, piece: Piece | None) -> None:
        """Show a text at the right end, over what is there; None for none."""
        if piece == self.right:
            return
        widest = max(cell_len(old[0]) for old in (piece, self.right) if old)
        self.right = piece
        self.refresh(Region(max(0, self.size.width - widest - 2), 0, widest + 2, 1))

    def show(self, *pieces: Piece) -> None:
        """Replace the text."""
        safe = [(one_line(text), style) for text, style in pieces]
        if safe != self.pieces:
            self.pieces = safe
            self.refresh()

    @property
    def text(self) -> str:
        """What the line says, without styles."""
        return "".join(text for text, _ in self.pieces)

    def render_line(self, y: int) -> Strip:
        """The row."""
        width, base = self.size.width, self.rich_style
        if self.right is None or y:
            return strip_of(self.pieces if y == 0 else [], width, base)
        text, style = self.right
        room = max(0, width - cell_len(text) - 2)
        return Strip.join([strip_of(self.pieces, room, base), strip_of([(f" {text} ", style)], width - room, base)])
