"""That mergekit cannot express something, and where the recipe says it."""

from __future__ import annotations

Place = tuple[str | int, ...]


class Refusal(Exception):
    """Why something cannot be written for mergekit.

    Attributes:
        why: the reason, as a clause.
        place: where the recipe says it, such as `("slices", 2)`.
        remedy: what to do; may be empty.
    """

    def __init__(self, why: str, *place: str | int, remedy: str = "") -> None:
        super().__init__(why)
        self.why, self.place, self.remedy = why, place, remedy
