"""Moving about the surgery screen: cursor, panes, jump, search."""

from __future__ import annotations

import fnmatch

from textual import events
from textual.widgets import Input

from .. import theme
from ..rows.pane_rows import PaneRow
from ..widgets.line import Line
from ..widgets.pane import DonorPane, Pane, StackPane
from .surgery_view import SurgeryView


class Moving(SurgeryView):
    """Actions that change no recipe."""

    query_text: str = ""
    jumping: bool = False

    async def on_key(self, event: events.Key) -> None:
        """The letter of a jump; every other key goes to the registry."""
        if self.jumping and not isinstance(self.focused, Input):
            event.stop()
            event.prevent_default()
            await self.jump_to(event.key)

    def do_down(self, count: int | None) -> None:
        """n lines down."""
        self._step(count or 1)

    def do_up(self, count: int | None) -> None:
        """n lines up."""
        self._step(-(count or 1))

    def _step(self, step: int) -> None:
        pane = self.pane
        if pane.mark_row is not None and not pane.sticky:
            pane.clear_selection()
        pane.move_to(pane.cursor + step)

    def do_half_down(self, count: int | None) -> None:
        """Half a page down."""
        self._step(max(1, self.pane.page // 2) * (count or 1))

    def do_half_up(self, count: int | None) -> None:
        """Half a page up."""
        self._step(-max(1, self.pane.page // 2) * (count or 1))

    def do_top(self, count: int | None) -> None:
        """First line."""
        self._step(-len(self.pane.rows))

    def do_bottom(self, count: int | None) -> None:
        """Last line, or layer n."""
        pane = self.pane
        pane.move_to(len(pane.rows) - 1 if count is None else pane.row_of_layer(count))

    def do_next_slice(self, count: int | None) -> None:
        """First layer of the next slice."""
        self._to_slice(+1)

    def do_previous_slice(self, count: int | None) -> None:
        """First layer of this slice, or of the one before."""
        self._to_slice(-1)

    def _to_slice(self, step: int) -> None:
        stack = self.stack
        if stack.current is None:
            self.refuse("the stack has no slice")
            return
        starts = [i for i, r in enumerate(stack.rows) if r.kind != "end" and r.bracket in "┌─"]
        ahead = [i for i in starts if (i > stack.cursor if step > 0 else i < stack.cursor)]
        if ahead:
            stack.move_to(ahead[0] if step > 0 else ahead[-1])

    def do_next_pane(self, count: int | None) -> None:
        """Pane to the right."""
        self._turn(+1)

    def do_previous_pane(self, count: int | None) -> None:
        """Pane to the left."""
        self._turn(-1)

    def _turn(self, step: int) -> None:
        panes: list[Pane] = [*self.donor_panes, self.stack]
        panes[(panes.index(self.pane) + step) % len(panes)].focus()

    def do_jump(self, count: int | None) -> None:
        """Wait for a letter, showing where each leads."""
        self.jumping = True
        targets = [
            f"{letter.lower()} {ref.rstrip('/').rsplit('/', 1)[-1]}" for ref, letter in self.session.letters.items()
        ]
        self.say("jump to: " + ", ".join([*targets, "' stack"]))

    async def jump_to(self, key: str) -> None:
        """The second key of a jump."""
        self.jumping = False
        self.query_one("#status", Line).show()
        if key in {"apostrophe", "s"} and key.upper() not in self.session.letters.values():
            self.stack.focus()
            return
        ref = next((ref for ref, letter in self.session.letters.items() if letter == key.upper()), None)
        if ref is None:
            self.refuse(f"there is no donor {key.upper()}")
            return
        await self.show_donor(ref)

    async def show_donor(self, ref: str) -> None:
        """Bring a donor into view and focus it."""
        if ref not in {pane.ref for pane in self.donor_panes}:
            self.first_donor = self.session.models.index(ref)
            await self.place_panes()
        next(pane for pane in self.donor_panes if pane.ref == ref).focus()

    def do_next_donor(self, count: int | None) -> None:
        """Another donor in the donors' place."""
        self._rotate(+1)

    def do_previous_donor(self, count: int | None) -> None:
        """Another donor in the donors' place."""
        self._rotate(-1)

    def _rotate(self, step: int) -> None:
        models = self.session.models
        if not models:
            self.refuse("no donor is open: press o")
            return
        here = self.donor_panes[0].ref if self.donor_panes else models[0]
        pane = self.pane
        if isinstance(pane, DonorPane):
            here = pane.ref
        ref = models[(models.index(here) + step) % len(models)]
        self.run_worker(self.show_donor(ref))

    def do_inspector(self, count: int | None) -> None:
        """Show or hide the inspector."""
        if not self.wants_inspector and self.app.size.width < 110:
            self.refuse("there is no room for the inspector: press enter for the layer in full")
            return
        self.wants_inspector = not self.wants_inspector
        self.run_worker(self.place_panes())

    def do_zoom(self, count: int | None) -> None:
        """Stack by slices or by layers, the cursor staying on its layer."""
        stack = self.stack
        layer = stack.current.start if stack.current and stack.current.kind != "end" else None
        self.zoomed_out = not self.zoomed_out
        stack.clear_selection()
        self.refresh_all()
        if layer is not None:
            stack.move_to(stack.row_of_layer(layer))

    def do_detail(self, count: int | None) -> None:
        """The layer in full."""
        from ..dialogs import TextDialog

        if self.pane.current is not None:
            self.app.push_screen(TextDialog(*self.detail_of(self.pane)))
        else:
            self.refuse("there is no layer to show")

    def do_escape(self, count: int | None) -> None:
        """Clear selection, count and message."""
        self.keys.clear()
        self.pane.clear_selection()
        self.query_one("#status", Line).show()

    # -- selection

    def do_select(self, count: int | None) -> None:
        """Start or end a selection at the cursor."""
        pane = self.pane
        if pane.mark_row is None:
            pane.select(pane.cursor, pane.cursor + 1)
            if count and count > 1:
                pane.move_to(pane.cursor + count - 1)
        else:
            pane.clear_selection()
        self.say_selection()

    def do_select_slice(self, count: int | None) -> None:
        """The whole slice around the cursor; in a donor, every layer."""
        pane = self.pane
        layers = [i for i, row in enumerate(pane.rows) if row.kind != "end"]
        if not layers or pane.current is None:
            self.refuse("there is no layer to select")
            return
        if isinstance(pane, StackPane) and pane.current.kind == "layer":
            own = self.session.plan.layers[pane.current.start].slice_index
            layers = [i for i in layers if self.session.plan.layers[pane.rows[i].start].slice_index == own]
        pane.select(layers[0], layers[-1] + 1)
        self.say_selection()

    def do_extend_down(self, count: int | None) -> None:
        """Select downwards; the next plain move clears it."""
        self._extend(count or 1)

    def do_extend_up(self, count: int | None) -> None:
        """Select upwards; the next plain move clears it."""
        self._extend(-(count or 1))

    def _extend(self, step: int) -> None:
        pane = self.pane
        if pane.mark_row is None:
            pane.select(pane.cursor, pane.cursor + 1)
        pane.sticky = False
        pane.move_to(pane.cursor + step)

    # -- search

    def do_search(self, count: int | None) -> None:
        """Ask for what to look for."""
        self.open_line("/", "")

    def search(self, text: str) -> None:
        """Go to the next row that matches, in the focused pane."""
        self.query_text = text.strip()
        self._find(+1)

    def do_next_match(self, count: int | None) -> None:
        """Next match."""
        self._find(+1)

    def do_previous_match(self, count: int | None) -> None:
        """Previous match."""
        self._find(-1)

    def _find(self, step: int) -> None:
        if not self.query_text:
            self.refuse("nothing was searched for: press / first")
            return
        pane = self.pane
        found = [index for index, row in enumerate(pane.rows) if self._matches(pane, row)]
        if not found:
            self.refuse(f"nothing here matches {self.query_text!r}")
            return
        ahead = [i for i in found if (i > pane.cursor if step > 0 else i < pane.cursor)]
        target = (ahead[0] if step > 0 else ahead[-1]) if ahead else (found[0] if step > 0 else found[-1])
        pane.move_to(target)
        self.query_one("#status", Line).show(
            (f" /{self.query_text}", theme.BOLD),
            (f"  {found.index(target) + 1} of {len(found)}, n N for more", theme.DIM),
        )

    def _matches(self, pane: Pane, row: PaneRow) -> bool:
        """By what the row shows, its layer number (`L1?`), its attributes, or its tensors' names."""
        wanted = self.query_text.lower()
        texts = [f"l{row.start}", row.label.lower(), row.text.lower(), row.role]
        if row.kind == "layer" and isinstance(pane, DonorPane):
            checkpoint = self.session.checkpoint(pane.ref)
            if checkpoint:
                layer = checkpoint.layers[row.start]
                texts += [str(value).lower() for value in layer.attributes.values()]
                texts += [name.lower() for name in layer.tensors]
        elif row.kind == "layer":
            planned = self.session.plan.layers[row.start]
            texts += [str(value).lower() for value in planned.attributes.values()]
            texts += [tensor.place.suffix.lower() for tensor in planned.tensors]
        if any(char in wanted for char in "*?["):
            return any(fnmatch.fnmatch(text.strip(), wanted) for text in texts)
        return any(wanted in text for text in texts)
