"""Differences between mergekit and surgeon: refused if tensors would differ, otherwise reported as notes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..checkpoint.families.model_config import DEPTH_KEYS
from ..methods.catalogue import find
from ..methods.registry import Word
from ..plan.model import Donor, Plan, PlannedTensor
from ..plan.operands import Adapted, Blend, Convert, Copy, Operand, Rows, Stored, TensorSource
from ..plan.tokenizer.donor_vocabularies import UNION, requested
from ..recipe.document import Document
from ..recipe.schema import Slice
from ..text import one_line
from .facts import ARCHITECTURES, METHODS, RANDOM, RANKED, RESCALE
from .refusal import Place, Refusal

_EXPERT = re.compile(r"experts\.\d+\.")
_OWN_KEYS = {*DEPTH_KEYS, "dtype", "torch_dtype", "vocab_size", "tie_word_embeddings"}


def check(document: Document, plan: Plan) -> None:
    """Check that a recipe of mergekit can express the plan.

    Raises:
        Refusal: the first reason why it cannot.
    """
    for donor in used(plan):
        if donor.checkpoint.quantisation:
            raise Refusal(f"mergekit does not read the {donor.checkpoint.quantisation} weights of {donor.letter}")
    if plan.extra:
        name = one_line(plan.extra[0].name)
        raise Refusal(f"mergekit writes only the text model, and {name} is outside it")
    if plan.ends["lm_head"].how == "materialised":
        letter = plan.ends["lm_head"].donor
        raise Refusal(
            f"mergekit writes no head if the donors of the last slice tie it, but this head is {letter}'s embedding",
            "lm_head",
            remedy=f"take the embeddings from {letter} too, or set `lm_head: {{tie: true}}`",
        )
    _check_vocabulary(document, plan)
    for tensor in plan.tensors:
        _check_tensor(document, plan, tensor)


def used(plan: Plan) -> list[Donor]:
    """The donors that contribute to the result."""
    letters = {letter for layer in plan.layers for letter, _ in layer.sources}
    letters |= {letter for end in plan.ends.values() for letter in (end.donor, *end.donors) if letter}
    return [donor for letter, donor in plan.donors.items() if letter in letters]


def _check_vocabulary(document: Document, plan: Plan) -> None:
    """With a requested tokenizer, mergekit's tables have exactly one row per token, unless they are padded."""
    request, new = requested(document.recipe), plan.tokenizer
    tables = plan.ends["embeddings"].tensors
    if request is None or request.multiple is not None or new is None or new.source.tokens is None or not tables:
        return
    rows, tokens = tables[0].shape[0], new.source.tokens + len(new.appended)
    if rows != tokens:
        raise Refusal(
            f"mergekit writes {tokens:,} rows of embedding and head, one per token, and here they have {rows:,}",
            *request.place,
            remedy="give them a `tokenizer: {pad_to_multiple_of: ...}`",
        )


def _check_tensor(document: Document, plan: Plan, tensor: PlannedTensor) -> None:
    name = one_line(tensor.name)
    if _cropped(plan, tensor):
        raise Refusal(
            f"mergekit cannot omit padding rows, and {name} has only {tensor.shape[0]:,} of the donor's rows",
            remedy="give embeddings and head donors with equal numbers of rows",
        )
    if not isinstance(tensor.source, Blend) or tensor.source.method == "passthrough":
        return
    blend = tensor.source
    if blend.method not in METHODS:
        raise Refusal(f"mergekit has no method {blend.method}", *_place(document, tensor, plan))
    if _EXPERT.search(tensor.name):
        raise Refusal(f"mergekit blends all experts of a layer as one tensor, and {name} is one of these experts")
    for parameter, value in (*blend.one, *(pair for table in blend.each for pair in table)):
        _check_value(document, blend.method, parameter, value)
    weights = [float(dict(table)["weight"]) for table in blend.each] if blend.method == "linear" else []
    if weights and dict(blend.one)["normalize"] and abs(sum(weights)) <= 1e-8:
        raise Refusal(
            f"the weights of {name} sum to zero, and mergekit divides by the sum",
            *_parameter(document, "weight"),
            remedy="set `normalize: false`",
        )


def _check_value(document: Document, method: str, name: str, value: Word) -> None:
    known = find(method)
    assert known is not None
    if name not in METHODS[method] and value != known.parameters[name].default:
        raise Refusal(f"mergekit's {method} has no {name}: {value}", *_parameter(document, name))
    if name == "rescale" and isinstance(value, str) and value not in RESCALE:
        raise Refusal(
            f"mergekit has no rescale: {value}; it restores the sum of magnitudes (l1) or does not rescale (none)",
            *_parameter(document, name),
        )


def _place(document: Document, tensor: PlannedTensor, plan: Plan) -> Place:
    number = plan.layers[tensor.place.index].slice_index if tensor.place.index >= 0 else 0
    own = ("slices", number, "merge_method")
    return own if own in document.lines else ("merge_method",)


def _parameter(document: Document, name: str) -> Place:
    """The first place where a parameter is set."""
    found = [place for place in document.lines if len(place) > 1 and place[-2:] == ("parameters", name)]
    return min(found, key=lambda place: document.lines[place], default=())


def _cropped(plan: Plan, tensor: PlannedTensor) -> bool:
    """Whether only the first rows of a donor's tensor are taken."""
    if tensor.place.role not in ("embeddings", "lm_head"):
        return False
    whole = {
        (str(entry.file), entry.offset): entry.nbytes
        for donor in plan.donors.values()
        for end in donor.checkpoint.ends.values()
        for entry in end.values()
    }
    return any(whole.get((str(e.file), e.offset), e.nbytes) != e.nbytes for e in tensor.source.entries())


