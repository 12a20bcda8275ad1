"""What the curve editor shows: tracks, the curve of one of them, and the form it is written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.cells import cell_len
from rich.style import Style
from textual.screen import Screen

from ...recipe.curves.shortest_form import spelled
from ...recipe.edits.blend_text import span
from ...text import one_line, plural
from .. import theme
from ..cells import pad
from ..rows.blend_labels import short_number
from ..rows.pane_rows import END_NAMES
from ..widgets.curve_chart import CurveChart, bounds, spark
from ..widgets.line import Line, Piece
from ..widgets.prompt import Prompt
from ..widgets.status_line import StatusLine
from ..widgets.text_pane import TextPane
from .curve_state import CurveState
from .drafts import CurveLine

SPARK = 24
"""Cells of a curve in the list of tracks."""

MAX_TRACKS = 7
"""Lines of that list; more of them scroll."""


class CurveView:
    """Draws the state of the curve editor on the widgets of its screen.

    Args:
        letters: reference of a donor -> its letter.
        overridden: output layer -> the key of the recipe that overrides what is drawn for it.
    """

    def __init__(
        self, screen: Screen[Any], state: CurveState, letters: dict[str, str], overridden: Mapping[int, str]
    ) -> None:
        self._screen, self._state, self._letters = screen, state, letters
        self._overridden = overridden

    def fill(self) -> None:
        """Show the draft; widgets draw only what changed."""
        self._state.cursor = max(0, min(self._state.cursor, len(self._state.line.values) - 1))
        self._show_header()
        self._show_tracks()
        line, chart = self._state.line, self._screen.query_one(CurveChart)
        if line.drawn:
            chart.style = self._hue(line)
            low, high = bounds(line.numbers, line.parameter.low, line.parameter.high)
            chart.show(line.numbers, self._names(line), low, high)
            chart.point(self._state.cursor, self._state.selection)
        else:
            chart.show((), (), 0, 1)
        self.show_cursor()

    def _names(self, line: CurveLine) -> tuple[str, ...]:
        if line.ends:
            return tuple(END_NAMES[end] for end in line.ends)
        return tuple(str(index) for index in range(self._state.draft.start, self._state.draft.stop))

    def _hue(self, line: CurveLine) -> Style:
        if line.source is None:
            return theme.TITLE
        return theme.hue(self._letters.get(self._state.draft.sources[0][line.source][0], "A"))

    def _whose(self, line: CurveLine) -> str:
        """The letter of the track's donor; with its layer when the donor occurs several times."""
        if line.source is None:
            return ""
        ref, layer = self._state.draft.sources[0][line.source]
        letter = self._letters.get(ref, "?")
        return letter if self._state.draft.donor(line.source) else f"{letter}{layer:02d}"

    def _label(self, index: int) -> str:
        return "~".join(f"{self._letters.get(ref, '?')}{layer:02d}" for ref, layer in self._state.draft.sources[index])

    def _show_header(self) -> None:
        draft = self._state.draft
        first, last = self._label(0), self._label(draft.count - 1)
        facts = f"  {first}" + (f" .. {last}" if draft.count > 1 else "") + f"  {draft.method.name}"
        base = draft.base
        bases = {layer[base][0]: None for layer in draft.sources if base is not None and base < len(layer)}
        if bases:
            facts += f", base {' and '.join(self._letters.get(ref, '?') for ref in bases)}"
        mark = "*" if self._state.done else ""
        undo = f" | undo {len(self._state.done)}" if self._state.done else ""
        self._screen.query_one("#header", Line).show(
            (f" CURVES{mark} {span(draft.start, draft.stop)}", theme.TITLE),
            (one_line(facts), theme.PLAIN),
            (undo, theme.DIM),
        )

    def _show_tracks(self) -> None:
        lines = self._state.draft.lines
        width = max(len(line.parameter.name) + len(self._whose(line)) + 1 for line in lines)
        labels = max(cell_len(line.label) for line in lines)
        pane = self.tracks
        pane.show([self._track_row(index, width, labels) for index in range(len(lines))])
        height = max(1, pane.size.height)
        pane.move(max(0, self._state.track - height + 1) - pane.top if self._state.track >= pane.top + height else 0)
        if self._state.track < pane.top:
            pane.move(self._state.track - pane.top)

    def _track_row(self, index: int, width: int, labels: int) -> list[Piece]:
        line = self._state.draft.lines[index]
        here = index == self._state.track
        name = f"{line.parameter.name} {self._whose(line)}".rstrip()
        row: list[Piece] = [
            (f"{'>' if here else ' '} ", theme.BOLD),
            (f"{pad(name, width)} ", self._hue(line) if line.source is not None else theme.PLAIN),
            (f"{pad(line.label, labels)} ", theme.BOLD if here else theme.PLAIN),
        ]
        if line.drawn and not line.ends:
            low, high = bounds(line.numbers, line.parameter.low, line.parameter.high)
            row.append((f"{spark(line.numbers, low, high, SPARK):<{min(SPARK, len(line.values))}} ", self._hue(line)))
        opened = {(old.group, old.filter, old.ends): old for old in self._state.draft.opened}
        old = opened.get((line.group, line.filter, line.ends))
        changed = old is None or old.values != line.values
        origin = "" if changed or line.origin == "new" or line.ends else f"  ({line.origin})"
        return [*row, (f"{line.form_text()}", theme.PLAIN), (f"{origin}{'  *' if changed else ''}", theme.DIM)]

    def show_cursor(self) -> None:
        """Show what the cursor is on, and the form in which the curve is written."""
        line = self._state.line
        value = line.values[self._state.cursor]
        pieces: list[Piece] = []
        if line.ends:
            pieces.append((f" {line.ends[self._state.cursor]}", theme.BOLD))
            follows = line.follows[self._state.cursor]
            note = "  set for this end" if follows < 0 else f"  from layer {self._state.draft.start + follows}"
        else:
            layer = self._state.draft.start + self._state.cursor
            pieces.append((f" layer {layer} = {self._label(self._state.cursor)}", theme.BOLD))
            key = self._overridden.get(layer)
            note = f"  {key} overrides it" if key else ""
        name = f"{line.parameter.name} {self._whose(line)}".rstrip()
        pieces.append((f"  {name} {line.label} {spelled(value)}", theme.PLAIN))
        if self._state.selection:
            start, stop = self._state.selection
            offset = 0 if line.ends else self._state.draft.start
            pieces.append((f"  selected {span(offset + start, offset + stop)} ({stop - start})", theme.DIM))
        pieces.append((note, theme.DIM))
        self._screen.query_one("#detail", Line).show(*pieces)
        self._screen.query_one("#form", Line).show((f" {self._form_words(line)}", theme.DIM))

    def detail(self) -> tuple[str, list[str]]:
        """Title and lines about the current track: its form in full, and every value."""
        line = self._state.line
        title = f"{line.parameter.name} {self._whose(line)}".rstrip() + f" {line.label}"
        forms = self._state.draft.forms(line) if line.drawn and not line.ends else []
        words = [line.parameter.help, self._form_words(line), *(form.text for form in forms)]
        names = self._names(line)
        values = [f"  {names[index] if index < len(names) else index:>4}  {spelled(value)}" for index, value in
                  enumerate(line.values)]  # fmt: skip
        return title, [*dict.fromkeys(words), "", *values]

    def _form_words(self, line: CurveLine) -> str:
        if line.ends:
            return "a value here holds for this end only; x removes it, and the end follows its layer again"
        if not line.drawn:
            return f"{line.parameter.help}: {', '.join(line.parameter.words) or 'true, false'}"
        draft = self._state.draft
        forms, layers = draft.forms(line), plural(draft.count, "layer")
        text = " | ".join(form.text for form in forms)
        if cell_len(text) > self._screen.size.width - 40:
            shown = (form.value if isinstance(form.value, list) else [form.value] for form in forms)
            text = " | ".join(" ".join(map(short_number, values)) for values in shown)
        words = f"written as {text}"
        if len(forms) > 1:
            words += f" in {plural(len(forms), 'slice')}"
        elif isinstance(forms[0].value, list):
            numbers = f"{len(forms[0].value)} numbers" if forms[0].name == "gradient" else "a number"
            words += f", {numbers} for {'each layer' if numbers == 'a number' else layers}"
        else:
            words += f", one value for {layers}"
        words += ", which splits the slice" if draft.cuts else ""
        moved = draft.ends_at
        return words if moved is None else f"{words}: norm and head then take layer {moved}'s values"

    def point(self) -> None:
        """Follow the cursor and the selection."""
        if self._state.line.drawn:
            self._screen.query_one(CurveChart).point(self._state.cursor, self._state.selection)
        self.show_cursor()

    def fit_tracks(self) -> None:
        """Give the list of tracks as many lines as it has, within limits, and draw everything in its new place."""
        self.tracks.styles.height = min(len(self._state.draft.lines), MAX_TRACKS)
        self._screen.call_after_refresh(self.fill)

    @property
    def tracks(self) -> TextPane:
        """The list of tracks."""
        return self._screen.query_one("#tracks", TextPane)

    # -- messages

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence on the status line."""
        self._screen.query_one("#status", StatusLine).say(text, severity)

    def ask_line(self, sign: str, then: Callable[[str], None], *, text: str = "", default: str = "") -> None:
        """Open the line under the curve; `then` gets what was typed."""
        self._screen.query_one("#status").add_class("-hidden")
        self._screen.query_one(Prompt).ask(sign, text, then, default=default)
