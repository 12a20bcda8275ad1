"""A parameter as a curve: one value per layer of a slice. What can be done to it, and how it stands in a recipe."""

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
"""The filter of a track that takes what no other track's filter does."""


def _on(curve: Sequence[float], start: int, stop: int, values: Iterable[float]) -> Curve:
    return (*curve[:start], *values, *curve[stop:])


def put(curve: Curve, start: int, stop: int, value: float) -> Curve:
    """Layers `[start, stop)` set to a value."""
    return _on(curve, start, stop, [value] * (stop - start))


def add(curve: Curve, start: int, stop: int, amount: float) -> Curve:
    """An amount added to layers `[start, stop)`."""
    return _on(curve, start, stop, (value + amount for value in curve[start:stop]))


def scale(curve: Curve, start: int, stop: int, factor: float) -> Curve:
    """Layers `[start, stop)` multiplied."""
    return _on(curve, start, stop, (value * factor for value in curve[start:stop]))


def ramp(curve: Curve, start: int, stop: int, first: float, last: float) -> Curve:
    """A straight line over layers `[start, stop)`."""
    return spread(curve, start, stop, (first, last))


def spread(curve: Curve, start: int, stop: int, values: Sequence[float]) -> Curve:
    """A gradient, such as a recipe has, over layers `[start, stop)`."""
    return _on(curve, start, stop, drawn(values, stop - start))


def drawn(values: Sequence[float], count: int) -> Curve:
    """A gradient's numbers at each of `count` layers."""
    return tuple(float(value) for value in over_layers(tuple(values), count))


def smooth(curve: Curve, start: int, stop: int, radius: float = 1.0) -> Curve:
    """Layers `[start, stop)` averaged with their neighbours, weighted by a Gaussian of that deviation in layers."""
    reach = max(1, round(2 * radius))

    def mean(index: int) -> float:
        near = range(max(0, index - reach), min(len(curve), index + reach + 1))
        weights = [exp(-0.5 * ((other - index) / radius) ** 2) for other in near]
        return sum(weight * curve[other] for weight, other in zip(weights, near, strict=True)) / sum(weights)

    return _on(curve, start, stop, [mean(index) for index in range(start, stop)])


def mirror(curve: Curve, start: int, stop: int) -> Curve:
    """Layers `[start, stop)` in the opposite order."""
    return _on(curve, start, stop, reversed(curve[start:stop]))


def clamp(curve: Curve, low: float | None, high: float | None) -> Curve:
    """Every value within bounds; None is no bound."""
    floor, ceiling = float("-inf") if low is None else low, float("inf") if high is None else high
    return tuple(min(max(value, floor), ceiling) for value in curve)


def taper(curve: Curve, count: int, value: float, *, first: bool = True, last: bool = True) -> Curve:
    """The outermost `count` layers led from an end value into the curve: `value` at the outermost, and
    `1 - k / count` of it at the k-th behind, as the edge policies of a recipe do."""
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
"""Gradients from 0 to 1, by filter. `gradient slerp` is the one of mergekit's example of slerp, on most merged models'
cards."""


def preset(name: str, count: int, low: float = 0.0, high: float = 1.0) -> dict[str, Curve]:
    """A preset over `count` layers, from `low` to `high`: filter -> curve. KeyError when there is none of that name."""
    return {
        rule: tuple(low + value * (high - low) for value in drawn(gradient, count))
        for rule, gradient in PRESETS[name].items()
    }


# -- in a recipe


@dataclass(frozen=True)
class Track:
    """The curve of one filter's tensors.

    Attributes:
        filter: part of the tensors' names, `REST` for all that no earlier track takes.
        values: one per layer; empty where nothing gives a value.
        origin: `source`, `slice` or `recipe`, whose table says so; `default` for a method's own.
    """

    filter: str
    values: tuple[Word, ...]
    origin: str


class Level(NamedTuple):
    """A table in which a parameter is looked up, and whose it is."""

    origin: str
    parameters: Mapping[str, Any]


def tracks(name: str, count: int, levels: Sequence[Level]) -> tuple[Track, ...]:
    """A parameter of a slice of `count` layers as tracks, in the order in which they take tensors; the rest is last, if
    anything gives it a value.

    Args:
        levels: the most specific first: source, slice, recipe.

    Raises:
        ValueError: filters within filters, which no curve shows.
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
    """Curves by filter, in the order in which they take tensors, as the value a parameter has in a recipe."""
    forms = {rule: shortest(values).value for rule, values in curves.items()}
    if set(forms) <= {REST}:
        return forms.get(REST, [])
    return [{"value": value} if rule == REST else {"filter": rule, "value": value} for rule, value in forms.items()]


def shortened(value: Any, count: int) -> Any:
    """A setting of a slice of `count` layers with its gradients as short as they can be."""
    if isinstance(value, dict) and "value" in value:
        return {**value, "value": shortened(value["value"], count)}
    if isinstance(value, (list, tuple)) and any(isinstance(part, dict) for part in value):
        return [shortened(part, count) for part in value]
    if isinstance(value, (list, tuple)) and len(value) > 1:
        return shortest(over_layers(value, count)).value
    return value
