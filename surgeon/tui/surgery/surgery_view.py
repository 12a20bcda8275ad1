"""What the surgery screen shows: header, barcode, donors, stack, inspector, and messages on the status line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from textual.screen import Screen

from ...errors import InputError
from ...text import number, one_line, plural, size
from .. import theme
from ..cells import MORE, short_name, shortened
from ..dialogs import TextDialog
from ..rows.layer_detail import layer_detail
from ..rows.layer_runs import barcode, uses
from ..rows.pane_rows import donor_rows, stack_rows
from ..session import Session
from ..unsaved_work import UnsavedWork
from ..widgets.line import Line, Piece
from ..widgets.pane import DonorPane, Pane, StackPane
from ..widgets.status_line import StatusLine
from .side_view import NARROW, SideView

MAX_TAB = 24
"""Cells of a donor's name in the row of donors."""


class SurgeryView:
    """Draws the session on the widgets of the surgery screen; knows which pane is focused.

    Attributes:
        first_donor: the first donor in view, where not all fit.
        zoomed_out: whether the stack is shown by slices.
        side: the column at the right.
    """

    def __init__(self, screen: Screen[Any], session: Session, unsaved_work: UnsavedWork) -> None:
        self._screen, self._session, self._unsaved_work = screen, session, unsaved_work
        self.first_donor = 0
        self.zoomed_out = False
        self.side = SideView(screen, session)

    # -- panes

    @property
    def stack(self) -> StackPane:
        """The model being built."""
        return self._screen.query_one(StackPane)

    @property
    def donor_panes(self) -> list[DonorPane]:
        """The donors in view, from the left."""
        return list(self._screen.query(DonorPane))

    @property
    def pane(self) -> Pane:
        """The focused pane (the stack when none is)."""
        return self._screen.focused if isinstance(self._screen.focused, Pane) else self.stack

    @property
    def slots(self) -> int:
        """Donors that fit beside each other."""
        width = self._screen.app.size.width
        if width < NARROW:
            return 1
        return max(1, min(6, (width - 38 - (self.side.width if self.side.fits else 0)) // 22))

    def donors_in_view(self) -> list[str]:
        """The donors that fit, beginning with `first_donor`."""
        models = self._session.shown_models
        self.first_donor = max(0, min(self.first_donor, len(models) - self.slots))
        return models[self.first_donor : self.first_donor + self.slots]

    async def place_panes(self) -> None:
        """Mount the donors that fit, and keep those already there."""
        wanted = self.donors_in_view()
        here = {pane.ref: pane for pane in self.donor_panes}
        box = self._screen.query_one("#panes")
        focused = self._screen.focused.ref if isinstance(self._screen.focused, DonorPane) else None
        if list(here) != wanted:
            for ref, pane in here.items():
                if ref not in wanted:
                    await pane.remove()
            for ref in wanted:
                pane = here.get(ref) or DonorPane(ref)
                if ref in here:
                    box.move_child(pane, before=self.stack)
                else:
                    await box.mount(pane, before=self.stack)
            if focused and focused not in wanted and self.donor_panes:
                self.donor_panes[0].focus()
        self.side.place()
        self.refresh_all()

    async def show_donor(self, ref: str) -> None:
        """Bring a donor into view and focus it."""
        if ref not in {pane.ref for pane in self.donor_panes}:
            self.first_donor = self._session.shown_models.index(ref)
            await self.place_panes()
        next(pane for pane in self.donor_panes if pane.ref == ref).focus()

    # -- drawing

    def refresh_all(self) -> None:
        """Show the session as it is; widgets draw only what changed."""
        session = self._session
        plan = session.plan
        self.show_header()
        self.show_barcode()
        self.show_tabs()
        for pane in self.donor_panes:
            letter = session.letters.get(pane.ref)
            if letter is None:
                continue  # `place_panes` takes it away.
            checkpoint = session.checkpoint(pane.ref)
            title: list[Piece] = [(f" {letter} ", theme.hue(letter)), (short_name(pane.ref, 13), theme.PLAIN)]
            if checkpoint is None:
                pane.show([], [*title, (" not found", theme.SEVERITY["error"])])
                continue
            counts = uses(plan, letter, checkpoint.depth)
            donor = plan.donors.get(letter)
            rows = donor_rows(checkpoint, letter, counts, donor)
            kind = "stage" if pane.ref in session.stages else f"{checkpoint.depth}L"
            pane.show(rows, [*title, (f" {kind}", theme.DIM)])
        stack_title: list[Piece] = [(" STACK", theme.PLAIN), (f" {len(plan.layers)}L", theme.DIM)]
        if self.zoomed_out:
            stack_title.append((" by slices", theme.DIM))
        self.stack.hint = [] if plan.layers else self._first_steps()
        self.stack.show(stack_rows(plan, session.markers, self.zoomed_out), stack_title)
        self.show_cursor()

    def _first_steps(self) -> list[str]:
        """How a model is built, where there is none yet."""
        if not self._session.models:
            return ["The stack is empty.", "o  opens a donor", "?  lists all keys"]
        return [
            "The stack is empty. In a donor:",
            "v  starts a selection, j extends it",
            "y  yanks the selected layers",
            "p  puts them into this stack",
            "?  lists all keys",
        ]

    def show_header(self) -> None:
        """Show file, dtype, layers, parameters, bytes, findings, undo depth."""
        session, plan = self._session, self._session.plan
        name = session.document.path.name if session.document.path else "unnamed"
        sizes = plan.estimates
        name = shortened(one_line(name), max(12, self._screen.app.size.width // 3))
        parts: list[Piece] = [(f" {name}{'*' if session.dirty else ''}", theme.BOLD)]
        if len(session.stages) > 1:
            parts.append((f" > {shortened(one_line(session.stage), 24) or 'result'}", theme.BOLD))
        if self._unsaved_work.not_kept:
            parts.append((" not kept", theme.SEVERITY["warning"]))
        facts = [session.recipe.dtype or "", f"{len(plan.layers)}L"]
        if sizes.parameters:
            facts += [number(sizes.parameters), size(sizes.nbytes)]
        parts += [(" | " + " ".join(fact for fact in facts if fact), theme.PLAIN)]
        counts = {s: sum(f.severity == s for f in plan.findings) for s in ("error", "warning", "note")}
        if plan.layers or any(finding.code != "empty" for finding in plan.errors):
            for severity, count in counts.items():
                if count:
                    parts.append((f" | {plural(count, severity)}", theme.SEVERITY[severity]))
        if session.history.done:
            parts.append((f" | undo {len(session.history.done)}", theme.DIM))
        self._screen.query_one("#header", Line).show(*parts)

    def show_barcode(self) -> None:
        """Show the whole stack in one row: a letter per layer, or per several; `|` is a seam between equal letters.

        Where these have no room, the letter behind a seam is underlined.
        """
        width = max(1, self._screen.app.size.width - 2)
        bars = barcode(self._session.plan, width)
        room = len(bars) + sum(bar.seam for bar in bars) <= width
        pieces: list[Piece] = [(" ", theme.PLAIN)]
        for bar in bars:
            look = theme.hue(bar.letter.upper())
            if bar.seam and room:
                pieces.append(("|", theme.DIM))
            pieces.append((bar.letter[:1], look + theme.UNDERLINE if bar.seam and not room else look))
        self._screen.query_one("#barcode", Line).show(*pieces)

    def show_tabs(self) -> None:
        """Show which donors are open, and which are in view."""
        visible = {pane.ref for pane in self.donor_panes}
        tabs: list[Piece] = []
        for ref, letter in self._session.letters.items():
            name = short_name(ref, MAX_TAB) + (" (stage)" if ref in self._session.stages else "")
            text = f" [{letter} {name}]" if ref in visible else f"  {letter} {name} "
            tabs.append((text, theme.hue(letter) if ref in visible else theme.DIM))
        if not tabs:
            tabs = [(" no donor is open: press o and type the path of a checkpoint", theme.DIM)]
        in_view = [index for index, ref in enumerate(self._session.letters) if ref in visible]
        self._screen.query_one("#tabs", Line).show(*_scrolled(tabs, in_view, self._screen.app.size.width))

    def show_cursor(self) -> None:
        """Describe what the cursor is on, in one line and in the inspector."""
        pane = self.pane
        row = pane.current
        detail = self._screen.query_one("#detail", StatusLine)
        if row is None:
            detail.show()
            self.side.show_layer("", [])
            self.side.show_recipe(None)
            return
        title, lines = self.detail_of(pane)
        summary = lines[0] if row.kind != "end" and lines else ""
        detail.show((f" {title}", theme.BOLD), (f"  {summary}", theme.DIM), folded=True)
        self.side.show_layer(title, lines)
        self.side.show_recipe(row.start if pane is self.stack and row.kind != "end" else None)

    def detail_of(self, pane: Pane) -> tuple[str, list[str]]:
        """Title and lines about the row under a pane's cursor."""
        assert pane.current is not None
        ref = pane.ref if isinstance(pane, DonorPane) else ""
        checkpoint = self._session.checkpoint(ref) if ref else None
        layers = len(self._session.plan.layers) if not ref else checkpoint.depth if checkpoint else 0
        if (pane.current.kind != "end" and pane.current.start >= layers) or (ref and checkpoint is None):
            # The rows are of a model that is not there any more, and are about to be drawn again.
            return "not there any more", []
        letter = self._session.letters.get(ref, "")
        return layer_detail(self._session.plan, checkpoint, pane.current, letter, not ref)

    # -- messages

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence on the status line, and keep it for `:messages`."""
        self._screen.query_one("#status", StatusLine).say(text, severity)

    def hint(self, text: str) -> None:
        """Put a text above the command line, in the place of what the cursor is on."""
        self._screen.query_one("#detail", StatusLine).show((f" {text}", theme.DIM))

    def refuse(self, error: InputError | str) -> None:
        """Say why something cannot be done."""
        self.say(error if isinstance(error, str) else error.sentence(), "warning")

    def show_status(self, *pieces: Piece) -> None:
        """Replace the status line; nothing empties it."""
        self._screen.query_one("#status", StatusLine).show(*pieces)

    def say_selection(self) -> None:
        """Say what is selected, as a range on screen and as one in files; say nothing without a selection."""
        pane = self.pane
        span = pane.layer_span() if pane.selection else None
        if span is None:
            self.show_status()
            return
        start, stop = span
        name = self._session.letters[pane.ref] if isinstance(pane, DonorPane) else "stack"
        words = f" selected {name} {start}-{stop - 1}, in files [{start}, {stop}): {plural(stop - start, 'layer')}"
        self.show_status((words, theme.PLAIN))

    # -- actions

    def do_inspector(self, count: int | None) -> None:
        """Show or hide the inspector."""
        if not self.side.wanted and self._screen.app.size.width < NARROW:
            self.refuse("there is no room for the inspector: press enter to see the layer")
            return
        self.side.wanted = not self.side.wanted
        self._screen.run_worker(self.place_panes())

    def do_zoom(self, count: int | None) -> None:
        """Show the stack by slices or by layers; the cursor stays on its layer."""
        stack = self.stack
        layer = stack.current.start if stack.current and stack.current.kind != "end" else None
        self.zoomed_out = not self.zoomed_out
        stack.clear_selection()
        self.refresh_all()
        if layer is not None:
            stack.move_to(stack.row_of_layer(layer))

    def do_detail(self, count: int | None) -> None:
        """Show the layer under the cursor in full."""
        if self.pane.current is not None:
            self._screen.app.push_screen(TextDialog(*self.detail_of(self.pane)))
        else:
            self.refuse("there is no layer to show")


def _scrolled(tabs: Sequence[Piece], in_view: Sequence[int], width: int) -> list[Piece]:
    """Tabs of one row, scrolled until those of the donors in view are on it; `…` stands for others."""
    first, last = (in_view[0], in_view[-1]) if in_view else (0, 0)
    start = 0
    while start < first and sum(cell_len(text) for text, _ in tabs[start : last + 1]) + 4 > width:
        start += 1
    return [*([(f" {MORE}", theme.DIM)] if start else []), *tabs[start:]]
