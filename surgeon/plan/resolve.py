"""The one interpreter of recipes: recipe and donors in, a Plan out, with everything wrong found on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..checkpoint import dtypes
from ..recipe.document import Document
from ..recipe.schema import Recipe, Slice
from .checks import lints, method_checks, recipe_checks, scale_filters, whole_model, workload
from .checks.donor_checks import compare, compare_ends
from .config import quantised
from .config.estimate import DEFAULT_SHARD, estimate
from .config.model_code import AUTO_MAP, model_code
from .config.output_config import in_place, output_config
from .donors.open_donors import Donors
from .donors.stages import lend_stages
from .ends.end_owners import Owner, Owners, owners, plan_ends
from .ends.token_rows import beyond, compare_tokenizers, fit_rows
from .findings import SEVERITIES, Finding
from .layers import unused_tensors
from .layers.blending import Chooser
from .layers.layer_tensors import Filler
from .layers.unplaced_tensors import Unplaced, blends_whole_models
from .model import Donor, Estimates, Plan, PlannedEnd, PlannedLayer, PlannedTensor
from .planned_slices import PlannedSlice, SliceRow, parts, rows, single
from .tokenizer.output_tokenizer import new_tokenizer, with_tokenizer
from .tokenizer.output_vocabulary import build

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
    lent = lend_stages(document, donors, lambda stage, known, spent: _resolve(stage, known, shard_size, [], spent))
    return _resolve(document, donors, shard_size, lent.findings, lent.taken)


def _resolve(document: Document, donors: Donors, shard_size: int, found: Sequence[Finding], spent: int) -> Plan:
    """One document's plan, its earlier stages among the donors.

    Args:
        found: what is already known of it.
        spent: layers of donors that its stages take.
    """
    recipe = document.recipe
    refs = recipe.model_refs()
    donors.adapt(recipe.base_model)
    by_letter, failed, names = donors.lettered([*refs, *_inner(refs, donors)])
    by_ref = {donor.ref: donor for donor in by_letter.values() if donor.ref in refs}
    findings = [
        *found,
        *recipe_checks.keys(document),
        *recipe_checks.unsupported(document),
        *recipe_checks.comments(document),
        *recipe_checks.donors(document, {ref: error for ref, error in failed.items() if ref in refs}, names),
    ]

    def depth_of(ref: str) -> int:
        return by_ref[ref].checkpoint.depth if ref in by_ref else 0

    planned = parts(recipe, recipe.explicit(depth_of), depth_of)
    if endless := tuple(workload.too_much(recipe, planned, spent)):
        return _finished(document, by_letter, (), None, [*findings, *endless])
    stack = rows(recipe, planned, depth_of)
    problems = list(recipe_checks.spliceable(document, by_ref.values()))
    findings += [*problems, *recipe_checks.slices(document, [part.slice for part in planned], by_ref, names)]
    findings += method_checks.methods(document, planned, stack, names)
    layers = _bare_layers(stack, names)
    template = _template(recipe, [part.slice for part in planned], by_ref)
    if template is None or not layers or problems:
        return _finished(document, by_letter, tuple(layers), None, findings)
    known = [by_ref[ref] for ref in refs if ref in by_ref]
    base = by_ref.get(recipe.base_model or "")
    vocabulary = build(recipe, known, base, line=document.line, roots=donors.roots)
    findings += vocabulary.findings if vocabulary else ()
    filler = Filler(document, by_ref, template, Chooser(), vocabulary if vocabulary and vocabulary.rows else None)
    layers = [filler.layer(layer, row) for layer, row in zip(layers, stack, strict=True)]
    return _assembled(filler, planned, by_letter, layers, findings, shard_size)


def _inner(refs: Sequence[str], donors: Donors) -> Iterator[str]:
    """The donors of stages, each once, for they are donors of the result too."""
    seen: set[str] = set()
    waiting = list(reversed(refs))
    while waiting:
        ref = waiting.pop()
        lent = donors.lent(ref)
        if lent is not None and ref not in seen:
            seen.add(ref)
            yield from lent.refs
            waiting += reversed(lent.refs)


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


def _template(recipe: Recipe, slices: Sequence[Slice], by_ref: Mapping[str, Donor]) -> Donor | None:
    """The donor of everything global: base_model, else the first slice's first donor."""
    refs = [recipe.base_model] if recipe.base_model else []
    refs += [part.sources[0].model for part in slices]
    return next((by_ref[ref] for ref in refs if ref in by_ref), None)


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


