"""The output's config.json: every attribute that belongs to a layer follows the layer it came with.

One rule for all families: resolve each donor's layers to their own attributes, gather them in the output's order,
write them explicitly where the config would say something else, and resolve the result again. What still differs
cannot be represented, and that is an error, never a wrong config.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..checkpoint import Checkpoint
from ..checkpoint.config import ATTENTION_NAMES, DEPTH_KEYS, ModelConfig, layer_attributes
from ..text import ranges
from .types import Finding

LISTS = ("layer_types", "no_rope_layers", "mlp_layer_types")
"""Config keys with one entry per layer that are gathered as they stand."""

_PERIODS = ("sliding_window_pattern", "_sliding_window_pattern", "no_rope_layer_interval")
_LAYER_TYPES = {"full": "full_attention", "sliding": "sliding_attention"}
_DEPTH_MATHS = ("scale_attn_by_inverse_layer_idx", "rescale_every", "scale_depth")
_SUSPECT = re.compile(r"layer|interval|period|pattern|indices|_idx|first_k|nextn|mtp|sparse_step|share|block_config")
_HARMLESS = {
    *DEPTH_KEYS, *LISTS, *_PERIODS, "max_window_layers", "mlp_only_layers", "decoder_sparse_step",
    "first_k_dense_replace", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "layer_norm_rms_eps",
    "layerdrop", "use_qk_layernorm", "qk_layernorm", "apply_residual_connection_post_layernorm",
    "activation_function", "use_layernorm", "layer_norm_elementwise_affine", "num_ln_in_parallel_attn",
    "moe_layer_freq_unused", "initializer_range", "n_shared_experts", "shared_expert_intermediate_size",
    "encoder_layers", "encoder_layerdrop", "decoder_layerdrop", "do_layer_norm_before", "_remove_final_layer_norm",
    "use_sliding_window", "residual_in_fp32", "tie_word_embeddings", "use_parallel_residual", "layernorm_type",
}  # fmt: skip

SourceLayer = tuple[Checkpoint, int]


def output_config(
    template: Checkpoint,
    layers: Sequence[SourceLayer],
    *,
    tied: bool,
    dtype: str | None,
    vocab_size: int | None,
) -> tuple[dict[str, Any], list[Finding]]:
    """The config of a model made of `layers`, and what cannot be said in it.

    Args:
        template: the donor whose config everything global comes from.
        layers: for each output layer its donor and the layer there.
        tied: whether the head is the embedding.
        dtype: torch's name of the dtype most of the output has; None leaves the template's.
        vocab_size: rows of the output's embedding; None leaves the template's.
    """
    assert template.config is not None
    raw = copy.deepcopy(template.config.raw)
    config = ModelConfig.of(raw)
    text = config.text
    depth_key = config.depth_key
    if depth_key is None:
        return raw, [_cannot("the number of layers", "the config has no key for it")]
    text[depth_key] = len(layers)
    _set_globals(config, template, tied, dtype, vocab_size)
    findings = list(_unknown_keys(template, layers))
    _gather_lists(text, layers)
    wanted = [dict(donor.layers[index].attributes) for donor, index in layers]
    for write in (_write_attention, _write_rope, _write_mlp):
        write(config, wanted)
    findings += _differences(config, wanted)
    return raw, findings


def _set_globals(
    config: ModelConfig, template: Checkpoint, tied: bool, dtype: str | None, vocab_size: int | None
) -> None:
    raw, text = config.raw, config.text
    # Written only where it differs from what transformers would read: a config stays as its author left it.
    if tied != config.tied or (tied != template.tied and not config.says_tied):
        for level in (raw, text):
            level.pop("tie_word_embeddings", None)
        raw["tie_word_embeddings"] = tied
        if config.nest:
            text["tie_word_embeddings"] = tied
    if dtype is not None:
        found = False
        for level in (raw, text):
            for key in ("dtype", "torch_dtype"):
                if key in level:
                    level[key] = dtype
                    found = True
        if not found:
            raw["torch_dtype"] = dtype
    if vocab_size is not None and config.vocab_size not in (None, vocab_size):
        text["vocab_size"] = vocab_size


def _cannot(what: str, why: str, layers: tuple[int, ...] = ()) -> Finding:
    return Finding(
        "error",
        "config",
        f"The output's config.json cannot express {what}",
        why,
        "keep the layers of this family in their own order and number, or leave this donor out",
        layers,
    )


def _in_place(layers: Sequence[SourceLayer]) -> bool:
    """Whether every layer stays where it was, in a stack of its donor's own depth."""
    return all(index == position and donor.depth == len(layers) for position, (donor, index) in enumerate(layers))


