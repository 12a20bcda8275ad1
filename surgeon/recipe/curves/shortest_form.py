"""The shortest scalar or list that mergekit's interpolation turns back into a given curve."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import isclose
from typing import NamedTuple

from ..parameters import Word, evaluate, interpolated, position

RELATIVE, OF_THE_LARGEST = 1e-9, 1e-12
"""Tolerances. A form reproduces a layer's value if the relative error is at most `RELATIVE`, or the absolute error is
at most `OF_THE_LARGEST` times the largest magnitude of the curve (rounding errors of numbers that cancel out)."""


class Form(NamedTuple):
    """How a recipe writes a curve: a scalar, or a list over the layers of the slice."""

    value: Word | list[Word]
    layers: int

    @property
    def name(self) -> str:
        """`scalar`, `gradient`, or `each layer` if the list is as long as the slice."""
        if not isinstance(self.value, list):
            return "scalar"
        return "gradient" if len(self.value) < self.layers else "each layer"

    @property
    def text(self) -> str:
        """The YAML text: `0.5`, `[0, 0.5, 1]`."""
        return f"[{', '.join(map(spelled, self.value))}]" if isinstance(self.value, list) else spelled(self.value)


def spelled(value: Word) -> str:
    """The YAML text of one value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else f"{value:.12g}"


def rounded(value: Word) -> Word:
    """A number rounded to 12 significant digits, an integer if it is whole; other values unchanged."""
    if isinstance(value, (bool, str)):
        return value
    short = float(f"{value:.12g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short


def over_layers(value: Word | Sequence[Word], count: int) -> tuple[Word, ...]:
    """The value of a scalar or gradient at each of `count` layers."""
    listed = list(value) if isinstance(value, (list, tuple)) else value
    found = (evaluate(listed, "", position(index, count)) for index in range(count))
    return tuple(word for word in found if word is not None)


def shortest(values: Sequence[Word]) -> Form:
    """The scalar or the shortest list that evaluates to `values` (one per layer of a slice) in float arithmetic.

    Numbers are first rounded to 12 significant digits. Every layer's value is reproduced within `RELATIVE` and
    `OF_THE_LARGEST`. A list of all values is always exact. It is preferred to a list of more than half as many
    numbers that needs more than four decimals, because such a list is hard to read. Words and booleans are not
    interpolated: the form holds one for all layers, or one per layer.
    """
    short = list(map(rounded, values))
    if any(isinstance(value, (bool, str)) for value in short):
        equal = all(value == short[0] and type(value) is type(short[0]) for value in short)
        return Form(short[0] if equal else short, len(short))
    return _shortest(tuple(map(float, short)))


@lru_cache(maxsize=4096)
def _shortest(numbers: tuple[float, ...]) -> Form:
    count = len(numbers)
    if len(set(numbers)) == 1:
        return Form(rounded(numbers[0]), count)
    bends = _bends(numbers)
    for knots in range(2 + (len(bends) + 1) // 2, count):
        if all(_has_knot_near(bend, knots, count) for bend in bends) and (found := _fitted_in_bounds(numbers, knots)):
            return Form([rounded(value) for value in found], count)
    return Form([rounded(value) for value in numbers], count)


def _fitted_in_bounds(values: Sequence[float], knots: int) -> list[float] | None:
    """`_fitted`, unless a number leaves the range of the values and [0, 1]: many parameters have these bounds, and
    a list can have a knot between two layers that lies outside them."""
    found = _fitted(values, knots)
    if found and (min(found) < min(0, *values) or max(found) > max(1, *values)):
        return None
    return found


def _bends(values: Sequence[float]) -> list[int]:
    """Layers at which the curve is not straight. A knot on a layer bends one layer, any other knot at most two."""
    tolerance = 4 * OF_THE_LARGEST * max(map(abs, values))
    found = []
    for index in range(1, len(values) - 1):
        before, here, after = values[index - 1 : index + 2]
        if abs(before - 2 * here + after) > 4 * RELATIVE * max(abs(before), abs(here), abs(after)) + tolerance:
            found.append(index)
    return found


def _has_knot_near(layer: int, knots: int, count: int) -> bool:
    """Whether a number of the list lies strictly between the neighbours of `layer`."""
    step = (count - 1) / (knots - 1)
    return abs(round(layer / step) * step - layer) < 1 - 1e-9


def _fitted(values: Sequence[float], knots: int) -> list[float] | None:
    """The list of `knots` numbers that evaluates to `values`, with as few digits as possible; None if none exists."""
    exact = _solved(values, knots)
    residue = [value - got for value, got in zip(values, _at_layers(exact, len(values)), strict=True)]
    exact = [value + more for value, more in zip(exact, _solved(residue, knots), strict=True)]
    if not _reproduces(exact, values):
        return None
    for decimals in _READABLE if 2 * knots > len(values) + 1 else (*_READABLE, 6, 9, 12):
        found = [float(f"{value:.{decimals}f}") for value in exact]
        if _reproduces(found, values, RELATIVE / 50):
            return found
    found = [float(rounded(value)) for value in exact]
    return found if 2 * knots <= len(values) + 1 and _reproduces(found, values) else None


_READABLE = (2, 4)


def _solved(values: Sequence[float], knots: int) -> list[float]:
    """The numbers of a list by least squares. The system is tridiagonal: each layer depends on two neighbours."""
    count, last = len(values), knots - 1
    diagonal, off_diagonal, right = [0.0] * knots, [0.0] * knots, [0.0] * knots
    for index, value in enumerate(values):
        scaled = position(index, count) * last
        low = min(int(scaled), last - 1)
        high = scaled - low
        diagonal[low] += (1 - high) ** 2
        diagonal[low + 1] += high**2
        off_diagonal[low] += (1 - high) * high
        right[low] += (1 - high) * value
        right[low + 1] += high * value
    for index in range(1, knots):
        factor = off_diagonal[index - 1] / diagonal[index - 1]
        diagonal[index] -= factor * off_diagonal[index - 1]
        right[index] -= factor * right[index - 1]
    out = [0.0] * knots
    for index in reversed(range(knots)):
        out[index] = (right[index] - (off_diagonal[index] * out[index + 1] if index < last else 0.0)) / diagonal[index]
    return out


def _at_layers(numbers: Sequence[float], count: int) -> list[float]:
    return [interpolated(list(numbers), position(index, count)) for index in range(count)]


def _reproduces(numbers: Sequence[float], values: Sequence[float], within: float = RELATIVE) -> bool:
    tolerance = OF_THE_LARGEST * max(map(abs, values))
    return all(
        isclose(got, value, rel_tol=within, abs_tol=tolerance)
        for got, value in zip(_at_layers(numbers, len(values)), values, strict=True)
    )
