"""Searches the rows of the focused pane."""

from __future__ import annotations

import fnmatch

from .. import theme
from ..rows.pane_rows import PaneRow
from ..session import Session
from ..widgets.pane import DonorPane, Pane
from .command_line import CommandLine
from .surgery_view import SurgeryView


class LayerSearch:
    """Finds layers by what their row shows, their attributes and the names of their tensors."""

    def __init__(self, session: Session, view: SurgeryView, line: CommandLine) -> None:
        self._session, self._view, self._line = session, view, line
        self._wanted = ""

    def do_search(self, count: int | None) -> None:
        """Ask for what to look for."""
        self._line.open("/", "")

    def find(self, text: str) -> None:
        """Go to the next row that matches, in the focused pane."""
        self._wanted = text.strip()
        self._find(+1)

    def do_next_match(self, count: int | None) -> None:
        """Go to the next match."""
        self._find(+1)

    def do_previous_match(self, count: int | None) -> None:
        """Go to the previous match."""
        self._find(-1)

    def _find(self, step: int) -> None:
        if not self._wanted:
            self._view.refuse("there is no search yet: press / first")
            return
        pane = self._view.pane
        found = [index for index, row in enumerate(pane.rows) if self._matches(pane, row)]
        if not found:
            self._view.refuse(f"nothing here matches {self._wanted!r}")
            return
        ahead = [i for i in found if (i > pane.cursor if step > 0 else i < pane.cursor)]
        target = (ahead[0] if step > 0 else ahead[-1]) if ahead else (found[0] if step > 0 else found[-1])
        pane.go_to(target, quietly=True)
        self._view.show_cursor()
        self._view.show_status(
            (f" /{self._wanted}", theme.BOLD),
            (f"  {found.index(target) + 1} of {len(found)}, n N for more", theme.DIM),
        )

    def _matches(self, pane: Pane, row: PaneRow) -> bool:
        """Whether a row matches: by what it shows, its layer number (`L1?`), its attributes or its tensors' names."""
        wanted = self._wanted.lower()
        texts = [f"l{row.start}", row.label.lower(), row.text.lower(), row.role]
        if row.kind == "layer" and isinstance(pane, DonorPane):
            checkpoint = self._session.checkpoint(pane.ref)
            if checkpoint:
                layer = checkpoint.layers[row.start]
                texts += [str(value).lower() for value in layer.attributes.values()]
                texts += [name.lower() for name in layer.tensors]
        elif row.kind == "layer":
            planned = self._session.plan.layers[row.start]
            texts += [str(value).lower() for value in planned.attributes.values()]
            texts += [tensor.place.suffix.lower() for tensor in planned.tensors]
        if any(char in wanted for char in "*?["):
            return any(fnmatch.fnmatch(text.strip(), wanted) for text in texts)
        return any(wanted in text for text in texts)
