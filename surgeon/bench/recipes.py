"""A recipe for each merge method that both surgeon and mergekit read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..methods import Method
from .made_donors import NAMES, MadeDonors

VALUES = {"weight": 0.5, "density": 0.5, "t": 0.3, "select_topk": 0.2}
"""Values of parameters that affect the time or are required; the others have their defaults."""

_NEARBY = {"nearswap": {"t": 0.001}}


def names(method: Method) -> tuple[str, ...]:
    """The names of the donors that a method reads: two donors, or two fine-tunes and their base."""
    _, most = method.donors
    if method.name == "passthrough" or method.base in ("none", "member", "start"):
        return NAMES[:2]
    if method.base == "optional":
        return NAMES[1:]
    return NAMES if most is None or most > 1 else NAMES[:2]


def recipe(method: Method, donors: MadeDonors) -> str:
    """The recipe as JSON, which is valid YAML. passthrough takes half of the layers from each of two donors; other
    methods merge all layers."""
    paths = {name: str(donors.path(name).resolve()) for name in NAMES}
    if method.name == "passthrough":
        half, depth = donors.shape.layers // 2, donors.shape.layers
        ranges = ((NAMES[0], [0, half]), (NAMES[1], [half, depth]))
        slices = [{"sources": [{"model": paths[name], "layer_range": span}]} for name, span in ranges]
        return json.dumps({"merge_method": "passthrough", "slices": slices, "dtype": "bfloat16"}, indent=2)
    values = VALUES | _NEARBY.get(method.name, {})
    chosen = {name: values[name] for name in method.parameters if name in values}
    each = {name: value for name, value in chosen.items() if method.parameters[name].each}
    listed = [name for name in names(method) if name != NAMES[0] or not method.subtracts]
    document: dict[str, Any] = {
        "merge_method": method.name,
        "models": [{"model": paths[name], "parameters": each} if each else {"model": paths[name]} for name in listed],
        "dtype": "bfloat16",
    }
    if method.base in ("start", "required"):
        document["base_model"] = paths[NAMES[0]]
    if one := {name: value for name, value in chosen.items() if name not in each}:
        document["parameters"] = one
    return json.dumps(document, indent=2)


def bytes_read(method: Method, donors: MadeDonors) -> int:
    """Bytes of the donors that a merge reads, each counted once."""
    return donors.shape.nbytes * (1 if method.name == "passthrough" else len(names(method)))


def files_read(method: Method, donors: MadeDonors) -> list[Path]:
    """The weight files that a merge reads."""
    return [path for name in names(method) for path in donors.files(name)]
