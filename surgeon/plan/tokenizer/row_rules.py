"""Which rows a donor's table of tokens is made of, once its tokens have other numbers: mergekit's rule.

A donor keeps its own row for a token that it knows. For any other, in this order: what the recipe says of the token;
the only donor's that knows it; the base's if the base knows it; the mean of all that know it. A row that nobody has
(padding, mostly) is the mean of all other rows, as mergekit fills padding: in a head it can never win over them all,
which a row of zeros, a logit of 0, often does.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..operands import MEAN

Takes = dict[int, "array[int]"]
"""By donor: for each row of the result the donor's row, or -1."""


@dataclass(frozen=True)
class Fixed:
    """What the recipe says of one token: a donor's row, or (donor None) zeros; with `force` for every donor."""

    donor: int | None
    row: int = 0
    force: bool = False


def packed(numbers: Sequence[int]) -> array[int]:
    """Numbers as native int32."""
    return array("i", numbers)


def takes(
    donor: int,
    own: Sequence[array[int]],
    heights: Sequence[int | None],
    base: int | None,
    fixed: Mapping[int, Fixed],
) -> Takes:
    """Where the rows of one donor's new table come from; `MEAN` stands in the donor's own numbers.

    Args:
        own: per donor, for each row of the result its own row or -1.
        heights: rows of each donor's table, which may be fewer than it has tokens; None where it has no such table.
        base: which donor is the base, if any.
        fixed: by row of the result.
    """
    have = {
        other: _within(numbers, height)
        for other, (numbers, height) in enumerate(zip(own, heights, strict=True))
        if height is not None
    }
    known = {row: what for row, what in fixed.items() if _there(what, heights)}
    mine = have[donor][:] if donor in have else packed([-1]) * len(own[0])
    found: Takes = {donor: mine}

    def give(other: int, row: int, number: int) -> None:
        if other not in found:
            found[other] = packed([-1]) * len(mine)
        found[other][row] = number

    for row, what in known.items():
        if what.force or mine[row] < 0:
            mine[row] = -1
            if what.donor is not None:
                give(what.donor, row, what.row)
    # The base's row is taken whether it is the only one or not, so that only the rest asks who has the token.
    lacking = [row for row, number in enumerate(mine) if number < 0 and row not in known]
    if base in have:
        numbers = have[base]
        for row in (row for row in lacking if numbers[row] >= 0):
            give(base, row, numbers[row])
        lacking = [row for row in lacking if numbers[row] < 0]
    nobody = set(lacking)
    for other, numbers in have.items():
        for row in (row for row in lacking if numbers[row] >= 0):
            give(other, row, numbers[row])
            nobody.discard(row)
    for row in nobody:
        mine[row] = MEAN
    return found


def _there(what: Fixed, heights: Sequence[int | None]) -> bool:
    """Whether what the recipe says of a token can be had: a table may be lower than the donor's embedding."""
    height = heights[what.donor] if what.donor is not None else what.row + 1
    return height is not None and what.row < height


def _within(numbers: array[int], height: int) -> array[int]:
    """The rows that a table has."""
    if max(numbers, default=-1) < height:
        return numbers
    return packed([number if number < height else -1 for number in numbers])
