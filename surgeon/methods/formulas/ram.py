"""Task vectors of reinforced models: what one donor alone changed stays whole, what several changed is averaged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..kernel import Inputs, Kernel, differences, subtract
from ..kth_largest import shrink
from ..registry import method, one
from ..sign_consensus import total

if TYPE_CHECKING:
    import torch

SOURCE = "Reinforced Agent Merging 2026, arXiv 2601.13572"
EPSILON = "smaller differences from the base count as none"


@dataclass
class Reinforced(Kernel):
    """Sums of differences that one donor has, and means of those that several have.

    Attributes:
        epsilon: what a difference must exceed to count.
        gain, most: factor and limit of the amplification of what one donor alone changed; see `ramplus_tl`.
    """

    epsilon: float
    gain: float = 0.0
    most: float = 0.0
    _base: int = 0
    _factors: list[float] = field(default_factory=list)

    def survey(self, inputs: Inputs) -> None:
        assert inputs.base is not None, "the base is required"
        self._base = inputs.base
        alone, shared = [0.0] * len(inputs.others), [0.0] * len(inputs.others)
        for _, deltas in differences(inputs, inputs.others) if self.gain else ():
            active = [shrink(delta, self.epsilon).sign_().abs_() for delta in deltas]
            count = total(active)
            unique = (2 - count).relu_()  # 1 where one donor is active; where none is, `mine` is 0
            for donor, mine in enumerate(active):
                here = int(mine.mul(unique).count_nonzero())
                alone[donor] += here
                shared[donor] += int(mine.count_nonzero()) - here
        ratios = [many / max(one_, self.epsilon) if many else 0.0 for one_, many in zip(alone, shared, strict=True)]
        self._factors = [1 + self.gain * min(max(ratio, 0.0), self.most) for ratio in ratios]

    def blend(self, start: int, chunks: list[torch.Tensor]) -> torch.Tensor:
        base, deltas = chunks[self._base], subtract(chunks, self._base)
        active = [shrink(delta, self.epsilon).sign().abs_() for delta in deltas]
        count = total(active).clamp_min_(1)
        unique = (2 - count).relu_()
        out = total(deltas).div_(count)
        for delta, factor in zip(deltas, self._factors, strict=True):
            if factor != 1:
                out.add_(delta.mul_(unique), alpha=factor - 1)
        return base.add_(out)


@method(donors=(1, None), base="required", source=SOURCE)
def ram(*, epsilon: float = one(1e-5, low=0, help=EPSILON)) -> Kernel:
    """The base plus what donors differ from it by: whole where one donor does, the mean of those that do elsewhere."""
    return Reinforced(epsilon)


@method(donors=(1, None), base="required", source=f"{SOURCE} (RAM+)")
def ramplus_tl(
    *,
    epsilon: float = one(1e-5, low=0, help=EPSILON),
    r: float = one(0.1, help="how much a donor's own changes grow with the share of changes that others have too"),
    alpha: float = one(0.2, low=0, help="the largest such share that counts"),
) -> Kernel:
    """RAM, with what a donor alone changed made larger the more of its changes others have too."""
    return Reinforced(epsilon, r, alpha)
