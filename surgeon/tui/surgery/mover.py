"""Moves the cursor, the focus and the donors in view."""

from __future__ import annotations

from .. import theme
from ..action_screen import ActionScreen
from ..cells import short_name
from ..session import Session
from ..widgets.pane import DonorPane, Pane
from .surgery_view import SurgeryView


class Mover:
    """Actions that move the cursor within a pane, or go to another pane or donor."""

    def __init__(self, screen: ActionScreen, session: Session, view: SurgeryView) -> None:
        self._screen, self._session, self._view = screen, session, view

    def do_down(self, count: int | None) -> None:
        """Go n lines down."""
        self._step(count or 1)

    def do_up(self, count: int | None) -> None:
        """Go n lines up."""
        self._step(-(count or 1))

    def _step(self, step: int) -> None:
        pane = self._view.pane
        pane.go_to(pane.cursor + step)

    def do_half_down(self, count: int | None) -> None:
        """Go half a page down."""
        self._step(max(1, self._view.pane.page // 2) * (count or 1))

    def do_half_up(self, count: int | None) -> None:
        """Go half a page up."""
        self._step(-max(1, self._view.pane.page // 2) * (count or 1))

    def do_top(self, count: int | None) -> None:
        """Go to the first line."""
        self._step(-len(self._view.pane.rows))

    def do_bottom(self, count: int | None) -> None:
        """Go to the last line, or to layer n."""
        pane = self._view.pane
        pane.go_to(len(pane.rows) - 1 if count is None else pane.row_of_layer(count))

    def do_next_slice(self, count: int | None) -> None:
        """Go to the first layer of the next slice."""
        self._to_slice(+1)

    def do_previous_slice(self, count: int | None) -> None:
        """Go to the first layer of this slice, or of the one before."""
        self._to_slice(-1)

    def _to_slice(self, step: int) -> None:
        stack = self._view.stack
        if stack.current is None:
            self._view.refuse("the stack has no slice")
            return
        starts = [i for i, r in enumerate(stack.rows) if r.kind != "end" and r.bracket in "┌─"]
        ahead = [i for i in starts if (i > stack.cursor if step > 0 else i < stack.cursor)]
        if ahead:
            stack.go_to(ahead[0] if step > 0 else ahead[-1])

    def do_next_pane(self, count: int | None) -> None:
        """Focus the pane to the right."""
        self._turn(+1)

    def do_previous_pane(self, count: int | None) -> None:
        """Focus the pane to the left."""
        self._turn(-1)

    def _turn(self, step: int) -> None:
        panes: list[Pane] = [*self._view.donor_panes, self._view.stack]
        panes[(panes.index(self._view.pane) + step) % len(panes)].focus()

    def do_jump(self, count: int | None) -> None:
        """Show which letter leads where, and wait for one."""
        self._screen.take_next_key(self._jump_to)
        targets = [f"{letter} {short_name(ref, 16)}" for ref, letter in self._session.letters.items()]
        self._view.show_status((" ':  " + "  ".join([*targets, "' stack"]), theme.DIM))

    async def _jump_to(self, key: str) -> None:
        """Go where the second key of a jump leads."""
        self._view.show_status()
        if key in {"apostrophe", "s"} and key.upper() not in self._session.letters.values():
            self._view.stack.focus()
            return
        ref = next((ref for ref, letter in self._session.letters.items() if letter == key.upper()), None)
        if ref is not None and ref == self._session.stage:
            self._view.refuse(f"{key.upper()} is the stage that is edited: it is in the stack")
            return
        if ref is None:
            self._view.refuse(f"there is no donor {key.upper()}")
            return
        await self._view.show_donor(ref)

    def do_next_donor(self, count: int | None) -> None:
        """Another donor in the donors' place."""
        self._rotate(+1)

    def do_previous_donor(self, count: int | None) -> None:
        """Another donor in the donors' place."""
        self._rotate(-1)

    def _rotate(self, step: int) -> None:
        models = self._session.shown_models
        if not models:
            self._view.refuse("no donor is open: press o")
            return
        here = self._view.donor_panes[0].ref if self._view.donor_panes else models[0]
        pane = self._view.pane
        if isinstance(pane, DonorPane):
            here = pane.ref
        ref = models[(models.index(here) + step) % len(models)]
        self._screen.run_worker(self._view.show_donor(ref))
