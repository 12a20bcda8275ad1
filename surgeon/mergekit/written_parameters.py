"""Parameters for mergekit: surgeon's words are translated, and values per tensor become few rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..methods.registry import Word
from ..recipe.parameters import evaluate, filter_of, has_gradient, rules
from ..recipe.schema import Parameters
from .facts import METHODS, RESCALE


def translated(parameters: Mapping[str, Any], methods: frozenset[str]) -> Parameters:
    """The parameters that these methods have in mergekit, with mergekit's values for surgeon's words."""
    known = {name for method in methods for name in METHODS.get(method, ())}
    return {
        name: _spelled(value) if name == "rescale" else value for name, value in parameters.items() if name in known
    }


def _spelled(value: Any) -> Any:
    """A setting of `rescale` with mergekit's values, at any depth."""
    if isinstance(value, Mapping):
        return {**value, "value": _spelled(value["value"])}
    if isinstance(value, (list, tuple)):
        return [_spelled(item) for item in value]
    return RESCALE.get(value, value) if isinstance(value, str) else value


def written(values: Mapping[str, Word]) -> Any:
    """A setting with these values (tensor name -> value): a scalar, or rules with the most common value last.

    A filter matches a part of a name and the first match applies, so longer names come before shorter ones.
    """
    plain = {name: RESCALE.get(value, value) if isinstance(value, str) else value for name, value in values.items()}
    counts = Counter(plain.values())
    rest = counts.most_common(1)[0][0]
    if len(counts) == 1:
        return rest
    ordered = sorted(plain, key=lambda name: (-len(name), name))
    setting = [
        *({"filter": name, "value": plain[name]} for name in ordered if plain[name] != rest),
        {"value": rest},
    ]
    if all(evaluate(setting, name, 0.0) == value for name, value in plain.items()):
        return setting
    return [{"filter": name, "value": plain[name]} for name in ordered] + [{"value": rest}]


def with_default(setting: Any, value: Word) -> Any:
    """The setting with `value` where none of its filters matches."""
    if any(filter_of(rule) == "*" for rule in rules(setting)):
        return setting
    return [*rules(setting), {"value": value}]


def has_steps(value: Any) -> bool:
    """Whether a setting has a list of words or booleans: rounding can shift their change by a layer."""
    if isinstance(value, Mapping):
        return has_steps(value.get("value"))
    if not isinstance(value, (list, tuple)):
        return False
    if any(isinstance(item, Mapping) for item in value):
        return any(map(has_steps, value))
    return has_gradient(list(value)) and any(isinstance(item, (bool, str)) for item in value)
