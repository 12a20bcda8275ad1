"""Measures and differences as plain data, to pass them between processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..errors import InputError
from ..statefile import StateRecord, is_number
from .intervals import Difference, Unit
from .measures import Measure


def units_to_data(units: Sequence[Unit]) -> dict[str, list[Any]]:
    """The units as columns; a value that is not finite becomes null."""
    return {
        "name": [unit.name for unit in units],
        "value": [unit.value if math.isfinite(unit.value) else None for unit in units],
        "cluster": [unit.cluster for unit in units],
        "weight": [unit.weight for unit in units],
    }


def units_from_data(data: Any) -> tuple[Unit, ...]:
    """The units of `units_to_data`; InputError if it is something else."""
    columns = [data.get(key) for key in ("name", "value", "cluster", "weight")] if isinstance(data, dict) else []
    lists = [column for column in columns if isinstance(column, list)]
    if len(lists) != 4 or len({len(column) for column in lists}) > 1:
        raise InputError("these are no scored items")
    found = []
    for name, value, cluster, weight in zip(*lists, strict=True):
        if not isinstance(name, str) or not isinstance(cluster, str) or not is_number(weight):
            raise InputError("these are no scored items")
        found.append(Unit(name, float(value) if is_number(value) else math.nan, cluster, float(weight)))
    return tuple(found)


def measure_to_data(measure: Measure) -> dict[str, Any]:
    """A measure with all its items."""
    return {
        "name": measure.name,
        "better": measure.better,
        "kind": measure.kind,
        "units": units_to_data(measure.units),
    }


def measure_from_data(data: dict[str, Any]) -> Measure:
    """The measure of `measure_to_data`; InputError if it is something else."""
    record = StateRecord(data)
    name, better, kind = (record.text(key) for key in ("name", "better", "kind"))
    if not name or better not in ("higher", "lower", "") or kind is None:
        raise InputError("this is no measure")
    return Measure(name, better, units_from_data(data.get("units")), kind)


def difference_to_data(one: Difference) -> dict[str, Any]:
    """A difference; numbers that are not finite become null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in asdict(one).items()
    }


def difference_from_data(data: Any) -> Difference:
    """The difference of `difference_to_data`; InputError if it is something else."""
    record = StateRecord(data if isinstance(data, dict) else {})
    verdict = record.text("verdict")
    if verdict is None:
        raise InputError("this is no difference")
    mean, low, high = (record.number(key) for key in ("mean", "low", "high"))
    needed = record.number("needed")
    return Difference(
        math.nan if mean is None else mean,
        -math.inf if low is None else low,
        math.inf if high is None else high,
        verdict,
        None if needed is None else int(needed),
        int(record.number("clusters") or 0),
    )
