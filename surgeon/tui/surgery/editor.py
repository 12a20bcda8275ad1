"""Changes the recipe: turns actions into edits, applies them and shows what changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from ...errors import InputError, SurgeonError
from ...recipe.edits import Delete, Duplicate, Edit, Move, Reverse, SetEnd
from ...recipe.schema import ENDS, End, Recipe
from ...text import plural
from ..session import Session, Yank
from ..unsaved_work import UnsavedWork
from ..widgets.pane import DonorPane, StackPane
from .surgery_view import SurgeryView


class Editor:
    """Actions that become edits at once. Every edit of the surgery screen passes through `apply` or `apply_text`."""

    def __init__(self, session: Session, view: SurgeryView, unsaved_work: UnsavedWork) -> None:
        self._session, self._view, self._unsaved_work = session, view, unsaved_work

    def span(self, count: int | None, what: str) -> tuple[int, int] | None:
        """The output layers that an edit of the stack applies to; None, with a message, when there are none."""
        if not isinstance(self._view.pane, StackPane):
            self._view.refuse(f"{what} works on the stack: press ' twice, or tab, to go there")
            return None
        span = self._view.pane.layer_span(count)
        if span is None:
            self._view.refuse(f"there is no layer here to {what}")
        return span

    def apply(self, edit: Edit) -> None:
        """Apply an edit and show the result."""
        try:
            changed = self._session.apply(edit)
        except InputError as error:
            self._view.say(error.sentence(), "error")
            return
        if not changed:
            self._view.refuse("that changes nothing")
            return
        self.show_edit(self._session.describe(edit), edit.touched())

    def apply_text(self, text: str) -> None:
        """Apply an edit given as a command line and show the result."""
        try:
            edit = self._session.command(text)
        except SurgeonError as error:
            self._view.say(error.sentence(), "error")
            return
        self.show_edit(f"{self._session.describe(edit)}", edit.touched())

    def show_edit(self, done: str, touched: tuple[int, int] | None = None) -> None:
        """Keep the changed recipe, draw it, and select what changed."""
        self._unsaved_work.keep()
        self._view.refresh_all()
        if touched and self._session.plan.layers:
            start, stop = touched
            stack = self._view.stack
            first = stack.row_of_layer(min(start, len(self._session.plan.layers) - 1))
            last = stack.row_of_layer(min(stop, len(self._session.plan.layers)) - 1)
            if stop - start > 1 and not self._view.zoomed_out:
                stack.select(first, last + 1, sticky=False)
            else:
                stack.clear_selection()
                stack.move_to(first, quietly=True)
            self._view.show_cursor()
        else:
            self._view.stack.clear_selection()
        depth = len(self._session.plan.layers)
        self._view.say(f"{done}: now {plural(depth, 'layer')}")

    # -- the register

    def do_yank(self, count: int | None) -> None:
        """Copy the selection, or n rows, into the register."""
        pane = self._view.pane
        row = pane.current
        if row is None:
            self._view.refuse("there is no layer to yank")
            return
        if row.kind == "end" and pane.selection is None:
            self._yank_end(row.role)
            return
        span = pane.layer_span(count)
        if span is None:
            self._view.refuse("there is no layer here to yank")
            return
        start, stop = span
        if isinstance(pane, DonorPane):
            self._session.register = Yank(((pane.ref, start, stop),))
            name = self._session.letters[pane.ref]
        else:
            self._session.yank_stack(start, stop)
            name = "stack"
            if self._has_blends(start, stop):
                pane.clear_selection()
                self._view.refuse("only the blends' first donors were yanked; D copies blends, J and K move them")
                return
        pane.clear_selection()
        self._view.say(
            f"yanked {name} {start}-{stop - 1} ({plural(stop - start, 'layer')}): p inserts it into the stack"
        )

    def _has_blends(self, start: int, stop: int) -> bool:
        return any(len(layer.sources) > 1 for layer in self._session.plan.layers[start:stop])

    def _yank_end(self, role: str) -> None:
        pane = self._view.pane
        if not isinstance(pane, DonorPane):
            self._view.refuse("press e to set the donor of an end")
            return
        self._session.register = Yank(end=(cast(End, role), pane.ref))
        self._view.say(f"yanked {role} of {self._session.letters[pane.ref]}: p sets it as the model's")

    def do_paste(self, count: int | None) -> None:
        """Insert the register after the stack's cursor."""
        self._paste(behind=True)

    def do_paste_before(self, count: int | None) -> None:
        """Insert the register before the stack's cursor."""
        self._paste(behind=False)

    def _paste(self, *, behind: bool) -> None:
        session, stack, pane = self._session, self._view.stack, self._view.pane
        if isinstance(pane, DonorPane) and pane.selection and (span := pane.layer_span()):
            session.register = Yank(((pane.ref, *span),))
            pane.clear_selection()
        if session.register and session.register.end:
            end, model = session.register.end
            self.apply(SetEnd(end, model))
            return
        try:
            self.apply(session.paste_edit(self._insertion_point(behind)))
        except InputError as error:
            self._view.refuse(error)
            return
        stack.focus()

    def _insertion_point(self, behind: bool) -> int:
        """Where the register is inserted; on the row of an end, at the beginning or the end of the stack."""
        stack = self._view.stack
        row = stack.current
        depth = len(self._session.plan.layers)
        if row is None:
            return depth
        if row.kind == "end":
            return 0 if row.role == "embeddings" and depth else depth
        span = stack.layer_span() if stack.selection else None
        start, stop = span or (row.start, row.stop)
        return stop if behind else start

    def do_replace(self, count: int | None) -> None:
        """Replace the selection by the register."""
        span = self.span(count, "replace")
        if span:
            try:
                self.apply(self._session.replace_edit(*span))
            except InputError as error:
                self._view.refuse(error)

    # -- layers of the stack

    def do_delete(self, count: int | None) -> None:
        """Delete the selection, or n layers."""
        span = self.span(count, "delete")
        if span:
            stack = self._view.stack
            stack.clear_selection()
            self.apply(Delete(*span))
            layer = min(span[0], len(self._session.plan.layers) - 1)
            stack.move_to(stack.row_of_layer(layer), quietly=True)
            self._view.show_cursor()

    def do_cut(self, count: int | None) -> None:
        """Yank and delete."""
        span = self.span(count, "cut")
        if span and self._has_blends(*span):
            self._view.refuse("a blend cannot be pasted: J and K move it, D copies it, d deletes it")
        elif span:
            self._session.yank_stack(*span)
            self.do_delete(count)

    def do_duplicate(self, count: int | None) -> None:
        """Insert n more copies behind the selection."""
        span = self.span(None, "duplicate")
        if span:
            self.apply(Duplicate(*span, count or 1))

    def do_reverse(self, count: int | None) -> None:
        """Reverse the selection."""
        span = self.span(count, "reverse")
        if span:
            self.apply(Reverse(*span))

    def do_move_down(self, count: int | None) -> None:
        """Move the selection n layers down."""
        self._shift(count or 1)

    def do_move_up(self, count: int | None) -> None:
        """Move the selection n layers up."""
        self._shift(-(count or 1))

    def _shift(self, step: int) -> None:
        span = self.span(None, "move")
        if span is None:
            return
        start, stop = span
        to = stop + step if step > 0 else start + step
        if not 0 <= to <= len(self._session.plan.layers):
            self._view.refuse("it cannot be moved further")
            return
        self.apply(Move(start, stop, to))

    # -- history

    def do_undo(self, count: int | None) -> None:
        """Undo n steps."""
        self._travel("undone", self._session.undo, count, "nothing to undo")

    def do_redo(self, count: int | None) -> None:
        """Redo n steps."""
        self._travel("redone", self._session.redo, count, "nothing to redo")

    def _travel(self, done: str, step: Callable[[], Edit | None], count: int | None, nothing: str) -> None:
        before = self._session.recipe
        edits: list[Edit] = []
        while len(edits) < (count or 1) and (edit := step()) is not None:
            edits.append(edit)
        if not edits:
            elsewhere = [stage or "the result" for stage in self._session.stages if self._session.has_edits(stage)]
            where = f" here: s goes to {' or '.join(elsewhere)}, which has edits" if elsewhere else ""
            self._view.refuse(nothing + where)
            return
        self.show_edit(f"{done} {', '.join(map(self._session.describe, edits))}")
        self._go_to_change(before)

    def _go_to_change(self, before: Recipe) -> None:
        """Put the stack's cursor on the first layer, or the end, that differs from an earlier recipe."""
        stack, after = self._view.stack, self._session.recipe
        depth = len(self._session.plan.layers)
        changed = self._session.changed_from(before)
        ends = [end for end in ENDS if getattr(before, end) != getattr(after, end)]
        if changed is not None and depth:
            stack.move_to(stack.row_of_layer(min(changed[0], depth - 1)), quietly=True)
        elif ends:
            stack.move_to(next(i for i, row in enumerate(stack.rows) if row.role == ends[0]), quietly=True)
        self._view.show_cursor()

    def do_repeat(self, count: int | None) -> None:
        """Repeat the last edit for what the stack's cursor is on."""
        last = self._session.history.last
        if last is None:
            self._view.refuse("there is nothing to repeat")
            return
        span = self._view.stack.layer_span() or (len(self._session.plan.layers), len(self._session.plan.layers))
        edit = last.moved_to(*span)
        try:
            done = sum(self._session.apply(edit) for _ in range(count or 1))
        except InputError as error:
            self._view.say(error.sentence(), "error")
            return
        if not done:
            self._view.refuse("that changes nothing")
            return
        times = f", {done} times" if done > 1 else ""
        self.show_edit(f"{self._session.describe(edit)}{times}", edit.touched())
