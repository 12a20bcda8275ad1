"""Edits that need more than a key: the command line opens with their beginning written."""

from __future__ import annotations

from ..session import Session
from ..widgets.pane import DonorPane
from .command_line import CommandLine
from .editor import Editor
from .surgery_view import SurgeryView


class TypedEdits:
    """Actions that write the beginning of a command for the user to complete."""

    def __init__(self, session: Session, view: SurgeryView, line: CommandLine, editor: Editor) -> None:
        self._session, self._view, self._line, self._editor = session, view, line, editor

    def do_scale(self, count: int | None) -> None:
        """Scale tensors of the selection."""
        span = self._editor.span(count, "scale")
        if span:
            self._line.open(":", f"scale {span[0]}-{span[1] - 1} o_proj=0.707 down_proj=0.707")

    def do_set_end(self, count: int | None) -> None:
        """Set the donor of the end under the cursor, or of the head."""
        row = self._view.pane.current
        role = row.role if row and row.kind == "end" else "lm_head"
        letter = self._session.letters[self._view.pane.ref] if isinstance(self._view.pane, DonorPane) else ""
        self._line.open(":", f"end {role} {letter}")

    def _letter(self) -> str:
        models = self._session.models
        ref = self._view.pane.ref if isinstance(self._view.pane, DonorPane) else models[0] if models else ""
        return self._session.letters.get(ref, "A")

    def do_upscale(self, count: int | None) -> None:
        """Up-scale a donor in depth as SOLAR does; m defaults to a quarter of its layers."""
        letter = self._letter()
        depth = next((d.checkpoint.depth for d in self._session.plan.donors.values() if d.letter == letter), 0)
        self._line.open(":", f"upscale {letter} m={count or max(1, depth // 4)}")

    def do_selfstack(self, count: int | None) -> None:
        """Stack blocks of a donor upon themselves."""
        self._line.open(":", f"selfstack {self._letter()} block={count or 4} stride={max(1, (count or 4) // 2)}")

    def do_interleave(self, count: int | None) -> None:
        """Take blocks of two donors in turn."""
        names = " ".join(list(self._session.letters.values())[:2])
        self._line.open(":", f"interleave {names} block={count or 1} stride={count or 1}")

    def do_expand(self, count: int | None) -> None:
        """Insert copies that add nothing after every n layers of the selection, or of the whole stack."""
        depth = len(self._session.plan.layers)
        span = self._view.stack.layer_span() if self._view.stack.selection else (0, depth)
        if not span or not depth:
            self._view.refuse("there is no layer to expand")
            return
        every = count or min(4, span[1] - span[0])
        self._line.open(":", f"expand {span[0]}-{span[1] - 1} every={every}")
