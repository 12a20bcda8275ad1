"""The values of a tensor's parameters as text."""

from __future__ import annotations

from collections.abc import Sequence

from ...text import one_line
from ..model import Value
from .blending import shown

_ORIGINS = {"source": "its source", "slice": "its slice", "recipe": "the recipe", "default": "default"}


def spoken(values: Sequence[Value], letters: Sequence[str]) -> str:
    """Parameters as text: `weight A 0.6, B 0.3 (its source); normalize true (default)`."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for value in values:
        whose = "" if value.donor is None else f"{letters[value.donor]} "
        rule = "" if value.rule == "*" else value.rule
        grouped.setdefault((value.name, value.origin, rule), []).append(f"{whose}{shown(value.value)}")
    parts = []
    for (name, origin, rule), found in grouped.items():
        words = _ORIGINS.get(origin, origin)
        where = f"{words}, filter {one_line(rule)}" if rule else words
        parts.append(f"{name} {', '.join(found)} ({where})")
    return "; ".join(parts)
