"""Do the donors fit together? Shapes, names, and every global setting of the config that layers depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..checkpoint import Checkpoint
from ..checkpoint.config import ModelConfig
from ..text import one_line, plural
from .types import Donor, Finding, PlannedLayer

_SAME_COMPUTATION = ({"gemma3", "gemma3_text"},)

# What a layer computes with, beyond its tensors: (keys, severity when it differs, what it is).
_SCALARS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("hidden_act", "hidden_activation", "activation_function"), "error", "activation function"),
    (
        ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon"),
        "warning",
        "norm epsilon",
    ),
    (("sliding_window",), "warning", "sliding window"),
    (("attn_logit_softcapping",), "error", "attention soft cap"),
    (("final_logit_softcapping",), "warning", "final logit soft cap"),
    (("query_pre_attn_scalar",), "error", "attention scale"),
    (("attention_multiplier", "residual_multiplier"), "error", "multiplier"),
    (("embedding_multiplier", "logits_scaling", "logit_scale"), "warning", "multiplier"),
    (("partial_rotary_factor", "rotary_pct"), "error", "rotary share of a head"),
    (("alibi",), "error", "position scheme"),
    (("parallel_attn", "use_parallel_residual"), "error", "residual layout"),
    (("num_experts_per_tok", "norm_topk_prob"), "warning", "expert routing"),
)


def compare(donors: Sequence[Donor], template: Donor, layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """Findings for every donor that gives layers or ends, against the donor of the config."""
    used = {letter: tuple(layer.index for layer in layers if _uses(layer, letter)) for letter in _letters(donors)}
    for donor in donors:
        config = donor.checkpoint.config
        if donor.letter == template.letter or config is None or template.checkpoint.config is None:
            continue
        base = template.checkpoint.config
        if not _same_architecture(config, base):
            yield Finding(
                "error",
                "architecture",
                f"{donor.letter} is {config.model_type or 'unknown'} and {template.letter} is "
                f"{base.model_type or 'unknown'}",
                "layers of one architecture do not compute the same inside another",
                "use donors of one architecture",
                used[donor.letter],
            )
            continue
        widths = list(_widths(donor, template, used[donor.letter]))
        yield from widths
        if used[donor.letter]:
            yield from _rope(donor, template, used[donor.letter])
            yield from _scalars(donor, template, used[donor.letter])
    yield from _tensor_sets(donors, template, layers)
    yield from _dtypes(donors, used)


def _letters(donors: Sequence[Donor]) -> list[str]:
    return [donor.letter for donor in donors]


def _uses(layer: PlannedLayer, letter: str) -> bool:
    return any(source == letter for source, _ in layer.sources)


def _same_architecture(one: ModelConfig, other: ModelConfig) -> bool:
    return one.model_type == other.model_type or any({one.model_type, other.model_type} <= s for s in _SAME_COMPUTATION)


def _widths(donor: Donor, template: Donor, layers: tuple[int, ...]) -> Iterator[Finding]:
    one, other = donor.checkpoint.config, template.checkpoint.config
    assert one and other
    pairs = (
        ("hidden-size", "hidden size", one.hidden_size, other.hidden_size),
        ("heads", "number of attention heads", one.heads, other.heads),
        ("kv-heads", "number of KV heads", one.kv_heads, other.kv_heads),
        ("head-dim", "head width", one.head_dim, other.head_dim),
        ("intermediate-size", "intermediate size", one.intermediate_size, other.intermediate_size),
        ("experts", "number of experts", one.experts, other.experts),
    )
    for code, name, mine, theirs in pairs:
        if mine != theirs and (layers or code == "hidden-size"):
            yield Finding(
                "error",
                code,
                f"The {name} of {donor.letter} is {mine}, that of {template.letter} is {theirs}",
                "a model has one for all its layers",
                f"use donors with the same {name}",
                layers,
            )


def _rope(donor: Donor, template: Donor, layers: tuple[int, ...]) -> Iterator[Finding]:
    one, other = donor.checkpoint.config, template.checkpoint.config
    assert one and other
    if one.rope != other.rope:
        yield Finding(
            "warning",
            "rope",
            f"The rotary settings of {donor.letter} ({_short(one.rope)}) are not those of {template.letter} "
            f"({_short(other.rope)})",
            f"the output has one setting, {template.letter}'s, so {donor.letter}'s layers see other positions than "
            "they were trained with",
            f"set base_model to the donor whose setting should win, or leave {donor.letter} out",
            layers,
        )


def _short(value: Mapping[str, Any]) -> str:
    return one_line(", ".join(f"{key} {item}" for key, item in value.items()) or "none")[:120]


def _scalars(donor: Donor, template: Donor, layers: tuple[int, ...]) -> Iterator[Finding]:
    one, other = donor.checkpoint.config, template.checkpoint.config
    assert one and other
    for keys, severity, name in _SCALARS:
        mine, theirs = one.get(*keys), other.get(*keys)
        if mine != theirs:
            yield Finding(
                "error" if severity == "error" else "warning",
                "setting",
                f"The {name} of {donor.letter} is {one_line(mine)}, that of {template.letter} is {one_line(theirs)}",
                f"the output has one for all layers: {template.letter}'s",
                "set base_model to the donor whose value should win, or use donors that agree",
                layers,
            )


def _signature(checkpoint: Checkpoint, index: int) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in checkpoint.layers[index].tensors.items()}


def _tensor_sets(donors: Sequence[Donor], template: Donor, layers: Sequence[PlannedLayer]) -> Iterator[Finding]:
    """Layers of one kind must have the same tensors, wherever they come from: biases, norms, shapes."""
    by_letter = {donor.letter: donor for donor in donors}
    reference: dict[tuple[Any, ...], tuple[str, dict[str, tuple[int, ...]]]] = {}
    for layer in template.checkpoint.layers:
        kind = (layer.attributes.get("mlp"), layer.attributes.get("attention"))
        reference.setdefault(kind, (template.letter, _signature(template.checkpoint, layer.index)))
    reported: set[str] = set()
    for planned in layers:
        for letter, index in planned.sources:
            donor = by_letter.get(letter)
            if donor is None or letter in reported or not 0 <= index < donor.checkpoint.depth:
                continue
            attributes = donor.checkpoint.layers[index].attributes
            mine = _signature(donor.checkpoint, index)
            other, theirs = reference.setdefault((attributes.get("mlp"), attributes.get("attention")), (letter, mine))
            if other != letter and mine != theirs:
                reported.add(letter)
                where = tuple(layer.index for layer in layers if _uses(layer, letter))
                yield _tensor_difference(letter, mine, other, theirs, where)


def _tensor_difference(
    letter: str,
    mine: Mapping[str, tuple[int, ...]],
    other: str,
    theirs: Mapping[str, tuple[int, ...]],
    layers: tuple[int, ...],
) -> Finding:
    extra, missing = sorted(set(mine) - set(theirs)), sorted(set(theirs) - set(mine))
    if extra or missing:
        parts = [f"{letter} has {one_line(', '.join(extra[:3]))}"] if extra else []
        parts += [f"{letter} lacks {one_line(', '.join(missing[:3]))}"] if missing else []
        kinds = {
            "bias" if name.endswith("bias") else "norm" if "norm" in name else "tensor" for name in extra + missing
        }
        return Finding(
            "error",
            "tensor-set",
            f"The layers of {letter} and {other} do not have the same tensors ({', '.join(sorted(kinds))}): "
            + ", ".join(parts),
            "one config describes all layers",
            "use donors that agree",
            layers,
        )
    name = next(name for name in mine if mine[name] != theirs[name])
    return Finding(
        "error",
        "shape",
        f"{one_line(name)} is {list(mine[name])} in {letter} and {list(theirs[name])} in {other}",
        "all layers of a model have the same shapes",
        "use donors of the same size",
        layers,
    )


def _dtypes(donors: Sequence[Donor], used: Mapping[str, tuple[int, ...]]) -> Iterator[Finding]:
    held = {d.letter: next(iter(d.checkpoint.dtypes)) for d in donors if used.get(d.letter)}
    if len(set(held.values())) > 1:
        parts = ", ".join(f"{letter} {dtype}" for letter, dtype in held.items())
        yield Finding(
            "warning",
            "dtype-mixed",
            f"The donors are stored in different dtypes ({parts})",
            "without dtype the output keeps each tensor's own, and loads in one of them",
            "set dtype in the recipe",
        )


def compare_tokenizers(embeddings: Donor, others: Sequence[Donor], template: Donor, head: Donor) -> Iterator[Finding]:
    """Whether every id means the same to the donor of the embeddings, of the head, of the tokenizer, and of layers."""
    base = embeddings.checkpoint
    for donor in others:
        if donor.letter == embeddings.letter:
            continue
        mine = donor.checkpoint
        rows = (_rows(base), _rows(mine))
        same = mine.tokenizer.digest == base.tokenizer.digest
        if same and rows[0] == rows[1]:
            continue
        matters = donor.letter in {template.letter, head.letter}
        sizes = f" ({rows[0]:,} and {rows[1]:,} rows)" if rows[0] and rows[1] and rows[0] != rows[1] else ""
        unknown = not (mine.tokenizer.digest and base.tokenizer.digest)
        if unknown and rows[0] == rows[1]:
            if matters and (mine.tokenizer.digest or base.tokenizer.digest):
                yield _tokenizer_note(embeddings, donor)
            continue
        yield Finding(
            "error" if matters else "warning",
            "tokenizer",
            f"{embeddings.letter} and {donor.letter} have different "
            + (f"vocabularies{sizes}" if sizes else "tokenizers"),
            "the embeddings, the head and the tokenizer must mean the same by every token id"
            if matters
            else f"{donor.letter}'s layers were trained on other tokens than {embeddings.letter}'s embeddings give",
            "take embeddings, head and base_model from donors with one tokenizer" if matters else "",
        )


def _tokenizer_note(embeddings: Donor, donor: Donor) -> Finding:
    bare = donor if not donor.checkpoint.tokenizer.digest else embeddings
    return Finding(
        "note",
        "tokenizer-unknown",
        f"{bare.letter} has no tokenizer files, so its token ids cannot be compared",
        f"both have {plural(_rows(bare.checkpoint) or 0, 'row')}",
    )


def _rows(checkpoint: Checkpoint) -> int | None:
    """Rows of the token embedding."""
    for name, entry in checkpoint.ends["embeddings"].items():
        if name.startswith(("embed_tokens.", "wte.", "embed_in.", "word_embeddings.", "embeddings.", "embedding.")):
            return entry.shape[0] if entry.shape else None
    return None
