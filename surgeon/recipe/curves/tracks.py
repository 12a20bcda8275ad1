"""A parameter as a curve (one value per layer of a slice): operations on it, and its form in a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any, NamedTuple

from ..parameters import Word, filter_of, rules
from .shortest_form import Form as Form
from .shortest_form import over_layers, shortest

Curve = tuple[float, ...]
REST = "*"
"""The filter of the track for all tensors that no other track's filter matches."""


def _on(curve: Sequence[float], start: int, stop: int, values: Iterable[float]) -> Curve:
    return (*curve[:start], *values, *curve[stop:])


def put(curve: Curve, start: int, stop: int, value: float) -> Curve:
    """Set layers `[start, stop)` to a value."""
    return _on(curve, start, stop, [value] * (stop - start))


def add(curve: Curve, start: int, stop: int, amount: float) -> Curve:
    """Add an amount to layers `[start, stop)`."""
    return _on(curve, start, stop, (value + amount for value in curve[start:stop]))


def scale(curve: Curve, start: int, stop: int, factor: float) -> Curve:
    """Multiply layers `[start, stop)` by a factor."""
    return _on(curve, start, stop, (value * factor for value in curve[start:stop]))


def ramp(curve: Curve, start: int, stop: int, first: float, last: float) -> Curve:
    """Set layers `[start, stop)` to a straight line."""
    return spread(curve, start, stop, (first, last))


def spread(curve: Curve, start: int, stop: int, values: Sequence[float]) -> Curve:
    """Set layers `[start, stop)` to a gradient as in a recipe."""
    return _on(curve, start, stop, drawn(values, stop - start))


def drawn(values: Sequence[float], count: int) -> Curve:
    """The value of a gradient at each of `count` layers."""
    return tuple(float(value) for value in over_layers(tuple(values), count))


def smooth(curve: Curve, start: int, stop: int, radius: float = 1.0) -> Curve:
    """Average layers `[start, stop)` with their neighbours, weighted by a Gaussian of deviation `radius` (layers)."""
    reach = max(1, round(2 * radius))

    def mean(index: int) -> float:
        near = range(max(0, index - reach), min(len(curve), index + reach + 1))
        weights = [exp(-0.5 * ((other - index) / radius) ** 2) for other in near]
        return sum(weight * curve[other] for weight, other in zip(weights, near, strict=True)) / sum(weights)

    return _on(curve, start, stop, [mean(index) for index in range(start, stop)])


def mirror(curve: Curve, start: int, stop: int) -> Curve:
    """Reverse the order of layers `[start, stop)`."""
    return _on(curve, start, stop, reversed(curve[start:stop]))


def clamp(curve: Curve, low: float | None, high: float | None) -> Curve:
    """Limit every value to `[low, high]`; None is no bound."""
    floor, ceiling = float("-inf") if low is None else low, float("inf") if high is None else high
    return tuple(min(max(value, floor), ceiling) for value in curve)


def taper(curve: Curve, count: int, value: float, *, first: bool = True, last: bool = True) -> Curve:
    """Blend the outermost `count` layers from an end value into the curve, as the edge policies of a recipe do.

    The k-th layer from the end is `w * value + (1 - w) * curve` with `w = 1 - k / count`; the outermost has k = 0.
    """
    out = list(curve)
    for outer in range(min(count, len(curve))):
        weight = 1 - outer / count
        for index in ([outer] if first else []) + ([len(curve) - 1 - outer] if last else []):
            out[index] = weight * value + (1 - weight) * out[index]
    return tuple(out)


PRESETS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "flat": {REST: (0.5,)},
    "ramp": {REST: (0.0, 1.0)},
    "ramp down": {REST: (1.0, 0.0)},
    "V": {REST: (1.0, 0.0, 1.0)},
    "inverted V": {REST: (0.0, 1.0, 0.0)},
    "gradient slerp": {"self_attn": (0.0, 0.5, 0.3, 0.7, 1.0), "mlp": (1.0, 0.5, 0.7, 0.3, 0.0), REST: (0.5,)},
}
"""Gradients from 0 to 1, by filter. `gradient slerp` is mergekit's example of slerp, which many model cards use."""


def preset(name: str, count: int, low: float = 0.0, high: float = 1.0) -> dict[str, Curve]:
    """A preset over `count` layers, scaled to `low`..`high`: filter -> curve. KeyError if the name is unknown."""
    return {
        rule: tuple(low + value * (high - low) for value in drawn(gradient, count))
        for rule, gradient in PRESETS[name].items()
    }


# -- in a recipe: tracks and settings


@dataclass(frozen=True)
class Track:
    """The curve for the tensors that one filter matches.

    Attributes:
        filter: part of the tensors' names; `REST` for all tensors that no earlier track matches.
        values: one per layer; empty if no table gives a value.
        origin: the table that gives the values (`source`, `slice` or `recipe`), or `default` for the method's default.
    """

    filter: str
    values: tuple[Word, ...]
    origin: str


class Level(NamedTuple):
    """A table in which a parameter is looked up, and where the table comes from."""

    origin: str
    parameters: Mapping[str, Any]


def tracks(name: str, count: int, levels: Sequence[Level]) -> tuple[Track, ...]:
    """A parameter of a slice of `count` layers as tracks, in the order in which they match tensors.

    The track `REST` is last. It is absent if no table gives it a value.

    Args:
        levels: the most specific first: source, slice, recipe.

    Raises:
        ValueError: a filter is nested in a filter; no curve can show that.
    """
    found: dict[str, Track] = {}
    for origin, table in levels:
        for rule in rules(table.get(name)):
            own = filter_of(rule)
            if _filtered(rule["value"]):
                raise ValueError(f"{name} has filters within filters")
            values = over_layers(rule["value"], count)
            if values and own not in found:
                found[own] = Track(own, values, origin)
            if own == REST:
                break
        if REST in found:
            break
    return tuple(found.values())


def _filtered(value: Any) -> bool:
    return any(isinstance(part, dict) for part in (value if isinstance(value, (list, tuple)) else [value]))


def setting(curves: Mapping[str, Sequence[Word]]) -> Any:
    """The value of a parameter in a recipe, from curves by filter in the order in which they match tensors."""
    forms = {rule: shortest(values).value for rule, values in curves.items()}
    if set(forms) <= {REST}:
        return forms.get(REST, [])
    return [{"value": value} if rule == REST else {"filter": rule, "value": value} for rule, value in forms.items()]


def shortened(value: Any, count: int) -> Any:
    """A setting of a slice of `count` layers with its gradients in their shortest form."""
    if isinstance(value, dict) and "value" in value:
        return {**value, "value": shortened(value["value"], count)}
    if isinstance(value, (list, tuple)) and any(isinstance(part, dict) for part in value):
        return [shortened(part, count) for part in value]
    if isinstance(value, (list, tuple)) and len(value) > 1:
        return shortest(over_layers(value, count)).value
    return value
