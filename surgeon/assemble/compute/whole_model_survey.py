"""Survey a whole model before its first tensor is blended, for trims over all tensors (`scope: model`)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace

from ...methods.whole_model_trim import ModelTrim
from ...plan.model import Plan, PlannedTensor
from ...plan.operands import Blend
from ..gpu.staging import Lane
from ..io.byte_copy import Sources
from ..progress_tracker import Cancelled
from .arithmetic import Arithmetic, Computer
from .operand_readers import kernel_of


def surveyed(
    plan: Plan, how: Arithmetic, cancelled: Callable[[], bool] = lambda: False, lane: Lane | None = None
) -> Arithmetic:
    """The arithmetic with the thresholds of every tensor whose method trims over the whole model.

    The survey runs on `lane` if it is given, else on the CPU.

    Raises:
        SurgeonError: a donor's file differs from its header, or a value is not finite.
        Cancelled: `cancelled` returned True.
    """
    groups: dict[tuple[float, ...], list[tuple[PlannedTensor, Blend]]] = {}
    for tensor in plan.tensors:
        if isinstance(tensor.source, Blend) and (densities := kernel_of(tensor.source).whole_model) is not None:
            groups.setdefault(densities, []).append((tensor, tensor.source))
    trims = dict(how.trims)
    sources = Sources()
    try:
        with lane.working() if lane else nullcontext():
            for densities, group in groups.items():
                trim = ModelTrim(densities)
                while not trim.done:
                    for number, (tensor, blend) in enumerate(group):
                        if cancelled():
                            raise Cancelled
                        trim = _visited(trim, number, Computer(sources, how, lane), tensor, blend)
                    trim.end_pass()
                trims |= {tensor.name: trim.thresholds(number) for number, (tensor, _) in enumerate(group)}
    finally:
        sources.close()
    return replace(how, trims=trims)


def _visited(trim: ModelTrim, number: int, computer: Computer, tensor: PlannedTensor, blend: Blend) -> ModelTrim:
    """The trim after it has visited a tensor; on a GPU, chunks are halved until they fit."""
    import torch

    while True:
        found = deepcopy(trim) if computer.lane else trim  # a failed visit would have counted part of the tensor
        try:
            found.visit(number, computer.reader(tensor, blend).inputs)
            return found
        except torch.OutOfMemoryError as error:
            computer.shrink(tensor, error)
        if computer.lane:
            computer.lane.gpu.forget()
