"""The curve editor: each parameter of some layers as a curve, with a track per filter and donor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import InputError
from ...recipe.curves import tracks
from ...recipe.curves.shortest_form import spelled
from ...recipe.edits.blend_text import span
from ...recipe.parameters import Word
from ...text import plural
from ..dialogs import Ask
from ..rows.blend_labels import brief
from .curve_view import MOST_TRACKS, CurveView
from .drafts import Draft, fitting

COARSE, FINE = 0.05, 0.01
_PRESET_KEYS = {"f": "flat", "r": "ramp", "d": "ramp down", "v": "V", "i": "inverted V", "g": "gradient slerp"}


class CurveScreen(CurveView):
    """Gives the edit that sets what was drawn; None when it was left without."""

    # -- changing

    def change(self, draft: Draft, said: str) -> None:
        """Another draft, with a step back to this one."""
        self.asked_to_leave = False
        if draft.lines == self.draft.lines:
            self.say("that changes nothing", "warning")
            return
        self.done.append(self.draft)
        self.undone.clear()
        self.draft = draft
        self.track = min(self.track, len(draft.lines) - 1)
        self.fill()
        self.say(said)

    def _span(self, *, whole: bool) -> tuple[int, int]:
        """What an operation is about: the selection, else the value under the cursor, or (`whole`) all of them."""
        return self.selection or ((0, len(self.line.values)) if whole else (self.cursor, self.cursor + 1))

    def _curve(
        self, said: str, operation: Callable[[tuple[float, ...], int, int], Sequence[float]], *, whole: bool
    ) -> None:
        if not self.line.drawn:
            self.say(f"{self.line.parameter.name} is no number: + and - change it", "warning")
            return
        start, stop = self._span(whole=whole)
        self.change(self.draft.with_line(self.track, operation(self.line.numbers, start, stop)), said)

    def _nudge(self, step: float) -> None:
        line = self.line
        if not line.drawn:
            self._cycle(1 if step > 0 else -1)
            return
        step = (1 if step > 0 else -1) if line.parameter.kind == "int" else step
        self._curve(f"{'+' if step > 0 else ''}{step:g}", lambda c, a, b: tracks.add(c, a, b, step), whole=False)

    def _cycle(self, step: int) -> None:
        """The next word of a parameter that has words, at every layer."""
        line = self.line
        words: list[Word] = (
            [True, False] if line.parameter.kind == "bool" else list(dict.fromkeys(line.parameter.words))
        )
        index = words.index(line.values[0]) if line.values[0] in words else 0
        word = words[(index + step) % len(words)]
        self.change(
            self.draft.with_line(self.track, [word] * len(line.values)), f"{line.parameter.name} {spelled(word)}"
        )

    def do_raise(self, count: int | None) -> None:
        """n coarse steps up."""
        self._nudge(COARSE * (count or 1))

    def do_lower(self, count: int | None) -> None:
        """n coarse steps down."""
        self._nudge(-COARSE * (count or 1))

    def do_raise_fine(self, count: int | None) -> None:
        """n fine steps up."""
        self._nudge(FINE * (count or 1))

    def do_lower_fine(self, count: int | None) -> None:
        """n fine steps down."""
        self._nudge(-FINE * (count or 1))

    def do_set_value(self, count: int | None) -> None:
        """A value, or a gradient over the selection, typed."""
        what = "value, or a gradient over all or the selection" if self.line.drawn else self._words_of_line()
        self.ask_line(f"{self.line.parameter.name} ({what}) =", self._set)

    def _words_of_line(self) -> str:
        return ", ".join(self.line.parameter.words) or "true, false"

    def _set(self, text: str) -> None:
        try:
            words = [_word(part) for part in text.strip("[]").split(",")]
            if not self.line.drawn:
                word = fitting(self.line.parameter, words[0])
                self.change(self.draft.with_line(self.track, [word] * len(self.line.values)), f"set to {text}")
                return
            numbers = [float(fitting(self.line.parameter, word)) for word in words]
        except InputError as error:
            self.say(error.sentence(), "error")
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
                self.say(f"{answer!r} is not a number", "error")
                return
            then(number)

        self.ask_line(f"{sign} ({default}):", typed, default=default)

    def do_add(self, count: int | None) -> None:
        """A number added to the selection."""
        self._number(
            "+ add", "0.1", lambda n: self._curve(f"added {n:g}", lambda c, a, b: tracks.add(c, a, b, n), whole=True)
        )

    def do_scale(self, count: int | None) -> None:
        """The selection multiplied."""
        self._number(
            "* multiply with",
            "0.5",
            lambda n: self._curve(f"times {n:g}", lambda c, a, b: tracks.scale(c, a, b, n), whole=True),
        )

    def do_ramp(self, count: int | None) -> None:
        """A straight line between the ends of the selection."""
        self._curve("a straight line", lambda c, a, b: tracks.ramp(c, a, b, c[a], c[b - 1]), whole=True)

    def do_smooth(self, count: int | None) -> None:
        """Each value averaged with its neighbours."""
        self._curve("smoothed", lambda c, a, b: tracks.smooth(c, a, b, count or 1), whole=True)

    def do_mirror(self, count: int | None) -> None:
        """The selection in the opposite order."""
        self._curve("mirrored", tracks.mirror, whole=True)

    def do_taper(self, count: int | None) -> None:
        """The outermost n layers led in from a value."""
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
        """One of the presets."""
        if not self.line.drawn or self.line.ends:
            self.say("presets are for curves over layers", "warning")
            return
        answers = [(key, _preset_words(name)) for key, name in _PRESET_KEYS.items()]
        where = f"layers {span(*(self.draft.start + index for index in self._span(whole=True)))}"
        self.app.push_screen(Ask(f"Which curve for {self.line.parameter.name}, {where}?", answers), self._preset)

    def _preset(self, key: str | None) -> None:
        if not key:
            return
        name, line = _PRESET_KEYS[key], self.line
        low = line.parameter.low if line.parameter.low is not None else 0.0
        high = line.parameter.high if line.parameter.high is not None else 1.0
        start, stop = self._span(whole=True)
        found = tracks.preset(name, stop - start, low, high)
        draft = self.draft
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
        self._grown(draft)
        self.change(draft, name)

    def _grown(self, draft: Draft) -> None:
        """Room for more tracks."""
        self._tracks().styles.height = min(len(draft.lines), MOST_TRACKS)
        self.call_after_refresh(self.fill)

    def do_yank(self, count: int | None) -> None:
        """The curve into the register."""
        if self.line.drawn:
            start, stop = self._span(whole=True)
            self.session.curve = self.line.numbers[start:stop]
            self.say(f"yanked {plural(stop - start, 'value')}: p puts them on another track, or other layers")

    def do_paste(self, count: int | None) -> None:
        """The register, stretched over the selection."""
        held = self.session.curve
        if not held:
            self.say("no curve is yanked: press y on one first", "warning")
            return
        self._curve("pasted", lambda c, a, b: tracks.spread(c, a, b, held), whole=True)

    def do_filter(self, count: int | None) -> None:
        """A track of its own for some tensors."""
        taken = {other.filter for other in self.draft.lines if other.group == self.line.group}
        free = next((rule for rule in ("self_attn", "mlp", "norm") if rule not in taken), "")
        self.ask_line(f"tensors whose names contain{f' ({free})' if free else ''}:", self._with_filter, default=free)

    def _with_filter(self, rule: str) -> None:
        try:
            draft = self.draft.with_filter(self.track, rule)
        except InputError as error:
            self.say(error.sentence(), "warning")
            return
        group = self.line.group
        self._grown(draft)
        self.track = next(i for i, line in enumerate(draft.lines) if line.group == group and line.filter == rule)
        self.change(draft, f"a track for {rule}")

    def do_remove(self, count: int | None) -> None:
        """Take the filter's track out."""
        try:
            draft = self.draft.without(self.track)
        except InputError as error:
            self.say(error.sentence(), "warning")
            return
        self._grown(draft)
        self.change(draft, "taken out")

    def do_undo(self, count: int | None) -> None:
        """n steps back."""
        self._travel(self.done, self.undone, "undone", "nothing to undo", count)

    def do_redo(self, count: int | None) -> None:
        """n steps forward."""
        self._travel(self.undone, self.done, "redone", "nothing to redo", count)

    def _travel(self, there: list[Draft], back: list[Draft], said: str, nothing: str, count: int | None) -> None:
        if not there:
            self.say(nothing, "warning")
            return
        for _ in range(min(count or 1, len(there))):
            back.append(self.draft)
            self.draft = there.pop()
        self.track = min(self.track, len(self.draft.lines) - 1)
        self._grown(self.draft)
        self.fill()
        self.say(said)

    # -- leaving

    def do_apply(self, count: int | None) -> None:
        """Make the edit."""
        self.dismiss(self.draft.result())

    def do_cancel(self, count: int | None) -> None:
        """Clear the selection; without one, leave. Work is only dropped when asked twice."""
        self.keys.clear()
        if self.mark is not None:
            self.mark = None
            self._point(self.cursor)
        elif self.done and not self.asked_to_leave:
            self.asked_to_leave = True
            self.say(f"{plural(len(self.done), 'change')} would be lost: esc again leaves, enter applies", "warning")
        else:
            self.dismiss(None)


def _preset_words(name: str) -> str:
    parts = [
        f"{'' if rule == tracks.REST else rule + ' '}{', '.join(map(brief, values))}"
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
