"""The one interpreter of recipes: recipe and donors in, a Plan out, with everything wrong found on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..checkpoint import Checkpoint, dtypes
from ..recipe.document import Document
from .checks import lints, method_checks, recipe_checks, scale_filters, whole_model, workload
from .checks.donor_checks import compare, compare_ends
from .config import quantised
from .config.estimate import DEFAULT_SHARD, estimate
from .config.model_code import AUTO_MAP, model_code
from .config.output_config import in_place, output_config
from .context import Context, depths, open_models
from .donors.open_donors import Donors
from .donors.stages import Stages, plan_stages
from .ends.end_owners import Owner, Owners, owners, plan_ends
from .ends.token_rows import beyond, compare_tokenizers, fit_rows
from .findings import SEVERITIES, Finding
from .layers import unused_tensors
from .layers.layer_tensors import TensorPlanner
from .layers.unplaced_tensors import UnplacedTensors, blends_whole_models
from .model import Donor, Estimates, Plan, PlannedEnd, PlannedLayer, PlannedTensor
from .planned_slices import PlannedSlice, SliceRow, rows, single
from .tokenizer.output_tokenizer import new_tokenizer, with_tokenizer
from .tokenizer.output_vocabulary import Built, build

_COMPANIONS = (
    "generation_config.json", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
)  # fmt: skip
_MISSING_END = {role: PlannedEnd(role, None, "missing") for role in ("embeddings", "final_norm", "lm_head")}


def resolve(document: Document, donors: Donors, *, shard_size: int = DEFAULT_SHARD) -> Plan:
    """Decide every output tensor of a recipe.

    Args:
        document: the recipe, with its lines for the findings.
        donors: opens the checkpoints it names.
        shard_size: bytes per output file, for the estimates.

    Never raises for anything the recipe or its donors say: that is what the findings are for.
    """

    def one(stage: Document, known: Donors, before: Stages) -> Plan:
        # What was found in the stages before is reported once, by the whole recipe.
        return _resolve(stage, known, replace(before, findings=()), shard_size)

    plan = _resolve(document, donors, plan_stages(document, donors, one), shard_size)
    donors.layers.trim(len(plan.layers))
    return plan


def _resolve(document: Document, donors: Donors, stages: Stages, shard_size: int) -> Plan:
    """The plan of one document. The phases, in order: open, check, tokens, layers, ends, the rest, config, files."""
    context = open_models(document, donors, stages)
    findings = [*stages.findings, *_recipe_findings(context)]
    if endless := tuple(workload.too_much(context.recipe, context.slices, stages.taken)):
        return _finished(context, (), None, [*findings, *endless])
    context = replace(context, stack=rows(context.recipe, context.slices, depths(context.by_ref)))
    layers = _bare_layers(context.stack, context.names)
    template, unfit = context.template(), list(recipe_checks.spliceable(document, context.by_ref.values()))
    findings += [*unfit, *_stack_findings(context)]
    if template is None or not layers or unfit:
        return _finished(context, tuple(layers), None, findings)
    vocabulary, notes = _vocabulary(context)
    planner = TensorPlanner(document, context.by_ref, template, donors.layers, vocabulary)
    layers = [planner.layer(layer, row) for layer, row in zip(layers, context.stack, strict=True)]
    return _assembled(context, planner, layers, [*findings, *notes], shard_size)


def _recipe_findings(context: Context) -> Iterator[Finding]:
    """What can be said of the recipe's own text, and of donors that cannot be opened."""
    document = context.document
    yield from recipe_checks.keys(document)
    yield from recipe_checks.unsupported(document)
    yield from recipe_checks.comments(document)
    yield from recipe_checks.donors(document, context.failed, context.names)


def _stack_findings(context: Context) -> Iterator[Finding]:
    """What can be said of slices and methods before a tensor is planned."""
    slices = [part.slice for part in context.slices]
    yield from recipe_checks.slices(context.document, slices, context.by_ref, context.names)
    yield from method_checks.methods(context.document, context.slices, context.stack, context.names)


def _vocabulary(context: Context) -> tuple[Built | None, tuple[Finding, ...]]:
    """The output's vocabulary, where the recipe asks for one and it can be made."""
    recipe, by_ref = context.recipe, context.by_ref
    known = [by_ref[ref] for ref in recipe.model_refs() if ref in by_ref]
    base = by_ref.get(recipe.base_model or "")
    built = build(recipe, known, base, line=context.document.line, roots=context.roots)
    if built is None:
        return None, ()
    return (built if built.rows else None), tuple(built.findings)


