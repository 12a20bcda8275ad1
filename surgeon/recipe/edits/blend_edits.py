"""Edits that turn copies into blends and blends into copies, and that set the method and parameters of blends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import InputError
from ...methods.catalogue import every, find
from ...text import nearest, one_line, plural
from .. import stack
from ..curves.tracks import shortened
from ..schema import EdgePolicy, Parameters, Recipe, Slice, Source
from .edit import DepthOf, Edit, check_donor, check_range, restacked
from .parameter_tables import Setting, adjusted, checked, with_donors, with_ends, with_setting
from .scale_edits import bare

Run = tuple[str, int, int]


@dataclass(frozen=True)
class _OverLayers(Edit):
    """An edit that replaces output layers `[start, stop)` by the same number of layers."""

    start: int
    stop: int

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        return restacked(recipe, depth_of, lambda slices: self._changed(slices, recipe, depth_of))

    def _changed(self, slices: Sequence[Slice], recipe: Recipe, depth_of: DepthOf) -> tuple[Slice, ...]:
        check_range(self.start, self.stop, stack.depth(slices))
        whole = {id(part) for part in slices}
        made, offset = [], 0
        for part in stack.take(slices, self.start, self.stop):
            part = part if id(part) in whole else _shortened(part)
            made.append(bare(self._piece(part, offset, recipe)))
            offset += stack.length(part)
        after = stack.splice(slices, self.start, self.stop, made)
        return tuple(part if id(part) in whole or part in made else _shortened(part) for part in after)

    def _piece(self, part: Slice, offset: int, recipe: Recipe) -> Slice:
        """The part of a slice that is in the range, after the edit; `offset` layers of the range are before it."""
        raise NotImplementedError

    @property
    def _count(self) -> int:
        return self.stop - self.start

    def touched(self) -> tuple[int, int] | None:
        return self.start, self.stop

    def moved_to(self, start: int, stop: int) -> Edit:
        return replace(self, start=start, stop=stop)


@dataclass(frozen=True)
class BlendLayers(_OverLayers):
    """Blends output layers `[start, stop)` with runs of further donors, or by another method.

    Each run `(model, start, stop)` has the same number of layers. `method` and `base` stay unchanged if they are
    None. Parameters that the method does not have are dropped.
    """

    runs: tuple[Run, ...] = ()
    method: str | None = None
    base: str | None = None
    settings: tuple[Setting, ...] = ()
    verb = "blend"
    usage = "blend 16-23 B:8-15 method=slerp [base=A] [t=0.5]"
    help = "blend layers 16 to 23 with layers 8 to 15 of donor B (and others); parameters as in `param`"

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        for model, start, stop in self.runs:
            check_donor(model, start, stop, depth_of)
            if stop - start != self._count:
                raise InputError(
                    f"{plural(stop - start, 'layer')} of {one_line(model)} for {plural(self._count, 'layer')}",
                    why="each layer is blended with one layer of every donor",
                    remedy="give runs of the same length",
                )
        if self.base is not None:
            depth_of(self.base)
        return with_ends(super().apply(recipe, depth_of), self.settings)

    def _piece(self, part: Slice, offset: int, recipe: Recipe) -> Slice:
        name = self.method or part.merge_method or recipe.merge_method
        if name == "passthrough":
            raise InputError("no blend method is given", remedy=f"write it like: {self.usage}")
        _known_method(name)
        count = stack.length(part)
        more = tuple(
            Source(model=model, layer_range=(start + offset, start + offset + count)) for model, start, _ in self.runs
        )
        part = _with_method(part.model_copy(update={"sources": (*part.sources, *more)}), name, recipe)
        base = self._base_of(part, name, recipe)
        if base != part.base_model:
            part = part.model_copy(update={"base_model": base})
        _check_all(self.settings, name)
        return adjusted(part, self.settings, offset, self._count, offset + count)

    def _base_of(self, part: Slice, name: str, recipe: Recipe) -> str | None:
        """The slice's base_model: the given one; for a method that starts at the base, it is one of the sources."""
        if self.base is not None:
            return None if self.base == recipe.base_model else self.base
        method, held = find(name), part.base_model or recipe.base_model
        if method is None:
            return part.base_model
        if method.base == "required" and held is None:
            raise InputError(
                f"{name} needs a base", why="it works on differences of donors from a base", remedy="add base=A"
            )
        if method.base == "start" and held not in [source.model for source in part.sources]:
            return part.sources[0].model
        return part.base_model

    def moved_to(self, start: int, stop: int) -> Edit:
        step, count = start - self.start, stop - start
        runs = tuple((model, first + step, first + step + count) for model, first, _ in self.runs)
        return replace(self, start=start, stop=stop, runs=runs)


