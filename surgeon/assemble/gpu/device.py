"""Choose the device on which torch computes."""

from __future__ import annotations

from ...errors import InputError
from ...text import one_line
from .cuda import Cuda, Gpu

DEVICES = ("auto", "cpu", "cuda", "mps")
"""The kinds of devices; `cuda:1` names one GPU."""


def pick_device(name: str) -> str:
    """The best device of this machine for `auto`, else the named device.

    Raises:
        InputError: there is no such device, or this machine does not have it.
    """
    import torch

    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and not (kind == "cuda" and index.isdecimal())):
        raise InputError(f"{one_line(name)!r} is not a device", remedy=f"choose one of {', '.join(DEVICES)}")
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if here[device])
    if not here[kind] or (index and int(index) >= torch.cuda.device_count()):
        raise InputError(f"this machine has no device {name}", remedy="use --device auto or cpu")
    return name


def blending_gpus(name: str) -> tuple[Gpu, ...]:
    """The GPUs for blends: all visible ones for `cuda` (and for `auto`, if there are any), one for `cuda:N`, none for
    the CPU. `auto` skips a device without float64, which reductions need.

    Raises:
        InputError: there is no such device, this machine does not have it, or it has no float64.
    """
    found = pick_device(name)
    if found == "mps" and name != "auto":
        raise InputError("blends cannot be computed on mps", why="it has no float64, which reductions need",
                         remedy="use --device cpu")  # fmt: skip
    kind, _, index = found.partition(":")
    if kind != "cuda":
        return ()
    import torch

    return tuple(Cuda(number) for number in ([int(index)] if index else range(torch.cuda.device_count())))