def _bare_layers(stack: Sequence[SliceRow], names: Mapping[str, str]) -> list[PlannedLayer]:
    """The stack's provenance alone: what can always be shown, whatever else is wrong."""
    return [
        PlannedLayer(
            row.index,
            tuple((names[model], layer) for model, layer in row.sources),
            row.part.name,
            row.slice_index,
            base=row.part.base if row.part.method and row.part.method.subtracts else None,
        )
        for row in stack
    ]


def _outer_owners(planned: Sequence[PlannedSlice], by_ref: Mapping[str, Donor], template: Donor) -> tuple[Owner, Owner]:
    """Who gives the ends where the recipe leaves them to the slices: the sources of the first and of the last one."""
    found = []
    for part in (planned[0], planned[-1]):
        known = tuple(by_ref[source.model] for source in part.sources if source.model in by_ref)
        one = part.method is None or (part.name == "passthrough" and len(part.sources) > 1)
        if one or len(known) < len(part.sources):
            donor = known[0] if known else template
            found.append(Owner((donor,), single(donor.ref)))
        else:
            found.append(Owner(known, part))
    return found[0], found[1]


@dataclass(frozen=True)
class _Output:
    """The output's tensors, as far as they are planned.

    Attributes:
        rows: rows of the token tables; None where they are the donors' own.
        extra: tensors outside layers and ends.
        pairs: checkpoint and layer that each output layer's attributes are from.
    """

    planner: TensorPlanner
    layers: Sequence[PlannedLayer]
    owners: Owners
    ends: Mapping[str, PlannedEnd]
    rows: int | None
    extra: tuple[PlannedTensor, ...]
    pairs: Sequence[tuple[Checkpoint, int]]

    @property
    def outer(self) -> list[PlannedTensor]:
        """Those outside the layers."""
        return [*(tensor for end in self.ends.values() for tensor in end.tensors), *self.extra]


def _assembled(
    context: Context, planner: TensorPlanner, layers: Sequence[PlannedLayer], findings: list[Finding], shard_size: int
) -> Plan:
    """The plan around filled layers: ends, other tensors, config, tokenizer, estimates, and how all of it fits."""
    document, template = context.document, planner.template
    first, last = _outer_owners(context.slices, context.by_ref, template)
    who = owners(context.recipe, first, last, context.by_ref)
    ends, problems = plan_ends(context.recipe, who, planner.end, template)
    if endless := tuple(workload.too_deep(layers, [tensor for end in ends.values() for tensor in end.tensors])):
        bare = tuple(replace(layer, contents=None) for layer in layers)
        return _finished(context, bare, template, [*findings, *endless])
    built, rows = planner.vocabulary, None
    if built is None:
        ends, rows, notes = fit_rows(ends, who, template)
        problems += [*notes, *beyond(ends, who, template)]
    else:
        rows = built.rows
    used = [donor for donor in context.by_letter.values() if _is_used(donor, layers, who, template)]
    pairs = [
        (context.by_letter[layer.sources[0][0]].checkpoint, layer.sources[0][1]) for layer in layers if layer.planned
    ]
    moved = len(pairs) < len(layers) or not in_place(pairs)
    whole = first if blends_whole_models(context.slices, context.by_ref) else None
    unplaced = UnplacedTensors(planner, who, whole, moved, used)
    output = _Output(planner, layers, who, ends, rows, unplaced.tensors(), pairs)
    findings = [
        *findings,
        *_donor_findings(context, output, used, findings),
        *problems,
        *recipe_checks.base(document, template, used),
        *recipe_checks.warnings(used),
        *unplaced.findings(),
        *unused_tensors.findings(template, used, moved),
    ]
    code = model_code(template)
    config, problems = _config(context, output, code.dropped)
    findings += [*code.findings, *problems]
    if config is not None:
        findings += whole_model.findings(layers, output.outer)
        findings += scale_filters.filters(document, context.slices, layers, ends, output.extra)
        findings += lints.lints(document, [part.slice for part in context.slices], template, used, layers)
    new, notes = new_tokenizer(document, built, list(context.by_ref.values()), template)
    plan = _finished(context, tuple(layers), template, [*findings, *notes], ends, output.extra, config)
    plan = replace(plan, files={**code.files, **plan.files})
    if new is not None:
        plan = with_tokenizer(plan, new, built, template)
    return replace(plan, estimates=estimate(plan, template.checkpoint.config, shard_size))


