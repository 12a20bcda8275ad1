"""The one interpreter of recipes: recipe and donors in, a Plan out, with everything wrong found on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..checkpoint import TensorEntry, dtypes
from ..checkpoint.families import Naming, Place
from ..errors import InputError
from ..recipe import stack
from ..recipe.document import Document
from ..recipe.parameters import lookup, position
from ..recipe.schema import End, Recipe, Slice, Source
from ..text import one_line
from . import checks
from .compare import compare, compare_tokenizers
from .donors import Donors
from .ends import Owners, owners, plan_ends
from .estimate import DEFAULT_SHARD, estimate
from .outconfig import output_config
from .types import (
    SEVERITIES,
    Convert,
    Copy,
    Donor,
    Estimates,
    Finding,
    Plan,
    PlannedEnd,
    PlannedLayer,
    PlannedTensor,
    TensorSource,
)

_COMPANIONS = ("generation_config.json",)
_MISSING_END = {role: PlannedEnd(role, None, "missing") for role in ("embeddings", "final_norm", "lm_head")}


@dataclass(frozen=True)
class _Context:
    """What planning a tensor needs: recipe, its explicit slices, donors by reference and letter, output naming."""

    recipe: Recipe
    slices: tuple[Slice, ...]
    by_ref: Mapping[str, Donor]
    template: Donor

    def tensor(self, place: Place, entry: TensorEntry, donor: Donor, factor: float | None) -> PlannedTensor:
        """One output tensor: a copy when nothing changes its numbers, else a conversion."""
        wanted = self.recipe.out_dtype or self.recipe.dtype
        dtype = entry.dtype
        source: TensorSource = Copy(entry)
        if entry.dtype in dtypes.ARITHMETIC:
            dtype = dtypes.FROM_TORCH[wanted] if wanted else entry.dtype
            if dtype != entry.dtype or factor not in (None, 1.0):
                source = Convert(entry, 1.0 if factor is None else float(factor))
        return PlannedTensor(_naming(self.template).name(place), dtype, entry.shape, source, place, donor.letter)


def resolve(document: Document, donors: Donors, *, shard_size: int = DEFAULT_SHARD) -> Plan:
    """Decide every output tensor of a recipe.

    Args:
        document: the recipe, with its lines for the findings.
        donors: opens the checkpoints it names.
        shard_size: bytes per output file, for the estimates.

    Never raises for anything the recipe or its donors say: that is what the findings are for.
    """
    recipe = document.recipe
    by_letter, failed, names = donors.lettered(recipe.model_refs())
    # A session may have more donors open than the recipe names: they keep their letters and decide nothing.
    named = {ref for ref in recipe.model_refs()}
    mine = [donor for donor in by_letter.values() if donor.ref in named]
    failed = {ref: error for ref, error in failed.items() if ref in named}
    by_ref = {donor.ref: donor for donor in mine}
    findings = [
        *checks.keys(document),
        *checks.unsupported(document),
        *checks.donors(document, failed, names),
    ]
    try:
        slices = recipe.explicit(lambda ref: by_ref[ref].checkpoint.depth if ref in by_ref else 0)
    except InputError as error:
        findings.append(Finding("error", "recipe", error.what, error.why, error.remedy))
        slices = ()
    findings += checks.slices(document, slices, by_ref, names)
    layers, template = _bare_layers(recipe, slices, names), _template(recipe, slices, by_ref)
    if template is None or not layers or checks.unspliceable(mine):
        findings += checks.spliceable(mine)
        return _finished(document, by_letter, tuple(layers), None, findings)
    context = _Context(recipe, slices, by_ref, template)
    layers, problems = _fill(context, layers)
    findings += problems
    who = owners(recipe, *_outer_donors(slices, by_ref, template), by_ref)
    used = [d for d in mine if _is_used(d, layers, who, template)]
    findings += compare(used, template, layers)
    findings += compare_tokenizers(who.embeddings, used, template, who.lm_head)
    ends, problems = plan_ends(recipe, who, _EndMaker(context))
    findings += problems
    findings += checks.base(document, template, mine)
    return _assembled(document, context, by_letter, layers, ends, findings, shard_size)


def _is_used(donor: Donor, layers: Sequence[PlannedLayer], who: Owners, template: Donor) -> bool:
    if donor.letter in {template.letter, who.embeddings.letter, who.final_norm.letter, who.lm_head.letter}:
        return True
    return any(letter == donor.letter for layer in layers for letter, _ in layer.sources)


def _bare_layers(recipe: Recipe, slices: Sequence[Slice], names: Mapping[str, str]) -> list[PlannedLayer]:
    """The stack's provenance alone: what can always be shown, whatever else is wrong."""
    return [
        PlannedLayer(
            index,
            tuple((names[model], layer) for model, layer in cell.sources),
            slices[cell.slice_index].merge_method or recipe.merge_method,
            cell.slice_index,
        )
        for index, cell in enumerate(stack.cells(slices))
    ]


def _template(recipe: Recipe, slices: Sequence[Slice], by_ref: Mapping[str, Donor]) -> Donor | None:
    """The donor of everything global: base_model, else the first slice's first donor."""
    refs = [recipe.base_model] if recipe.base_model else []
    refs += [part.sources[0].model for part in slices]
    return next((by_ref[ref] for ref in refs if ref in by_ref), None)


