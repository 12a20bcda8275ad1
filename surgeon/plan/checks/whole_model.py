"""Check methods that survey the whole model before they blend: they need one set of densities, and no stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...methods import find
from ..findings import Finding
from ..model import PlannedLayer, PlannedTensor
from ..operands import Blend, Operand, Settings


def findings(layers: Sequence[PlannedLayer], outer: Sequence[PlannedTensor]) -> Iterator[Finding]:
    """Reasons why a method that surveys the whole model cannot be used.

    Args:
        layers: the output's layers.
        outer: its tensors outside them.
    """
    densities: dict[tuple[float, ...], str] = {}
    nested = False
    known: dict[tuple[str, Settings, tuple[Settings, ...]], tuple[float, ...] | None] = {}

    def densities_of(blend: Blend) -> tuple[float, ...] | None:
        key = (blend.method, blend.one, blend.each)
        if key not in known:
            method = find(blend.method)
            assert method is not None
            known[key] = method.kernel(dict(blend.one), [dict(table) for table in blend.each]).whole_model
        return known[key]

    inner = ((layer, tensor) for layer in layers for tensor in layer.firsts)
    for layer, tensor in (*inner, *((None, tensor) for tensor in outer)):
        if isinstance(tensor.source, Blend):
            found = densities_of(tensor.source)
            if found is not None and found not in densities:
                densities[found] = layer.name_of(tensor) if layer else tensor.name
            nested = nested or any(densities_of(blend) is not None for blend in _inner(tensor.source.inputs))
    if len(densities) > 1:
        one, other, *_ = densities.values()
        yield Finding(
            "error",
            "scope-model",
            "A trim over the whole model needs one density per donor",
            f"{one} and {other} have different ones (or different numbers of donors)",
            "set density without filters and gradients, or use `scope: tensor`",
        )
    if nested:
        yield Finding(
            "error",
            "scope-model",
            "An earlier stage cannot trim over the whole model",
            "a stage is computed tensor by tensor, when its tensors are read",
            "assemble that stage first, or use `scope: tensor` in it",
        )


def _inner(operands: Sequence[Operand]) -> Iterator[Blend]:
    for operand in operands:
        if isinstance(operand, Blend):
            yield operand
            yield from _inner(operand.inputs)
