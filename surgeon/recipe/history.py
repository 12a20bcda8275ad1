"""Undo, redo and repeat. Recipes are immutable, so the history is a list of recipes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .edits import DepthOf, Edit
from .schema import Recipe


@dataclass(frozen=True)
class Step:
    """An edit and the recipe after it."""

    edit: Edit
    recipe: Recipe


@dataclass(frozen=True)
class History:
    """The recipe of a session, the edits that led to it, and the edits that were undone."""

    start: Recipe
    done: tuple[Step, ...] = ()
    undone: tuple[Step, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The current recipe."""
        return self.done[-1].recipe if self.done else self.start

    @property
    def last(self) -> Edit | None:
        """The edit that repeat applies."""
        return self.done[-1].edit if self.done else None

    def apply(self, edit: Edit, depth_of: DepthOf) -> History:
        """The history after one more edit, without undone edits; `self` if the edit changes nothing."""
        recipe = edit.apply(self.recipe, depth_of)
        if recipe == self.recipe:
            return self
        return History(self.start, (*self.done, Step(edit, recipe)), ())

    def undo(self) -> History:
        """The history one step back; `self` at the start."""
        if not self.done:
            return self
        return replace(self, done=self.done[:-1], undone=(*self.undone, self.done[-1]))

    def redo(self) -> History:
        """The history one step forward; `self` if nothing was undone."""
        if not self.undone:
            return self
        return replace(self, done=(*self.done, self.undone[-1]), undone=self.undone[:-1])
