"""Divide a GPU's memory between workers, according to the needs of a plan's blends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from math import ceil, prod

from ...errors import InputError
from ...methods import kernel
from ...plan.model import Plan, PlannedTensor
from ...plan.operands import Adapted, Blend, Operand, Rows
from ...text import size
from ..gpu.staging import SPARE, Lane
from .arithmetic import Arithmetic, is_wide
from .operand_readers import kernel_of, need

FREE = 0.9
"""The share of a GPU's free memory that is used without --vram; other processes may need the rest."""

FITTED = 7 / 8
"""The share of a worker's memory that its chunks may fill; the rest is lost to fragmentation."""


def shares(free: int, vram: int | None, workers: int, least: int) -> tuple[int, int]:
    """The number of workers that fit on a GPU, and the bytes that the chunks of each may take.

    Args:
        free: free bytes of the GPU.
        vram: bytes that may be used; None without a limit.
        workers: wanted number of workers.
        least: bytes of one worker's smallest possible chunks.
    """
    room = min(int(free * FREE), free if vram is None else vram)
    count = max(1, min(workers, room // (SPARE + ceil(least / FITTED))))
    return count, max(0, int((room // count - SPARE) * FITTED))


def least_of(plan: Plan) -> int:
    """Bytes of the smallest possible chunks that suffice for each of the plan's blends."""
    blends = ((tensor, tensor.source) for tensor in plan.tensors if isinstance(tensor.source, Blend))
    return max((_least(tensor, blend) for tensor, blend in blends), default=0)


def _least(tensor: PlannedTensor, blend: Blend) -> int:
    return need(blend, 8 if is_wide(tensor, blend) else 4) * max(_smallest(blend), 1)


def _smallest(operand: Operand) -> int:
    """Elements of the smallest possible chunks of a blend and of the blends among its donors."""
    match operand:
        case Blend():
            shape, numel = operand.shape, prod(operand.shape)
            row = shape[-1] if len(shape) > 1 else numel
            own = max(kernel.BLOCK, row) if kernel_of(operand).unit == "row" else kernel.BLOCK
            return max([min(own, numel), *map(_smallest, operand.inputs)])
        case Adapted():
            return _smallest(operand.whole)
        case Rows():
            return max(map(_smallest, operand.parts))
    return 0


def check_vram(plan: Plan, vram: int) -> None:
    """Raise InputError if `vram` bytes of a GPU are too few for one worker."""
    least = SPARE + ceil(least_of(plan) / FITTED)
    if vram < least:
        raise InputError(
            f"--vram {size(vram)} is too little for this recipe",
            remedy=f"set at least {size(ceil(least / 1e6) * 1_000_000)}",
        )


@contextlib.contextmanager
def hired(how: Arithmetic, plan: Plan, workers: int) -> Iterator[list[Lane]]:
    """The lanes of `workers` workers, or of fewer if memory is short, with GPUs in turn; none without a GPU."""
    used = how.gpus[:workers]
    least = least_of(plan) if used else 0
    rows: list[list[Lane]] = []
    try:
        for number, gpu in enumerate(used):
            gpu.forget()
            wanted = len(range(number, workers, len(used)))
            count, room = shares(gpu.free(), how.vram, wanted, least)
            if how.vram is not None:
                gpu.limit(how.vram)
            rows.append([Lane(gpu, room) for _ in range(count)])
        yield _in_turn(rows)
    finally:
        for gpu in used if how.vram is not None else ():
            gpu.limit(None)


def _in_turn(rows: Sequence[Sequence[Lane]]) -> list[Lane]:
    most = max(map(len, rows), default=0)
    return [row[number] for number in range(most) for row in rows if number < len(row)]
