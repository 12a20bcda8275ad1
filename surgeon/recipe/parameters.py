"""The value of a parameter for one tensor: scalars, gradients and filters, evaluated as mergekit does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

Number = float | bool
Word = bool | float | str
Settled = tuple[tuple[str, str], ...]


def position(index: int, length: int) -> float:
    """The position of layer `index` of `length` on its slice's gradient: 0 to 1, and 1 for a single layer."""
    return index / (length - 1) if length > 1 else 1.0


def _scalar(value: Any) -> Word:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    raise ValueError(f"{value!r} is neither a number, a list of numbers, nor a list of {{filter, value}}")


def _is_filtered(value: Any) -> bool:
    return isinstance(value, dict) and "value" in value


class Found(NamedTuple):
    """The value of a setting for one tensor, and the filter that matched (empty without one)."""

    value: Word
    rule: str = ""


def evaluate(value: Any, name: str, t: float) -> Word | None:
    """The number or word of a setting for the tensor `name` at gradient position `t`; None if no filter matches.

    In a list of `{filter, value}`, the first entry applies whose filter is absent, `*`, or a substring of the name. A
    list of numbers is interpolated linearly. In a list of booleans or words, the element at or before `t` applies. An
    empty list is unset.

    Raises:
        ValueError: the setting has none of these forms.
    """
    found = matched(value, name, t)
    return None if found is None else found.value


def matched(value: Any, name: str, t: float) -> Found | None:
    """As `evaluate`, with the filter that matched."""
    if _is_filtered(value):
        value = [value]
    if isinstance(value, (list, tuple)):
        if not value:
            return None
        if all(_is_filtered(item) for item in value):
            for item in value:
                rule = filter_of(item)
                if rule == "*" or rule in name:
                    inner = matched(item["value"], name, t)
                    return None if inner is None else Found(inner.value, inner.rule or rule)
            return None
        return Found(_along(value, t))
    return None if value is None else Found(_scalar(value))


def settled(value: Any, t: float) -> Settled:
    """A setting at gradient position `t`, as pairs of filter and value. Settings with equal pairs have the same value
    for every name.
    """
    inner = _filtered(value)
    if inner is not None:
        return tuple((filter_of(item), repr(settled(item["value"], t))) for item in inner)
    if isinstance(value, (list, tuple)) and value:
        with suppress(ValueError):  # what is wrong with a list is said of all of it
            value = _along(value, t)
    return (("*", repr(value)),)


def filters(value: Any) -> Iterator[str]:
    """Every filter of a setting, at any depth."""
    for item in _filtered(value) or ():
        yield filter_of(item)
        yield from filters(item["value"])


def _filtered(value: Any) -> list[dict[str, Any]] | None:
    """The entries of a setting with filters; None for a setting without."""
    items = [value] if _is_filtered(value) else value
    return list(items) if isinstance(items, (list, tuple)) and items and all(map(_is_filtered, items)) else None


def _along(items: Sequence[Any], t: float) -> Word:
    """The value of a gradient at `t`. Only the two numbers around `t` are converted, which saves time."""
    if {type(item) for item in items} <= {int, float}:
        return interpolated(items, t)
    return _gradient([_scalar(item) for item in items], t)


def _gradient(values: list[Word], t: float) -> Word:
    last = len(values) - 1
    if any(isinstance(value, (bool, str)) for value in values):
        # t is a rounded quotient: without the small addend, step 3 of 49 would become 2.
        return values[int(t * last + 1e-9)]
    return interpolated([float(value) for value in values], t)


def interpolated(values: Sequence[float], t: float) -> float:
    """The value of a gradient at position `t` (0 to 1), by linear interpolation."""
    last = len(values) - 1
    scaled = t * last
    low = int(scaled)
    high = min(last, low + 1)
    fraction = scaled - low
    return (1 - fraction) * float(values[low]) + fraction * float(values[high])


def rules(value: Any) -> list[dict[str, Any]]:
    """A setting of any form as a list of `{filter, value}`; [] if it is unset."""
    if value is None or value == []:
        return []
    if _is_filtered(value):
        return [value]
    if isinstance(value, (list, tuple)) and all(_is_filtered(item) for item in value):
        return list(value)
    return [{"value": value}]


def filter_of(rule: dict[str, Any]) -> str:
    """The filter of a rule; `*` if the rule matches every tensor."""
    return "*" if rule.get("filter") is None else str(rule["filter"])


def over(upper: Any, lower: Any) -> Any:
    """One setting that has the value of `upper`, and the value of `lower` if no filter of `upper` matches."""
    if lower is None or any(filter_of(rule) == "*" for rule in rules(upper)):
        return upper
    return [*rules(upper), *rules(lower)] if rules(upper) else lower


def has_gradient(value: Any) -> bool:
    """Whether a setting changes from layer to layer of a slice."""
    if _is_filtered(value):
        return has_gradient(value["value"])
    if not isinstance(value, (list, tuple)):
        return False
    return any(map(has_gradient, value)) if all(map(_is_filtered, value)) else len(value) > 1


def lookup(name: str, tensor: str, t: float, *levels: Mapping[str, Any]) -> Word | None:
    """The value of parameter `name` for a tensor, from the first level (most specific first) that gives one."""
    found = first_of(name, ((level, tensor, t) for level in levels))
    return None if found is None else found[0].value


def first_of(name: str, levels: Iterable[tuple[Mapping[str, Any], str, float]]) -> tuple[Found, int] | None:
    """The first value that a level (table, tensor name, gradient position) gives parameter `name`, and its number."""
    for number, (table, tensor, t) in enumerate(levels):
        if name in table:
            found = matched(table[name], tensor, t)
            if found is not None:
                return found, number
    return None


def cut(value: Any, length: int, start: int, stop: int) -> Any:
    """A setting of a slice of `length` layers, reduced to layers `[start, stop)`; each layer keeps its value."""
    if _is_filtered(value):
        return {**value, "value": cut(value["value"], length, start, stop)}
    if not isinstance(value, (list, tuple)) or not value:
        return value
    if all(_is_filtered(item) for item in value):
        return [cut(item, length, start, stop) for item in value]
    numbers = [_scalar(item) for item in value]
    kept = [_gradient(numbers, position(index, length)) for index in range(start, stop)]
    kept = [float(f"{item:.12g}") if isinstance(item, float) else item for item in kept]
    return kept[0] if len(set(kept)) == 1 else kept
