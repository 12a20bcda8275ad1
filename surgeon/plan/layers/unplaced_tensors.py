"""Tensors outside the layers and the three ends: other heads, vision towers, projectors, tables per layer, MTP layers.

A recipe that blends whole models blends these tensors too. In any other recipe the heads have the donors of the
language-model head, and the rest comes from the donor of the config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from ...checkpoint import TensorEntry
from ...checkpoint.families.naming import Place
from ...checkpoint.layer_weights import is_rotary
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
from .layer_tensors import TensorPlanner

HEADS = (
    "score.", "classifier.", "qa_outputs.", "multiple_choice_head.", "v_head.", "value_head.", "reward_head.",
    "regression_head.", "head.", "lm_head.", "hc_head.", "hc_pre.hc_head.", "altup_unembed_projections.",
)  # fmt: skip
"""Prefixes of modules that read the last layer's output, except final norm and language-model head."""

_PAGES = 4
_SHOWN = 3


def blends_whole_models(planned: Sequence[PlannedSlice], by_ref: Mapping[str, Donor]) -> bool:
    """Whether every slice takes the same donors, and all of these with all their layers in order."""
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
class UnplacedTensors:
    """Plans the tensors outside layers and ends, and records findings about them.

    Attributes:
        filler: plans single tensors.
        who: the donors of the ends.
        whole: the donors of all tensors, if the recipe blends whole models; else None.
        moved: whether any layer has another index than in the donor of the config.
        used: the donors that the output uses.
    """

    filler: TensorPlanner
    who: Owners
    whole: Owner | None
    moved: bool
    used: Sequence[Donor]
    _lacking: dict[str, list[str]] = field(default_factory=dict)
    _copied: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _by_token: list[str] = field(default_factory=list)
    _unchanged: dict[str, list[str]] = field(default_factory=dict)

    def tensors(self) -> tuple[PlannedTensor, ...]:
        """One planned tensor for each unplaced tensor of the donor of the config."""
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
        """Record the donors whose tensor of this name is ignored although its values differ."""
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
        """Findings about tensors that are not blended or left out. Call `tensors` first."""
        template = self.filler.template
        remedy = "blend whole models with `models:`, or set base_model to the donor whose values the output needs"
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
                f"the values of {others} differ and have no effect",
                "" if self.whole else remedy,
            )
        for letters, names in self._lacking.items():
            yield Finding(
                "warning",
                "other-tensors-missing",
                f"{_some(names)} outside the layers {_comes(names)} from {template.letter}",
                f"{letters} has no such tensor",
                "use donors of one class",
            )
        held = template.checkpoint
        for donor in self.used:
            names = [name for name in unused_tensors.others(donor.checkpoint, self.moved) if name not in held.tensors]
            names = [name for name in names if not is_rotary(name)]
            if names:
                yield Finding(
                    "warning",
                    "other-tensors-left",
                    f"{_some(names)} of {donor.letter} {'is' if len(names) == 1 else 'are'} left out",
                    f"{template.letter}, the donor of the config, has no such tensor",
                    f"set base_model to {donor.letter} if the output needs " + ("it" if len(names) == 1 else "them"),
                )
        if self._by_token:
            yield Finding(
                "error",
                "token-table",
                f"The rows of {_some(self._by_token)} cannot follow the new vocabulary",
                "surgeon reorders token rows only in the embeddings and the head",
                "keep the donors' vocabulary: remove tokenizer_source and tokenizer",
            )


def _has_token_rows(donor: Donor, entry: TensorEntry) -> bool:
    table = donor.checkpoint.token_embedding
    return table is not None and len(entry.shape) == 2 and entry.shape[0] == table.shape[0]


def _differ(one: Donor, entry: TensorEntry, other: Donor, second: TensorEntry) -> bool:
    """Whether two tensors differ in some sampled pages; True if either is computed or cannot be read."""
    if entry.name in one.overlay or second.name in other.overlay:
        return True
    with suppress(OSError):
        return not alike(entry, second, samples=_PAGES)
    return True


def _comes(names: Sequence[str]) -> str:
    return "comes" if len(names) == 1 else "come"


def _some(names: Sequence[str]) -> str:
    """A few names in full, or the number of names with the first few."""
    shown = one_line(", ".join(names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{plural(len(names), 'tensor')} ({shown}, ...)"
