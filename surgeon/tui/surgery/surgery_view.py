"""What the main screen shows: donors beside the stack being built, what it amounts to, one status line."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input

from ...errors import InputError, SurgeonError
from ...text import number, one_line, plural, size
from .. import theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..command_suggester import CommandSuggester
from ..commands import COMMANDS
from ..rows.layer_detail import layer_detail
from ..rows.layer_runs import barcode, uses
from ..rows.pane_rows import donor_rows, stack_rows
from ..widgets.line import Line, Piece
from ..widgets.pane import DonorPane, Pane, StackPane
from ..widgets.text_pane import TextPane, wrapped

NARROW, WIDE = 110, 170


class SurgeryView(ActionScreen):
    """What the surgery screen shows, and its status and command line; the actions are built on top of it."""

    kind: ClassVar[ScreenName] = "surgery"
    counts: ClassVar[bool] = True
    DEFAULT_CSS = """
    SurgeryView { layout: vertical; }
    SurgeryView #panes { height: 1fr; }
    SurgeryView DonorPane { width: 22; border-right: vkey $panel; }
    SurgeryView StackPane { width: 1fr; min-width: 36; }
    SurgeryView #inspector { border-left: vkey $panel; }
    SurgeryView #header { background: $panel; }
    SurgeryView #footer { background: $panel; }
    SurgeryView #command { height: 1; display: none; }
    SurgeryView #command.-open { display: block; }
    SurgeryView #status.-hidden { display: none; }
    SurgeryView #prompt { width: 1; }
    SurgeryView Input { border: none; padding: 0; height: 1; width: 1fr; background: $surface; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.first_donor = 0
        self.zoomed_out = False
        self.wants_inspector = True
        self._before: Pane | None = None
        # The stack where there is one, else the first donor: chosen here, so that it costs no second frame.
        self.AUTO_FOCUS = "#stack" if self.session.plan.layers or not self.session.models else "DonorPane"  # type: ignore[misc]
        self.past: list[str] = []
        self._recalled = 0

    def compose(self) -> ComposeResult:
        """Header, barcode, donor tabs, panes, detail, status, footer."""
        yield Line(id="header")
        yield Line(id="barcode")
        yield Line(id="tabs")
        with Horizontal(id="panes"):
            yield from (DonorPane(ref) for ref in self.donors_in_view())
            yield StackPane(id="stack")
            inspector = TextPane(id="inspector")
            inspector.display = self.inspector_fits
            inspector.styles.width = self.inspector_width
            yield inspector
        yield Line(id="detail")
        yield Line(id="status")
        with Horizontal(id="command"):
            yield Line(id="prompt")
            box = Input(compact=True, id="line", select_on_focus=False, suggester=CommandSuggester(list(COMMANDS)))
            box.cursor_blink = False
            yield box
        yield Line(id="footer")

    # -- panes

    @property
    def stack(self) -> StackPane:
        """The model being built."""
        return self.query_one(StackPane)

    @property
    def donor_panes(self) -> list[DonorPane]:
        """The donors in view, from the left."""
        return list(self.query(DonorPane))

    @property
    def pane(self) -> Pane:
        """The focused pane (the stack when none is)."""
        return self.focused if isinstance(self.focused, Pane) else self.stack

    @property
    def slots(self) -> int:
        """Donors that fit beside each other."""
        width = self.app.size.width
        if width < NARROW:
            return 1
        return max(1, min(6, (width - 38 - (self.inspector_width if self.inspector_fits else 0)) // 22))

    @property
    def inspector_width(self) -> int:
        """Cells of the inspector: on a wide terminal a tensor fits on one line."""
        return 36 if self.app.size.width < WIDE else 64

    @property
    def inspector_fits(self) -> bool:
        """Whether there is room for the inspector, and it is wanted."""
        return self.wants_inspector and self.app.size.width >= NARROW

    def donors_in_view(self) -> list[str]:
        """The donors that fit, beginning with `first_donor`."""
        models = self.session.models
        self.first_donor = max(0, min(self.first_donor, len(models) - self.slots))
        return models[self.first_donor : self.first_donor + self.slots]

    async def place_panes(self) -> None:
        """Mount the donors that fit, and keep those already there."""
        wanted = self.donors_in_view()
        here = {pane.ref: pane for pane in self.donor_panes}
        box = self.query_one("#panes")
        focused = self.focused.ref if isinstance(self.focused, DonorPane) else None
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
        inspector = self.query_one("#inspector")
        inspector.styles.width = self.inspector_width
        if inspector.display != self.inspector_fits:
            inspector.display = self.inspector_fits
        self.refresh_all()

    def on_mount(self) -> None:
        """Fill the panes before the first frame."""
        self.refresh_all()
        self.call_after_refresh(self.surgeon.offer_swap)

    async def on_resize(self, event: events.Resize) -> None:
        """Other panes may fit now."""
        if self.is_mounted and self.query(StackPane):
            await self.place_panes()

    # -- drawing

    def refresh_all(self) -> None:
        """Show the session as it is; widgets draw only what changed."""
        session = self.session
        plan = session.plan
        self.show_header()
        self.show_barcode()
        self.show_tabs()
        for pane in self.donor_panes:
            letter = session.letters[pane.ref]
            checkpoint = session.checkpoint(pane.ref)
            name = one_line(pane.ref.rstrip("/").rsplit("/", 1)[-1])
            title: list[Piece] = [(f" {letter} ", theme.hue(letter)), (name[:13], theme.PLAIN)]
            if checkpoint is None:
                pane.show([], [*title, (" not found", theme.SEVERITY["error"])])
                continue
            counts = uses(plan, letter, checkpoint.depth)
            pane.show(donor_rows(checkpoint, letter, counts), [*title, (f" {checkpoint.depth}L", theme.DIM)])
        stack_title: list[Piece] = [(" STACK", theme.PLAIN), (f" {len(plan.layers)}L", theme.DIM)]
        if self.zoomed_out:
            stack_title.append((" by slices", theme.DIM))
        self.stack.show(stack_rows(plan, session.markers, self.zoomed_out), stack_title)
        self.show_cursor()
        self.show_footer(self.query_one("#footer", Line))

    def show_header(self) -> None:
        """File, dtype, layers, parameters, bytes, findings, undo depth."""
        session, plan = self.session, self.session.plan
        name = session.document.path.name if session.document.path else "unnamed"
        sizes = plan.estimates
        parts: list[Piece] = [(f" {one_line(name)}{'*' if session.dirty else ''}", theme.BOLD)]
        if self.surgeon.not_kept:
            parts.append((" not kept", theme.SEVERITY["warning"]))
        facts = [session.recipe.dtype or "", f"{len(plan.layers)}L"]
        if sizes.parameters:
            facts += [number(sizes.parameters), size(sizes.nbytes)]
        parts += [(" | " + " ".join(fact for fact in facts if fact), theme.PLAIN)]
        counts = {s: sum(f.severity == s for f in plan.findings) for s in ("error", "warning", "note")}
        if session.refs or plan.layers:
            for severity, count in counts.items():
                if count:
                    parts.append((f" | {plural(count, severity)}", theme.SEVERITY[severity]))
        if session.history.done:
            parts.append((f" | undo {len(session.history.done)}", theme.DIM))
        self.query_one("#header", Line).show(*parts)

    def show_barcode(self) -> None:
        """The whole stack in one row: a letter per layer, or per few."""
        cells = barcode(self.session.plan, max(1, self.app.size.width - 2))
        self.query_one("#barcode", Line).show(
            (" ", theme.PLAIN), *((letter[:1], theme.hue(letter.upper())) for letter, _ in cells)
        )

    def show_tabs(self) -> None:
        """Which donors there are, and which are in view."""
        visible = {pane.ref for pane in self.donor_panes}
        parts: list[Piece] = []
        for ref, letter in self.session.letters.items():
            name = one_line(ref.rstrip("/").rsplit("/", 1)[-1])
            text = f" [{letter} {name}]" if ref in visible else f"  {letter} {name} "
            parts.append((text, theme.hue(letter) if ref in visible else theme.DIM))
        if not parts:
            parts = [(" no donor is open: press o and type the path of a checkpoint", theme.DIM)]
        self.query_one("#tabs", Line).show(*parts)

    def show_cursor(self) -> None:
        """The line about what the cursor is on, and the inspector where there is one."""
        pane = self.pane
        row = pane.current
        detail, box = self.query_one("#detail", Line), self.query_one("#inspector", TextPane)
        if row is None:
            detail.show()
            box.show([])
            return
        title, lines = self.detail_of(pane)
        summary = lines[0] if row.kind != "end" and lines else ""
        detail.show((f" {title}", theme.BOLD), (f"  {summary}", theme.DIM))
        if box.display:
            width = max(20, box.size.width - 1)
            text = [[(f" {part}", theme.BOLD)] for part in wrapped(title, width)]
            for line in lines:
                fits = line if len(line) <= width else _short(line)
                text += [[(f" {part}", theme.PLAIN)] for part in wrapped(fits, width, indent="  ")]
            box.show(text)

    def detail_of(self, pane: Pane) -> tuple[str, list[str]]:
        """Title and lines about the row under a pane's cursor."""
        assert pane.current is not None
        ref = pane.ref if isinstance(pane, DonorPane) else ""
        checkpoint = self.session.checkpoint(ref) if ref else None
        letter = self.session.letters.get(ref, "")
        return layer_detail(self.session.plan, checkpoint, pane.current, letter, not ref)

    def on_pane_moved(self, event: Pane.Moved) -> None:
        """Follow the cursor."""
        self.show_cursor()
        self.say_selection()

    def on_descendant_focus(self) -> None:
        """Another pane is looked at."""
        if isinstance(self.focused, Pane):
            self.show_cursor()

    # -- status line

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence on the status line."""
        style = theme.SEVERITY.get(severity, theme.PLAIN)
        self.query_one("#status", Line).show((f" {text}", style))

    def say_selection(self) -> None:
        """What is selected, as a range on screen and as one in files; else nothing."""
        pane = self.pane
        span = pane.layer_span() if pane.selection else None
        if span is None:
            self.query_one("#status", Line).show()
            return
        start, stop = span
        name = self.session.letters[pane.ref] if isinstance(pane, DonorPane) else "stack"
        self.say(f"selected {name} {start}-{stop - 1}, in files [{start}, {stop}): {plural(stop - start, 'layer')}")

    def typed(self) -> None:
        """Show a half-typed count or sequence."""
        if self.keys.pending == "apostrophe":
            return
        if self.keys.typed:
            self.say(self.keys.typed)

    # -- the command line

    def open_line(self, prompt: str, text: str) -> None:
        """Open the line under the panes, with the beginning written."""
        self._before = self.pane
        self.query_one("#prompt", Line).show((prompt, theme.BOLD))
        self.query_one("#command").add_class("-open")
        self.query_one("#status").add_class("-hidden")
        box = self.query_one("#line", Input)
        box.value = text
        box.cursor_position = len(text)
        # At once: what is typed right behind is meant for the line, and over SSH arrives together with its key.
        self.set_focus(box)
        self._recalled = len(self.past)

    def recall(self, step: int) -> None:
        """An earlier or later command line."""
        if not self.past or self.query_one("#prompt", Line).text != ":":
            return
        self._recalled = max(0, min(self._recalled + step, len(self.past)))
        box = self.query_one("#line", Input)
        box.value = self.past[self._recalled] if self._recalled < len(self.past) else ""
        box.cursor_position = len(box.value)

    def leave_input(self) -> None:
        """Close the line; the pane that was focused is so again."""
        self.query_one("#command").remove_class("-open")
        self.query_one("#status").remove_class("-hidden")
        self.set_focus(self._before or self.stack)

    def attempt(self, text: str) -> None:
        """Do an edit given as a command line and say what came of it."""
        try:
            edit = self.session.command(text)
        except SurgeonError as error:
            self.say(error.sentence(), "error")
            return
        self.after_edit(f"{self.session.describe(edit)}", edit.touched())

    def after_edit(self, done: str, touched: tuple[int, int] | None = None) -> None:
        """Everything that follows a change of the recipe."""
        self.surgeon.recipe_changed()
        self.refresh_all()
        if touched and self.session.plan.layers:
            start, stop = touched
            stack = self.stack
            first = stack.row_of_layer(min(start, len(self.session.plan.layers) - 1))
            last = stack.row_of_layer(min(stop, len(self.session.plan.layers)) - 1)
            if stop - start > 1 and not self.zoomed_out:
                stack.select(first, last + 1)
            else:
                stack.clear_selection()
                stack.move_to(first, quietly=True)
            self.show_cursor()
        else:
            self.stack.clear_selection()
        depth = len(self.session.plan.layers)
        self.say(f"{done}: {plural(depth, 'layer')}")

    def refuse(self, error: InputError | str) -> None:
        """Say why something cannot be done."""
        self.say(error if isinstance(error, str) else error.sentence(), "warning")


def _short(line: str) -> str:
    """A table line with its runs of spaces taken out, for narrow places."""
    return " ".join(line.split())
