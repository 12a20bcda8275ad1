"""Reading the events of a job, with checked types."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ..statefile import is_count, is_number, parse

Event = dict[str, Any]


def parsed(data: bytes) -> list[Event]:
    """The events in complete lines of JSON; other lines are left out."""
    found = []
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            event = sound(parse(line))
            if event is not None:
                found.append(event)
    return found


def sound(value: object) -> Event | None:
    """The event with checked values: values of a wrong type are dropped, and required ones replaced by zero or None."""
    if not isinstance(value, dict) or not isinstance(value.get("event"), str):
        return None
    types = _TYPES if value["event"] == "progress" else _TYPES | {"files": _is_texts}
    kept = {
        name: item
        for name, item in value.items()
        if (types[name](item) if name in types else not isinstance(item, float) or is_number(item))
    }
    return {**kept, **{name: zero for name, zero in _NEEDED.get(value["event"], {}).items() if name not in kept}}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_size(value: object) -> bool:
    return is_number(value) and value >= 0  # type: ignore[operator]


def _is_size_or_none(value: object) -> bool:
    return value is None or _is_size(value)


def _is_place(value: object) -> bool:
    return value is None or isinstance(value, str) or is_count(value)


def _is_files(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and all(is_count(number) for number in pair)
        for pair in value.values()
    )


_TYPES: dict[str, Callable[[object], bool]] = {
    "bytes": is_count, "total": is_count, "rate": _is_size, "eta": _is_size_or_none, "layer": _is_place,
    "memory": _is_size_or_none, "files": _is_files, "files_done": is_count, "index": is_count, "shards": is_count,
    "layers": is_count, "seconds": _is_size, "message": _is_text, "warnings": _is_texts, "role": _is_text,
}  # fmt: skip
_NEEDED: dict[str, Event] = {
    "start": {"bytes": 0, "shards": 0, "layers": 0},
    "progress": {"bytes": 0, "total": 0, "rate": 0, "eta": None, "layer": None},
    "layer": {"index": -1},
}
"""Keys that code that shows events relies on, with their defaults."""
