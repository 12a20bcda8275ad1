"""What must be known of a whole model before its first tensor is blended: trims over all of them (`scope: model`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..methods.modelwide import ModelTrim
from ..plan.types import Blend, Plan, PlannedTensor
from .compute import Arithmetic, Computer
from .copy import Sources
from .readers import kernel_of
from .tracker import Cancelled


def surveyed(plan: Plan, how: Arithmetic, cancelled: Callable[[], bool] = lambda: False) -> Arithmetic:
    """The arithmetic with the thresholds of every tensor whose method trims over the whole model.

    Raises:
        SurgeonError: a donor's file is not what its header says, or a value is not finite.
        Cancelled: `cancelled` said so.
    """
    groups: dict[tuple[float, ...], list[tuple[PlannedTensor, Blend]]] = {}
    for tensor in plan.tensors:
        if isinstance(tensor.source, Blend) and (densities := kernel_of(tensor.source).whole_model) is not None:
            groups.setdefault(densities, []).append((tensor, tensor.source))
    trims = dict(how.trims)
    sources = Sources()
    try:
        for densities, group in groups.items():
            trim, computer = ModelTrim(densities), Computer(sources, how)
            while not trim.done:
                for number, (tensor, blend) in enumerate(group):
                    if cancelled():
                        raise Cancelled
                    trim.visit(number, computer.reader(tensor, blend).inputs)
                trim.end_pass()
            trims |= {tensor.name: trim.thresholds(number) for number, (tensor, _) in enumerate(group)}
    finally:
        sources.close()
    return replace(how, trims=trims)
