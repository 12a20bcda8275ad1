"""The reason why mergekit cannot express a part of a recipe."""

from __future__ import annotations

Place = tuple[str | int, ...]


class Refusal(Exception):
    """Raised if mergekit cannot express a part of a recipe.

    Attributes:
        why: the reason, as a clause.
        place: the place in the recipe, such as `("slices", 2)`.
        remedy: what the user can do; may be empty.
    """

    def __init__(self, why: str, *place: str | int, remedy: str = "") -> None:
        super().__init__(why)
        self.why, self.place, self.remedy = why, place, remedy
