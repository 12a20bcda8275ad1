"""What the blend screen chooses: donors, method and base for a range of layers. It has no widget."""

from __future__ import annotations

from ...errors import InputError
from ...methods.catalogue import every
from ...methods.registry import Method
from ...plan.layers.blending import counted
from ...recipe import stack
from ...recipe.edits import BlendLayers
from ...recipe.edits.blend_text import span
from ..session import Session
from .further_donors import Offer, Run, further_donors, in_place, why_not

COMMON_METHODS = ("slerp", "linear", "ties", "task_arithmetic", "dare_ties", "nuslerp", "model_stock", "della")
"""The methods most recipes use, before the others."""


class BlendChoice:
    """The blend as it is chosen so far.

    Args:
        session: donors, recipe, register.
        start: the first output layer.
        stop: one past the last.
        only_method: the layers keep their donors, and only the method is chosen.

    Attributes:
        offers: donors that can be chosen; the last ones cannot be blended.
        runs: the chosen ones.

    Raises:
        InputError: nothing can come of it.
    """

    def __init__(self, session: Session, start: int, stop: int, *, only_method: bool = False) -> None:
        self.session, self.start, self.stop, self.only_method = session, start, stop, only_method
        slices = session.recipe.explicit(session.donors.depth)
        self.sources = in_place(session, start, stop)
        self.blended = any(len(layer) > 1 for layer in self.sources)
        parts = stack.take(slices, start, stop)
        part = next((part for part in parts if len(part.sources) > 1), parts[0])
        self.current_method = part.merge_method or session.recipe.merge_method
        self.current_base = part.base_model or session.recipe.base_model
        known = every()
        names = [name for name in COMMON_METHODS if name in known]
        self.methods = [known[name] for name in (*names, *(n for n in known if n not in (*names, "passthrough")))]
        self.base: str | None = None
        self.offers = [] if only_method else self._offers()
        self._check()
        self.runs: tuple[Run, ...] = self._first_runs()

    @property
    def count(self) -> int:
        """Number of layers."""
        return self.stop - self.start

    def _offers(self) -> list[Offer]:
        offers = further_donors(self.session, self.sources)
        held = self.session.register
        if held and len(held.runs) == 1 and held.count == self.count and held.runs[0] not in self.runs_in_place():
            run = held.runs[0]
            offers = [offer for offer in offers if offer.run != run]
            offers.insert(0, Offer(run, why_not(self.session, self.sources, run)))
            offers.sort(key=lambda offer: bool(offer.why_not))
        return offers

    def _check(self) -> None:
        """InputError if nothing can come of any choice."""
        where = f"layers {span(self.start, self.stop)}" if self.count > 1 else f"layer {self.start}"
        if self.only_method and not self.blended:
            raise InputError(f"{where} is not a blend" if self.count == 1 else f"there is no blend among {where}",
                             remedy="b blends with another donor")  # fmt: skip
        if self.blended or any(not offer.why_not for offer in self.offers):
            return
        if self.offers:
            raise InputError(f"no other donor can be blended with {where}", why=self.offers[0].why_not)
        others = [ref for ref in self.session.models if ref not in {ref for ref, _ in self.sources[0]}]
        letter = self.session.letters[self.sources[0][0][0]]
        if others:
            raise InputError(f"no other donor has {self.count} layers to blend with {where}", remedy="select fewer")
        raise InputError(
            f"there is no other donor to blend with {where}",
            remedy=f"open one with o, or yank as many layers of {letter} with y first",
        )

    def _first_runs(self) -> tuple[Run, ...]:
        held = self.session.register
        here = [offer.run for offer in self.offers if not offer.why_not]
        if here and held and held.runs == (here[0],):
            return (here[0],)
        return () if self.blended else (here[0],) if here else ()

    def runs_in_place(self) -> set[Run]:
        """The runs of donors that the layers already consist of."""
        firsts = self.sources[0] if self.sources else ()
        return {(ref, layer, layer + self.count) for ref, layer in firsts}

    def toggle(self, offer: Offer) -> None:
        """Choose a donor, or no longer. InputError if it cannot be blended."""
        if offer.run in self.runs:
            self.runs = tuple(run for run in self.runs if run != offer.run)
        elif offer.why_not:
            raise InputError(f"{self.session.letters.get(offer.run[0], 'it')} cannot be blended", why=offer.why_not)
        else:
            self.runs = (*self.runs, offer.run)

    def type(self, runs: tuple[Run, ...]) -> None:
        """Choose these runs; those that were not offered are from now on."""
        known = {offer.run for offer in self.offers}
        added = [Offer(run, why_not(self.session, self.sources, run)) for run in runs if run not in known]
        self.offers = [*added, *self.offers]
        self.runs = runs

    def next_donor(self, step: int) -> None:
        """Take only the next donor; layers that are blends already can also have none."""
        choices: list[tuple[Run, ...]] = [(offer.run,) for offer in self.offers if not offer.why_not]
        if self.blended:
            choices.insert(0, ())
        if choices:
            index = choices.index(self.runs) + step if self.runs in choices else 0
            self.runs = choices[index % len(choices)]

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
        sources = max(self.sources, key=len) if self.only_method else self.sources[0]
        members = {ref for ref, _ in sources} | {ref for ref, _, _ in self.runs}
        base = self.base_of(method) or self.current_base
        count = len(sources) + len(self.runs) - (method.subtracts and base in members)
        if method.base == "start" and base is not None and base not in members and self.base_of(method) is not None:
            count += 1
        low, high = method.donors
        if count >= low and (high is None or count <= high):
            return ""
        return f"takes {counted(method.donors)}" + (" plus the base" if method.subtracts else "")
