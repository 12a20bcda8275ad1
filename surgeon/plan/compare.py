"""Do the donors fit together? Shapes, names, and every global setting of the config that layers depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..checkpoint.config import ModelConfig
from ..text import one_line, plural
from .leftovers import weights
from .types import Donor, Finding, PlannedLayer

_SAME_COMPUTATION = ({"gemma3", "gemma3_text"},)
_SAME_FUNCTION = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new"}

# What a layer computes with, beyond its tensors: (keys that name it, severity when it differs, what it is). Compared
# only where both configs say it; what only one of them says is most often the default spelt out.
_SETTINGS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("hidden_activation", "hidden_act", "activation_function"), "error", "activation function"),
    (("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon"), "warning", "norm epsilon"),
    (("attn_logit_softcapping",), "error", "attention soft cap"),
    (("final_logit_softcapping",), "warning", "soft cap of the logits"),
    (("query_pre_attn_scalar",), "error", "attention scale"),
    (("attention_multiplier",), "error", "attention multiplier"),
    (("residual_multiplier",), "error", "residual multiplier"),
    (("embedding_multiplier",), "warning", "embedding multiplier"),
    (("logits_scaling", "logit_scale"), "warning", "scale of the logits"),
    (("alibi",), "error", "position scheme"),
    (("parallel_attn", "use_parallel_residual"), "error", "residual layout"),
    (("new_decoder_architecture",), "error", "decoder layout"),
    (("clip_qkv",), "warning", "clipping of queries, keys and values"),
    (("swiglu_limit",), "warning", "limit of the gated activation"),
    (("num_experts_per_tok", "num_experts_per_token", "experts_per_token"), "warning", "number of experts per token"),
    (("norm_topk_prob",), "warning", "expert weighting"),
    (("routed_scaling_factor",), "warning", "expert weighting"),
)  # fmt: skip


def compare(
    donors: Sequence[Donor],
    template: Donor,
    layers: Sequence[PlannedLayer],
    *,
    lines: Mapping[str, int | None],
    dtype: str | None,
) -> Iterator[Finding]:
    """Findings for every donor that gives layers or ends, against the donor of the config.

    Args:
        donors: those that give something.
        template: the donor of the config.
        layers: the output's.
        lines: where the recipe names a donor first, by letter.
        dtype: the dtype the recipe asks for.
    """
    used = {d.letter: tuple(layer.index for layer in layers if _uses(layer, d.letter)) for d in donors}
    for donor in donors:
        config, base = donor.checkpoint.config, template.checkpoint.config
        if donor.letter == template.letter or config is None or base is None:
            continue
        here = (used[donor.letter], lines.get(donor.letter))
        if not _same_architecture(config, base):
            yield Finding(
                "error",
                "architecture",
                f"{donor.letter} is {one_line(config.model_type) or 'unknown'} and {template.letter} is "
                f"{one_line(base.model_type) or 'unknown'}",
                "layers of one architecture do not compute the same inside another",
                "use donors of one architecture",
                *here,
            )
            continue
        yield from _widths(donor, template, *here)
        if used[donor.letter]:
            yield from _rope(donor, template, *here)
            yield from _settings(donor, template, *here)
    kin = [donor for donor in donors if _same_family(donor, template)]
    yield from _tensor_sets(kin, template, layers, lines)
    yield from _dtypes(donors, used, dtype)


def _uses(layer: PlannedLayer, letter: str) -> bool:
    return any(source == letter for source, _ in layer.sources)


def _same_family(donor: Donor, template: Donor) -> bool:
    one, other = donor.checkpoint.config, template.checkpoint.config
    return one is not None and other is not None and _same_architecture(one, other)


def _same_architecture(one: ModelConfig, other: ModelConfig) -> bool:
    return one.model_type == other.model_type or any({one.model_type, other.model_type} <= s for s in _SAME_COMPUTATION)


def _widths(donor: Donor, template: Donor, layers: tuple[int, ...], line: int | None) -> Iterator[Finding]:
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
                line,
            )


def _rope(donor: Donor, template: Donor, layers: tuple[int, ...], line: int | None) -> Iterator[Finding]:
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
            line,
        )
    elif one.context and other.context and one.context != other.context:
        yield Finding(
            "note",
            "context",
            f"The output's config says a context of {other.context:,} tokens, {template.letter}'s",
            f"{donor.letter} says {one.context:,}",
            layers=layers,
            line=line,
        )


def _short(value: Mapping[str, Any]) -> str:
    return one_line(", ".join(f"{key} {item}" for key, item in value.items()) or "none")[:120]


def _stated(config: ModelConfig, keys: Sequence[str]) -> tuple[bool, Any]:
    """Whether any of the keys is there, and the first value that is not null."""
    value = config.get(*keys)
    value = _SAME_FUNCTION.get(value, value) if isinstance(value, str) else value
    return any(key in config.text for key in keys), value


def _settings(donor: Donor, template: Donor, layers: tuple[int, ...], line: int | None) -> Iterator[Finding]:
    one, other = donor.checkpoint.config, template.checkpoint.config
    assert one and other
    for keys, severity, name in _SETTINGS:
        if keys[0] == "hidden_activation" and one.model_type == "gemma":
            continue  # Its first configs say gelu and mean the tanh form, which transformers always takes.
        (said, mine), (base_said, theirs) = _stated(one, keys), _stated(other, keys)
        if said and base_said and mine != theirs:
            yield Finding(
                "error" if severity == "error" else "warning",
                "setting",
                f"The {name} of {donor.letter} is {one_line(mine)}, that of {template.letter} is {one_line(theirs)}",
                f"the output has one for all layers: {template.letter}'s",
                "use donors that agree"
                if severity == "error"
                else "set base_model to the donor whose value should win, or use donors that agree",
                layers,
                line,
            )


def _signature(donor: Donor, index: int) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in weights(donor.checkpoint, index).items()}


def _tensor_sets(
    donors: Sequence[Donor], template: Donor, layers: Sequence[PlannedLayer], lines: Mapping[str, int | None]
) -> Iterator[Finding]:
    """Layers of one kind must have the same tensors, wherever they come from: biases, norms, shapes."""
    by_letter = {donor.letter: donor for donor in donors}
    reference: dict[tuple[Any, ...], tuple[str, dict[str, tuple[int, ...]]]] = {}

    def kind(donor: Donor, index: int) -> tuple[Any, ...]:
        attributes = donor.checkpoint.layers[index].attributes
        return attributes.get("mlp"), str(attributes.get("attention")) == "linear"

    for layer in template.checkpoint.layers:
        place = kind(template, layer.index)
        if place not in reference:
            reference[place] = (template.letter, _signature(template, layer.index))
    done: set[tuple[str, int]] = set()
    reported: set[str] = set()
    for planned in layers:
        for letter, index in planned.sources:
            donor = by_letter.get(letter)
            if (
                donor is None
                or letter in reported
                or not 0 <= index < donor.checkpoint.depth
                or (letter, index) in done
            ):
                continue
            done.add((letter, index))
            mine = _signature(donor, index)
            other, theirs = reference.setdefault(kind(donor, index), (letter, mine))
            if other != letter and mine != theirs:
                reported.add(letter)
                where = tuple(layer.index for layer in layers if _uses(layer, letter))
                yield _tensor_difference(letter, mine, other, theirs, where, lines.get(letter))


def _tensor_difference(
    letter: str,
    mine: Mapping[str, tuple[int, ...]],
    other: str,
    theirs: Mapping[str, tuple[int, ...]],
    layers: tuple[int, ...],
    line: int | None,
) -> Finding:
    extra, missing = sorted(set(mine) - set(theirs)), sorted(set(theirs) - set(mine))
    if extra or missing:
        parts = [f"{letter} has {_some(extra)}"] if extra else []
        parts += [f"{letter} lacks {_some(missing)}"] if missing else []
        kinds = {
            "biases" if name.endswith("bias") else "norms" if "norm" in name else "tensors" for name in extra + missing
        }
        return Finding(
            "error",
            "tensor-set",
            f"The layers of {letter} and {other} do not have the same {' and '.join(sorted(kinds))}",
            "; ".join(parts) + "; one config describes all layers",
            "use donors that agree",
            layers,
            line,
        )
    name = next(name for name in mine if mine[name] != theirs[name])
    return Finding(
        "error",
        "shape",
        f"{one_line(name)} is {list(mine[name])} in {letter} and {list(theirs[name])} in {other}",
        "all layers of a model have the same shapes",
        "use donors of the same size",
        layers,
        line,
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return one_line(", ".join(names[:3])) + more


def _dtypes(donors: Sequence[Donor], used: Mapping[str, tuple[int, ...]], dtype: str | None) -> Iterator[Finding]:
    held = {d.letter: next(iter(d.checkpoint.dtypes)) for d in donors if used.get(d.letter)}
    if len(set(held.values())) < 2:
        return
    parts = ", ".join(f"{letter} {code}" for letter, code in held.items())
    if dtype is not None:
        yield Finding("note", "dtype-mixed", f"The donors have different dtypes ({parts})", f"all become {dtype}")
        return
    yield Finding(
        "warning",
        "dtype-mixed",
        f"The donors have different dtypes ({parts})",
        "the recipe sets no dtype, so each tensor keeps its own, and a model is loaded in one of them",
        "set dtype in the recipe",
    )


def compare_tokenizers(embeddings: Donor, others: Sequence[Donor], template: Donor, head: Donor) -> Iterator[Finding]:
    """Whether every id means the same to the donor of the embeddings, of the head, of the tokenizer, and of layers."""
    base = embeddings.checkpoint
    for donor in others:
        if donor.letter == embeddings.letter:
            continue
        mine = donor.checkpoint
        rows = (_rows(embeddings), _rows(donor))
        known = bool(mine.tokenizer.digest and base.tokenizer.digest)
        same = known and mine.tokenizer.digest == base.tokenizer.digest
        matters = donor.letter in {template.letter, head.letter}
        if rows[0] == rows[1] and (same or not known):
            if matters and bool(mine.tokenizer.digest) != bool(base.tokenizer.digest):
                yield _tokenizer_note(embeddings, donor)
            continue
        if same and not matters:
            continue  # Padded to another number of rows, which layers never see.
        sizes = f" ({rows[0]:,} and {rows[1]:,} rows)" if rows[0] and rows[1] and rows[0] != rows[1] else ""
        if same:
            what = f"{embeddings.letter} and {donor.letter} have one tokenizer and embeddings padded differently{sizes}"
        else:
            what = f"{embeddings.letter} and {donor.letter} have different " + (
                f"vocabularies{sizes}" if sizes else "tokenizers"
            )
        yield Finding(
            "error" if matters else "warning",
            "tokenizer",
            what,
            "the embeddings, the head and the tokenizer must mean the same by every token id"
            if matters
            else f"{donor.letter}'s layers were trained on other tokens than {embeddings.letter}'s embeddings give",
            "take embeddings, head and base_model from donors with one tokenizer"
            if matters
            else "expect worse text than from donors with one tokenizer",
        )


def _tokenizer_note(embeddings: Donor, donor: Donor) -> Finding:
    bare = donor if not donor.checkpoint.tokenizer.digest else embeddings
    return Finding(
        "note",
        "tokenizer-unknown",
        f"{bare.letter} has no tokenizer files, so its token ids cannot be compared",
        f"both have {plural(_rows(bare) or 0, 'row')}",
    )


def _rows(donor: Donor) -> int | None:
    """Rows of the token embedding."""
    table = donor.checkpoint.token_embedding
    return table.shape[0] if table else None


def compare_ends(embeddings: Donor, final_norm: Donor, template: Donor) -> Iterator[Finding]:
    """Whether the ends fit the config, which is the template's: the same tensors, and of the same shape but for rows of
    tokens."""
    for role, donor in (("embeddings", embeddings), ("final_norm", final_norm)):
        if donor.letter == template.letter:
            continue
        table = donor.checkpoint.token_embedding
        mine = {name: e.shape[1:] if e is table else e.shape for name, e in donor.checkpoint.ends[role].items()}
        table = template.checkpoint.token_embedding
        theirs = {name: e.shape[1:] if e is table else e.shape for name, e in template.checkpoint.ends[role].items()}
        if mine != theirs:
            name = next(name for name in (*mine, *theirs) if mine.get(name) != theirs.get(name))
            yield Finding(
                "error",
                "end-shape",
                f"{role} of {donor.letter} do not fit the config of {template.letter}",
                f"{one_line(name)} is {list(mine.get(name, ())) or 'missing'} in {donor.letter} and "
                f"{list(theirs.get(name, ())) or 'missing'} in {template.letter}",
                "take both from one donor, or set base_model to it",
            )
