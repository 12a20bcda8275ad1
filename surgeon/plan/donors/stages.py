"""Merges in stages: an earlier document of a recipe is a donor, whose tensors are computed when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from ...checkpoint import Checkpoint, TensorEntry
from ...checkpoint.checkpoint import assembled
from ...checkpoint.families.model_config import ModelConfig
from ...recipe.document import Document
from ...text import one_line
from ..findings import Finding
from ..model import Plan, PlannedTensor
from ..operands import Blend, Convert, Copy, Operand, Stored
from .open_donors import Donors, StageDonor


@dataclass(frozen=True)
class Stages:
    """The earlier stages of a recipe, planned.

    Attributes:
        by_name: those that can be donors.
        findings: their findings, with the stage's name.
        taken: number of donors' layers that they take.
    """

    by_name: Mapping[str, StageDonor] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    taken: int = 0

    def with_findings(self, *findings: Finding) -> Stages:
        """These, with more findings."""
        return replace(self, findings=(*self.findings, *findings))


Resolve = Callable[[Document, Donors, Stages], Plan]


def plan_stages(document: Document, donors: Donors, resolve: Resolve) -> Stages:
    """Plan every earlier stage that the recipe uses, each once.

    Args:
        resolve: plans one document, given the stages planned before it.
    """
    by_name = {stage.recipe.name: stage for stage in document.stages if stage.recipe.name}
    done: set[str] = set()
    failed: set[str] = set()

    def visit(current: Document, above: tuple[str, ...], made: Stages) -> Stages:
        for ref in current.recipe.model_refs():
            if ref in above:
                # A stage that is planned alone is not in `by_name`.
                made = made.with_findings(_circle(by_name.get(ref, current), ref))
            elif ref in by_name and ref not in done:
                stage = by_name[ref]
                made = visit(stage, (*above, ref), made)
                done.add(ref)
                if failed.isdisjoint(stage.recipe.model_refs()):
                    made = _with_stage(made, stage, ref, donors, resolve)
                if ref not in made.by_name:
                    # A plan of a stage that uses it would only report that it is missing.
                    failed.add(ref)
        return made

    name = document.recipe.name
    made = visit(document, (name,) if name else (), Stages())
    return made.with_findings(*(_unused(by_name[name], str(name)) for name in by_name.keys() - done))


def _with_stage(made: Stages, stage: Document, name: str, donors: Donors, resolve: Resolve) -> Stages:
    """The stages with one more; only its findings if it cannot be a donor."""
    refs = tuple(stage.recipe.model_refs())
    serials = tuple(made.by_name[ref].serial for ref in refs if ref in made.by_name)
    # Findings name lines, letters and unknown keys.
    key = (stage.recipe, dict(stage.lines), stage.key_problems, donors.first, serials)
    stage_donor = donors.planned_stage(name, key)
    if stage_donor is None:
        plan = resolve(stage, donors, made)
        findings = tuple(_findings(stage, name, plan))
        taken = sum(len(layer.sources) for layer in plan.layers)
        if not (plan.ok and plan.config is not None and plan.config_donor is not None):
            return replace(made.with_findings(*findings), taken=made.taken + taken)
        labels = tuple(layer.label for layer in plan.layers)
        stage_donor = StageDonor(as_checkpoint(name, plan), overlay(plan), refs, key, findings, taken, labels)
        donors.keep_stage(name, stage_donor)
    return Stages(
        {**made.by_name, name: stage_donor}, (*made.findings, *stage_donor.findings), made.taken + stage_donor.taken
    )


def _findings(stage: Document, name: str, plan: Plan) -> Iterator[Finding]:
    """The findings about a stage that the whole recipe reports."""
    for finding in plan.findings:
        if finding.severity != "note":
            what = f"Stage {one_line(name)}: {finding.what}"
            yield Finding(finding.severity, finding.code, what, finding.why, finding.remedy, line=finding.line)
    if plan.ok and plan.config is not None and plan.config_donor is not None:
        yield Finding(
            "note",
            "stage",
            f"{one_line(name)} is computed when it is read, without intermediate rounding",
            "it is an earlier document of this recipe",
            line=stage.line("name"),
        )


def _circle(stage: Document, name: str) -> Finding:
    return Finding(
        "error",
        "stage-circle",
        f"Stage {one_line(name)} needs itself",
        "stages cannot use each other in a circle",
        "name another donor",
        line=stage.line("name"),
    )


def _unused(stage: Document, name: str) -> Finding:
    return Finding(
        "warning",
        "stage-unused",
        f"Stage {one_line(name)} is not used",
        "no document that contributes to the result names it",
        "remove it, or use it as a model",
        line=stage.line("name"),
    )


def as_checkpoint(name: str, plan: Plan) -> Checkpoint:
    """A plan as the checkpoint that it would be on disk; its tensors are in no file."""
    assert plan.config is not None and plan.config_donor is not None
    template = plan.donors[plan.config_donor].checkpoint
    no_file = Path(f"<{name}>")
    tensors = {t.name: TensorEntry(t.name, t.dtype, t.shape, no_file, 0, t.nbytes) for t in plan.tensors}
    return assembled(name, template.folder, tensors, ModelConfig.of(plan.config))


def overlay(plan: Plan) -> Mapping[str, Operand]:
    """The operand of each tensor of a plan, by name."""
    return MappingProxyType({tensor.name: _operand(tensor) for tensor in plan.tensors})


def _operand(tensor: PlannedTensor) -> Operand:
    source = tensor.source
    if isinstance(source, Copy):
        return Stored(source.entry)
    if isinstance(source, Convert):
        scale = ((("scale", source.factor),),)
        return Blend("passthrough", (Stored(source.entry),), None, (), scale, (0,), tensor.dtype)
    return source
