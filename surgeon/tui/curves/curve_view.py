"""What the curve editor shows, and moving about in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.style import Style
from textual.app import ComposeResult

from ...recipe.curves.shortest_form import spelled
from ...recipe.edits.blend_text import span
from ...text import one_line, plural
from .. import theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..rows.blend_labels import brief
from ..rows.pane_rows import END_NAMES
from ..widgets.curve_chart import CurveChart, bounds, spark
from ..widgets.line import Line, Piece
from ..widgets.prompt import Prompt
from ..widgets.text_pane import TextPane
from .drafts import CurveLine as Track
from .drafts import Draft

SPARK = 24
"""Cells of a curve in the list of tracks."""

MOST_TRACKS = 7
"""Lines of that list; more of them scroll."""


class CurveView(ActionScreen):
    """Tracks, the curve of one of them, and the form it is written in; what changes them is built on top."""

    kind: ClassVar[ScreenName] = "curves"
    counts: ClassVar[bool] = True
    DEFAULT_CSS = """
    CurveView #header, CurveView #footer { background: $panel; }
    CurveView #tracks { height: auto; max-height: 40%; }
    CurveView #footer { dock: bottom; }
    CurveView #chart { max-height: 19; }
    CurveView #status.-hidden { display: none; }
    """

    def __init__(self, draft: Draft, letters: dict[str, str], track: int = 0) -> None:
        super().__init__()
        self.draft = draft
        self.letters = letters
        self.done: list[Draft] = []
        self.undone: list[Draft] = []
        self.track = track
        self.cursor = 0
        self.mark: int | None = None
        self.sticky = False
        self.asked_to_leave = False

    def compose(self) -> ComposeResult:
        """Header, tracks, the curve, what the cursor is on, the form, status, footer."""
        yield Line(id="header")
        yield TextPane(id="tracks")
        yield CurveChart(id="chart")
        yield Line(id="detail")
        yield Line(id="form")
        yield Line(id="status")
        yield Prompt(id="prompt")
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Show everything."""
        self.query_one(CurveChart).focus()
        self._tracks().styles.height = min(len(self.draft.lines), MOST_TRACKS)
        self.call_after_refresh(self.fill)
        self.show_footer(self.query_one("#footer", Line))

    def on_resize(self) -> None:
        """The list of tracks and the chart have another size."""
        self.call_after_refresh(self.fill)

    # -- what is shown

    def _tracks(self) -> TextPane:
        return self.query_one("#tracks", TextPane)

    @property
    def line(self) -> Track:
        """The track that is edited."""
        return self.draft.lines[self.track]

    @property
    def selection(self) -> tuple[int, int] | None:
        """Selected values `[start, stop)`."""
        if self.mark is None:
            return None
        return min(self.mark, self.cursor), max(self.mark, self.cursor) + 1

    def fill(self) -> None:
        """Show the draft; widgets draw only what changed."""
        self.cursor = max(0, min(self.cursor, len(self.line.values) - 1))
        self._show_header()
        self._show_tracks()
        line, chart = self.line, self.query_one(CurveChart)
        if line.drawn:
            chart.style = self._hue(line)
            low, high = bounds(line.numbers, line.parameter.low, line.parameter.high)
            chart.show(line.numbers, self._names(line), low, high)
            chart.point(self.cursor, self.selection)
        else:
            chart.show((), (), 0, 1)
        self.show_cursor()

    def _names(self, line: Track) -> tuple[str, ...]:
        if line.ends:
            return tuple(END_NAMES[end] for end in line.ends)
        return tuple(str(index) for index in range(self.draft.start, self.draft.stop))

    def _hue(self, line: Track) -> Style:
        if line.source is None:
            return theme.TITLE
        return theme.hue(self.letters.get(self.draft.sources[0][line.source][0], "A"))

    def _whose(self, line: Track) -> str:
        """The donor's letter; with its layer where one donor is there several times."""
        if line.source is None:
            return ""
        ref, layer = self.draft.sources[0][line.source]
        letter = self.letters.get(ref, "?")
        return letter if self.draft.donor(line.source) else f"{letter}{layer:02d}"

    def _label(self, index: int) -> str:
        return "~".join(f"{self.letters.get(ref, '?')}{layer:02d}" for ref, layer in self.draft.sources[index])

    def _show_header(self) -> None:
        draft = self.draft
        first, last = self._label(0), self._label(draft.count - 1)
        facts = f"  {first}" + (f" .. {last}" if draft.count > 1 else "") + f"  {draft.method.name}"
        base = draft.base
        bases = {layer[base][0]: None for layer in draft.sources if base is not None and base < len(layer)}
        if bases:
            facts += f", base {' and '.join(self.letters.get(ref, '?') for ref in bases)}"
        mark = "*" if self.done else ""
        undo = f" | undo {len(self.done)}" if self.done else ""
        self.query_one("#header", Line).show(
            (f" CURVES{mark} {span(draft.start, draft.stop)}", theme.TITLE),
            (one_line(facts), theme.PLAIN),
            (undo, theme.DIM),
        )

    def _show_tracks(self) -> None:
        lines = self.draft.lines
        width = max(len(line.parameter.name) + len(self._whose(line)) + 1 for line in lines)
        labels = max(len(line.label) for line in lines)
        pane = self._tracks()
        pane.show([self._track_row(index, width, labels) for index in range(len(lines))])
        height = max(1, pane.size.height)
        pane.move(max(0, self.track - height + 1) - pane.top if self.track >= pane.top + height else 0)
        if self.track < pane.top:
            pane.move(self.track - pane.top)

    def _track_row(self, index: int, width: int, labels: int) -> list[Piece]:
        line = self.draft.lines[index]
        here = index == self.track
        name = f"{line.parameter.name} {self._whose(line)}".rstrip()
        row: list[Piece] = [
            (f"{'>' if here else ' '} ", theme.BOLD),
            (f"{name:<{width}} ", self._hue(line) if line.source is not None else theme.PLAIN),
            (f"{line.label:<{labels}} ", theme.BOLD if here else theme.PLAIN),
        ]
        if line.drawn and not line.ends:
            low, high = bounds(line.numbers, line.parameter.low, line.parameter.high)
            row.append((f"{spark(line.numbers, low, high, SPARK):<{min(SPARK, len(line.values))}} ", self._hue(line)))
        old = {(o.group, o.filter, o.ends): o for o in self.draft.opened}.get((line.group, line.filter, line.ends))
        changed = old is None or old.values != line.values
        origin = "" if changed or line.origin == "new" or line.ends else f"  ({line.origin})"
        return [*row, (f"{line.form_text()}", theme.PLAIN), (f"{origin}{'  *' if changed else ''}", theme.DIM)]

    def show_cursor(self) -> None:
        """What the cursor is on; the form that is written."""
        line = self.line
        value = line.values[self.cursor]
        pieces: list[Piece] = []
        if line.ends:
            pieces.append((f" {line.ends[self.cursor]}", theme.BOLD))
            follows = line.follows[self.cursor]
            note = "  its own" if follows < 0 else f"  as layer {self.draft.start + follows}"
        else:
            layer = self.draft.start + self.cursor
            pieces.append((f" layer {layer} = {self._label(self.cursor)}", theme.BOLD))
            note = ""
        name = f"{line.parameter.name} {self._whose(line)}".rstrip()
        pieces.append((f"  {name} {line.label} {spelled(value)}", theme.PLAIN))
        if self.selection:
            start, stop = self.selection
            offset = 0 if line.ends else self.draft.start
            pieces.append((f"  selected {span(offset + start, offset + stop)} ({stop - start})", theme.DIM))
        pieces.append((note, theme.DIM))
        self.query_one("#detail", Line).show(*pieces)
        self.query_one("#form", Line).show((f" {self._form_words(line)}", theme.DIM))

    def _form_words(self, line: Track) -> str:
        if line.ends:
            return "an end that is given a value has parameters of its own; x takes them away"
        if not line.drawn:
            return f"{line.parameter.help}: {', '.join(line.parameter.words) or 'true, false'}"
        forms = self.draft.forms(line)
        text = " | ".join(form.text for form in forms)
        if len(text) > self.size.width - 40:
            shown = (form.value if isinstance(form.value, list) else [form.value] for form in forms)
            text = " | ".join(" ".join(map(brief, values)) for values in shown)
        words = f"written as {text}"
        if len(forms) > 1:
            words += f" in {plural(len(forms), 'slice')}"
        elif isinstance(forms[0].value, list):
            numbers = f"{len(forms[0].value)} numbers" if forms[0].name == "gradient" else "a number"
            words += f", {numbers} for {'each layer' if numbers == 'a number' else plural(self.draft.count, 'layer')}"
        else:
            words += f", one value for {plural(self.draft.count, 'layer')}"
        words += ", the slice is split" if self.draft.cuts else ""
        moved = self.draft.ends_at
        return words if moved is None else f"{words}: norm and head then take layer {moved}'s values"

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence on the status line."""
        self.query_one("#status", Line).show((f" {one_line(text)}", theme.SEVERITY.get(severity, theme.PLAIN)))

    def typed(self) -> None:
        """A half-typed count."""
        if self.keys.typed:
            self.say(self.keys.typed)

    def leave_input(self) -> None:
        """Escape was pressed in the line."""
        self.query_one(Prompt).close()

    def ask_line(self, sign: str, then: Callable[[str], None], *, text: str = "", default: str = "") -> None:
        """Open the line under the curve."""

        self.query_one("#status").add_class("-hidden")
        self.query_one(Prompt).ask(sign, text, then, default=default)

    def on_prompt_closed(self) -> None:
        """The status line is back in its place."""
        self.query_one("#status").remove_class("-hidden")

    # -- moving

    def _move(self, to: int) -> None:
        if self.mark is not None and not self.sticky:
            self.mark = None
        self._point(to)

    def _point(self, to: int) -> None:
        self.cursor = max(0, min(to, len(self.line.values) - 1))
        self.asked_to_leave = False
        if self.line.drawn:
            self.query_one(CurveChart).point(self.cursor, self.selection)
        self.show_cursor()

    def on_curve_chart_picked(self, event: CurveChart.Picked) -> None:
        """A click puts the cursor there."""
        self._move(event.index)

    def do_right(self, count: int | None) -> None:
        """n layers up the stack."""
        self._move(self.cursor + (count or 1))

    def do_left(self, count: int | None) -> None:
        """n layers down the stack."""
        self._move(self.cursor - (count or 1))

    def do_first(self, count: int | None) -> None:
        """First layer."""
        self._move(0)

    def do_last(self, count: int | None) -> None:
        """Last layer, or layer n."""
        self._move(len(self.line.values) - 1 if count is None else count - (0 if self.line.ends else self.draft.start))

    def do_next_track(self, count: int | None) -> None:
        """Another track."""
        self._turn(+1)

    def do_previous_track(self, count: int | None) -> None:
        """Another track."""
        self._turn(-1)

    def _turn(self, step: int) -> None:
        self.track = (self.track + step) % len(self.draft.lines)
        self.mark = None
        self.fill()

    def do_select(self, count: int | None) -> None:
        """Start or end a selection."""
        self.mark, self.sticky = (self.cursor, True) if self.mark is None else (None, False)
        self._point(self.cursor + (count or 1) - 1 if self.mark is not None else self.cursor)

    def do_select_all(self, count: int | None) -> None:
        """Every layer."""
        self.mark, self.sticky = 0, True
        self._point(len(self.line.values) - 1)

    def do_extend_right(self, count: int | None) -> None:
        """Select towards the right."""
        self._extend(count or 1)

    def do_extend_left(self, count: int | None) -> None:
        """Select towards the left."""
        self._extend(-(count or 1))

    def _extend(self, step: int) -> None:
        if self.mark is None:
            self.mark, self.sticky = self.cursor, False
        self._point(self.cursor + step)
