"""Evaluate several models on a suite, one in memory at a time, and compare each with the base."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..checkpoint import open_checkpoint
from ..errors import InputError, SurgeonError
from ..plan.load import is_recipe, load_plan
from ..probe.environment import fitting_threads, peak_memory
from ..probe.probe_set import ProbeSet
from ..probe.score import score
from ..probe.subject import Subject, from_checkpoint, from_plan
from .harness import check_installed, task_measures
from .intervals import Difference, best_of, interval_of, paired_difference
from .losses import Reference, score_text
from .measures import Measure, set_measures, text_measures, warnings_of
from .suite import LoadedSuite


@dataclass(frozen=True)
class Target:
    """A model to evaluate.

    Attributes:
        ref: a path, a Hub id, or a recipe's path.
        name: its name in tables.
        path: the recipe's file, or the checkpoint's folder.
        recipe: the recipe's text; None for a checkpoint.
        donor: whether it is only evaluated as a donor of a recipe.
    """

    ref: str
    name: str
    path: Path
    recipe: str | None = None
    donor: bool = False

    def load(self, device: str) -> Subject:
        """The model in memory."""
        if self.recipe is not None:
            return from_plan(load_plan(self.path)[1], device)
        return from_checkpoint(open_checkpoint(self.ref), device)


@dataclass
class ModelScores:
    """The scores of one model, by the measure's name, and their differences to the base (none for the base)."""

    target: Target
    measures: dict[str, Measure] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    seconds: float = 0.0
    peak_memory: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluation:
    """The scores of all models; the first is the base.

    Attributes:
        suite: what they were evaluated on.
        models: the scores.
        retained: for each recipe, measure -> (the best checkpoint, difference to it).
        notes: warnings about the base.
    """

    suite: LoadedSuite
    models: list[ModelScores]
    retained: list[dict[str, tuple[str, Difference]]]
    notes: list[str]

    @property
    def measures(self) -> list[str]:
        """Every measure of any model, in order."""
        return list(dict.fromkeys(name for model in self.models for name in model.measures))

    def interval(self, model: ModelScores, measure: str) -> tuple[float, float]:
        """95 % interval of a measure of one model on its own."""
        return interval_of(model.measures[measure].units)


def targets_of(refs: Sequence[str], base: str | None = None, *, donors: bool = True) -> list[Target]:
    """The models to evaluate, each once, the base first.

    The base is `base`, else the first of `refs`; if that is the only one, and a recipe whose donors are evaluated, its
    base model, else its first donor.

    Raises:
        InputError: a checkpoint cannot be opened, or a recipe cannot be planned.
    """
    found: dict[str, Target] = {}
    first: str | None = None
    for ref in ([base] if base is not None else []) + list(refs):
        target, own_base, own_donors = _target(ref)
        found.setdefault(_key(target), target)
        if target.recipe is None:
            # A model that is named is no mere donor, also if an earlier recipe has it.
            found[_key(target)] = replace(found[_key(target)], donor=False)
        if donors:
            for donor in own_donors:
                found.setdefault(_key(donor), donor)
            if first is None and base is None and len(refs) == 1 and own_donors:
                first = _key(own_base or own_donors[0])
    order = [key for key in [first] if key is not None] + [key for key in found if key != first]
    named = [key for key in order if not found[key].donor or key == first]
    models = [found[key] for key in (*named, *(key for key in order if key not in named))]
    return _renamed(models)


def _key(target: Target) -> str:
    return os.path.realpath(target.path)


def _target(ref: str) -> tuple[Target, Target | None, list[Target]]:
    """A model, and of a recipe its base model and its donors."""
    if not is_recipe(ref):
        checkpoint = open_checkpoint(ref)
        return Target(ref, Path(ref).name or ref, Path(checkpoint.path)), None, []
    path = Path(ref)
    document, plan = load_plan(path)
    if not plan.ok:
        raise InputError(
            "the recipe cannot be carried out",
            where=ref,
            why=plan.errors[0].sentence().rstrip("."),
            remedy=f"see `surgeon plan {ref}`",
        )
    donors, base = [], None
    for donor in plan.donors.values():
        # A stage or a donor with an adapter is not a model on disk.
        if not donor.overlay and donor.checkpoint.config is not None:
            place = Path(donor.checkpoint.path)
            donors.append(Target(str(place), place.name or donor.ref, place, donor=True))
            if donor.ref == document.recipe.base_model:
                base = donors[-1]
    return Target(ref, path.stem, path, document.text), base, donors


