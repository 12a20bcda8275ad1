"""Beside the stack: the inspector, and on a wide terminal the findings and the YAML of what the cursor is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual.containers import Vertical
from textual.screen import Screen

from ...plan import Plan
from ...text import one_line
from .. import theme
from ..cells import cut, wrapped
from ..session import Session
from ..widgets.line import Piece
from ..widgets.text_pane import TextPane

NARROW, WIDE = 110, 170
"""Widths from which the inspector is shown, and the findings and the YAML below it."""
MAX_FINDINGS = 8
MAX_LINES = 4
"""Findings, and lines of each, that are shown here; the plan screen has all."""


class SideView:
    """Fills the column at the right.

    Attributes:
        wanted: whether the column is shown where there is room for it.
    """

    def __init__(self, screen: Screen[Any], session: Session) -> None:
        self._screen, self._session = screen, session
        self.wanted = True
        self._plan: Plan | None = None
        self._shown: object = None

    @property
    def fits(self) -> bool:
        """Whether the column is wanted and there is room for it."""
        return self.wanted and self._screen.app.size.width >= NARROW

    @property
    def width(self) -> int:
        """Cells of the column: on a wide terminal a tensor fits on one line."""
        return 36 if self._screen.app.size.width < WIDE else 64

    def compose(self) -> Vertical:
        """The column."""
        column = Vertical(TextPane(id="inspector"), TextPane(id="recipe"), id="side")
        column.display = self.fits
        column.styles.width = self.width
        return column

    def place(self) -> None:
        """Fit the column to the size of the terminal."""
        column = self._screen.query_one("#side")
        column.styles.width = self.width
        if column.display != self.fits:
            column.display = self.fits
        recipe = self._recipe
        below = self._screen.app.size.width >= WIDE
        if recipe.display != below:
            recipe.display = below

    @property
    def _recipe(self) -> TextPane:
        return self._screen.query_one("#recipe", TextPane)

    def show_layer(self, title: str, lines: Sequence[str]) -> None:
        """Describe a layer in the inspector; nothing without a title."""
        if not self.fits:
            return
        box = self._screen.query_one("#inspector", TextPane)
        width = max(20, box.size.width - 1)
        text: list[list[Piece]] = [[(f" {part}", theme.BOLD)] for part in wrapped(title, width)] if title else []
        for line in lines:
            fits = line if len(line) <= width else " ".join(line.split())
            text += [[(f" {part}", theme.PLAIN)] for part in wrapped(fits, width, indent="  ")]
        box.show(text)

    def show_recipe(self, layer: int | None) -> None:
        """Show the findings, and the YAML with the slice of an output layer in view.

        Args:
            layer: the output layer that the cursor is on; None elsewhere.
        """
        recipe = self._recipe
        if not (self.fits and recipe.display):
            return
        width = max(20, recipe.size.width - 1)
        here = self._line_of(layer)
        plan, shown = self._session.plan, (width, here, theme.DIM)
        if plan is self._plan and shown == self._shown:
            return
        self._plan, self._shown = plan, shown
        lines = [*self._findings(width), [], [(" RECIPE", theme.TITLE)]]
        target = 0
        for number, text in enumerate(self._session.current.text.splitlines(), start=1):
            target = len(lines) if number == here else target
            comment = text.lstrip().startswith("#")
            style = theme.BOLD if number == here else theme.DIM if comment else theme.PLAIN
            lines.append([(f"{'>' if number == here else ' '}{cut(one_line(text), width)}", style)])
        recipe.show(lines)
        recipe.reveal(target)

    def _findings(self, width: int) -> list[list[Piece]]:
        findings = self._session.plan.findings
        if not self._session.plan.layers:
            findings = tuple(finding for finding in findings if finding.code != "empty")
        lines: list[list[Piece]] = [[(" FINDINGS", theme.TITLE)]] if findings else [[(" NO FINDINGS", theme.TITLE)]]
        for finding in findings[:MAX_FINDINGS]:
            rows = wrapped(f"{finding.severity}: {finding.sentence()}", width, indent="  ")
            if len(rows) > MAX_LINES:
                rows = [*rows[: MAX_LINES - 1], cut(f"{rows[MAX_LINES - 1]} …", width)]
            lines += [[(f" {row}", theme.SEVERITY[finding.severity])] for row in rows]
        if len(findings) > MAX_FINDINGS:
            lines.append([(f" and {len(findings) - MAX_FINDINGS} more: f", theme.DIM)])
        return lines

    def _line_of(self, layer: int | None) -> int | None:
        """The line of the YAML that an output layer comes from."""
        layers = self._session.plan.layers
        if layer is None or not 0 <= layer < len(layers):
            return None
        document = self._session.edited
        return document.line("slices", layers[layer].slice_index) or document.line("models")
