"""The trim of TIES over a whole model: the largest k elements of the task vector of all tensors (arXiv 2306.01708).

All tensors are read several times before the first one is written:

    trim = ModelTrim(kernel.whole_model)            # the same for the kernels of all blended tensors
    while not trim.done:
        for number, inputs in enumerate(tensors):   # in the plan's order; or spread over workers, see `absorb`
            trim.visit(number, inputs)
        trim.end_pass()
    kernel.give(trim.thresholds(number))            # then survey and blend as usual

It takes up to three passes and 2^16 counters per donor, independent of the size of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .histogram_search import TOP, Search
from .kernel import Inputs, Threshold
from .magnitude_masks import Deltas, kept


class ModelTrim:
    """Finds, per donor, the threshold of the largest max(1, int(density * n)) of the n elements of all tensors.

    Of equal magnitudes, those of earlier tensors count as larger, and in a tensor those with a lower index.

    Attributes:
        done: no more passes are needed.
    """

    def __init__(self, densities: Sequence[float]) -> None:
        """`densities` are per donor, without the base."""
        self.densities = tuple(densities)
        self.done = False
        self._searches = [Search(0) for _ in densities]
        self._numel = 0
        self._counting = False
        self._equal: list[Counter[int]] = [Counter() for _ in densities]

    def visit(self, number: int, inputs: Inputs) -> None:
        """Count the elements of one tensor in this pass; `number` is the tensor's position in the order."""
        self._numel += inputs.numel
        which = [donor for donor, density in enumerate(self.densities) if 0 < density < 1]
        for _, found in Deltas(inputs).chunks(which) if which else ():
            for donor, keys in zip(which, found, strict=True):
                search = self._searches[donor]
                if self._counting:
                    self._equal[donor][number] += int((keys == search.key).count_nonzero())
                elif search.key < 0:
                    search.add(keys)

    def absorb(self, other: ModelTrim) -> None:
        """Add the counts of a copy that was made before this pass and visited other tensors in it."""
        self._numel += other._numel
        for search, more in zip(self._searches, other._searches, strict=True):
            if search.key < 0:
                search.absorb(more)
        for equal, others in zip(self._equal, other._equal, strict=True):
            equal.update(others)

    def end_pass(self) -> None:
        """End a pass in which every tensor was visited."""
        if self._counting:
            self.done = True
            return
        for search, density in zip(self._searches, self.densities, strict=True):
            if search.key < 0:
                search.k = kept(density, self._numel) if density < 1 else 0
                search.narrow()
        self._counting = all(search.key >= 0 for search in self._searches)
        self.done = self._counting and not any(0 < s.need < s.equal for s in self._searches)
        self._numel = 0

    def thresholds(self, number: int) -> tuple[Threshold, ...]:
        """The thresholds of one tensor, per donor."""
        return tuple(self._threshold(donor, number) for donor in range(len(self.densities)))

    def _threshold(self, donor: int, number: int) -> Threshold:
        search = self._searches[donor]
        if search.need >= search.equal:
            return Threshold(search.key if search.key < TOP else TOP, 0, 0)
        before = sum(count for tensor, count in self._equal[donor].items() if tensor < number)
        equal = self._equal[donor][number]
        return Threshold(search.key, equal, min(max(search.need - before, 0), equal))