def _assembled(
    filler: Filler,
    planned: Sequence[PlannedSlice],
    by_letter: Mapping[str, Donor],
    layers: Sequence[PlannedLayer],
    findings: list[Finding],
    shard_size: int,
) -> Plan:
    """The plan around filled layers: ends, what else comes along, config, estimates, and how all of it fits."""
    document, template = filler.document, filler.template
    recipe, slices = document.recipe, [part.slice for part in planned]
    who = owners(recipe, *_outer_owners(planned, filler.by_ref, template), filler.by_ref)
    ends, problems = plan_ends(recipe, who, filler.end, template)
    if endless := tuple(workload.too_deep(_every_tensor(layers, ends, ()))):
        bare = tuple(replace(layer, tensors=()) for layer in layers)
        return _finished(document, by_letter, bare, template, [*findings, *endless])
    built = filler.vocabulary
    if built is None:
        ends, rows, notes = fit_rows(ends, who, template)
        problems += [*notes, *beyond(ends, who, template)]
    else:
        rows = built.rows
    used = [donor for donor in by_letter.values() if _is_used(donor, layers, who, template)]
    lines = {donor.letter: recipe_checks.line_of(document, donor.ref) for donor in used}
    pairs = [(by_letter[layer.sources[0][0]].checkpoint, layer.sources[0][1]) for layer in layers if layer.tensors]
    moved = len(pairs) < len(layers) or not in_place(pairs)
    whole = _outer_owners(planned, filler.by_ref, template)[0] if blends_whole_models(planned, filler.by_ref) else None
    unplaced = Unplaced(filler, who, whole, moved, used)
    extra = unplaced.tensors()
    findings = [
        *findings,
        *filler.findings(),
        *compare(used, template, layers, lines=lines, dtype=filler.wanted),
        *quantised.compare(used, template, lines),
        *quantised.arithmetic(template, _every_tensor(layers, ends, extra)),
        *(() if built or _refused_vocabulary(findings) else compare_tokenizers(who, used, template)),
        *compare_ends(who, template),
        *problems,
        *recipe_checks.base(document, template, used),
        *recipe_checks.warnings(used),
        *unplaced.findings(),
        *unused_tensors.findings(template, used, moved),
    ]
    config = None
    code = model_code(template)
    findings += code.findings
    if len(pairs) == len(layers):
        embeddings = who.embeddings.checkpoint.config
        config, problems = output_config(
            template.checkpoint,
            pairs,
            tied=_tied(ends["lm_head"], template),
            dtype=_dtype(filler, layers),
            vocab_size=rows or (embeddings.vocab_size if embeddings else None),
        )
        if code.dropped:
            config.pop(AUTO_MAP, None)
        findings += [*problems, *whole_model.findings(_every_tensor(layers, ends, extra))]
        findings += scale_filters.filters(document, planned, layers, ends, extra)
        findings += lints.lints(document, slices, template, used, layers)
    new, notes = new_tokenizer(document, built, list(filler.by_ref.values()), template)
    plan = _finished(document, by_letter, tuple(layers), template, [*findings, *notes], ends, extra, config)
    plan = replace(plan, files={**code.files, **plan.files})
    if new is not None:
        plan = with_tokenizer(plan, new, built, template)
    sizes = estimate(plan.tensors, layers, template.checkpoint.config, shard_size)
    return replace(plan, estimates=sizes)


def _refused_vocabulary(findings: Sequence[Finding]) -> bool:
    """Whether the vocabulary that the recipe asks for cannot be made, which says why the donors' do not fit."""
    return any(finding.severity == "error" and finding.code == "tokenizer" for finding in findings)


def _tied(head: PlannedEnd, template: Donor) -> bool:
    """What the config says of a tied head; without a head, what it said before."""
    config = template.checkpoint.config
    return config is not None and config.tied if head.how == "absent" else head.how == "tied"


def _every_tensor(
    layers: Sequence[PlannedLayer], ends: Mapping[str, PlannedEnd], extra: Sequence[PlannedTensor]
) -> list[PlannedTensor]:
    inner = [tensor for layer in layers for tensor in layer.tensors]
    return [*inner, *(tensor for end in ends.values() for tensor in end.tensors), *extra]


def _is_used(donor: Donor, layers: Sequence[PlannedLayer], who: Owners, template: Donor) -> bool:
    if donor.letter == template.letter or donor.letter in who.letters:
        return True
    return any(letter == donor.letter for layer in layers for letter, _ in layer.sources)


def _dtype(filler: Filler, layers: Sequence[PlannedLayer]) -> str | None:
    """torch's name of the dtype most of the output has, where it is not what most of the config's donor has."""
    if filler.template.checkpoint.quantisation:
        return None  # Most of its bytes are packed, and the config names the dtype that they unpack to.
    held: dict[str, int] = {}
    for layer in layers:
        for tensor in layer.tensors:
            held[tensor.dtype] = held.get(tensor.dtype, 0) + tensor.nbytes
    most = max(held, key=lambda code: held[code])
    if filler.wanted is None and most == next(iter(filler.template.checkpoint.dtypes)):
        return None
    return dtypes.TORCH_NAMES.get(most)


def _finished(
    document: Document,
    by_letter: Mapping[str, Donor],
    layers: tuple[PlannedLayer, ...],
    template: Donor | None,
    findings: Sequence[Finding],
    ends: Mapping[str, PlannedEnd] = _MISSING_END,
    extra: tuple[PlannedTensor, ...] = (),
    config: dict[str, object] | None = None,
) -> Plan:
    told = workload.shortened(findings)
    ordered = sorted(told, key=lambda finding: SEVERITIES.index(finding.severity))
    return Plan(
        recipe=document.recipe,
        donors=by_letter,
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
