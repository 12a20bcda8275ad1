"""The one interpreter of recipes: recipe and donors in, a Plan out, with everything wrong found on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..checkpoint import TensorEntry, dtypes
from ..checkpoint.families import Naming, Place
from ..recipe import stack
from ..recipe.document import Document
from ..recipe.parameters import lookup, position
from ..recipe.schema import End, Recipe, Slice
from ..text import one_line
from . import checks, leftovers, lints, quantised, scaling
from .compare import compare, compare_ends
from .donors import Donors
from .ends import Owners, owners, plan_ends
from .estimate import DEFAULT_SHARD, estimate
from .outconfig import in_place, output_config
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
from .vocabulary import beyond, compare_tokenizers, fit_rows

_COMPANIONS = (
    "generation_config.json", "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json",
)  # fmt: skip
_MISSING_END = {role: PlannedEnd(role, None, "missing") for role in ("embeddings", "final_norm", "lm_head")}


@dataclass(frozen=True)
class _Context:
    """What planning needs: the document, its explicit slices, donors by reference, and the donor of the config."""

    document: Document
    slices: tuple[Slice, ...]
    by_ref: Mapping[str, Donor]
    template: Donor

    @property
    def recipe(self) -> Recipe:
        return self.document.recipe

    @property
    def wanted(self) -> str | None:
        """The dtype asked for, as torch names it."""
        return self.recipe.out_dtype or self.recipe.dtype

    def tensor(self, place: Place, entry: TensorEntry, donor: Donor, factor: float | None) -> PlannedTensor:
        """One output tensor: a copy when nothing changes its numbers, else a conversion."""
        dtype = entry.dtype
        source: TensorSource = Copy(entry)
        if entry.dtype in dtypes.ARITHMETIC:
            dtype = dtypes.FROM_TORCH[self.wanted] if self.wanted else entry.dtype
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
    refs = recipe.model_refs()
    by_letter, failed, names = donors.lettered(refs)
    by_ref = {donor.ref: donor for donor in by_letter.values() if donor.ref in refs}
    findings = [
        *checks.keys(document),
        *checks.unsupported(document),
        *checks.donors(document, {ref: error for ref, error in failed.items() if ref in refs}, names),
    ]
    slices = recipe.explicit(lambda ref: by_ref[ref].checkpoint.depth if ref in by_ref else 0)
    findings += checks.slices(document, slices, by_ref, names)
    layers, template = _bare_layers(recipe, slices, names), _template(recipe, slices, by_ref)
    problems = list(checks.spliceable(document, by_ref.values()))
    if template is None or not layers or problems:
        return _finished(document, by_letter, tuple(layers), None, [*findings, *problems])
    context = _Context(document, slices, by_ref, template)
    filled = _Filler(context)
    layers = [filled.layer(layer, cell) for layer, cell in zip(layers, stack.cells(slices), strict=True)]
    return _assembled(context, by_letter, layers, [*findings, *filled.findings()], shard_size)


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


class _Filler:
    """Puts tensors into layers; a layer whose source does not exist stays bare."""

    def __init__(self, context: _Context) -> None:
        self.context = context
        self.unreadable: dict[str, list[int]] = {}
        self.frozen: dict[str, list[int]] = {}

    def layer(self, layer: PlannedLayer, cell: stack.Cell) -> PlannedLayer:
        part = self.context.slices[cell.slice_index]
        ref, index = cell.sources[0]
        donor = self.context.by_ref.get(ref)
        if donor is None or not 0 <= index < donor.checkpoint.depth or len(cell.sources) > 1:
            return layer
        t = position(cell.offset, stack.length(part))
        tensors = []
        for suffix, entry in leftovers.weights(donor.checkpoint, index).items():
            try:
                factor = scaling.factor(self.context.recipe, part, part.sources[0], entry.name, t)
            except ValueError as error:
                self.unreadable.setdefault(str(error), []).append(layer.index)
                factor = None
            if factor not in (None, 1.0) and entry.dtype not in dtypes.ARITHMETIC:
                self.frozen.setdefault(suffix, []).append(layer.index)
            tensors.append(self.context.tensor(Place("layer", layer.index, suffix), entry, donor, factor))
        attributes = dict(donor.checkpoint.layers[index].attributes)
        return PlannedLayer(layer.index, layer.sources, layer.method, layer.slice_index, tuple(tensors), attributes)

    def findings(self) -> Iterator[Finding]:
        """What was wrong with factors on the way."""
        for why, indices in self.unreadable.items():
            yield Finding(
                "error",
                "parameter",
                "A value of scale cannot be read",
                one_line(why),
                "give a number, a list of numbers, or a list of {filter, value}",
                tuple(dict.fromkeys(indices)),
                self.context.document.line("slices", self._slice(indices[0])),
            )
        yield from scaling.frozen({name: tuple(indices) for name, indices in self.frozen.items()})

    def _slice(self, index: int) -> int:
        return stack.cells(self.context.slices)[index].slice_index


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
                factor = scaling.finite(lookup("scale", name, 0.0, own.parameters))
            else:
                part = slices[0] if end == "embeddings" else slices[-1]
                factor = scaling.factor(recipe, part, part.sources[0], name, 0.0)
        except ValueError:
            factor = None  # The layers' tensors have told.
        return self.context.tensor(place, entry, donor, factor)


def _naming(donor: Donor) -> Naming:
    assert donor.checkpoint.naming is not None, "a donor without naming is not spliceable"
    return donor.checkpoint.naming


def _assembled(
    context: _Context,
    by_letter: Mapping[str, Donor],
    layers: Sequence[PlannedLayer],
    findings: list[Finding],
    shard_size: int,
) -> Plan:
    """The plan around filled layers: ends, what else comes along, config, estimates, and how all of it fits."""
    document, recipe, template = context.document, context.recipe, context.template
    who = owners(recipe, *_outer_donors(context.slices, context.by_ref, template), context.by_ref)
    ends, problems = plan_ends(recipe, who, _EndMaker(context))
    ends, rows, notes = fit_rows(ends, who, template)
    problems = [*problems, *notes, *beyond(ends, who, template)]
    used = [donor for donor in by_letter.values() if _is_used(donor, layers, who, template)]
    lines = {donor.letter: checks.line_of(document, donor.ref) for donor in used}
    pairs = [(by_letter[layer.sources[0][0]].checkpoint, layer.sources[0][1]) for layer in layers if layer.tensors]
    moved = len(pairs) < len(layers) or not in_place(pairs)
    extra = tuple(
        context.tensor(Place("other", -1, name), entry, template, None)
        for name, entry in leftovers.others(template.checkpoint, moved).items()
    )
    findings = [
        *findings,
        *compare(used, template, layers, lines=lines, dtype=context.wanted),
        *quantised.compare(used, template, lines),
        *quantised.arithmetic(template, _every_tensor(layers, ends, extra)),
        *compare_tokenizers(who.embeddings, used, template, who.lm_head),
        *compare_ends(who.embeddings, who.final_norm, template),
        *problems,
        *checks.base(document, template, used),
        *checks.warnings(used),
        *leftovers.findings(template, used, moved),
    ]
    config = None
    if len(pairs) == len(layers):
        embeddings = who.embeddings.checkpoint.config
        config, problems = output_config(
            template.checkpoint,
            pairs,
            tied=ends["lm_head"].how == "tied",
            dtype=_dtype(context, layers),
            vocab_size=rows or (embeddings.vocab_size if embeddings else None),
        )
        findings += [*problems, *scaling.filters(document, context.slices, layers, ends)]
        findings += lints.lints(document, context.slices, template, used, layers)
    plan = _finished(document, by_letter, tuple(layers), template, findings, ends, extra, config)
    sizes = estimate(plan.tensors, layers, template.checkpoint.config, shard_size)
    return replace(plan, estimates=sizes)


def _every_tensor(
    layers: Sequence[PlannedLayer], ends: Mapping[str, PlannedEnd], extra: Sequence[PlannedTensor]
) -> list[PlannedTensor]:
    inner = [tensor for layer in layers for tensor in layer.tensors]
    return [*inner, *(tensor for end in ends.values() for tensor in end.tensors), *extra]


def _is_used(donor: Donor, layers: Sequence[PlannedLayer], who: Owners, template: Donor) -> bool:
    if donor.letter in {template.letter, who.embeddings.letter, who.final_norm.letter, who.lm_head.letter}:
        return True
    return any(letter == donor.letter for layer in layers for letter, _ in layer.sources)


def _dtype(context: _Context, layers: Sequence[PlannedLayer]) -> str | None:
    """torch's name of the dtype most of the output has, where it is not what most of the config's donor has."""
    if context.template.checkpoint.quantisation:
        return None  # Most of its bytes are packed, and the config names the dtype that they unpack to.
    held: dict[str, int] = {}
    for layer in layers:
        for tensor in layer.tensors:
            held[tensor.dtype] = held.get(tensor.dtype, 0) + tensor.nbytes
    most = max(held, key=lambda code: held[code])
    if context.wanted is None and most == next(iter(context.template.checkpoint.dtypes)):
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
    """Files that come along with the config: tokenizer, chat template, generation config, processors."""
    for path in template.checkpoint.tokenizer.files:
        yield path.name, path
    for name in _COMPANIONS:
        path = template.checkpoint.folder / name
        if path.is_file():
            yield name, path
