"""The edit that replaces a recipe's whole text: recovered after a crash, read again, or edited in an editor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from ..recipe.document import Document
from ..recipe.edits import DepthOf, Edit
from ..recipe.history import History, Step
from ..recipe.schema import Recipe


@dataclass(frozen=True)
class TextState:
    """The whole recipe at some time.

    Attributes:
        text: the text that edits change.
        histories: the edits of each of its documents.
    """

    text: Document
    histories: Mapping[str, History]


@dataclass(frozen=True)
class Restore(Edit):
    """Replaces the whole recipe. It is a step of every document, and undone in all of them together.

    Attributes:
        recipe: the recipe of the document whose step this is.
        before: the recipe until then, with its stages, comments and unknown keys.
        serial: a unique number, by which the recipe from then on is found again.
    """

    recipe: Recipe
    before: TextState = field(repr=False)
    serial: int = field(default_factory=count().__next__)
    verb = "restore"
    usage = help = ""

    def apply(self, recipe: Recipe, depth_of: DepthOf) -> Recipe:
        """The restored recipe."""
        return self.recipe


def with_step(history: History, edit: Restore) -> History:
    """The history with one more step, also where only the text differs."""
    return History(history.start, (*history.done, Step(edit, edit.recipe)))


def undone(edit: Restore) -> dict[str, History]:
    """The histories before a replacement, from each of which it can be redone."""
    step = Step(edit, edit.recipe)
    return {name: replace(history, undone=(step,)) for name, history in edit.before.histories.items()}


def without_redo(histories: Mapping[str, History]) -> dict[str, History]:
    """The histories after another edit: a replacement that was undone cannot be redone any more."""
    return {
        name: replace(history, undone=()) if any(isinstance(s.edit, Restore) for s in history.undone) else history
        for name, history in histories.items()
    }
