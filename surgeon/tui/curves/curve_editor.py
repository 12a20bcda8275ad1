"""Changes curves: values, presets, tracks of filters, undo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from textual.screen import Screen

from ...errors import InputError
from ...recipe.curves import tracks
from ...recipe.curves.shortest_form import spelled
from ...recipe.edits.blend_text import span
from ...recipe.parameters import Word
from ...text import plural
from ..dialogs import Ask
from ..rows.blend_labels import short_number
from ..session import Session
from .curve_state import CurveState
from .curve_view import CurveView
from .drafts import Draft, fit_value

COARSE, FINE = 0.05, 0.01
"""Steps of a value."""
_PRESET_KEYS = {"f": "flat", "r": "ramp", "d": "ramp down", "v": "V", "i": "inverted V", "g": "gradient slerp"}


class CurveEditor:
    """Actions that change the draft."""

    def __init__(self, screen: Screen[Any], session: Session, state: CurveState, view: CurveView) -> None:
        self._screen, self._session, self._state, self._view = screen, session, state, view

    def change(self, draft: Draft, said: str) -> None:
        """Take another draft and say what was done."""
        tracks_before = len(self._state.draft.lines)
        if not self._state.change(draft):
            self._view.say("that changes nothing", "warning")
            return
        if len(draft.lines) != tracks_before:
            self._view.fit_tracks()
        self._view.fill()
        self._view.say(said)

    def _curve(
        self, said: str, operation: Callable[[tuple[float, ...], int, int], Sequence[float]], *, whole: bool
    ) -> None:
        """Change the numbers of the current track, at what is selected."""
        state = self._state
        if not state.line.drawn:
            self._view.say(f"{state.line.parameter.name} is not a number: + and - change it", "warning")
            return
        start, stop = state.span(whole=whole)
        self._set_values(operation(state.line.numbers, start, stop), said)

    def _set_values(self, values: Sequence[Word], said: str) -> None:
        self.change(self._state.draft.with_line(self._state.track, values), said)

    def _nudge(self, step: float) -> None:
        line = self._state.line
        if not line.drawn:
            self._cycle(1 if step > 0 else -1)
            return
        step = (1 if step > 0 else -1) if line.parameter.kind == "int" else step
        self._curve(f"{'+' if step > 0 else ''}{step:g}", lambda c, a, b: tracks.add(c, a, b, step), whole=False)

    def _cycle(self, step: int) -> None:
        """Give every layer the next word of a parameter that has words."""
        line = self._state.line
        words: list[Word] = (
            [True, False] if line.parameter.kind == "bool" else list(dict.fromkeys(line.parameter.words))
        )
        index = words.index(line.values[0]) if line.values[0] in words else 0
        word = words[(index + step) % len(words)]
        self._set_values([word] * len(line.values), f"{line.parameter.name} {spelled(word)}")

    def do_raise(self, count: int | None) -> None:
        """Raise by n coarse steps."""
        self._nudge(COARSE * (count or 1))

    def do_lower(self, count: int | None) -> None:
        """Lower by n coarse steps."""
        self._nudge(-COARSE * (count or 1))

    def do_raise_fine(self, count: int | None) -> None:
        """Raise by n fine steps."""
        self._nudge(FINE * (count or 1))

    def do_lower_fine(self, count: int | None) -> None:
        """Lower by n fine steps."""
        self._nudge(-FINE * (count or 1))

    def do_set_value(self, count: int | None) -> None:
        """Let the user type a value, or a gradient over the selection."""
        line = self._state.line
        words = ", ".join(line.parameter.words) or "true, false"
        what = "value, or a gradient over all or the selection" if line.drawn else words
        self._view.ask_line(f"{line.parameter.name} ({what}) =", self._set)

    def _set(self, text: str) -> None:
        line = self._state.line
        try:
            words = [_word(part) for part in text.strip("[]").split(",")]
            if not line.drawn:
                self._set_values([fit_value(line.parameter, words[0])] * len(line.values), f"set to {text}")
                return
            numbers = [float(fit_value(line.parameter, word)) for word in words]
        except InputError as error:
            self._view.say(error.sentence(), "error")
            return
        whole = len(numbers) > 1
        self._curve(f"set to {text}", lambda c, a, b: tracks.spread(c, a, b, numbers), whole=whole)

    def _number(self, sign: str, default: str, then: Callable[[float], None]) -> None:
        def typed(answer: str) -> None:
            try:
                number = float(answer)
                if number - number:
                    raise ValueError
            except ValueError:
                self._view.say(f"{answer!r} is not a number", "error")
                return
            then(number)

        self._view.ask_line(f"{sign} ({default}):", typed, default=default)

    def do_add(self, count: int | None) -> None:
        """Add a number to the selection."""
        self._number(
            "+ add", "0.1", lambda n: self._curve(f"added {n:g}", lambda c, a, b: tracks.add(c, a, b, n), whole=True)
        )

    def do_scale(self, count: int | None) -> None:
        """Multiply the selection by a number."""
        self._number(
            "* multiply with",
            "0.5",
            lambda n: self._curve(f"times {n:g}", lambda c, a, b: tracks.scale(c, a, b, n), whole=True),
        )

    def do_ramp(self, count: int | None) -> None:
        """Draw a straight line between the ends of the selection."""
        self._curve("a straight line", lambda c, a, b: tracks.ramp(c, a, b, c[a], c[b - 1]), whole=True)

    def do_smooth(self, count: int | None) -> None:
        """Average each value with its neighbours."""
        self._curve("smoothed", lambda c, a, b: tracks.smooth(c, a, b, count or 1), whole=True)

    def do_mirror(self, count: int | None) -> None:
        """Reverse the selection."""
        self._curve("mirrored", tracks.mirror, whole=True)

    def do_taper(self, count: int | None) -> None:
        """Lead the outermost n layers in from a value."""
        layers = count or 2
        self._number(
            f"taper {layers} layers at both ends from",
            "0",
            lambda n: self._curve(
                f"tapered {layers} from {n:g}",
                lambda c, a, b: (*c[:a], *tracks.taper(c[a:b], layers, n), *c[b:]),
                whole=True,
            ),
        )

    def do_preset(self, count: int | None) -> None:
        """Let the user choose a preset."""
        state = self._state
        if not state.line.drawn or state.line.ends:
            self._view.say("presets are for curves over layers", "warning")
            return
        answers = [(key, _preset_words(name)) for key, name in _PRESET_KEYS.items()]
        where = f"layers {span(*(state.draft.start + index for index in state.span(whole=True)))}"
        question = f"Which curve for {state.line.parameter.name}, {where}?"
        self._screen.app.push_screen(Ask(question, answers), self._preset)

    def _preset(self, key: str | None) -> None:
        if not key:
            return
        name, line = _PRESET_KEYS[key], self._state.line
        low = line.parameter.low if line.parameter.low is not None else 0.0
        high = line.parameter.high if line.parameter.high is not None else 1.0
        start, stop = self._state.span(whole=True)
        found = tracks.preset(name, stop - start, low, high)
        draft = self._state.draft
        if len(found) == 1:
            self._curve(name, lambda c, a, b: (*c[:a], *found[tracks.REST], *c[b:]), whole=True)
            return
        for rule, values in found.items():
            group = [i for i, other in enumerate(draft.lines) if other.group == line.group and not other.ends]
            index = next((i for i in group if draft.lines[i].filter == rule), None)
            if index is None:
                draft = draft.with_filter(group[-1], rule)
                index = group[-1]
            old = draft.lines[index].numbers
            draft = draft.with_line(index, (*old[:start], *values, *old[stop:]))
        self.change(draft, name)

    def do_yank(self, count: int | None) -> None:
        """Copy the curve into the register."""
        if self._state.line.drawn:
            start, stop = self._state.span(whole=True)
            self._session.curve = self._state.line.numbers[start:stop]
            self._view.say(f"yanked {plural(stop - start, 'value')}: p puts them on another track, or other layers")

    def do_paste(self, count: int | None) -> None:
        """Stretch the register over the selection."""
        held = self._session.curve
        if not held:
            self._view.say("no curve is yanked: press y on one first", "warning")
            return
        self._curve("pasted", lambda c, a, b: tracks.spread(c, a, b, held), whole=True)

    def do_filter(self, count: int | None) -> None:
        """Add a track for the tensors that a filter matches."""
        state = self._state
        taken = {other.filter for other in state.draft.lines if other.group == state.line.group}
        free = next((rule for rule in ("self_attn", "mlp", "norm") if rule not in taken), "")
        offered = f" ({free})" if free else ""
        self._view.ask_line(f"tensors whose names contain{offered}:", self._with_filter, default=free)

    def _with_filter(self, rule: str) -> None:
        state = self._state
        try:
            draft = state.draft.with_filter(state.track, rule)
        except InputError as error:
            self._view.say(error.sentence(), "warning")
            return
        group = state.line.group
        state.track = next(i for i, line in enumerate(draft.lines) if line.group == group and line.filter == rule)
        self.change(draft, f"a track for {rule}")

    def do_remove(self, count: int | None) -> None:
        """Remove the filter's track."""
        try:
            draft = self._state.draft.without(self._state.track)
        except InputError as error:
            self._view.say(error.sentence(), "warning")
            return
        self.change(draft, "removed")

    def do_undo(self, count: int | None) -> None:
        """Undo n steps."""
        if not self._state.done:
            self._view.say("nothing to undo", "warning")
            return
        self._state.undo(count or 1)
        self._show("undone")

    def do_redo(self, count: int | None) -> None:
        """Redo n steps."""
        if not self._state.undone:
            self._view.say("nothing to redo", "warning")
            return
        self._state.redo(count or 1)
        self._show("redone")

    def _show(self, said: str) -> None:
        self._view.fit_tracks()
        self._view.fill()
        self._view.say(said)


def _preset_words(name: str) -> str:
    parts = [
        f"{'' if rule == tracks.REST else rule + ' '}{', '.join(map(short_number, values))}"
        for rule, values in tracks.PRESETS[name].items()
    ]
    return f"{name:<14} {'; '.join(parts)}"


def _word(text: str) -> Word:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text