def _outer_donors(slices: Sequence[Slice], by_ref: Mapping[str, Donor], template: Donor) -> tuple[Donor, Donor]:
    first, last = slices[0].sources[0].model, slices[-1].sources[0].model
    return by_ref.get(first, template), by_ref.get(last, template)


def _factor(recipe: Recipe, part: Slice, source: Source, name: str, t: float) -> float | None:
    """The passthrough scale of one tensor, by the name it has in its donor."""
    value = lookup("scale", name, t, source.parameters, part.parameters, recipe.parameters)
    return None if value is None else float(value)


def _fill(context: _Context, layers: Sequence[PlannedLayer]) -> tuple[list[PlannedLayer], list[Finding]]:
    """The layers with their tensors; a layer whose source does not exist stays bare."""
    filled: list[PlannedLayer] = []
    findings: list[Finding] = []
    for layer, cell in zip(layers, stack.cells(context.slices), strict=True):
        part = context.slices[cell.slice_index]
        ref, index = cell.sources[0]
        donor = context.by_ref.get(ref)
        if donor is None or not 0 <= index < donor.checkpoint.depth or len(cell.sources) > 1:
            filled.append(layer)
            continue
        source = donor.checkpoint.layers[index]
        t = position(cell.offset, stack.length(part))
        try:
            tensors = tuple(
                context.tensor(
                    Place("layer", layer.index, suffix),
                    entry,
                    donor,
                    _factor(context.recipe, part, part.sources[0], entry.name, t),
                )
                for suffix, entry in source.tensors.items()
            )
        except ValueError as error:
            findings.append(
                Finding("error", "parameter", "A value of scale cannot be read", str(error), "", (layer.index,))
            )
            tensors = ()
        filled.append(
            PlannedLayer(layer.index, layer.sources, layer.method, layer.slice_index, tensors, dict(source.attributes))
        )
    return filled, findings


class _EndMaker:
    """Plans tensors of the ends with the parameters that mergekit gives them: the outer slices', at t = 0."""

    def __init__(self, context: _Context) -> None:
        self.context = context

    def __call__(self, place: Place, entry: TensorEntry, donor: Donor, end: End) -> PlannedTensor:
        recipe, slices = self.context.recipe, self.context.slices
        own = recipe.end(end)
        # Filters see the name the tensor will have as an end, so that a materialised head answers to `lm_head`.
        name = entry.name if place.role == "embeddings" else _naming(donor).name(place)
        try:
            if own is not None:
                value = lookup("scale", name, 0.0, own.parameters)
                factor = None if value is None else float(value)
            else:
                part = slices[0] if end == "embeddings" else slices[-1]
                factor = _factor(recipe, part, part.sources[0], name, 0.0)
        except ValueError:
            factor = None
        return self.context.tensor(place, entry, donor, factor)


def _naming(donor: Donor) -> Naming:
    assert donor.checkpoint.naming is not None, "a donor without naming is not spliceable"
    return donor.checkpoint.naming


def _assembled(
    document: Document,
    context: _Context,
    by_letter: Mapping[str, Donor],
    layers: Sequence[PlannedLayer],
    ends: Mapping[str, PlannedEnd],
    findings: list[Finding],
    shard_size: int,
) -> Plan:
    template = context.template
    extra = tuple(
        context.tensor(Place("other", -1, name), entry, template, None)
        for name, entry in template.checkpoint.other.items()
    )
    findings += checks.outside(template, context.by_ref.values())
    config = None
    if all(layer.tensors for layer in layers):
        pairs = [(by_letter[layer.sources[0][0]].checkpoint, layer.sources[0][1]) for layer in layers]
        embeddings = by_letter[ends["embeddings"].donor or template.letter].checkpoint
        tensors = [tensor for layer in layers for tensor in layer.tensors]
        config, problems = output_config(
            template.checkpoint,
            pairs,
            tied=ends["lm_head"].how == "tied",
            dtype=_main_dtype(tensors) if context.recipe.out_dtype or context.recipe.dtype else None,
            vocab_size=embeddings.config.vocab_size if embeddings.config else None,
        )
        findings += problems
        findings += checks.scale(document, tensors, context.slices)
    plan = _finished(document, by_letter, tuple(layers), template, findings, ends, extra, config)
    sizes = estimate(plan.tensors, template.checkpoint.config, len(layers), shard_size)
    return replace(plan, estimates=sizes)


def _main_dtype(tensors: Sequence[PlannedTensor]) -> str | None:
    held: dict[str, int] = {}
    for tensor in tensors:
        held[tensor.dtype] = held.get(tensor.dtype, 0) + tensor.nbytes
    return dtypes.TORCH_NAMES.get(max(held, key=lambda code: held[code])) if held else None


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
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
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
    """Files that come along with the config: tokenizer, chat template, generation config."""
    for path in template.checkpoint.tokenizer.files:
        yield path.name, path
    for name in _COMPANIONS:
        path = template.checkpoint.folder / name
        if path.is_file():
            yield one_line(name), path
