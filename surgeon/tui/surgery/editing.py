"""Editing on the surgery screen: every action becomes an edit of the recipe and goes the way of the command line."""

from __future__ import annotations

from typing import cast

from ...errors import InputError
from ...recipe.edits import Delete, Duplicate, Edit, Move, Reverse, SetEnd
from ...recipe.schema import End
from ...text import plural
from ..session import Yank
from ..widgets.pane import DonorPane, StackPane
from .moving import Moving


class Editing(Moving):
    """Actions that change the recipe."""

    def _span(self, count: int | None, what: str) -> tuple[int, int] | None:
        """Output layers that an edit of the stack is about; None, with a message, when there are none."""
        if not isinstance(self.pane, StackPane):
            self.refuse(f"{what} works on the stack: press ' twice, or tab, to go there")
            return None
        span = self.pane.layer_span(count)
        if span is None:
            self.refuse(f"there is no layer here to {what}")
        return span

    def edit(self, edit: Edit) -> None:
        """Do an edit and say what came of it."""
        try:
            changed = self.session.apply(edit)
        except InputError as error:
            self.say(error.sentence(), "error")
            return
        if not changed:
            self.refuse("that changes nothing")
            return
        self.after_edit(self.session.describe(edit), edit.touched())

    def do_yank(self, count: int | None) -> None:
        """Selection, or n rows, into the register."""
        pane = self.pane
        row = pane.current
        if row is None:
            self.refuse("there is no layer to yank")
            return
        if row.kind == "end" and pane.selection is None:
            self._yank_end(row.role)
            return
        span = pane.layer_span(count)
        if span is None:
            self.refuse("there is no layer here to yank")
            return
        start, stop = span
        if isinstance(pane, DonorPane):
            self.session.register = Yank(((pane.ref, start, stop),))
            name = self.session.letters[pane.ref]
        else:
            self.session.yank_stack(start, stop)
            name = "stack"
            if self._has_blends(start, stop):
                pane.clear_selection()
                self.refuse("yanked the first donors of the blends; D copies blends, J and K move them")
                return
        pane.clear_selection()
        self.say(f"yanked {name} {start}-{stop - 1} ({plural(stop - start, 'layer')}): p inserts it into the stack")

    def _has_blends(self, start: int, stop: int) -> bool:
        return any(len(layer.sources) > 1 for layer in self.session.plan.layers[start:stop])

    def _yank_end(self, role: str) -> None:
        pane = self.pane
        if not isinstance(pane, DonorPane):
            self.refuse("press e to set the donor of an end")
            return
        self.session.register = Yank(end=(cast(End, role), pane.ref))
        self.say(f"yanked {role} of {self.session.letters[pane.ref]}: p sets it as the model's")

    def do_paste(self, count: int | None) -> None:
        """Behind the stack's cursor."""
        self._paste(behind=True)

    def do_paste_before(self, count: int | None) -> None:
        """Before the stack's cursor."""
        self._paste(behind=False)

    def _paste(self, *, behind: bool) -> None:
        session, stack, pane = self.session, self.stack, self.pane
        if isinstance(pane, DonorPane) and pane.selection and (span := pane.layer_span()):
            session.register = Yank(((pane.ref, *span),))
            pane.clear_selection()
        if session.register and session.register.end:
            end, model = session.register.end
            self.edit(SetEnd(end, model))
            return
        try:
            self.edit(session.paste_edit(self._insertion_point(behind)))
        except InputError as error:
            self.refuse(error)
            return
        stack.focus()

    def _insertion_point(self, behind: bool) -> int:
        """The position in the stack that pasting means: at the ends' rows, the beginning or the end."""
        stack = self.stack
        row = stack.current
        depth = len(self.session.plan.layers)
        if row is None:
            return depth
        if row.kind == "end":
            return 0 if row.role == "embeddings" and depth else depth
        span = stack.layer_span() if stack.selection else None
        start, stop = span or (row.start, row.stop)
        return stop if behind else start

    def do_replace(self, count: int | None) -> None:
        """Selection replaced by the register."""
        span = self._span(count, "replace")
        if span:
            try:
                self.edit(self.session.replace_edit(*span))
            except InputError as error:
                self.refuse(error)

    def do_delete(self, count: int | None) -> None:
        """Selection, or n layers, taken out."""
        span = self._span(count, "delete")
        if span:
            self.stack.clear_selection()
            self.edit(Delete(*span))
            self.stack.move_to(self.stack.row_of_layer(min(span[0], len(self.session.plan.layers) - 1)), quietly=True)
            self.show_cursor()

    def do_cut(self, count: int | None) -> None:
        """Yank and delete."""
        span = self._span(count, "cut")
        if span and self._has_blends(*span):
            self.refuse("a blend cannot be pasted: J and K move it, D copies it, d deletes it")
        elif span:
            self.session.yank_stack(*span)
            self.do_delete(count)

    def do_duplicate(self, count: int | None) -> None:
        """n more copies behind the selection."""
        span = self._span(None, "duplicate")
        if span:
            self.edit(Duplicate(*span, count or 1))

    def do_reverse(self, count: int | None) -> None:
        """Selection in the opposite order."""
        span = self._span(count, "reverse")
        if span:
            self.edit(Reverse(*span))

    def do_move_down(self, count: int | None) -> None:
        """Selection n layers down."""
        self._shift(count or 1)

    def do_move_up(self, count: int | None) -> None:
        """Selection n layers up."""
        self._shift(-(count or 1))

    def _shift(self, step: int) -> None:
        span = self._span(None, "move")
        if span is None:
            return
        start, stop = span
        to = stop + step if step > 0 else start + step
        if not 0 <= to <= len(self.session.plan.layers):
            self.refuse("it cannot go further")
            return
        self.edit(Move(start, stop, to))

    def do_undo(self, count: int | None) -> None:
        """n steps back."""
        self._travel("undone", [self.session.undo() for _ in range(count or 1)], "nothing to undo")

    def do_redo(self, count: int | None) -> None:
        """n steps forward."""
        self._travel("redone", [self.session.redo() for _ in range(count or 1)], "nothing to redo")

    def _travel(self, done: str, steps: list[Edit | None], nothing: str) -> None:
        edits = [self.session.describe(edit) for edit in steps if edit]
        if not edits:
            self.refuse(nothing)
            return
        self.after_edit(f"{done} {', '.join(edits)}")

    def do_repeat(self, count: int | None) -> None:
        """The last edit, for what the stack's cursor is on now."""
        last = self.session.history.last
        if last is None:
            self.refuse("there is nothing to repeat")
            return
        span = self.stack.layer_span() or (len(self.session.plan.layers), len(self.session.plan.layers))
        for _ in range(count or 1):
            self.edit(last.moved_to(*span))

    # -- edits that need typing: the command line opens with the beginning written

    def do_scale(self, count: int | None) -> None:
        """Factors for tensors of the selection."""
        span = self._span(count, "scale")
        if span:
            self.open_line(":", f"scale {span[0]}-{span[1] - 1} o_proj=0.707 down_proj=0.707")

    def do_set_end(self, count: int | None) -> None:
        """Donor of an end: the one under the cursor, or the head."""
        row = self.pane.current
        role = row.role if row and row.kind == "end" else "lm_head"
        letter = self.session.letters[self.pane.ref] if isinstance(self.pane, DonorPane) else ""
        self.open_line(":", f"end {role} {letter}")

    def _letter(self) -> str:
        models = self.session.models
        ref = self.pane.ref if isinstance(self.pane, DonorPane) else models[0] if models else ""
        return self.session.letters.get(ref, "A")

    def do_upscale(self, count: int | None) -> None:
        """SOLAR's preset for a donor; m defaults to a quarter of its layers."""
        letter = self._letter()
        depth = next((d.checkpoint.depth for d in self.session.plan.donors.values() if d.letter == letter), 0)
        self.open_line(":", f"upscale {letter} m={count or max(1, depth // 4)}")

    def do_selfstack(self, count: int | None) -> None:
        """Blocks of a donor stacked upon themselves."""
        self.open_line(":", f"selfstack {self._letter()} block={count or 4} stride={max(1, (count or 4) // 2)}")

    def do_interleave(self, count: int | None) -> None:
        """Blocks of donors in turn."""
        names = " ".join(list(self.session.letters.values())[:2])
        self.open_line(":", f"interleave {names} block={count or 1} stride={count or 1}")

    def do_expand(self, count: int | None) -> None:
        """Copies that add nothing after each n layers of the selection, or of the whole stack."""
        depth = len(self.session.plan.layers)
        span = self.stack.layer_span() if self.stack.selection else (0, depth)
        if not span or not depth:
            self.refuse("there is no layer to expand")
            return
        every = count or min(4, span[1] - span[0])
        self.open_line(":", f"expand {span[0]}-{span[1] - 1} every={every}")
