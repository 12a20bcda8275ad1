"""Comparison of two plans: each tensor's sources in a normal form that does not depend on how a recipe states them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..checkpoint import TensorEntry
from ..methods.registry import Word
from ..plan.model import Plan, PlannedTensor
from ..plan.operands import Adapted, Blend, Convert, Copy, Operand, Rows, Settings, Stored, TensorSource
from ..text import one_line
from .facts import WEIGHTED_DELTAS

Form = tuple[Any, ...]
"""Nested tuples of words and numbers."""

_ABSOLUTE, _RELATIVE = 1e-12, 1e-9


def difference(wanted: Plan, found: Plan) -> str:
    """A clause about the first tensor that differs between two plans; empty if all are equal."""
    theirs = {tensor.name: tensor for tensor in found.tensors}
    if found.ends["lm_head"].how == "materialised":
        # mergekit writes no head if all donors tie theirs.
        for tensor in found.ends["lm_head"].tensors:
            del theirs[tensor.name]
    for tensor in wanted.tensors:
        other = theirs.pop(tensor.name, None)
        if other is None:
            return f"{one_line(tensor.name)} would not be written"
        if (tensor.dtype, tensor.shape) != (other.dtype, other.shape):
            return (
                f"{one_line(tensor.name)} would be {other.dtype} {list(other.shape)} "
                f"instead of {tensor.dtype} {list(tensor.shape)}"
            )
        if not _close(form(tensor.source), form(other.source)):
            return f"{one_line(tensor.name)} would be {_words(found, other)} instead of {_words(wanted, tensor)}"
    return f"{one_line(next(iter(theirs)))} would be written too" if theirs else ""


def form(source: TensorSource | Operand) -> Form:
    """The normal form of a tensor's source.

    A scaled copy and a mean of donors are sums. A method whose parameters select one donor becomes that donor: slerp
    with t of 0 or 1, and a weighted sum of task vectors with weights of 0.
    """
    if isinstance(source, (Copy, Stored)):
        return _leaf(source.entry)
    if isinstance(source, Convert):
        return _sum([(_leaf(source.entry), source.factor)])
    if isinstance(source, Adapted):
        magnitude = _leaf(source.magnitude) if source.magnitude else ()
        adapter = (_leaf(source.down), _leaf(source.up), magnitude, source.factor, source.transposed)
        return ("adapted", form(source.whole), *adapter)
    if isinstance(source, Rows):
        return ("rows", *((form(part), take) for part, take in zip(source.parts, source.take, strict=True)))
    return _blended(source)


def _blended(blend: Blend) -> Form:
    parts, one = [form(operand) for operand in blend.inputs], dict(blend.one)
    if blend.method == "passthrough":
        return _sum([(parts[0], _number(blend.each[0], "scale"))])
    if blend.method == "linear":
        weights = [_number(table, "weight") for table in blend.each]
        total = math.fsum(weights) if one["normalize"] and abs(math.fsum(weights)) > 1e-8 else 1.0
        return _sum([(part, weight / total) for part, weight in zip(parts, weights, strict=True)])
    if blend.method == "slerp" and one["t"] in (0, 1):
        return parts[int(one["t"])]
    if blend.method == "nearswap" and one["t"] == 0:
        return parts[blend.base or 0]
    donors = [part for index, part in enumerate(parts) if index != blend.base or len(blend.each) == len(parts)]
    terms = [(part, _settings(table)) for part, table in zip(donors, blend.each, strict=True)]
    # A base that is not subtracted is simply one of the donors.
    base = parts[blend.base] if blend.base is not None and len(blend.each) < len(parts) else ()
    if blend.method in WEIGHTED_DELTAS:
        terms = [term for term, table in zip(terms, blend.each, strict=True) if _number(table, "weight") != 0]
        terms.sort(key=repr)
        if not terms:
            return base
    return (blend.method, base, *terms, _settings(blend.one))


def _sum(terms: Sequence[tuple[Form, float]]) -> Form:
    """A sum of scaled parts, independent of order; a part that is a single scaled tensor is merged into it."""
    found = []
    for part, factor in terms:
        inner, scale = part[1] if part[0] == "sum" and len(part) == 2 else (part, 1.0)
        if factor * scale or len(terms) == 1:
            found.append((inner, factor * scale))
    return found[0][0] if len(found) == 1 and found[0][1] == 1 else ("sum", *sorted(found, key=repr))


def _settings(table: Settings) -> Form:
    # int8_mask changes only how a mask is stored.
    return tuple(sorted((name, value) for name, value in table if name != "int8_mask"))


def _number(table: Settings, name: str) -> float:
    value: Word = dict(table)[name]
    assert not isinstance(value, str)
    return float(value)


@lru_cache(maxsize=4096)
def _real(path: str) -> str:
    return os.path.realpath(path)


def _leaf(entry: TensorEntry) -> Form:
    return ("stored", _real(str(entry.file)), entry.offset, entry.nbytes, entry.dtype, tuple(entry.shape))


def _close(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    return bool(one == other)


def _words(plan: Plan, tensor: PlannedTensor) -> str:
    """A description of a tensor's source for a message."""
    refs = {str(_real(str(donor.checkpoint.folder))): donor.letter for donor in plan.donors.values()}
    files = [_real(str(entry.file)) for entry in tensor.source.entries()]
    letters = "~".join(dict.fromkeys(refs.get(os.path.dirname(file), "?") for file in files))  # noqa: PTH120
    if not isinstance(tensor.source, Blend):
        factor = tensor.source.factor if isinstance(tensor.source, Convert) else 1.0
        return f"{letters} times {factor:g}" if factor != 1 else f"a copy of {letters}"
    values = {**dict(tensor.source.one), **{k: v for table in tensor.source.each for k, v in table}}
    shown = ", ".join(f"{name} {value}" for name, value in list(values.items())[:3])
    return f"the {tensor.source.method} of {letters}" + (f" ({shown})" if shown else "")
