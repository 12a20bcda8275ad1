"""Parameter settings of edits, and their application to the tables of slices, edges and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from ...errors import InputError
from ...methods import Method
from ...text import nearest, one_line
from ..curves.shortest_form import over_layers, shortest
from ..curves.tracks import REST
from ..parameters import Word, filter_of, rules
from ..schema import End, EndSource, Parameters, Recipe, Slice
from .scale_edits import bare


@dataclass(frozen=True)
class Setting:
    """One parameter over a range of layers.

    Attributes:
        name: the parameter.
        values: one for all layers, or a gradient over the range; empty removes the parameter.
        filter: apply to tensors whose names contain this. `REST` applies to all and drops the parameter's filters.
        donor: apply to sources of this donor; None: to all.
        source: apply to this source of the slice, counted from 0; None: to all.
        end: apply to this end of the network instead of layers.
    """

    name: str
    values: tuple[Word, ...] = ()
    filter: str = REST
    donor: str | None = None
    source: int | None = None
    end: End | None = None

    def of(self, start: int, stop: int, total: int) -> Any:
        """The parameter's value in a slice of layers `[start, stop)` of `total`; None if it is removed."""
        return shortest(over_layers(self.values, total)[start:stop]).value if self.values else None


def checked(setting: Setting, method: Method | None) -> None:
    """InputError if the method does not have the parameter or does not accept a value."""
    if not all(isfinite(value) for value in setting.values if not isinstance(value, (bool, str))):
        raise InputError(f"a value of {one_line(setting.name)} is not a finite number")
    if method is None:
        return
    parameter = method.parameters.get(setting.name)
    if parameter is None:
        guess = nearest(setting.name, method.parameters)
        known = ", ".join(method.parameters) or "none"
        raise InputError(
            f"{method.name} has no parameter {one_line(setting.name)!r}",
            remedy=f"did you mean {guess}" if guess else f"it has: {known}",
        )
    if not parameter.each and (setting.donor is not None or setting.source is not None):
        raise InputError(f"{setting.name} is one value for all donors", remedy="omit donor= and source=")
    try:
        for value in setting.values:
            parameter.typed(value)
    except ValueError as error:
        raise InputError(f"{setting.name} cannot have that value", why=str(error)) from error


def with_setting(parameters: Parameters, setting: Setting, value: Any) -> Parameters:
    """A parameter table with a setting applied; `value` None removes the parameter."""
    name = setting.name
    if setting.filter == REST:
        new = [] if value is None else [{"value": value}]
    else:
        old = rules(parameters.get(name))
        own = [] if value is None else [{"filter": setting.filter, "value": value}]
        place = next((index for index, rule in enumerate(old) if filter_of(rule) in (setting.filter, REST)), len(old))
        kept = [rule for rule in old if filter_of(rule) != setting.filter]
        new = [*kept[:place], *own, *kept[place:]]
    if not new:
        return {key: found for key, found in parameters.items() if key != name}
    return {**parameters, name: new[0]["value"] if len(new) == 1 and filter_of(new[0]) == REST else new}


def adjusted(part: Slice, settings: Iterable[Setting], start: int, total: int, stop: int) -> Slice:
    """A slice with settings applied; it is layers `[start, stop)` of the `total` layers that the settings cover.

    A setting for all donors also overrides the tables of single sources.
    """
    for setting in settings:
        if setting.end is not None:
            continue
        value = setting.of(start, stop, total)
        if setting.donor is None and setting.source is None:
            part = part.model_copy(update={"parameters": with_setting(part.parameters, setting, value)})
            meant = [index for index, source in enumerate(part.sources) if setting.name in source.parameters]
            new = None if setting.filter == REST else value
        else:
            meant, new = _meant(part, setting), value
        sources = [
            bare(source.model_copy(update={"parameters": with_setting(source.parameters, setting, new)}))
            if index in meant
            else source
            for index, source in enumerate(part.sources)
        ]
        part = bare(part.model_copy(update={"sources": tuple(sources)}))
    return part


def _meant(part: Slice, setting: Setting) -> list[int]:
    """The numbers of the sources that a setting applies to."""
    found = [
        index
        for index, source in enumerate(part.sources)
        if setting.donor in (None, source.model) and setting.source in (None, index)
    ]
    if not found:
        which = one_line(setting.donor) if setting.donor is not None else f"number {setting.source}"
        names = ", ".join(one_line(source.model) for source in part.sources)
        raise InputError(f"no source of these layers is {which}", why=f"they are {names}")
    return found


def with_ends(recipe: Recipe, settings: Iterable[Setting]) -> Recipe:
    """The recipe with those settings applied that are for ends."""
    for setting in settings:
        if setting.end is not None:
            recipe = with_end(recipe, setting.end, [setting])
    return recipe


def with_end(recipe: Recipe, end: End, settings: Sequence[Setting]) -> Recipe:
    """The recipe with an end that is blended as the slices are, except for these parameters."""
    old = recipe.end(end)
    parameters = dict(old.parameters) if old and not old.model and not old.tie else {}
    for setting in settings:
        if setting.donor is not None or setting.source is not None:
            raise InputError(f"a parameter of {end} applies to all donors", remedy="omit donor= and source=")
        checked(setting, None)
        if len(setting.values) > 1:
            raise InputError(f"{end} is not a run of layers", remedy="give one value instead of a gradient")
        parameters = with_setting(parameters, setting, setting.values[0] if setting.values else None)
    value = EndSource(parameters=parameters) if parameters else None
    if value is None and (old is None or old.model or old.tie):
        return recipe
    return recipe.model_copy(update={end: value})


def with_donors(settings: Iterable[Setting], name: Callable[[str], str]) -> tuple[Setting, ...]:
    """The settings with renamed donors; `name` maps references."""
    return tuple(s if s.donor is None else replace(s, donor=name(s.donor)) for s in settings)
