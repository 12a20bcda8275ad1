"""A recipe and its donors, opened: what every phase of planning reads and none changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..recipe.document import Document
from ..recipe.schema import Recipe
from .donors.open_donors import Donors, StageDonor
from .donors.stages import Stages
from .model import Donor
from .planned_slices import PlannedSlice, SliceRow, parts


@dataclass(frozen=True)
class Context:
    """A recipe and its donors.

    Attributes:
        document: the recipe.
        by_letter: its donors, those of earlier stages among them.
        by_ref: those that it names itself.
        names: the letter of each reference.
        failed: references that could not be opened, with the reason.
        roots: folders that relative paths are looked for in.
        slices: its slices, every source written out.
        stack: its output layers.
        stages: its earlier stages.
    """

    document: Document
    by_letter: Mapping[str, Donor]
    by_ref: Mapping[str, Donor]
    names: Mapping[str, str]
    failed: Mapping[str, InputError]
    roots: tuple[Path, ...]
    slices: Sequence[PlannedSlice]
    stack: Sequence[SliceRow]
    stages: Stages

    @property
    def recipe(self) -> Recipe:
        """The recipe's values."""
        return self.document.recipe

    def template(self) -> Donor | None:
        """The donor of everything global: base_model, else the first slice's first donor."""
        refs = [self.recipe.base_model] if self.recipe.base_model else []
        refs += [part.slice.sources[0].model for part in self.slices]
        return next((self.by_ref[ref] for ref in refs if ref in self.by_ref), None)


def open_models(document: Document, donors: Donors, stages: Stages) -> Context:
    """Open the donors, and write out the slices."""
    recipe = document.recipe
    refs = recipe.model_refs()
    wanted = [*refs, *_inner(refs, stages.by_name)]
    by_letter, failed, names = donors.lettered(wanted, recipe.base_model, stages.by_name)
    by_ref = {donor.ref: donor for donor in by_letter.values() if donor.ref in refs}
    failed = {ref: error for ref, error in failed.items() if ref in refs}
    depth_of = depths(by_ref)
    slices = parts(recipe, recipe.explicit(depth_of), depth_of)
    return Context(document, by_letter, by_ref, names, failed, donors.roots, slices, (), stages)


def depths(by_ref: Mapping[str, Donor]) -> Callable[[str], int]:
    """Layers of a donor by its reference; 0 where it could not be opened, which is an error finding."""
    return lambda ref: by_ref[ref].checkpoint.depth if ref in by_ref else 0


def _inner(refs: Sequence[str], stages: Mapping[str, StageDonor]) -> Iterator[str]:
    """The donors of stages, each once, for they are donors of the result too."""
    seen: set[str] = set()
    waiting = list(reversed(refs))
    while waiting:
        ref = waiting.pop()
        stage = stages.get(ref)
        if stage is not None and ref not in seen:
            seen.add(ref)
            yield from stage.refs
            waiting += reversed(stage.refs)
