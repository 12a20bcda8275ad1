"""The curve editor's data: tracks of parameters over layers, and the edit that results. No widgets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...errors import InputError
from ...methods import Method, Parameter
from ...recipe.curves.shortest_form import Form, shortest, spelled
from ...recipe.curves.tracks import REST
from ...recipe.edits import BlendLayers, Edit, SetParameters, Setting
from ...recipe.parameters import Word
from ...recipe.schema import End
from ...text import one_line

NEW = "new"
"""Origin of a value that is not set anywhere yet."""

ENDS_TRACK = "ends"
END_TENSORS: dict[End, str] = {
    "embeddings": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "lm_head": "lm_head.weight",
}  # fmt: skip
"""The tensor names of the ends that filters are matched with; most families use these names."""


@dataclass(frozen=True)
class CurveLine:
    """One track of the editor: a parameter's value at each layer, for one filter's tensors and one donor.

    Attributes:
        parameter: declaration of the parameter.
        source: index of the source within the slices; None for all.
        filter: part of the tensors' names; `REST` for all tensors that no other filter matches.
        values: one per layer, or one per end in a track of ends.
        origin: where the values are set: `source`, `slice`, `recipe`, `default`, an end, or `NEW`.
        ends: the ends of the network in a track of ends; empty for layers.
        follows: per end, the layer whose value it takes; -1 for an end with a value of its own.
    """

    parameter: Parameter
    source: int | None
    filter: str
    values: tuple[Word, ...]
    origin: str
    ends: tuple[End, ...] = ()
    follows: tuple[int, ...] = ()

    @property
    def drawn(self) -> bool:
        """Whether the track is drawn as a curve; words and booleans are not."""
        return self.parameter.kind in ("float", "int")

    @property
    def group(self) -> tuple[str, int | None]:
        """Parameter and source; tracks with the same are written together."""
        return self.parameter.name, self.source

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values of a track of numbers."""
        return tuple(float(value) for value in self.values if not isinstance(value, str))

    @property
    def form(self) -> Form:
        """The shortest form that gives the values."""
        return shortest(self.values)

    @property
    def label(self) -> str:
        """The text for the filter on screen."""
        return ENDS_TRACK if self.ends else "rest" if self.filter == REST else one_line(self.filter)

    def form_text(self) -> str:
        """The name of the form, or the value if it is a scalar; for ends all values."""
        if self.ends:
            return "  ".join(f"{end} {spelled(value)}" for end, value in zip(self.ends, self.values, strict=True))
        return self.form.text if self.form.name == "scalar" else self.form.name


Lines = tuple[CurveLine, ...]


