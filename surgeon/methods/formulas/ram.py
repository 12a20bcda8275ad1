"""Reinforced agent merging (RAM): changes of a single donor are added in full, changes of several are averaged."""

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
EPSILON = "differences from the base up to this count as zero"


@dataclass
class Reinforced(Kernel):
    """The base plus, for every element, the mean difference over the donors that changed it.

    Attributes:
        epsilon: a difference must exceed it to count.
        gain, most: changes of a single donor are multiplied by 1 + gain * min(ratio, most). The ratio is the number of
            a donor's changes that others share over the number that they do not share.
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
    """The base plus, for every element, the mean difference of the donors that changed it."""
    return Reinforced(epsilon)


@method(donors=(1, None), base="required", source=f"{SOURCE} (RAM+)")
def ramplus_tl(
    *,
    epsilon: float = one(1e-5, low=0, help=EPSILON),
    r: float = one(0.1, help="how much unshared changes of a donor grow with its ratio of shared to unshared changes"),
    alpha: float = one(0.2, low=0, help="the upper limit of this ratio"),
) -> Kernel:
    """RAM; a donor's unshared changes are amplified in proportion to its ratio of shared to unshared changes."""
    return Reinforced(epsilon, r, alpha)
