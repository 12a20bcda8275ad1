"""What a practitioner would warn of: recipes that can be carried out and do not do what they look like doing."""

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
"""Model types whose config class makes the last layer attend fully, whatever the file says (transformers 5.23)."""


def lints(
    document: Document,
    slices: Sequence[Slice],
    template: Donor,
    used: Sequence[Donor],
    layers: Sequence[PlannedLayer],
) -> Iterator[Finding]:
    """All of them.

    Args:
        document: the recipe.
        slices: its slices, ranges explicit.
        template: the donor of the config.
        used: donors that give something.
        layers: the output's, filled.
    """
    yield from scale_undone(layers)
    yield from zeroed(template, layers)
    yield from numbers_in_filters(document, slices, layers)
    yield from last_layer(template, layers)
    yield from broken_pattern(used, layers)
    yield from relative_bias(used, layers)


def factor(tensor: PlannedTensor) -> float:
    """What a tensor is multiplied with."""
    return tensor.source.factor if isinstance(tensor.source, Convert) else 1.0


def _modules(layer: PlannedLayer) -> dict[str, str]:
    """The norms and linear modules of a layer: last name -> path within the layer."""
    paths = (tensor.place.suffix.rpartition(".")[0] for tensor in layer.tensors)
    return {path.rpartition(".")[2]: path for path in paths}


def norm_after(layer: PlannedLayer, module: str) -> str | None:
    """The norm that follows a projection directly and gives its output one size; told by the layer's names.

    `post_attention_layernorm` stands before the MLP in most families. It follows the attention where the MLP has
    another norm before it (gemma 2 and 3), or where no norm stands before the attention (olmo 2, exaone 4).
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
    """Factors on a projection whose output a norm brings to one size right after: they change nothing."""
    found: dict[tuple[str, str], list[int]] = {}
    for layer in layers:
        factors: dict[str, set[float]] = {}
        for tensor in layer.tensors:
            module = tensor.place.suffix.rpartition(".")[0].rpartition(".")[2]
            factors.setdefault(module, set()).add(factor(tensor))
        for module in ("o_proj", "down_proj", *_QUERY_NORMS):
            # Experts scaled differently weigh differently; zero and a change of sign go through a norm.
            if len(values := factors.get(module, set())) == 1 and values != {1.0} and min(values) > 0:
                norm = norm_after(layer, module)
                if norm is not None:
                    found.setdefault((module, norm), []).append(layer.index)
    for (module, norm), indices in found.items():
        yield Finding(
            "warning",
            "scale-no-effect",
            f"The scale of {module}.weight has no effect",
            f"{norm} follows it in this family and gives its output the same size again",
            f"scale {norm} instead",
            tuple(indices),
        )


def zeroed(template: Donor, layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """Layers that add nothing, or that nothing can be trained in, because their matrices are multiplied with 0."""
    config = template.checkpoint.config
    outputs = RESIDUAL_OUTPUTS.get(config.model_type if config else "", ())
    silent, dead = [], []
    for layer in layers:
        matrices = [tensor for tensor in layer.tensors if len(tensor.shape) > 1]
        writing = [tensor for tensor in layer.tensors if any(part in tensor.entry.name for part in outputs)]
        if matrices and all(factor(tensor) == 0 for tensor in matrices):
            dead.append(layer.index)
        elif writing and all(factor(tensor) == 0 for tensor in writing):
            silent.append(layer.index)
    if dead:
        yield Finding(
            "warning",
            "layer-zero",
            f"Every matrix of layer {ranges(dead)} is multiplied with 0",
            "such a layer adds nothing, and training cannot change it, as all its gradients are 0 too",
            "take it out, or set only its output projections to 0 (`expand` does)",
            tuple(dead),
        )
    if silent:
        yield Finding(
            "note",
            "layer-identity",
            f"{plural(len(silent), 'layer')} ({ranges(silent)}) add nothing, their output projections being 0"
            if len(silent) > 1
            else f"Layer {silent[0]} adds nothing, its output projections being 0",
            "that is block expansion: the model computes the same as without, until they are trained",
            layers=tuple(silent),
        )


class _Rule(NamedTuple):
    """A filter that ends in a number, its line, and the slice it holds for (None: all)."""

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
    """Filters such as `layers.1`, which as a part of a name also match layers 10 to 19."""
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
                "a filter is any part of a tensor's name, and their names begin alike",
                f"write {one_line(rule.filter + '.')!r} for that one layer; the numbers are the donor's",
                tuple(hit),
                rule.line,
            )


def last_layer(template: Donor, layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """A last layer that slides, in families whose config class makes the last one attend fully."""
    config = template.checkpoint.config
    if config is None or config.model_type not in _LAST_IS_FULL or not layers:
        return
    last = layers[-1]
    if last.attributes.get("attention") not in (None, "full"):
        kind = one_line(config.model_type)
        yield Finding(
            "error",
            "last-layer",
            f"The last layer, {last.label}, attends within {one_line(last.attributes['attention'])} attention",
            f"transformers makes the last layer of a {kind} attend fully, and its weights are of other shapes for that",
            "end the stack on a layer with full attention",
            (last.index,),
        )


def _kinds(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"{row.get('attention')}{'' if row.get('rope', True) else ' without rope'}" for row in rows]


def _gaps(kinds: Sequence[str], rare: str) -> list[tuple[int, int]]:
    """Stretches `[start, stop)` between two layers of the rare kind."""
    places = [index for index, kind in enumerate(kinds) if kind == rare]
    return [(one + 1, other) for one, other in pairwise(places)]


def broken_pattern(used: Sequence[Donor], layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """Kinds of attention that alternate otherwise than in any donor, such as gemma 3's five sliding to one full."""
    donors = [_kinds(layer.attributes for layer in donor.checkpoint.layers) for donor in used]
    counts: dict[str, int] = {}
    for kind in (kind for kinds in donors for kind in kinds):
        counts[kind] = counts.get(kind, 0) + 1
    if len(counts) < 2:
        return
    # Where kinds are equally many, the later of them ends a period (gemma 2: sliding, full).
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
        f"between two layers with {rare} attention stand {', '.join(str(b - a) for a, b in broken)} others, "
        f"{usual} in the donors; each layer keeps its own kind",
        "cut at whole periods to keep the pattern",
        touched,
    )


def relative_bias(used: Sequence[Donor], layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """A relative position bias that only layer 0 holds, for all of them, and that is not layer 0 of the output."""
    for donor in used:
        holders = [
            layer.index
            for layer in donor.checkpoint.layers
            if any("relative_attention_bias" in suffix for suffix in layer.tensors)
        ]
        if holders != [0] or donor.checkpoint.depth == 1:
            continue
        moved = [layer.index for layer in layers if ((donor.letter, 0) in layer.sources) != (layer.index == 0)]
        if moved:
            yield Finding(
                "error",
                "relative-bias",
                f"The relative position bias of {donor.letter} lies in its layer 0 and counts for all layers",
                "the first layer of the output, and no other, must be that one",
                f"begin the stack with layer 0 of {donor.letter} and use it once",
                tuple(moved),
            )
