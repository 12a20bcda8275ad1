"""Edits that multiply tensors: factors on layers, and copies of layers that factors of 0 turn into the identity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ...errors import InputError
from ...text import plural
from .. import stack
from ..parameters import filter_of, rules
from ..schema import Parameters, Recipe, Slice, Source, WholeModel
from .edit import DepthOf, Edit, check_range, restacked


@dataclass(frozen=True)
class Scale(Edit):
    """Sets factors on the tensors of output layers `[start, stop)` whose names contain a filter (`*`: all)."""

    start: int
    stop: int
    factors: tuple[tuple[str, float], ...]
    verb = "scale"
    usage = "scale 16-31 o_proj=0.707 [down_proj=0.707]"
    help = "multiply these tensors of layers 16 to 31 (* for all; 1 removes the factor)"

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        below = rules(recipe.parameters.get("scale"))
        return restacked(recipe, depth_of, lambda slices: self._rescaled(slices, below))

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        return self._rescaled(slices, [])

    def _rescaled(self, slices: Sequence[Slice], below: list[dict[str, Any]]) -> tuple[Slice, ...]:
        check_range(self.start, self.stop, stack.depth(slices))
        if not self.factors:
            raise InputError("no factor is given", remedy=f"write for instance: {self.usage}")
        if not all(math.isfinite(factor) for _, factor in self.factors):
            raise InputError("a factor is not a finite number")
        parts = stack.take(slices, self.start, self.stop)
        return stack.splice(slices, self.start, self.stop, [self.scaled(part, below) for part in parts])

    def scaled(self, part: Slice, below: list[dict[str, Any]]) -> Slice:
        """The slice with these factors before its present ones, in its source's table if that has any: it has priority.

        `below` are the rules of the recipe's table.
        """
        source = part.sources[0]
        if len(part.sources) == 1 and rules(source.parameters.get("scale")):
            below = [*rules(part.parameters.get("scale")), *below]
            source = source.model_copy(update={"parameters": self._table(source.parameters, below)})
            return part.model_copy(update={"sources": (bare(source),)})
        return bare(part.model_copy(update={"parameters": self._table(part.parameters, below)}))

    def _table(self, parameters: Parameters, below: list[dict[str, Any]]) -> Parameters:
        wanted = dict(self.factors)
        every = [{"value": wanted.pop("*")}] if "*" in wanted else []
        old = [] if every else [rule for rule in rules(parameters.get("scale")) if filter_of(rule) not in wanted]
        found = [*({"filter": name, "value": factor} for name, factor in wanted.items()), *old, *every]
        if not below and all(rule["value"] == 1 for rule in found):
            return {name: value for name, value in parameters.items() if name != "scale"}
        return {**parameters, "scale": found}

    def touched(self) -> tuple[int, int] | None:
        return self.start, self.stop

    def moved_to(self, start: int, stop: int) -> Edit:
        return replace(self, start=start, stop=stop)


@dataclass(frozen=True)
class Expand(Edit):
    """Inserts after every `every`-th of output layers `[start, stop)` a copy of it that is the identity.

    In the copy, the output projections are multiplied by 0; `zero` holds parts of their names. A last group of fewer
    than `every` layers gets no copy. `zero` depends on the donors' family;
    `plan.layers.block_expansion.completed` fills it in.
    Source: LLaMA Pro, arXiv 2401.02415, section 3 (32 layers and groups of 4 give 40).
    """

    start: int
    stop: int
    every: int
    zero: tuple[str, ...] = ()
    verb = "expand"
    usage = "expand 0-31 every=4"
    help = "LLaMA Pro's block expansion: after each group of 4 layers, insert a copy of its last one as the identity"

    def with_zero(self, filters: tuple[str, ...]) -> Expand:
        """The edit with these filters in `zero`."""
        return replace(self, zero=filters)

    def ends(self, depth: int) -> range:
        """The layers of a stack of that depth that are copied; InputError if there is none."""
        check_range(self.start, self.stop, depth)
        if not 1 <= self.every <= self.stop - self.start:
            raise InputError(
                f"every={self.every} makes no group",
                why=f"there {'is' if self.stop - self.start == 1 else 'are'} {plural(self.stop - self.start, 'layer')}",
                remedy=f"give every= from 1 to {self.stop - self.start}",
            )
        return range(self.start + self.every - 1, self.stop, self.every)

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        below = rules(recipe.parameters.get("scale"))
        return restacked(recipe, depth_of, lambda slices: self._expanded(slices, below))

    def stack(self, slices: Sequence[Slice], depth_of: DepthOf) -> tuple[Slice, ...]:
        return self._expanded(slices, [])

    def _expanded(self, slices: Sequence[Slice], below: list[dict[str, Any]]) -> tuple[Slice, ...]:
        if not self.zero:
            raise InputError("the tensors to set to zero are not known", remedy=f"write for instance: {self.usage}")
        zero = Scale(0, 1, tuple((name, 0.0) for name in self.zero))
        ends = self.ends(stack.depth(slices))
        first, last = ends[0] + 1 - self.every, ends[-1] + 1
        made: list[Slice] = []
        waiting = list(reversed(stack.take(slices, first, last)))
        for _ in ends:
            left = self.every
            while left:
                part = waiting.pop()
                count = stack.length(part)
                if count > left:
                    waiting.append(stack.piece(part, left, count))
                    part = stack.piece(part, 0, left)
                made.append(part)
                left -= min(left, count)
            made.append(zero.scaled(stack.singles([made[-1]])[-1], below))
        return stack.splice(slices, first, last, made)

    def touched(self) -> tuple[int, int] | None:
        return self.start, self.stop + (self.stop - self.start) // self.every

    def moved_to(self, start: int, stop: int) -> Edit:
        return replace(self, start=start, stop=stop)


_Part = TypeVar("_Part", Slice, Source, WholeModel)


def bare(part: _Part) -> _Part:
    """The part without its parameter table if that is empty."""
    if part.parameters or "parameters" not in part.model_fields_set:
        return part
    fields = {name: getattr(part, name) for name in part.model_fields_set - {"parameters"}}
    return type(part).model_construct(_fields_set=set(fields), **fields)