@dataclass(frozen=True)
class Unblend(_OverLayers):
    """Turns output layers `[start, stop)` into copies of one of their sources: the first of `model`, or the first."""

    model: str | None = None
    verb = "unblend"
    usage = "unblend 16-23 [A]"
    help = "make layers 16 to 23 copies of their source from donor A (without A: of their first source)"

    def _piece(self, part: Slice, offset: int, recipe: Recipe) -> Slice:
        found = next((source for source in part.sources if self.model in (None, source.model)), None)
        if found is None:
            names = ", ".join(one_line(source.model) for source in part.sources)
            raise InputError(f"no source of these layers is {one_line(self.model)}", why=f"they are {names}")
        copy = stack.run(found.model, *stack.span(found))
        return _with_method(copy, "passthrough", recipe)


@dataclass(frozen=True)
class SetParameters(_OverLayers):
    """Sets parameters of output layers `[start, stop)`; a gradient runs over the whole range."""

    settings: tuple[Setting, ...] = ()
    verb = "param"
    usage = "param 16-23 t=0,.5,1 [filter=mlp] [donor=B]"
    help = (
        "set parameters of layers 16 to 23: one value, or a gradient over them; filter=, donor=, source=1 or "
        "end=lm_head after a value limit where it applies; an empty value removes the parameter"
    )

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        if not self.settings:
            raise InputError("no parameter is given", remedy=f"write for instance: {self.usage}")
        changed = recipe
        if any(setting.end is None for setting in self.settings):
            changed = self._whole(recipe, depth_of) or super().apply(recipe, depth_of)
        else:
            _check_all(self.settings, None)
        return with_ends(changed, self.settings)

    def _piece(self, part: Slice, offset: int, recipe: Recipe) -> Slice:
        _check_all(self.settings, part.merge_method or recipe.merge_method)
        return adjusted(part, self.settings, offset, self._count, offset + stack.length(part))

    def _whole(self, recipe: Recipe, depth_of: DepthOf) -> Recipe | None:
        """The recipe with changed recipe-level tables, if the range is its only slice and these tables apply."""
        slices = recipe.explicit(depth_of)
        if len(slices) != 1 or (self.start, self.stop) != (0, stack.depth(slices)):
            return None
        part = slices[0]
        if recipe.models is None:
            names = {setting.name for setting in self.settings}
            here = {*part.parameters, *(name for source in part.sources for name in source.parameters)}
            if (
                names & here
                or not names <= set(recipe.parameters)
                or any(setting.donor is not None or setting.source is not None for setting in self.settings)
            ):
                return None
        _check_all(self.settings, part.merge_method or recipe.merge_method)
        whole = part.model_copy(update={"parameters": recipe.parameters})
        after = adjusted(whole, self.settings, 0, self._count, self._count)
        changed: dict[str, Any] = {"parameters": after.parameters}
        if recipe.models is not None:
            pairs = zip(recipe.models, after.sources, strict=True)
            changed["models"] = tuple(
                bare(entry.model_copy(update={"parameters": source.parameters})) for entry, source in pairs
            )
        return recipe.model_copy(update=changed)


@dataclass(frozen=True)
class SetMethod(_OverLayers):
    """Sets the method of the blends among output layers `[start, stop)`; parameters it does not have are dropped."""

    method: str
    verb = "method"
    usage = "method 16-23 ties"
    help = "blend layers 16 to 23 by another method"

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        _known_method(self.method)
        if self.method == "passthrough":
            raise InputError("passthrough copies and does not blend", remedy="write: unblend 16-23 A")
        slices = recipe.explicit(depth_of)
        alone = len(slices) == 1 and not slices[0].merge_method
        if alone and (self.start, self.stop) == (0, stack.depth(slices)):
            return recipe.model_copy(update={"merge_method": self.method})
        return super().apply(recipe, depth_of)

    def _piece(self, part: Slice, offset: int, recipe: Recipe) -> Slice:
        return _with_method(part, self.method, recipe)


@dataclass(frozen=True)
class Collapse(Edit):
    """Merges output layers `[start, stop)`, copies from one model, into one: the first plus each other's difference.

    Source: LaCo, arXiv 2402.11187, equation 1 (reserving differences while seeking common).
    """

    start: int
    stop: int
    verb = "collapse"
    usage = "collapse 10-13"
    help = "merge layers 10 to 13 into one, as LaCo does: the first plus the differences of the others from it"

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        return restacked(recipe, depth_of, lambda slices: self._collapsed(slices, recipe))

    def _collapsed(self, slices: Sequence[Slice], recipe: Recipe) -> tuple[Slice, ...]:
        check_range(self.start, self.stop, stack.depth(slices))
        parts = stack.take(slices, self.start, self.stop)
        layers = [cell.sources[0] for cell in stack.cells(parts)]
        name = "passthrough"
        if any(
            len(part.sources) > 1
            or (part.merge_method or recipe.merge_method) != name
            or part.parameters
            or part.sources[0].parameters
            for part in parts
        ):
            raise InputError("only unchanged copies can be collapsed", why="some of these layers are computed")
        models = list(dict.fromkeys(model for model, _ in layers))
        if len(models) > 1:
            raise InputError(
                f"these layers are of {plural(len(models), 'donor')}", why="only layers of one donor can be collapsed"
            )
        if len(layers) < 2:
            raise InputError("one layer cannot be collapsed", remedy="give a range of two or more")
        parameters: dict[str, Any] = {"weight": 1}
        # The recipe's values are for its other blends, so this slice overrides them.
        parameters |= {
            key: value for key, value in {"lambda": 1, "normalize": False}.items() if key in recipe.parameters
        }
        one = Slice(
            sources=tuple(Source(model=model, layer_range=(layer, layer + 1)) for model, layer in layers),
            merge_method="task_arithmetic",
            base_model=models[0],
            parameters=parameters,
        )
        return stack.splice(slices, self.start, self.stop, [one])

    def touched(self) -> tuple[int, int] | None:
        return self.start, self.start + 1

    def moved_to(self, start: int, stop: int) -> Edit:
        return Collapse(start, start + self.stop - self.start)