def _donor_findings(
    context: Context, output: _Output, used: Sequence[Donor], known: Sequence[Finding]
) -> Iterator[Finding]:
    """How the donors fit together: shapes, scalars, dtypes, quantisation, vocabularies.

    Args:
        used: donors that give something.
        known: what was found before.
    """
    planner, template = output.planner, output.planner.template
    lines = {donor.letter: recipe_checks.line_of(context.document, donor.ref) for donor in used}
    yield from planner.findings()
    yield from compare(used, template, output.layers, lines=lines, dtype=planner.wanted)
    yield from quantised.compare(used, template, lines)
    yield from quantised.arithmetic(template, output.layers, output.outer)
    if planner.vocabulary is None and not _refused_vocabulary(known):
        yield from compare_tokenizers(output.owners, used, template)
    yield from compare_ends(output.owners, template)


def _config(context: Context, output: _Output, without_code: bool) -> tuple[dict[str, Any] | None, list[Finding]]:
    """The output's config.json, where every layer has a source; `without_code` leaves the donor's own classes out."""
    if len(output.pairs) < len(output.layers):
        return None, []
    template, embeddings = output.planner.template, output.owners.embeddings.checkpoint.config
    config, problems = output_config(
        template.checkpoint,
        output.pairs,
        tied=_tied(output.ends["lm_head"], template),
        dtype=_dtype(output.planner, output.layers),
        vocab_size=output.rows or (embeddings.vocab_size if embeddings else None),
    )
    if without_code:
        config.pop(AUTO_MAP, None)
    return config, list(problems)


def _refused_vocabulary(findings: Sequence[Finding]) -> bool:
    """Whether the vocabulary that the recipe asks for cannot be made, which says why the donors' do not fit."""
    return any(finding.severity == "error" and finding.code == "tokenizer" for finding in findings)


def _tied(head: PlannedEnd, template: Donor) -> bool:
    """What the config says of a tied head; without a head, what it said before."""
    config = template.checkpoint.config
    return config is not None and config.tied if head.how == "absent" else head.how == "tied"


def _is_used(donor: Donor, layers: Sequence[PlannedLayer], who: Owners, template: Donor) -> bool:
    if donor.letter == template.letter or donor.letter in who.letters:
        return True
    return any(letter == donor.letter for layer in layers for letter, _ in layer.sources)


def _dtype(planner: TensorPlanner, layers: Sequence[PlannedLayer]) -> str | None:
    """torch's name of the dtype most of the output has, where it is not what most of the config's donor has."""
    if planner.template.checkpoint.quantisation:
        return None  # Most of its bytes are packed, and the config names the dtype that they unpack to.
    held: dict[str, int] = {}
    for layer in layers:
        for code, nbytes in layer.contents.by_dtype.items() if layer.contents else ():
            held[code] = held.get(code, 0) + nbytes
    most = max(held, key=lambda code: held[code])
    if planner.wanted is None and most == next(iter(planner.template.checkpoint.dtypes)):
        return None
    return dtypes.TORCH_NAMES.get(most)


def _finished(
    context: Context,
    layers: tuple[PlannedLayer, ...],
    template: Donor | None,
    findings: Sequence[Finding],
    ends: Mapping[str, PlannedEnd] = _MISSING_END,
    extra: tuple[PlannedTensor, ...] = (),
    config: dict[str, Any] | None = None,
) -> Plan:
    ordered = sorted(workload.shortened(findings), key=lambda finding: SEVERITIES.index(finding.severity))
    return Plan(
        recipe=context.recipe,
        donors=context.by_letter,
        layers=layers,
        ends=ends,
        extra=extra,
        config=config,
        config_donor=template.letter if template else None,
        files=dict(_files(template)) if template else {},
        findings=tuple(ordered),
        estimates=Estimates(),
    )


def _files(template: Donor) -> Iterator[tuple[str, Path]]:
    """Files that come along with the config: tokenizer, chat template, generation config, processors."""
    for path in template.checkpoint.tokenizer.files:
        yield path.name, path
    for name in _COMPANIONS:
        path = template.checkpoint.folder / name
        if path.is_file():
            yield name, path
