"""Tracks of some layers' parameters as the curve editor changes them, and the edit that results. It has no widget."""

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
"""Origin of a value that nobody has given yet."""

ENDS_TRACK = "ends"
END_TENSORS: dict[End, str] = {
    "embeddings": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "lm_head": "lm_head.weight",
}  # fmt: skip
"""What filters see of the ends; most families name them so."""


@dataclass(frozen=True)
class CurveLine:
    """One track of the editor: a parameter's value at each layer, for one filter's tensors and one donor.

    Attributes:
        parameter: its declaration.
        source: which source of the slices; None for all.
        filter: `REST` for all tensors that no filter before takes.
        values: per layer; of a track of ends, per end.
        origin: whose table says so: `source`, `slice`, `recipe`, `default`, an end, or `NEW`.
        ends: for which ends of the network it is; empty for layers.
        follows: the layer that each of these takes its value from while it has none of its own; -1 where it has.
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
        """Whether it is a curve; words and switches are not."""
        return self.parameter.kind in ("float", "int")

    @property
    def group(self) -> tuple[str, int | None]:
        """Tracks that are written together."""
        return self.parameter.name, self.source

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values of a curve."""
        return tuple(float(value) for value in self.values if not isinstance(value, str))

    @property
    def form(self) -> Form:
        """How the values are written down."""
        return shortest(self.values)

    @property
    def label(self) -> str:
        """The filter as it is shown."""
        return ENDS_TRACK if self.ends else "rest" if self.filter == REST else one_line(self.filter)

    def form_text(self) -> str:
        """The name of the form, or the value when there is only one."""
        if self.ends:
            return "  ".join(f"{end} {spelled(value)}" for end, value in zip(self.ends, self.values, strict=True))
        return self.form.text if self.form.name == "scalar" else self.form.name


Lines = tuple[CurveLine, ...]


@dataclass(frozen=True)
class Draft:
    """Tracks over output layers `[start, stop)`.

    Attributes:
        edit: the blend that is being made; None where one is changed.
        method: theirs.
        sources: per layer, the (reference, layer) of every source.
        base: the source that is the base; None without one.
        pieces: the layers, from 0, of each slice that is written.
        cuts: whether a slice is cut in two for that.
        ends_at: where that moves the beginning of the last slice to, so that norm and head take their values there;
            None where it does not.
        last: the first output layer of the last slice among them: what ends at the stack's end takes its value there.
        opened: the tracks as they were found.
        lines: as they are now.
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
        """Number of layers."""
        return self.stop - self.start

    def forms(self, line: CurveLine) -> list[Form]:
        """How a curve is written in each slice."""
        return [shortest(line.values[start:stop]) for start, stop in self.pieces]

    def donor(self, source: int) -> str | None:
        """The reference of a source if it identifies the source; None when another source has the same."""
        names = {layer[source][0] for layer in self.sources}
        twice = any([ref for ref, _ in layer].count(layer[source][0]) > 1 for layer in self.sources)
        return names.pop() if len(names) == 1 and not twice else None

    def with_line(self, index: int, values: Sequence[Word]) -> Draft:
        """One track with other values, as its parameter takes them: within bounds, whole where it is a whole number."""
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
        """A track of its own for a filter, beginning as the given track is."""
        line = self.lines[index]
        if not rule or any(other.group == line.group and other.filter == rule for other in self.lines):
            raise InputError(f"there is a track for {one_line(rule)!r} already" if rule else "the filter is empty")
        if line.ends:
            raise InputError("an end is not split by filters here", remedy="go to a track of layers")
        new = replace(line, filter=rule, origin=NEW)
        place = next(i for i, other in enumerate(self.lines) if other.group == line.group and other.filter == REST)
        return replace(self, lines=update_ends((*self.lines[:place], new, *self.lines[place:])))

    def without(self, index: int) -> Draft:
        """Without the track of a filter, so that the rest holds for its tensors too; ends as the layers say."""
        line = self.lines[index]
        if line.ends:
            last = self.last - self.start
            back = tuple(0 if end == "embeddings" else last for end in line.ends)
            return self._put(index, replace(line, follows=back))
        if line.filter == REST:
            raise InputError("the rest is what no filter takes", remedy="only tracks of filters can be taken out")
        return replace(self, lines=update_ends((*self.lines[:index], *self.lines[index + 1 :])))

    # -- what it amounts to

    @property
    def changed(self) -> bool:
        """Whether anything would be written."""
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

    def _held_ends(self, told: Mapping[str, object], out: Sequence[Setting]) -> Iterator[Setting]:
        """Ends that follow a slice which begins elsewhere only once layers change: said where ends alone do."""
        if self.ends_at is None or told or not out:
            return
        said = {(setting.name, setting.end) for setting in out}
        for line in _ends(self.lines):
            for end, value, follow in zip(line.ends, line.values, line.follows, strict=True):
                if follow >= 0 and end != "embeddings" and (line.parameter.name, end) not in said:
                    yield Setting(line.parameter.name, (value,), end=end)

    def _settings_of(self, lines: Sequence[CurveLine]) -> Iterator[Setting]:
        """The settings of one parameter of one source: the rest first, as it clears the filters, then the filters."""
        rest = lines[-1]
        old = next(line for line in self.opened if line.group == rest.group and line.filter == REST and not line.ends)
        own = ("slice", "source") if rest.source is None else ("source",)
        before = {line.filter for line in self.opened if line.group == rest.group}
        # Without one of its own, a filter taken out here would hold again from the recipe's table.
        gone = not before <= {line.filter for line in lines}
        # The edit of all layers of whole models writes into the recipe's table, which would lose the rest.
        in_recipe = rest.origin == "recipe" and len(lines) > 1
        said = rest != old or rest.origin in (NEW, *own) or gone or in_recipe
        yield Setting(rest.parameter.name, _listed(rest.form) if said else ())
        for line in lines[:-1]:
            yield Setting(line.parameter.name, _listed(line.form), line.filter)

    def _merge_sources(self, name: str, by_source: dict[int | None, tuple[Setting, ...]]) -> Iterator[Setting]:
        """The settings of a parameter, written once if they are the same for every donor."""
        sources = {line.source for line in self.lines if line.parameter.name == name and not line.ends}
        if len(set(by_source.values())) == 1 and set(by_source) == sources:
            said = next(iter(by_source.values()))
            if None in sources or all(setting.values for setting in said):
                yield from said
                return
        for source, found in by_source.items():
            for setting in found:
                assert source is not None
                donor = self.donor(source)
                yield replace(setting, donor=donor, source=None if donor else source)

    def result(self) -> Edit | None:
        """The edit; None when nothing would change."""
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
    """The tracks with ends updated: an end without a value of its own has the value of the layer it follows."""
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
    """A value within the bounds of a parameter, rounded if the parameter is a whole number.

    Raises:
        InputError: it is of another kind.
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
