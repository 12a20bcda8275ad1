"""Parameters as an edit gives them, and what becomes of the tables of slices, edges and ends."""

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
        values: one for all layers, or a gradient over the range; none takes the parameter away.
        filter: only for tensors whose names contain this. Without one, what the parameter's filters say is dropped.
        donor: only for sources of this donor; for all without one.
        source: only for this source of the slice, counted from 0.
        end: not for layers but for an end of the network.
    """

    name: str
    values: tuple[Word, ...] = ()
    filter: str = REST
    donor: str | None = None
    source: int | None = None
    end: End | None = None

    def of(self, start: int, stop: int, total: int) -> Any:
        """The parameter's value in a slice that is layers `[start, stop)` of `total`; None where it is taken away."""
        return shortest(over_layers(self.values, total)[start:stop]).value if self.values else None


def checked(setting: Setting, method: Method | None) -> None:
    """Refuse a parameter that the method does not have, and values it does not take."""
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
        raise InputError(f"{setting.name} is one value for all donors", remedy="leave donor= and source= out")
    try:
        for value in setting.values:
            parameter.typed(value)
    except ValueError as error:
        raise InputError(f"{setting.name} cannot have that value", why=str(error)) from error


def told(parameters: Parameters, setting: Setting, value: Any) -> Parameters:
    """A table after a setting; `value` None takes it away."""
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
    """A slice with other parameters, where it is layers `[start, stop)` of the `total` that settings are over.

    A setting for all donors also wins over what single sources say.
    """
    for setting in settings:
        if setting.end is not None:
            continue
        value = setting.of(start, stop, total)
        if setting.donor is None and setting.source is None:
            part = part.model_copy(update={"parameters": told(part.parameters, setting, value)})
            meant = [index for index, source in enumerate(part.sources) if setting.name in source.parameters]
            new = None if setting.filter == REST else value
        else:
            meant, new = _meant(part, setting), value
        sources = [
            bare(source.model_copy(update={"parameters": told(source.parameters, setting, new)}))
            if index in meant
            else source
            for index, source in enumerate(part.sources)
        ]
        part = bare(part.model_copy(update={"sources": tuple(sources)}))
    return part


def _meant(part: Slice, setting: Setting) -> list[int]:
    """The sources that a setting is for."""
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
    """The recipe after those settings that are for ends."""
    for setting in settings:
        if setting.end is not None:
            recipe = with_end(recipe, setting.end, [setting])
    return recipe


def with_end(recipe: Recipe, end: End, settings: Sequence[Setting]) -> Recipe:
    """The recipe with an end that is blended as the slices say, but for these parameters."""
    old = recipe.end(end)
    parameters = dict(old.parameters) if old and not old.model and not old.tie else {}
    for setting in settings:
        if setting.donor is not None or setting.source is not None:
            raise InputError(f"a parameter of {end} holds for all donors", remedy="leave donor= and source= out")
        checked(setting, None)
        if len(setting.values) > 1:
            raise InputError(f"{end} is no run of layers", remedy="give one value instead of a gradient")
        parameters = told(parameters, setting, setting.values[0] if setting.values else None)
    value = EndSource(parameters=parameters) if parameters else None
    if value is None and (old is None or old.model or old.tie):
        return recipe
    return recipe.model_copy(update={end: value})


def with_donors(settings: Iterable[Setting], name: Callable[[str], str]) -> tuple[Setting, ...]:
    """The same settings with their donors under other references."""
    return tuple(s if s.donor is None else replace(s, donor=name(s.donor)) for s in settings)
