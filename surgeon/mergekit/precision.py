"""The dtype in which mergekit computes: it casts on loading and rounds after every method; surgeon rounds once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..checkpoint import dtypes
from ..plan.layers.blending import promoted
from ..plan.model import Plan, PlannedTensor
from ..plan.operands import Blend, Convert, Copy
from ..recipe.schema import Recipe
from .facts import WIDE

_WIDE = ("F32", "F64")


def rounds_repeatedly(recipe: Recipe, plan: Plan) -> bool:
    """Whether mergekit, with the dtype of the recipe, rounds more than once for any tensor."""
    return any(not _exact(recipe, tensor) for tensor in plan.tensors)


def _codes(tensor: PlannedTensor) -> list[str]:
    if isinstance(tensor.source, Blend):
        return [operand.dtype for operand in tensor.source.inputs]
    return [tensor.source.entry.dtype]


def _exact(recipe: Recipe, tensor: PlannedTensor) -> bool:
    codes, out, source = _codes(tensor), tensor.dtype, tensor.source
    if not dtypes.ARITHMETIC.issuperset(codes):
        return True
    computing = dtypes.FROM_TORCH[recipe.dtype] if recipe.dtype else promoted(codes)
    if computing in _WIDE:
        return True
    if isinstance(source, Copy) or (isinstance(source, Convert) and source.factor == 1):
        return computing == out or {computing} == set(codes)
    wide = not isinstance(source, Blend) or source.method in WIDE
    return wide and set(codes) == {computing} == {out}


def rounds_to_16_bits(plan: Plan) -> bool:
    """Whether a plan rounds numbers to 16 bits."""
    return any(not isinstance(tensor.source, Copy) and tensor.dtype not in _WIDE for tensor in plan.tensors)


def output(recipe: Recipe, tensors: Iterable[PlannedTensor]) -> str | None:
    """The torch name of the output dtype of all tensors; None if they have several."""
    stated = recipe.out_dtype or recipe.dtype
    held = {tensor.dtype for tensor in tensors if tensor.dtype in dtypes.ARITHMETIC}
    if stated is not None or len(held) != 1:
        return stated
    return dtypes.TORCH_NAMES.get(held.pop())


def in_float32(recipe: Recipe, out: str | None) -> Recipe:
    """The recipe with computation in float32 and output in `out` (None: float32)."""
    return with_keys(recipe, {"dtype": "float32", "out_dtype": None if out == "float32" else out})


def with_keys(recipe: Recipe, values: Mapping[str, object], leave: Sequence[str] = ()) -> Recipe:
    """The recipe with these values; keys whose value is None and keys in `leave` are unset."""
    data: dict[str, Any] = {name: getattr(recipe, name) for name in recipe.model_fields_set - set(leave)} | dict(values)
    data = {name: value for name, value in data.items() if value is not None}
    return Recipe.model_construct(_fields_set=set(data), **data)