@dataclass(frozen=True)
class Edges(Edit):
    """Overrides the slices at the outermost `count` layers (see `EdgePolicy`); 0 removes the override.

    Attributes:
        last: the last layers instead of the first.
        model: copy them from this donor.
        settings: blend them with these parameters.
        taper: let the parameters change towards the slices' values.
    """

    last: bool
    count: int
    model: str | None = None
    settings: tuple[Setting, ...] = ()
    taper: bool = False
    verb = "edges"
    usage = "edges first 2 model=A|t=0.5,0 [taper]"
    help = (
        "take the first (or last) 2 layers from donor A, or blend them with other parameters (taper: change these "
        "towards the slices' values); 0 removes the override"
    )

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        key = "last_layers" if self.last else "first_layers"
        if not self.count:
            return recipe if getattr(recipe, key) is None else recipe.model_copy(update={key: None})
        depth = stack.depth(recipe.explicit(depth_of))
        if self.count > depth:
            raise InputError(f"{key} cannot be {plural(self.count, 'layer')}", why=f"the stack has {depth}")
        old = getattr(recipe, key)
        fields: dict[str, Any] = {"count": self.count}
        if self.model is not None:
            depth_of(self.model)
            fields["model"] = self.model
        if parameters := self._parameters():
            fields["parameters"] = parameters
        if self.taper:
            fields["taper"] = True
        if len(fields) > 1:
            new = EdgePolicy(**fields)
        elif old is not None:
            new = old.model_copy(update=fields)
        else:
            raise InputError("neither a donor nor parameters are given", remedy=f"write it like: {self.usage}")
        return recipe.model_copy(update={key: new})

    def _parameters(self) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for setting in self.settings:
            if setting.donor is not None or setting.source is not None or setting.end is not None:
                raise InputError("the parameters of an edge apply to all donors", remedy="omit donor=, source=, end=")
            checked(setting, None)
            table = with_setting(table, setting, setting.of(0, self.count, self.count))
        return table


def _with_method(part: Slice, name: str, recipe: Recipe) -> Slice:
    """A slice with another method, without parameters that the method does not have."""
    method = find(name)
    own = None if name == recipe.merge_method else name
    if own != part.merge_method:
        part = part.model_copy(update={"merge_method": own})
    if method is None:
        return part

    def kept(table: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in table.items() if key in method.parameters}

    sources = tuple(bare(source.model_copy(update={"parameters": kept(source.parameters)})) for source in part.sources)
    return bare(part.model_copy(update={"sources": sources, "parameters": kept(part.parameters)}))


def _shortened(part: Slice) -> Slice:
    """A slice that was cut, with its gradients in their shortest form."""
    count = stack.length(part)

    def short(table: Parameters) -> Parameters:
        return {name: shortened(value, count) for name, value in table.items()}

    sources = tuple(bare(source.model_copy(update={"parameters": short(source.parameters)})) for source in part.sources)
    return bare(part.model_copy(update={"sources": sources, "parameters": short(part.parameters)}))


def _known_method(name: str) -> None:
    if find(name) is None:
        guess = nearest(name, every())
        raise InputError(
            f"there is no method {one_line(name)!r}",
            remedy=f"did you mean {guess}" if guess else "see `surgeon methods`",
        )


def _check_all(settings: Sequence[Setting], method: str | None) -> None:
    for setting in settings:
        checked(setting, find(method) if method and setting.end is None else None)


def with_renamed_donors(edit: Edit, name: Callable[[str], str]) -> Edit:
    """The edit with renamed donors; `name` maps references."""

    def one(model: str | None) -> str | None:
        return None if model is None else name(model)

    match edit:
        case BlendLayers():
            runs = tuple((name(model), start, stop) for model, start, stop in edit.runs)
            return replace(edit, runs=runs, base=one(edit.base), settings=with_donors(edit.settings, name))
        case Unblend():
            return replace(edit, model=one(edit.model))
        case SetParameters():
            return replace(edit, settings=with_donors(edit.settings, name))
        case Edges():
            return replace(edit, model=one(edit.model), settings=with_donors(edit.settings, name))
    return edit


BLENDS: tuple[type[Edit], ...] = (BlendLayers, Unblend, SetParameters, SetMethod, Collapse, Edges)
