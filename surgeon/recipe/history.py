"""Undo, redo and repeat: a recipe never changes, so the past is a list of values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .edits import DepthOf, Edit
from .schema import Recipe


@dataclass(frozen=True)
class Step:
    """An edit and the recipe it led to."""

    edit: Edit
    recipe: Recipe


@dataclass(frozen=True)
class History:
    """Where the session stands, what led there, and what was undone."""

    start: Recipe
    done: tuple[Step, ...] = ()
    undone: tuple[Step, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe now."""
        return self.done[-1].recipe if self.done else self.start

    @property
    def last(self) -> Edit | None:
        """The edit that repeat would do again."""
        return self.done[-1].edit if self.done else None

    def apply(self, edit: Edit, depth_of: DepthOf) -> History:
        """The history after one more edit; the same history when the edit changes nothing. Forgets what was undone."""
        recipe = edit.apply(self.recipe, depth_of)
        if recipe == self.recipe:
            return self
        return History(self.start, (*self.done, Step(edit, recipe)), ())

    def undo(self) -> History:
        """One step back; the same history at the start."""
        if not self.done:
            return self
        return replace(self, done=self.done[:-1], undone=(*self.undone, self.done[-1]))

    def redo(self) -> History:
        """One step forward again; the same history when nothing was undone."""
        if not self.undone:
            return self
        return replace(self, done=(*self.done, self.undone[-1]), undone=self.undone[:-1])
