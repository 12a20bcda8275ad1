"""The shortest way to write a curve down so that mergekit's interpolation gives it back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isclose
from typing import NamedTuple

from ..parameters import Word, evaluate, interpolated, position

RELATIVE, OF_THE_LARGEST = 1e-9, 1e-12
"""A form gives a layer its number when it is within `RELATIVE` of it, or within `OF_THE_LARGEST` of the curve's largest
magnitude: what is left of numbers that cancel each other out."""


class Form(NamedTuple):
    """What stands in a recipe for a curve: a scalar, or a list over the layers."""

    value: Word | list[Word]
    layers: int

    @property
    def name(self) -> str:
        """`scalar`, `gradient`, or `each layer` for a list that is as long as the slice."""
        if not isinstance(self.value, list):
            return "scalar"
        return "gradient" if len(self.value) < self.layers else "each layer"

    @property
    def text(self) -> str:
        """As it stands in a recipe: `0.5`, `[0, 0.5, 1]`."""
        return f"[{', '.join(map(spelled, self.value))}]" if isinstance(self.value, list) else spelled(self.value)


def spelled(value: Word) -> str:
    """One value as a recipe has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.12g}"


def rounded(value: Word) -> Word:
    """A number with 12 significant digits, whole ones as integers; other values as they are."""
    if isinstance(value, (bool, str)):
        return value
    short = float(f"{value:.12g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def over_layers(value: Word | Sequence[Word], count: int) -> tuple[Word, ...]:
    """What a scalar or gradient is worth at each of `count` layers."""
    listed = list(value) if isinstance(value, (list, tuple)) else value
    found = (evaluate(listed, "", position(index, count)) for index in range(count))
    return tuple(word for word in found if word is not None)


def shortest(values: Sequence[Word]) -> Form:
    """The scalar or the shortest list of numbers that is worth `values`, one per layer of a slice, in float arithmetic.

    Numbers are first rounded to 12 significant digits; every one comes out as `RELATIVE` and `OF_THE_LARGEST` say. A
    list of all of them always does, and is taken over one of more than half as many numbers that nobody could read:
    with more than four decimals. Words and booleans are not interpolated: one for all, or one per layer.
    """
    short = list(map(rounded, values))
    if any(isinstance(value, (bool, str)) for value in short):
        alike = all(value == short[0] and type(value) is type(short[0]) for value in short)
        return Form(short[0] if alike else short, len(short))
    return _shortest(tuple(map(float, short)))


@lru_cache(maxsize=4096)
def _shortest(numbers: tuple[float, ...]) -> Form:
    count = len(numbers)
    if len(set(numbers)) == 1:
        return Form(rounded(numbers[0]), count)
    bends = _bends(numbers)
    for knots in range(2 + (len(bends) + 1) // 2, count):
        if all(_has_knot_near(bend, knots, count) for bend in bends) and (found := _allowed(numbers, knots)):
            return Form([rounded(value) for value in found], count)
    return Form([rounded(value) for value in numbers], count)


def _allowed(values: Sequence[float], knots: int) -> list[float] | None:
    """Numbers of a list of that length that gives these values, and that may stand wherever they may: between two
    layers it could turn at a number below 0 or above 1, where many parameters end."""
    found = _fitted(values, knots)
    if found and (min(found) < min(0, *values) or max(found) > max(1, *values)):
        return None
    return found


def _bends(values: Sequence[float]) -> list[int]:
    """Layers at which the curve is not straight. A knot makes one where it lies on a layer, else at most two."""
    floor = 4 * OF_THE_LARGEST * max(map(abs, values))
    found = []
    for index in range(1, len(values) - 1):
        before, here, after = values[index - 1 : index + 2]
        if abs(before - 2 * here + after) > 4 * RELATIVE * max(abs(before), abs(here), abs(after)) + floor:
            found.append(index)
    return found


def _has_knot_near(layer: int, knots: int, count: int) -> bool:
    """Whether one of the list's numbers lies strictly between a layer's neighbours."""
    step = (count - 1) / (knots - 1)
    return abs(round(layer / step) * step - layer) < 1 - 1e-9


def _fitted(values: Sequence[float], knots: int) -> list[float] | None:
    """The list of `knots` numbers that gives `values`, with as few digits as do; None where there is none."""
    exact = _solved(values, knots)
    residue = [value - got for value, got in zip(values, _worth(exact, len(values)), strict=True)]
    exact = [value + more for value, more in zip(exact, _solved(residue, knots), strict=True)]
    if not _gives(exact, values):
        return None
    for decimals in _READABLE if 2 * knots > len(values) + 1 else (*_READABLE, 6, 9, 12):
        found = [float(f"{value:.{decimals}f}") for value in exact]
        if _gives(found, values, RELATIVE / 50):
            return found
    found = [float(rounded(value)) for value in exact]
    return found if 2 * knots <= len(values) + 1 and _gives(found, values) else None


_READABLE = (2, 4)


def _solved(values: Sequence[float], knots: int) -> list[float]:
    """Least squares for the numbers of a list: a tridiagonal system, as a layer lies between two of them."""
    count, last = len(values), knots - 1
    diagonal, beside, right = [0.0] * knots, [0.0] * knots, [0.0] * knots
    for index, value in enumerate(values):
        scaled = position(index, count) * last
        low = min(int(scaled), last - 1)
        high = scaled - low
        diagonal[low] += (1 - high) ** 2
        diagonal[low + 1] += high**2
        beside[low] += (1 - high) * high
        right[low] += (1 - high) * value
        right[low + 1] += high * value
    for index in range(1, knots):
        factor = beside[index - 1] / diagonal[index - 1]
        diagonal[index] -= factor * beside[index - 1]
        right[index] -= factor * right[index - 1]
    out = [0.0] * knots
    for index in reversed(range(knots)):
        out[index] = (right[index] - (beside[index] * out[index + 1] if index < last else 0.0)) / diagonal[index]
    return out


def _worth(numbers: Sequence[float], count: int) -> list[float]:
    return [interpolated(list(numbers), position(index, count)) for index in range(count)]


def _gives(numbers: Sequence[float], values: Sequence[float], within: float = RELATIVE) -> bool:
    floor = OF_THE_LARGEST * max(map(abs, values))
    return all(
        isclose(got, value, rel_tol=within, abs_tol=floor)
        for got, value in zip(_worth(numbers, len(values)), values, strict=True)
    )