def check_written(document: Document, wanted: Plan, plan: Plan, slices: Sequence[Slice]) -> None:
    """Check that mergekit gives the same result as surgeon's plan of the exported recipe.

    Args:
        wanted: the plan of the original recipe.
        plan: the plan of the exported recipe.
        slices: its slices with explicit ranges.

    Raises:
        Refusal: the first difference.
    """
    first, last = slices[0].sources, slices[-1].sources
    if len(first) < len(last):
        raise Refusal(
            f"mergekit takes norm and head from only {len(first)} of the {len(last)} donors of the last slice, the "
            "number of donors of the first slice",
            remedy="give the first slice as many sources, or give the ends one donor",
        )
    if plan.config_donor is None:
        return
    template = plan.donors[plan.config_donor]
    config = template.checkpoint.config
    tied = config.tied if config is not None and config.says_tied else template.checkpoint.tied
    if tied != wanted.tied:
        kind = "a tied head" if wanted.tied else "a separate head"
        raise Refusal(
            f"mergekit copies tie_word_embeddings from {template.letter} ({one_line(template.ref)}), but the result "
            f"has {kind}",
            *(("lm_head",) if document.recipe.lm_head else ("base_model",)),
            remedy=f"set base_model to a donor with {kind}",
        )
    if config is not None and config.architecture not in ARCHITECTURES and not _same_ends(slices):
        raise Refusal(
            f"mergekit has no template for {one_line(config.architecture)}, so it takes norm and head from the first "
            "slice"
        )


def _same_ends(slices: Sequence[Slice]) -> bool:
    one, other = slices[0], slices[-1]
    sources = [[(source.model, source.parameters) for source in part.sources] for part in (one, other)]
    return sources[0] == sources[1] and (one.parameters, one.base_model) == (other.parameters, other.base_model)


def notes(plan: Plan, *, several: bool) -> Iterator[str]:
    """Notes for the user before running mergekit, as sentences without a full stop.

    Args:
        plan: the plan of the exported recipe.
        several: whether the recipe has stages.
    """
    blends = [blend for tensor in plan.tensors for blend in _blends(tensor.source)]
    partial = {blend.method for blend in blends if _cuts(blend)}
    if random := sorted(partial & RANDOM):
        yield f"{' and '.join(random)} drops random elements, and mergekit drops others (its seed is not per tensor)"
    if ranked := sorted(partial & RANKED):
        yield f"of equal magnitudes, {' and '.join(ranked)} keeps the first in surgeon and any in mergekit"
    if any("+" in donor.ref for donor in used(plan)) and any(map(_adapted, (t.source for t in plan.tensors))):
        yield "mergekit first merges LoRA adapters into a rounded copy of their base: give it --lora-merge-cache DIR"
    if plan.config_donor is not None:
        yield from _config_notes(plan, plan.donors[plan.config_donor])
    request = requested(plan.recipe)
    if request is not None and request.source == UNION and plan.tokenizer and len(plan.tokenizer.appended) > 1:
        yield "mergekit numbers the new tokens of a union, and so orders their rows, at random"
    if several:
        yield "it has several documents: run it with mergekit-multi -I DIR --out-path OUT"


def _config_notes(plan: Plan, template: Donor) -> Iterator[str]:
    config = template.checkpoint.config
    assert config is not None
    if config.architecture not in ARCHITECTURES:
        yield (
            f"mergekit has no template for {one_line(config.architecture)}: it guesses the layout and does not set "
            "the number of layers"
        )
    changed = sorted(key for key in _changed(config.raw, plan.config or {}) if key not in _OWN_KEYS)
    if changed:
        keys = ", ".join(map(one_line, changed[:3]))
        yield (
            f"mergekit does not adapt {keys} in the config to the layers, and may fail for this reason after it wrote "
            "the weights: use the config.json of `surgeon assemble`"
        )
    if any(_EXPERT.search(tensor.name) for tensor in plan.tensors):
        yield "mergekit writes the experts of a layer as one tensor, under other names"
    if plan.recipe.base_model is None and len(used(plan)) > 1:
        yield "without base_model, mergekit takes config and tokenizer from an arbitrary donor"
    heads = [donor.letter for donor in used(plan) if _stores_head(donor)]
    if plan.tied and heads:
        yield f"mergekit may write a head too, because {', '.join(heads)} stores one although it is tied"


def _stores_head(donor: Donor) -> bool:
    return any(name.endswith("weight") for name in donor.checkpoint.ends["lm_head"])


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    return {key for key in {*old, *new} if old.get(key) != new.get(key)} if new else set()


def _cuts(blend: Blend) -> bool:
    """Whether a method drops elements."""
    kept = (value for table in (blend.one, *blend.each) for name, value in table if name in ("density", "select_topk"))
    return any(isinstance(value, float) and value < 1 for value in kept)


def _blends(source: TensorSource | Operand) -> Iterator[Blend]:
    if isinstance(source, Blend):
        yield source
        for operand in source.inputs:
            yield from _blends(operand)


def _adapted(source: TensorSource | Operand) -> bool:
    if isinstance(source, (Copy, Convert, Stored)):
        return False
    if isinstance(source, Adapted):
        return True
    return any(map(_adapted, source.parts if isinstance(source, Rows) else source.inputs))