def _unknown_keys(template: Checkpoint, layers: Sequence[SourceLayer]) -> Iterator[Finding]:
    """Keys that seem to count layers and that surgeon has no rule for: refused as soon as layers move."""
    assert template.config is not None
    if _in_place(layers):
        return
    donors = {id(donor): donor for donor, _ in layers}
    donors[id(template)] = template
    reported: set[str] = set()
    for donor in donors.values():
        assert donor.config is not None
        for key, why in _suspects(donor.config, donor.depth):
            if key not in reported:
                reported.add(key)
                yield _cannot(f"what `{key}` says of each layer", why)


def _suspects(config: ModelConfig, depth: int) -> Iterator[tuple[str, str]]:
    kind = config.model_type or "this model"
    for key, value in config.text.items():
        if key in _DEPTH_MATHS and value:
            yield key, "it makes the computation depend on the depth or on a layer's position"
        elif key in LISTS or not value or (isinstance(value, (str, bool)) and config.family):
            continue
        elif isinstance(value, list) and len(value) == depth and depth > 2 and key not in _HARMLESS:
            if key not in {"architectures", "eos_token_id", "suppress_tokens", "begin_suppress_tokens"}:
                yield key, f"it has one entry per layer, and surgeon has no rule for it in {kind}"
        elif config.family is None and key not in _HARMLESS and _SUSPECT.search(key):
            yield key, f"it may count layers, and surgeon has no rule for it in {kind}"


def _gather_lists(text: dict[str, Any], layers: Sequence[SourceLayer]) -> None:
    for key in LISTS:
        gathered = []
        for donor, index in layers:
            assert donor.config is not None
            values = donor.config.text.get(key)
            if not isinstance(values, list) or index >= len(values):
                break
            gathered.append(values[index])
        else:
            if isinstance(text.get(key), list):
                text[key] = gathered
            continue
        text.pop(key, None)


def _now(config: ModelConfig, depth: int, attribute: str) -> list[Any]:
    return [row.get(attribute) for row in layer_attributes(config, depth)]


def _write_attention(config: ModelConfig, wanted: Sequence[Mapping[str, Any]]) -> None:
    kinds = [row["attention"] for row in wanted]
    explicit = isinstance(config.text.get("layer_types"), list)
    if (explicit or (config.family and config.family.explicit)) and _now(config, len(kinds), "attention") != kinds:
        back = {**{short: long for long, short in ATTENTION_NAMES.items()}, **_LAYER_TYPES}
        config.text["layer_types"] = [back.get(kind, kind) for kind in kinds]
    if "layer_types" in config.text:
        for key in _PERIODS[:2]:
            config.text.pop(key, None)


def _write_rope(config: ModelConfig, wanted: Sequence[Mapping[str, Any]]) -> None:
    rope = [row.get("rope") for row in wanted]
    if None not in rope and _now(config, len(rope), "rope") != rope:
        config.text["no_rope_layers"] = [int(bool(value)) for value in rope]


def _write_mlp(config: ModelConfig, wanted: Sequence[Mapping[str, Any]]) -> None:
    kinds = [row["mlp"] for row in wanted]
    if _now(config, len(kinds), "mlp") == kinds:
        return
    dense = [index for index, kind in enumerate(kinds) if kind == "dense"]
    if "mlp_only_layers" in config.text or "decoder_sparse_step" in config.text:
        config.text["decoder_sparse_step"] = 1
        config.text["mlp_only_layers"] = dense
    elif "first_k_dense_replace" in config.text and dense == list(range(len(dense))):
        config.text["first_k_dense_replace"] = len(dense)


def _differences(config: ModelConfig, wanted: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    got = layer_attributes(config, len(wanted))
    names = {"attention": "attention kind", "window": "sliding window", "rope": "rope", "mlp": "kind of MLP"}
    for attribute, name in names.items():
        wrong = [
            index
            for index, (have, want) in enumerate(zip(got, wanted, strict=True))
            if have.get(attribute) != want.get(attribute) or (attribute in want and want[attribute] is None)
        ]
        if wrong:
            first = wrong[0]
            yield _cannot(
                f"the {name} of layer {ranges(wrong)}",
                f"layer {first} should have {wanted[first].get(attribute)}, the config gives "
                f"{got[first].get(attribute)}",
                tuple(wrong),
            )
