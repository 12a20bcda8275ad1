"""Nearswap: takes the donor's value where it is near the base, else moves the base towards it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..kernel import Inputs, Kernel, subtract
from ..registry import method, one

if TYPE_CHECKING:
    import torch

CLOSEST = 1e-6
"""Lower bound of `t` in the formula, as in mergekit."""


@dataclass
class Approach(Kernel):
    """base + the donor's difference from it, clamped to [-t, t]."""

    t: float
    _base: int = 0

    def survey(self, inputs: Inputs) -> None:
        assert inputs.base is not None, "the base is required"
        self._base = inputs.base

    def blend(self, start: int, chunks: list[torch.Tensor]) -> torch.Tensor:
        base, (delta,) = chunks[self._base], subtract(chunks, self._base)
        furthest = max(self.t, CLOSEST)
        return base.add_(delta.clamp_(-furthest, furthest), alpha=max(self.t, 0.0) / furthest)


@method(donors=1, base="required", source="mergekit's nearswap, after alchemonaut")
def nearswap(*, t: float = one(help="the base moves at most this far towards the donor")) -> Kernel:
    """The donor's value where it is within `t` of the base, else the base moved by `t` towards the donor.

    The result is the base if t is 0 or less.
    """
    return Approach(t)
