"""Warnings about valid recipes that do not do what they seem to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ...checkpoint.families.residual_outputs import RESIDUAL_OUTPUTS
from ...recipe.document import Document
from ...recipe.parameters import filter_of, rules
from ...recipe.schema import Slice
from ...text import one_line, plural, ranges
from ..findings import Finding
from ..model import Donor, PlannedLayer, PlannedTensor
from ..operands import Convert

_QUERY_NORMS = {"q_proj": ("q_norm", "q_layernorm", "query_layernorm"), "k_proj": ("k_norm", "k_layernorm")}
_BEFORE_MLP = ("pre_feedforward_layernorm", "pre_mlp_layernorm", "post_self_attn_layernorm")
_AFTER_MLP = ("post_feedforward_layernorm", "post_mlp_layernorm")

_LAST_IS_FULL = frozenset({
    "beam", "diffusion_gemma", "embedding_gemma2", "gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text",
})  # fmt: skip
"""Model types whose config class gives the last layer full attention, whatever the file says (transformers 5.23)."""


def lints(
    document: Document,
    slices: Sequence[Slice],
    template: Donor,
    used: Sequence[Donor],
    layers: Sequence[PlannedLayer],
) -> Iterator[Finding]:
    """Run all lints.

    Args:
        document: the recipe.
        slices: its slices, with explicit ranges.
        template: the donor of the config.
        used: the donors that the output uses.
        layers: the output's layers, with their tensors.
    """
    yield from scale_undone(layers)
    yield from zeroed(template, layers)
    yield from numbers_in_filters(document, slices, layers)
    yield from last_layer(template, layers)
    yield from broken_pattern(used, layers)
    yield from relative_bias(used, layers)


def factor(tensor: PlannedTensor) -> float:
    """The factor that a tensor is multiplied by."""
    return tensor.source.factor if isinstance(tensor.source, Convert) else 1.0


def _scaled(layers: Sequence[PlannedLayer]) -> Iterator[PlannedLayer]:
    """The layers with a tensor that is multiplied."""
    return (layer for layer in layers if layer.contents and layer.contents.scaled)


def _modules(layer: PlannedLayer) -> dict[str, str]:
    """The norms and linear modules of a layer: last part of the name -> path within the layer."""
    paths = (tensor.place.suffix.rpartition(".")[0] for tensor in layer.firsts)
    return {path.rpartition(".")[2]: path for path in paths}


def norm_after(layer: PlannedLayer, module: str) -> str | None:
    """The norm that directly follows a projection and normalises its output, found by the layer's tensor names.

    In most families `post_attention_layernorm` precedes the MLP. It follows the attention if another norm precedes the
    MLP (gemma 2 and 3), or if no norm precedes the attention (olmo 2, exaone 4).
    """
    names = _modules(layer)
    if module in _QUERY_NORMS:
        return next((name for name in _QUERY_NORMS[module] if name in names), None)
    if module == "down_proj":
        return next((name for name in _AFTER_MLP if name in names), None)
    if module == "o_proj" and "post_self_attn_layernorm" in names:
        return "post_self_attn_layernorm"
    if module == "o_proj" and "post_attention_layernorm" in names:
        after = any(name in names for name in _BEFORE_MLP) or "input_layernorm" not in names
        return "post_attention_layernorm" if after else None
    return None


def scale_undone(layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """Scales without effect: a norm directly follows the projection and removes the scale from its output."""
    found: dict[tuple[str, str], list[int]] = {}
    for layer in _scaled(layers):
        factors: dict[str, set[float]] = {}
        for tensor in layer.firsts:
            module = tensor.place.suffix.rpartition(".")[0].rpartition(".")[2]
            factors.setdefault(module, set()).add(factor(tensor))
        for module in ("o_proj", "down_proj", *_QUERY_NORMS):
            # Different scales of experts change their shares; a norm removes neither zero nor a change of sign.
            if len(values := factors.get(module, set())) == 1 and values != {1.0} and min(values) > 0:
                norm = norm_after(layer, module)
                if norm is not None:
                    found.setdefault((module, norm), []).append(layer.index)
    for (module, norm), indices in found.items():
        yield Finding(
            "warning",
            "scale-no-effect",
            f"The scale of {module}.weight has no effect",
            f"in this family {norm} follows it and normalises its output",
            f"scale {norm} instead",
            tuple(indices),
        )


def zeroed(template: Donor, layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """Layers that add nothing, or that cannot be trained, because their matrices are multiplied by 0."""
    config = template.checkpoint.config
    outputs = RESIDUAL_OUTPUTS.get(config.model_type if config else "", ())
    silent, dead = [], []
    for layer in _scaled(layers):
        matrices = [tensor for tensor in layer.firsts if len(tensor.shape) > 1]
        writing = [tensor for tensor in layer.firsts if any(part in tensor.entry.name for part in outputs)]
        if matrices and all(factor(tensor) == 0 for tensor in matrices):
            dead.append(layer.index)
        elif writing and all(factor(tensor) == 0 for tensor in writing):
            silent.append(layer.index)
    if dead:
        yield Finding(
            "warning",
            "layer-zero",
            f"Every matrix of layer {ranges(dead)} is multiplied by 0",
            "such a layer adds nothing, and training cannot change it, because all its gradients are 0",
            "remove the layer, or set only its output projections to 0, as `expand` does",
            tuple(dead),
        )
    if silent:
        yield Finding(
            "note",
            "layer-identity",
            f"{plural(len(silent), 'layer')} ({ranges(silent)}) add nothing, because their output projections are 0"
            if len(silent) > 1
            else f"Layer {silent[0]} adds nothing, because its output projections are 0",
            "this is block expansion: until they are trained, the model computes the same as without them",
            layers=tuple(silent),
        )


class _Rule(NamedTuple):
    """A filter that ends in a number, its line, and the slice it applies to (None: all)."""

    filter: str
    line: int | None
    slice_index: int | None


def _numbered(document: Document, slices: Sequence[Slice]) -> Iterator[_Rule]:
    tables: list[tuple[Mapping[str, Any], int | None, int | None]] = [
        (document.recipe.parameters, document.line("parameters"), None)
    ]
    for number, part in enumerate(slices):
        tables.append((part.parameters, document.line("slices", number, "parameters"), number))
        for index, source in enumerate(part.sources):
            line = document.line("slices", number, "sources", index, "parameters")
            tables.append((source.parameters, line, number))
    for table, line, where in tables:
        for value in table.values():
            for rule in rules(value):
                if re.search(r"(^|\.)\d+$", text := filter_of(rule)):
                    yield _Rule(text, line, where)


def numbers_in_filters(
    document: Document, slices: Sequence[Slice], layers: Sequence[PlannedLayer]
) -> Iterator[Finding]:
    """Filters such as `layers.1`, which also match layers 10 to 19, because a filter is any part of a name."""
    if not (found := dict.fromkeys(_numbered(document, slices))):
        return
    names = {layer.index: "\n".join(tensor.entry.name for tensor in layer.tensors) for layer in layers}
    by_slice: dict[int | None, list[PlannedLayer]] = {None: list(layers)}
    for layer in layers:
        by_slice.setdefault(layer.slice_index, []).append(layer)
    for rule in found:
        longer = re.compile(re.escape(rule.filter) + r"\d")
        hit: dict[int, int] = {}
        for layer in by_slice.get(rule.slice_index, ()):
            if longer.search(names[layer.index]):
                hit[layer.index] = layer.sources[0][1]
        if hit:
            yield Finding(
                "warning",
                "filter-number",
                f"The filter {one_line(rule.filter)!r} also matches layer {ranges(hit.values())} of the donor",
                "a filter matches any part of a tensor's name in the donor, and these names begin with the same number",
                f"write {one_line(rule.filter + '.')!r} to match one layer of the donor",
                tuple(hit),
                rule.line,
            )


def last_layer(template: Donor, layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """A last layer without full attention, in families whose config class gives the last layer full attention."""
    config = template.checkpoint.config
    if config is None or config.model_type not in _LAST_IS_FULL or not layers:
        return
    last = layers[-1]
    if last.attributes.get("attention") not in (None, "full"):
        kind = one_line(config.model_type)
        yield Finding(
            "error",
            "last-layer",
            f"The last layer, {last.label}, has {one_line(last.attributes['attention'])} attention",
            f"transformers gives the last layer of a {kind} full attention, whose weights have other shapes",
            "end the stack with a layer that has full attention",
            (last.index,),
        )


def _kinds(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"{row.get('attention')}{'' if row.get('rope', True) else ' without rope'}" for row in rows]


def _gaps(kinds: Sequence[str], rare: str) -> list[tuple[int, int]]:
    """Ranges `[start, stop)` between two consecutive layers of the rare kind."""
    places = [index for index, kind in enumerate(kinds) if kind == rare]
    return [(one + 1, other) for one, other in pairwise(places)]


def broken_pattern(used: Sequence[Donor], layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """Kinds of attention that alternate differently than in every donor (gemma 3: five sliding layers, one full)."""
    donors = [_kinds(layer.attributes for layer in donor.checkpoint.layers) for donor in used]
    counts: dict[str, int] = {}
    for kind in (kind for kinds in donors for kind in kinds):
        counts[kind] = counts.get(kind, 0) + 1
    if len(counts) < 2:
        return
    # If two kinds occur equally often, the one that comes later ends a period (gemma 2: sliding, full).
    rare = min(reversed(list(counts)), key=lambda kind: counts[kind])
    known = {stop - start for kinds in donors for start, stop in _gaps(kinds, rare)}
    output = _kinds(layer.attributes for layer in layers)
    broken = [(start, stop) for start, stop in _gaps(output, rare) if stop - start not in known]
    if not broken or not known:
        return
    usual = " or ".join(map(str, sorted(known)))
    touched = tuple(dict.fromkeys(index for start, stop in broken for index in range(start - 1, stop + 1)))
    yield Finding(
        "note",
        "pattern",
        f"The pattern of attention kinds is broken at layer {ranges(touched)}",
        f"between two layers with {rare} attention are {', '.join(str(b - a) for a, b in broken)} others, "
        f"but {usual} in the donors; each layer keeps its own kind",
        "cut at whole periods to keep the pattern",
        touched,
    )


def relative_bias(used: Sequence[Donor], layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """A relative position bias that layer 0 of a donor holds for all its layers, if layer 0 is not first or repeats."""
    for donor in used:
        holders = [
            index
            for index in range(donor.checkpoint.depth)
            if any("relative_attention_bias" in group[0] for group in donor.checkpoint.weights(index).groups)
        ]
        if holders != [0] or donor.checkpoint.depth == 1:
            continue
        moved = [layer.index for layer in layers if ((donor.letter, 0) in layer.sources) != (layer.index == 0)]
        if moved:
            yield Finding(
                "error",
                "relative-bias",
                f"Layer 0 of {donor.letter} holds the relative position bias of all its layers",
                "it must be the first layer of the output and no other",
                f"begin the stack with layer 0 of {donor.letter}, and use that layer once",
                tuple(moved),
            )
