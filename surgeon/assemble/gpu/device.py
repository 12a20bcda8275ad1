"""Which device torch may be asked to compute on."""

from __future__ import annotations

from ...errors import InputError
from ...text import one_line
from .cuda import Cuda, Gpu

DEVICES = ("auto", "cpu", "cuda", "mps")
"""What can be asked for, `cuda:1` besides."""


def pick_device(name: str) -> str:
    """`auto` as the best device here; a named device if it is here.

    Raises:
        InputError: no such device, or not on this machine.
    """
    import torch

    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and not (kind == "cuda" and index.isdecimal())):
        raise InputError(f"{one_line(name)!r} is not a device", remedy=f"choose one of {', '.join(DEVICES)}")
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if here[device])
    if not here[kind] or (index and int(index) >= torch.cuda.device_count()):
        raise InputError(f"there is no device {name} here", remedy="use --device auto or cpu")
    return name


def blending_gpus(name: str) -> tuple[Gpu, ...]:
    """The GPUs for blends: all that can be seen for `cuda` (or `auto`, where there is one), one for `cuda:N`, none for
    the CPU. `auto` passes over a device that cannot sum in float64.

    Raises:
        InputError: no such device, not on this machine, or it has no float64.
    """
    found = pick_device(name)
    if found == "mps" and name != "auto":
        raise InputError("blends cannot be computed on mps", why="it has no float64, which sums are made in",
                         remedy="use --device cpu")  # fmt: skip
    kind, _, index = found.partition(":")
    if kind != "cuda":
        return ()
    import torch

    return tuple(Cuda(number) for number in ([int(index)] if index else range(torch.cuda.device_count())))