@dataclass(frozen=True)
class Draft:
    """Tracks over output layers `[start, stop)`.

    Attributes:
        edit: the new blend; None if an existing one is changed.
        method: merge method of the layers.
        sources: per layer, the (reference, layer) of every source.
        base: index of the source that is the base; None if there is none.
        pieces: for each slice that is written, its layers as [start, stop) relative to `start`.
        cuts: whether the edit splits a slice.
        ends_at: the first layer of the last slice if the edit moves it, since norm and head take their values from that
            layer; None if it does not.
        last: the first output layer of the last slice in the range; norm and head take their values from it.
        opened: the tracks before any change.
        lines: the tracks now.
    """

    start: int
    stop: int
    edit: BlendLayers | None
    method: Method
    sources: tuple[tuple[tuple[str, int], ...], ...]
    base: int | None
    pieces: tuple[tuple[int, int], ...]
    cuts: bool
    ends_at: int | None
    last: int
    opened: Lines
    lines: Lines

    @property
    def count(self) -> int:
        """The number of layers."""
        return self.stop - self.start

    def forms(self, line: CurveLine) -> list[Form]:
        """The form of a track in each slice that is written."""
        return [shortest(line.values[start:stop]) for start, stop in self.pieces]

    def donor(self, source: int) -> str | None:
        """The reference of a source; None if it does not identify the source."""
        names = {layer[source][0] for layer in self.sources}
        twice = any([ref for ref, _ in layer].count(layer[source][0]) > 1 for layer in self.sources)
        return names.pop() if len(names) == 1 and not twice else None

    def with_line(self, index: int, values: Sequence[Word]) -> Draft:
        """The draft with new values in one track, clamped and rounded as by `fit_value`."""
        line = self.lines[index]
        fitted = tuple(fit_value(line.parameter, value) for value in values)
        follows = tuple(
            -1 if value != old else follow
            for value, old, follow in zip(fitted, line.values, line.follows, strict=bool(line.ends))
        )
        return self._put(index, replace(line, values=fitted, follows=follows))

    def _put(self, index: int, line: CurveLine) -> Draft:
        return replace(self, lines=update_ends((*self.lines[:index], line, *self.lines[index + 1 :])))

    def with_filter(self, index: int, rule: str) -> Draft:
        """The draft with a new track for a filter, which starts with the values of track `index`.

        Raises:
            InputError: the filter is empty or has a track already, or the track is one of ends.
        """
        line = self.lines[index]
        if not rule or any(other.group == line.group and other.filter == rule for other in self.lines):
            raise InputError(f"there is a track for {one_line(rule)!r} already" if rule else "the filter is empty")
        if line.ends:
            raise InputError("a track of ends cannot be split by filters", remedy="choose a track of layers")
        new = replace(line, filter=rule, origin=NEW)
        place = next(i for i, other in enumerate(self.lines) if other.group == line.group and other.filter == REST)
        return replace(self, lines=update_ends((*self.lines[:place], new, *self.lines[place:])))

    def without(self, index: int) -> Draft:
        """The draft without the track of a filter, whose tensors get the values of the rest.

        In a track of ends, the ends follow their layers again.

        Raises:
            InputError: the track is the rest.
        """
        line = self.lines[index]
        if line.ends:
            last = self.last - self.start
            back = tuple(0 if end == "embeddings" else last for end in line.ends)
            return self._put(index, replace(line, follows=back))
        if line.filter == REST:
            raise InputError("the track `rest` cannot be removed", remedy="choose the track of a filter")
        return replace(self, lines=update_ends((*self.lines[:index], *self.lines[index + 1 :])))

    # -- the resulting edit

    @property
    def changed(self) -> bool:
        """Whether the edit would change the recipe."""
        return self.edit is not None or bool(self.settings())

    def settings(self) -> tuple[Setting, ...]:
        """The settings that give the layers these values."""
        before = dict(_groups(self.opened))
        by_parameter: dict[str, dict[int | None, tuple[Setting, ...]]] = {}
        for (name, source), found in _groups(self.lines):
            if found != before[name, source] or any(line.origin == NEW for line in found):
                by_parameter.setdefault(name, {})[source] = tuple(self._settings_of(found))
        out: list[Setting] = []
        for name, by_source in by_parameter.items():
            out += self._merge_sources(name, by_source)
        for line, old in zip(_ends(self.lines), _ends(self.opened), strict=True):
            for number, end in enumerate(line.ends):
                own, was = line.follows[number] < 0, old.follows[number] < 0
                if own and (not was or line.values[number] != old.values[number]):
                    out.append(Setting(line.parameter.name, (line.values[number],), end=end))
                elif was and not own:
                    out.append(Setting(line.parameter.name, end=end))
        return (*out, *self._held_ends(by_parameter, out))

    def _held_ends(self, changed: Mapping[str, object], out: Sequence[Setting]) -> Iterator[Setting]:
        """Settings that keep the other ends' values, if only ends change and the edit moves the last slice."""
        if self.ends_at is None or changed or not out:
            return
        written = {(setting.name, setting.end) for setting in out}
        for line in _ends(self.lines):
            for end, value, follow in zip(line.ends, line.values, line.follows, strict=True):
                if follow >= 0 and end != "embeddings" and (line.parameter.name, end) not in written:
                    yield Setting(line.parameter.name, (value,), end=end)

    def _settings_of(self, lines: Sequence[CurveLine]) -> Iterator[Setting]:
        """The settings of one parameter of one source: first the rest, which clears the filters, then the filters."""
        rest = lines[-1]
        old = next(line for line in self.opened if line.group == rest.group and line.filter == REST and not line.ends)
        own = ("slice", "source") if rest.source is None else ("source",)
        before = {line.filter for line in self.opened if line.group == rest.group}
        # Unless the rest is written, a removed filter would apply again from the recipe's table.
        gone = not before <= {line.filter for line in lines}
        # An edit of all layers of whole models writes to the recipe's table, and would remove the rest from it.
        in_recipe = rest.origin == "recipe" and len(lines) > 1
        written = rest != old or rest.origin in (NEW, *own) or gone or in_recipe
        yield Setting(rest.parameter.name, _listed(rest.form) if written else ())
        for line in lines[:-1]:
            yield Setting(line.parameter.name, _listed(line.form), line.filter)

    def _merge_sources(self, name: str, by_source: dict[int | None, tuple[Setting, ...]]) -> Iterator[Setting]:
        """The settings of a parameter, once if they are equal for every donor."""
        sources = {line.source for line in self.lines if line.parameter.name == name and not line.ends}
        if len(set(by_source.values())) == 1 and set(by_source) == sources:
            shared = next(iter(by_source.values()))
            if None in sources or all(setting.values for setting in shared):
                yield from shared
                return
        for source, found in by_source.items():
            for setting in found:
                assert source is not None
                donor = self.donor(source)
                yield replace(setting, donor=donor, source=None if donor else source)

    def result(self) -> Edit | None:
        """The edit; None if nothing would change."""
        if self.edit is not None:
            return replace(self.edit, settings=self.settings())
        settings = self.settings()
        return SetParameters(self.start, self.stop, settings) if settings else None


