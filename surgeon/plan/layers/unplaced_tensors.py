"""Tensors outside the layers and the three ends: other heads, vision towers, projectors, tables per layer, MTP layers.

A recipe that blends whole models blends these as well. In any other recipe the heads follow the language-model head,
and the rest comes from the donor of the config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ...checkpoint import TensorEntry
from ...checkpoint.families.naming import Place
from ...checkpoint.tensor_equality import alike
from ...recipe import stack
from ...text import one_line, plural
from ..ends.end_owners import Owner, Owners
from ..findings import Finding
from ..model import Donor, PlannedTensor
from ..operands import Blend
from ..planned_slices import PlannedSlice, single
from . import unused_tensors
from .blending import computable
from .layer_tensors import Filler

HEADS = (
    "score.", "classifier.", "qa_outputs.", "multiple_choice_head.", "v_head.", "value_head.", "reward_head.",
    "regression_head.", "head.", "lm_head.", "hc_head.", "hc_pre.hc_head.", "altup_unembed_projections.",
)  # fmt: skip
"""What names of modules that run on what the last layers give begin with, beside the final norm and the head."""

_PAGES = 4
_SHOWN = 3


def blends_whole_models(planned: Sequence[PlannedSlice], by_ref: Mapping[str, Donor]) -> bool:
    """Whether every slice takes the same donors, each of them whole, with all layers in their places."""
    refs = {source.model for source in planned[0].sources}
    depth = 0
    for part in planned:
        several = len(part.sources) > 1
        if part.method is None or (several and part.name == "passthrough"):
            return False
        if {source.model for source in part.sources} != refs:
            return False
        if any(stack.span(source)[0] != depth for source in part.sources):
            return False
        depth += stack.length(part.slice)
    return all(ref in by_ref and by_ref[ref].checkpoint.depth == depth for ref in refs)


@dataclass
class Unplaced:
    """Plans these tensors, and remembers what a user should know of them.

    Attributes:
        filler: plans single tensors.
        who: who gives the ends.
        whole: who gives everything, where the recipe blends whole models; None elsewhere.
        moved: whether layers are in other places than in the donor of the config.
        used: donors that give something.
    """

    filler: Filler
    who: Owners
    whole: Owner | None
    moved: bool
    used: Sequence[Donor]
    _lacking: dict[str, list[str]] = field(default_factory=dict)
    _copied: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _by_token: list[str] = field(default_factory=list)
    _unchanged: dict[str, list[str]] = field(default_factory=dict)

    def tensors(self) -> tuple[PlannedTensor, ...]:
        """One for each such tensor of the donor of the config."""
        template = self.filler.template
        found = unused_tensors.others(template.checkpoint, self.moved)
        made = tuple(self._planned(name, entry) for name, entry in found.items())
        for tensor in made:
            if not isinstance(tensor.source, Blend):
                self._unchanged.setdefault(tensor.donor, []).append(tensor.name)
        return made

    def _planned(self, name: str, entry: TensorEntry) -> PlannedTensor:
        template = self.filler.template
        if self.filler.vocabulary is not None and _has_token_rows(template, entry):
            self._by_token.append(name)
        owner = self._owner(name)
        found = [donor.checkpoint.other.get(name) for donor in owner.donors]
        entries = [other for other in found if other is not None]
        if len(entries) < len(found):
            lacking = [d.letter for d, other in zip(owner.donors, found, strict=True) if other is None]
            self._lacking.setdefault(", ".join(lacking), []).append(name)
        else:
            operands = [donor.operand(other) for donor, other in zip(owner.donors, entries, strict=True)]
            same = len({operand.shape for operand in operands}) == 1
            if len(operands) == 1 or (same and computable(operands)):
                if not self._is_head(name):
                    self._compare(name, owner, entries[0])
                made = self.filler.unplaced(Place("other", -1, name), entries, owner, head=self._is_head(name))
                if made is not None:
                    return made
        self._compare(name, Owner((template,), single(template.ref)), entry)
        return self.filler.plain(Place("other", -1, name), entry, template)

    def _owner(self, name: str) -> Owner:
        if self.whole is None and self._is_head(name):
            return self.who.of("lm_head")
        return self.whole or Owner((self.filler.template,), single(self.filler.template.ref))

    def _is_head(self, name: str) -> bool:
        naming = self.filler.template.checkpoint.naming
        return name.startswith(HEADS) or (naming is not None and name.removeprefix(naming.base).startswith(HEADS))

    def _compare(self, name: str, owner: Owner, entry: TensorEntry) -> None:
        """Note the donors whose tensor of this name has no effect though it is another."""
        ignored = [
            donor.letter
            for donor in self.used
            if donor.letter not in owner.letters
            and (other := donor.checkpoint.other.get(name)) is not None
            and _differ(owner.first, entry, donor, other)
        ]
        if ignored:
            self._copied.setdefault((owner.first.letter, ", ".join(ignored)), []).append(name)

    def findings(self) -> Iterator[Finding]:
        """What is not blended, or stays behind; after `tensors`."""
        template = self.filler.template
        remedy = "blend whole models with `models:` to blend them, or set base_model to the donor that should give them"
        for letter, names in self._unchanged.items():
            yield Finding(
                "note",
                "other-tensors",
                f"{plural(len(names), 'tensor')} outside the layers {_comes(names)} unchanged from {letter}",
                f"for instance {one_line(names[0])}",
            )
        for (first, others), names in self._copied.items():
            yield Finding(
                "warning",
                "other-tensors-differ",
                f"{_some(names)} outside the layers {_comes(names)} from {first} alone",
                f"{others} has other values there, which have no effect",
                "" if self.whole else remedy,
            )
        for letters, names in self._lacking.items():
            yield Finding(
                "warning",
                "other-tensors-missing",
                f"{_some(names)} outside the layers {_comes(names)} from {template.letter}",
                f"{letters} has no such tensor to blend or to take",
                "use donors of one class",
            )
        held = template.checkpoint
        for donor in self.used:
            names = [name for name in unused_tensors.others(donor.checkpoint, self.moved) if name not in held.tensors]
            names = [name for name in names if not unused_tensors.is_rotary(name)]
            if names:
                yield Finding(
                    "warning",
                    "other-tensors-left",
                    f"{_some(names)} of {donor.letter} stay{'s' if len(names) == 1 else ''} behind",
                    f"{template.letter}, the donor of the config, has no such tensor",
                    f"set base_model to {donor.letter} if the output should have "
                    + ("it" if len(names) == 1 else "them"),
                )
        if self._by_token:
            yield Finding(
                "error",
                "token-table",
                f"{_some(self._by_token)} cannot follow the new vocabulary",
                "it has one row per token outside the embeddings and the head",
                "keep the vocabulary of the donors: leave out tokenizer_source and tokenizer",
            )


def _has_token_rows(donor: Donor, entry: TensorEntry) -> bool:
    table = donor.checkpoint.token_embedding
    return table is not None and len(entry.shape) == 2 and entry.shape[0] == table.shape[0]


def _differ(one: Donor, entry: TensorEntry, other: Donor, second: TensorEntry) -> bool:
    """Whether two tensors differ, as far as some pages tell; yes where a donor is more than its files."""
    if entry.name in one.overlay or second.name in other.overlay:
        return True
    with suppress(OSError):
        return not alike(entry, second, samples=_PAGES)
    return True


def _comes(names: Sequence[str]) -> str:
    return "comes" if len(names) == 1 else "come"


def _some(names: Sequence[str]) -> str:
    """The first of several names, and how many there are."""
    shown = one_line(", ".join(names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{plural(len(names), 'tensor')} ({shown}, ...)"
