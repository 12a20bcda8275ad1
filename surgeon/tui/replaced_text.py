"""The edit that replaces a recipe's whole text: recovered after a crash, read again, or edited in an editor."""

from __future__ import annotations

from dataclasses import dataclass

from ..recipe.document import Document
from ..recipe.edits import DepthOf, Edit
from ..recipe.history import History, Step
from ..recipe.schema import Recipe


@dataclass(frozen=True)
class Restore(Edit):
    """Replaces the recipe by another one, as a step that can be undone with its comments and unknown keys.

    Attributes:
        recipe: the recipe of the document that is edited.
        before: the whole text until then.
        after: the whole text from then on.
    """

    recipe: Recipe
    before: Document
    after: Document
    verb = "restore"
    usage = help = ""

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        """The restored recipe."""
        return self.recipe


def with_step(history: History, edit: Restore) -> History:
    """The history with one more step, also where only the text differs."""
    return History(history.start, (*history.done, Step(edit, edit.recipe)))