def _renamed(models: list[Target]) -> list[Target]:
    """The models with names that occur once."""
    found: list[Target] = []
    for model in models:
        used = {other.name for other in found}
        name = model.name
        if name in used:
            name = model.ref if model.ref not in used else f"{model.ref} ({len(found) + 1})"
        found.append(replace(model, name=name))
    return found


def evaluate(
    targets: Sequence[Target],
    suite: LoadedSuite,
    *,
    device: str = "auto",
    tasks_from: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    done: Callable[[ModelScores], None] = lambda _: None,
) -> Evaluation:
    """Score every model on the suite and compare each with the first.

    Args:
        targets: the models, the base first; see `targets_of`.
        suite: what they are evaluated on.
        device: as for `probe`.
        tasks_from: a folder with further tasks for lm-evaluation-harness.
        say: shows the progress as a sentence.
        done: receives the scores of each model when they are complete.

    Raises:
        InputError: a model has no tokenizer, or a set does not fit it.
        SurgeonError: a model fails.
    """
    if suite.lm_eval:
        check_installed()
    reference = Reference(len(suite.texts))
    models: list[ModelScores] = []
    notes: list[str] = []
    for number, target in enumerate(targets):
        say(f"[{number + 1}/{len(targets)}] {target.name}: loading")
        try:
            scores = _scored(target, suite, device, tasks_from, reference, number == 0, len(targets) > 1, say)
        except SurgeonError as error:
            if error.where:
                raise
            kind = InputError if isinstance(error, InputError) else SurgeonError
            raise kind(error.what, where=target.ref, why=error.why, remedy=error.remedy) from error
        models.append(scores)
        if not number:
            notes = warnings_of(suite.sets, scores.measures, target.name)
        else:
            scores.differences = _differences(scores, models[0])
        done(scores)
    return Evaluation(suite, models, [_retained(model, models) for model in models], notes)


def _scored(
    target: Target,
    suite: LoadedSuite,
    device: str,
    tasks_from: Path | None,
    reference: Reference,
    first: bool,
    compared: bool,
    say: Callable[[str], None],
) -> ModelScores:
    """The scores of one model, which is in memory during this call only."""
    start = time.perf_counter()
    subject = target.load(device)
    scores = ModelScores(target)
    found: list[Measure] = []
    with fitting_threads(subject.parameters, subject.device):
        for name, probes in suite.sets.items():
            say(f"{target.name}: {name}, {len(probes.probes)} prompts")
            fitting = without_chats(subject, probes)
            if not fitting.probes:
                scores.notes.append(f"{name} is left out for {target.name}, because its tokenizer has no chat template")
                continue
            if len(fitting.probes) < len(probes.probes):
                scores.notes.append(f"chats of {name} are left out for {target.name}, which has no chat template")
            found += set_measures(name, list(score(subject, fitting)))
        for name, passages in suite.texts.items():
            say(f"{target.name}: {name}")
            found += text_measures(
                name,
                score_text(
                    subject,
                    passages,
                    name,
                    reference=None if first else reference,
                    keep=reference if first and compared else None,
                ),
            )
        if suite.lm_eval:
            found += task_measures(subject, suite.lm_eval, limit=suite.limit, include=tasks_from, say=say)
    scores.measures = {measure.name: measure for measure in found}
    scores.peak_memory = peak_memory(subject.device)
    scores.seconds = time.perf_counter() - start
    del subject
    gc.collect()
    return scores


def without_chats(subject: Subject, probes: ProbeSet) -> ProbeSet:
    """The probes that the model can be asked."""
    if subject.chat:
        return probes
    return replace(probes, probes=tuple(probe for probe in probes.probes if not probe.chat))


def _differences(model: ModelScores, base: ModelScores) -> dict[str, Difference]:
    found = {}
    for name, measure in model.measures.items():
        if name in base.measures:
            found[name] = paired_difference(base.measures[name].units, measure.units, measure.better)
    return found


def _retained(model: ModelScores, models: Sequence[ModelScores]) -> dict[str, tuple[str, Difference]]:
    """For a recipe: the difference to the best checkpoint on each measure with a direction."""
    checkpoints: Mapping[str, ModelScores] = {
        one.target.name: one for one in models if one.target.recipe is None and one is not model
    }
    if model.target.recipe is None or not checkpoints:
        return {}
    found = {}
    for name, measure in model.measures.items():
        measured = {who: one.measures[name].units for who, one in checkpoints.items() if name in one.measures}
        best = best_of(measured, measure.better)
        if best is not None:
            found[name] = (best, paired_difference(measured[best], measure.units, measure.better))
    return found