def _groups(lines: Lines) -> Iterator[tuple[tuple[str, int | None], tuple[CurveLine, ...]]]:
    groups: dict[tuple[str, int | None], list[CurveLine]] = {}
    for line in lines:
        if not line.ends:
            groups.setdefault(line.group, []).append(line)
    for group, found in groups.items():
        yield group, tuple(found)


def update_ends(lines: Lines) -> Lines:
    """The tracks with updated ends: an end that follows a layer gets that layer's value."""
    out = []
    for line in lines:
        values = list(line.values)
        for number, (end, layer) in enumerate(zip(line.ends, line.follows, strict=True)):
            takes = (other for other in lines if other.group == line.group and not other.ends)
            from_ = next(other for other in takes if other.filter == REST or other.filter in END_TENSORS[end])
            if layer >= 0:
                values[number] = from_.values[layer]
        out.append(replace(line, values=tuple(values)) if line.ends else line)
    return tuple(out)


def _ends(lines: Lines) -> list[CurveLine]:
    return [line for line in lines if line.ends]


def _listed(form: Form) -> tuple[Word, ...]:
    return tuple(form.value) if isinstance(form.value, list) else (form.value,)


def fit_value(parameter: Parameter, value: Word) -> Word:
    """A value clamped to the bounds of a parameter, and rounded if the parameter is an integer.

    Raises:
        InputError: the value has the wrong type or is not finite.
    """
    if parameter.kind in ("float", "int"):
        if isinstance(value, str):
            raise InputError(f"{one_line(value)!r} is not a number")
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")):
            raise InputError("that is not a finite number")
        number = number if parameter.low is None else max(number, parameter.low)
        number = number if parameter.high is None else min(number, parameter.high)
        return round(number) if parameter.kind == "int" else float(f"{number:.15g}")
    try:
        return parameter.typed(value)
    except ValueError as error:
        raise InputError(f"{parameter.name} cannot have that value", why=str(error)) from error
