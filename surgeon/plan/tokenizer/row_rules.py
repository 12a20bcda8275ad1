"""The rows that a donor's token table is made from when its tokens get new ids, by mergekit's rule.

A donor keeps its own row for a token that it has. For any other token it gets, in this order: the row that the recipe
sets; the row of the only donor with the token; the base model's row; the mean of all donors with the token. A row that
no donor has (mostly padding) is the mean of all other rows, as mergekit fills padding: in a head its logit can never
exceed all others, as the logit 0 of a row of zeros often does.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..operands import MEAN

Takes = dict[int, "array[int]"]
"""By donor: the donor's row for each row of the result, or -1."""


@dataclass(frozen=True)
class Fixed:
    """The row that the recipe sets for one token: a donor's, or zeros if `donor` is None; `force` sets it for every
    donor, else only for those without the token."""

    donor: int | None
    row: int = 0
    force: bool = False


def packed(numbers: Sequence[int]) -> array[int]:
    """Numbers as an array of native int32."""
    return array("i", numbers)


def takes(
    donor: int,
    own: Sequence[array[int]],
    heights: Sequence[int | None],
    base: int | None,
    fixed: Mapping[int, Fixed],
) -> Takes:
    """The source rows of one donor's new table; `MEAN` occurs among the donor's own numbers.

    Args:
        donor: index of the donor.
        own: for each donor, its row for each row of the result, or -1.
        heights: number of rows of each donor's table, possibly fewer than it has tokens; None without such a table.
        base: index of the base model; None without one.
        fixed: rows that the recipe sets, by row of the result.
    """
    have = {
        other: _within(numbers, height)
        for other, (numbers, height) in enumerate(zip(own, heights, strict=True))
        if height is not None
    }
    known = {row: what for row, what in fixed.items() if _exists(what, heights)}
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
    # The base's row is used whether it is the only one or not, so other donors matter only for the rest.
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


def _exists(what: Fixed, heights: Sequence[int | None]) -> bool:
    """Whether the row that the recipe sets exists: a table may have fewer rows than the donor's embedding."""
    height = heights[what.donor] if what.donor is not None else what.row + 1
    return height is not None and what.row < height


def _within(numbers: array[int], height: int) -> array[int]:
    """The numbers, with -1 for rows that a table of that height does not have."""
    if max(numbers, default=-1) < height:
        return numbers
    return packed([number if number < height else -1 for number in numbers])
