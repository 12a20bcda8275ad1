"""What the blend screen chooses: donors, method and base for a range of layers. It has no widget."""

from __future__ import annotations

from ...methods.catalogue import every
from ...methods.registry import Method
from ...plan.layers.blending import counted
from ...recipe import stack
from ...recipe.edits import BlendLayers
from ..session import Session

Run = tuple[str, int, int]
COMMON_METHODS = ("slerp", "linear", "ties", "task_arithmetic", "dare_ties", "nuslerp", "model_stock", "della")
"""The methods most recipes use, before the others."""


class BlendChoice:
    """The blend as it is chosen so far.

    Args:
        session: donors, recipe, register.
        start: the first output layer.
        stop: one past the last.
    """

    def __init__(self, session: Session, start: int, stop: int) -> None:
        self.session, self.start, self.stop = session, start, stop
        slices = session.recipe.explicit(session.donors.depth)
        self.sources = [cell.sources for cell in stack.cells(slices)][start:stop]
        self.blended = any(len(layer) > 1 for layer in self.sources)
        parts = stack.take(slices, start, stop)
        self.current_method = parts[0].merge_method or session.recipe.merge_method
        self.current_base = parts[0].base_model or session.recipe.base_model
        known = every()
        names = [name for name in COMMON_METHODS if name in known]
        self.methods = [known[name] for name in (*names, *(n for n in known if n not in (*names, "passthrough")))]
        self.base: str | None = None
        self.runs: tuple[Run, ...] = self._first_runs()

    @property
    def count(self) -> int:
        """Number of layers."""
        return self.stop - self.start

    def _first_runs(self) -> tuple[Run, ...]:
        held = self.session.register
        if held and len(held.runs) == 1 and held.count == self.count and held.runs[0] not in self.runs_in_place():
            return held.runs
        return () if self.blended else next(iter(self.further_donors()), ())

    def runs_in_place(self) -> set[Run]:
        """The runs of donors that the layers already consist of."""
        firsts = self.sources[0] if self.sources else ()
        return {(ref, layer, layer + self.count) for ref, layer in firsts}

    def further_donors(self) -> list[tuple[Run, ...]]:
        """For each further donor its layers of the same numbers, or the nearest that it has."""
        first = self.sources[0][0][1] if self.sources else self.start
        found: list[tuple[Run, ...]] = []
        for ref in self.session.models:
            checkpoint = self.session.checkpoint(ref)
            if checkpoint is None or checkpoint.depth < self.count:
                continue
            start = min(first, checkpoint.depth - self.count)
            if (ref, start, start + self.count) not in self.runs_in_place():
                found.append(((ref, start, start + self.count),))
        return found

    def next_donor(self, step: int) -> None:
        """Take the next further donor; layers that are blends already can also have none."""
        further_donors = [*([()] if self.blended else []), *self.further_donors()]
        if further_donors:
            index = further_donors.index(self.runs) + step if self.runs in further_donors else 0
            self.runs = further_donors[index % len(further_donors)]

    def bases(self, method: Method) -> list[str | None]:
        """The models that can be the base; None leaves it as it is."""
        if method.base == "none":
            return [None]
        inside = dict.fromkeys(ref for layer in self.sources for ref, _ in layer)
        members = list(dict.fromkeys([*inside, *(ref for ref, _, _ in self.runs)]))
        others = [] if method.base == "start" else [ref for ref in self.session.models if ref not in members]
        unsaid = [] if method.base == "required" and self.current_base is None else [None]
        return [*unsaid, *(ref for ref in (*members, *others) if ref != self.current_base)]

    def base_of(self, method: Method) -> str | None:
        """The base that the edit sets: the chosen one if the method allows it, else the first that it allows."""
        options = self.bases(method)
        return self.base if self.base in options else options[0]

    def next_base(self, method: Method) -> None:
        """Take the next base."""
        options = self.bases(method)
        self.base = options[(options.index(self.base_of(method)) + 1) % len(options)]

    def edit(self, method: Method) -> BlendLayers:
        """The edit, without parameters."""
        return BlendLayers(self.start, self.stop, self.runs, method.name, self.base_of(method))

    def why_unsuitable(self, method: Method) -> str:
        """Why a method does not take this number of donors; empty when it does."""
        members = {ref for ref, _ in self.sources[0]} | {ref for ref, _, _ in self.runs}
        base = self.base_of(method) or self.current_base
        count = len(self.sources[0]) + len(self.runs) - (method.subtracts and base in members)
        if method.base == "start" and base is not None and base not in members and self.base_of(method) is not None:
            count += 1
        low, high = method.donors
        if count >= low and (high is None or count <= high):
            return ""
        return f"takes {counted(method.donors)}" + (" plus the base" if method.subtracts else "")
