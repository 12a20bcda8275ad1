"""The layer rules of each model type, and other facts about per-layer config keys.

`RULES` holds the rules of each model type with a special form, in the order in which transformers applies them (source:
transformers 5.23; tests compare the results with it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .derived_lists import FILLED_RULES, LIST, dense_first
from .layer_rules import (
    Between,
    Following,
    Formed,
    Indexed,
    Letters,
    Listed,
    Periodic,
    Prefixed,
    Repeated,
    Rule,
    Runs,
    Text,
    Uniform,
    Values,
    natural,
)

_DENSE = Uniform("mlp", "dense")


def _dense_first(key: str, count: int) -> Prefixed:
    return Prefixed("mlp", key, "dense", "experts", count)


def _every(key: str, inside: str, outside: str, period: int) -> Periodic:
    return Periodic("attention", key, inside, outside, period)


_QWEN_NEXT = (LIST, _every("full_attention_interval", "full", "linear", 4))
_GRANITE_HYBRID = (LIST, Uniform("attention", "linear"))
_LLAMA4 = (
    Listed("rope", ("no_rope_layers",), {1: True, 0: False}),
    Periodic("rope", "no_rope_layer_interval", False, True, 4),
    LIST,
    Following("attention", "rope", {True: "chunked", False: "full"}),
    Indexed("mlp", "moe_layers", "experts", "dense"),
    Periodic("mlp", "interleave_moe_layer_step", "experts", "dense", 1),
)
_NEMOTRON_KINDS = {"M": "linear", "*": "full", "-": "mlp", "E": "moe"}

RULES: Mapping[str, tuple[Rule, ...]] = {
    **FILLED_RULES,
    "afmoe": (LIST, _every("global_attn_every_n_layers", "full", "sliding", 4), _dense_first("num_dense_layers", 1)),
    "bailing_hybrid": (
        LIST,
        _every("layer_group_size", "full", "linear", 6),
        *dense_first(2),
    ),
    "bamba": (Indexed("attention", "attn_layer_indices", "full", "linear", absent="linear"), _DENSE),
    "deepseek_v2": (_dense_first("first_k_dense_replace", 0),),
    "deepseek_v3": (_dense_first("first_k_dense_replace", 3),),
    "ernie4_5_moe": (Between("mlp", "moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"),),
    "glm4_moe": (_dense_first("first_k_dense_replace", 1),),
    "gpt_neo": (Runs("attention", "attention_types", {"global": "full", "local": "sliding"}), _DENSE),
    "granitemoehybrid": _GRANITE_HYBRID,
    "jamba": (
        Periodic("attention", "attn_layer_period", "full", "linear", 8, "attn_layer_offset", 4),
        Periodic("mlp", "expert_layer_period", "experts", "dense", 2, "expert_layer_offset", 1),
    ),
    "lfm2": (LIST, Indexed("attention", "full_attn_idxs", "full", "conv", absent="full"), _DENSE),
    "lfm2_moe": (LIST, _dense_first("num_dense_layers", 2)),
    "llama4": _LLAMA4,
    "llama4_text": _LLAMA4,
    "mllama_text_model": (
        Indexed("attention", "cross_attention_layers", "cross_attention", "full"),
        Formed("attention", lambda text, index, depth: "cross_attention" if index in range(3, 40, 5) else "full"),
        _DENSE,
    ),
    "nemotron_h": (
        Listed(keys=("layers_block_type", "layer_types")),
        Letters("attention", "hybrid_override_pattern", _NEMOTRON_KINDS),
        Following("mlp", "attention", {"moe": "experts", "mlp": "dense", "full": "none", "linear": "none"}),
    ),
    "qwen3_next": _QWEN_NEXT,
    "qwen3_5_text": (*_QWEN_NEXT, _DENSE),
    "qwen3_5_moe_text": (*_QWEN_NEXT, Uniform("mlp", "experts")),
    "recurrent_gemma": (
        Repeated(
            "attention",
            "block_types",
            {"recurrent": "linear", "attention": "sliding"},
            ("recurrent", "recurrent", "attention"),
        ),
        _DENSE,
    ),
}
"""Model type -> rules. Of the rules for an attribute, the first that finds a value reads, and the first that can
express the values writes."""


@dataclass(frozen=True)
class Depth:
    """The key with which a model type counts its layers.

    Attributes:
        key: the key.
        runs: how often `num_hidden_layers` counts each layer (1 if `key` is only another name); None if it counts the
            layers of another stack.
    """

    key: str
    runs: Callable[[Text], int] | None = lambda text: 1


DEPTHS: Mapping[str, Depth] = {
    # Two stacks run alternately: the lower one L_cycles times, then the upper one once, and all that H_cycles times.
    "hrm_text": Depth(
        "num_layers_per_stack",
        lambda text: (natural(text.get("H_cycles"), 2) or 0) * ((natural(text.get("L_cycles"), 3) or 0) + 1),
    ),
    # Each layer attends twice.
    "longcat_flash": Depth("num_layers", lambda text: 2),
    "xlstm": Depth("num_blocks"),
    **dict.fromkeys(
        (
            "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart",
            "whisper",
        ),
        Depth("decoder_layers", None),
    ),
    "trocr": Depth("decoder_layers"),
    "prophetnet": Depth("num_decoder_layers", None),
}  # fmt: skip

WINDOW_KEYS: Mapping[str, tuple[str, int]] = {
    "gpt_neo": ("window_size", 256),
    "modernbert": ("local_attention", 128),
    "recurrent_gemma": ("attention_window_size", 2048),
    "cwm": ("sliding_window", 8192),
    "dots1": ("sliding_window", 4096),
    "flint": ("sliding_window", 513),
    "kolibri1": ("sliding_window", 513),
    "lfm3": ("sliding_window", 256),
    "mimo_v2_flash": ("sliding_window", 129),
    "ministral": ("sliding_window", 4096),
    "modernbert-decoder": ("local_attention", 128),
    "vaultgemma": ("sliding_window", 4096),
}
"""Model types whose sliding window has another key or a default: (key, window if it is absent)."""

VALUE_LISTS = (
    "layer_rope_theta", "num_attention_heads_per_layer", "num_key_value_heads_per_layer", "activation_sparsity_pattern",
    "intermediate_size", "moe_topk", "num_experts", "attention_window", "swiglu_limits", "swiglu_limits_shared",
    "attention_layers", "attn_layers", "num_query_heads", "num_kv_heads", "ffn_multipliers", "block_configs",
)  # fmt: skip
"""Keys that, if they hold a list, hold a value per layer that moves with the layer."""

INDEX_LISTS: Mapping[str, int] = {"ple_layer_ids": 1}
"""Keys that list the layers with n-gram tables -> the number of the first layer."""

NEEDED: Mapping[str, tuple[str, ...]] = {"olmo_hybrid": ("linear", "full")}
"""Model type -> kinds of attention of which it must have at least one layer."""

UNTIED = frozenset({
    "bailing_hybrid", "cpmant", "inkling2_text", "inkling_text", "kimi_linear", "mllama_text_model", "moshi",
    "musicgen_decoder", "musicgen_melody_decoder", "nemotron_h", "reformer", "rembert", "xlstm",
})  # fmt: skip
"""Model types whose head is never tied to the embedding, whatever the config contains."""

LAST_IS_FULL = frozenset({
    "gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text", "diffusion_gemma", "diffusion_gemma_text",
})  # fmt: skip
"""Model types that force full attention in their last layer."""

FILLED: Mapping[str, frozenset[str]] = {
    "layer_types": frozenset({
        "beam", "deepseek_v4", "diffusion_gemma", "diffusion_gemma_text", "embedding_gemma2", "embedding_gemma2_text",
        "exaone4_5", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text",
        "glm5_next", "glm5_next_text", "granite_swa", "granitemoe_swa", "minimax_m3_vl",
        "minimax_m3_vl_text", "mistral_large4", "mistral_large4_text", "modernbert", "muse_glimmer",
        "muse_glimmer_text", "muse_spark", "muse_spark_text", "neomme", "qwen2_5_omni_text",
        "step3p5", "step3p7", "t5gemma", "t5gemma2", "t5gemma2_decoder",
        "t5gemma2_encoder", "t5gemma2_text", "ultrabert", "unlimited_ocr", "unlimited_ocr_text",
    }),
    "mlp_layer_types": frozenset({
        "beam", "deepseek_v4", "ernie4_5_vl_moe", "ernie4_5_vl_moe_text", "glm5_next", "glm5_next_text",
        "minimax_m3_vl", "minimax_m3_vl_text", "mistral_large4", "mistral_large4_text", "muse_spark", "muse_spark_text",
        "step3p5", "step3p7", "unlimited_ocr", "unlimited_ocr_text",
    }),
    "no_rope_layers": frozenset({"mistral_large4", "mistral_large4_text"}),
    "indexer_types": frozenset({"glm5_next", "glm5_next_text", "mistral_large4", "mistral_large4_text"}),
    "kv_source_layers": frozenset({"mistral_large4", "mistral_large4_text"}),
    "layer_rope_theta": frozenset({
        "granite_swa", "granitemoe_swa", "muse_glimmer", "muse_glimmer_text", "muse_spark", "muse_spark_text",
    }),
}  # fmt: skip
"""Per-layer lists that transformers fills in for model types without a rule here; if such a list is absent, the
attributes of layers are unknown."""


def rules(model_type: str) -> tuple[Rule, ...]:
    """The rules of a model type; most have none."""
    return RULES.get(model_type, ())


def rule_keys(model_type: str) -> frozenset[str]:
    """Every config key that the rules of a model type read and write."""
    return frozenset(key for rule in rules(model_type) for key in rule.keys)


def attributes_by_rules(model_type: str, text: Text, depth: int) -> dict[str, list[Any]]:
    """The attributes that the rules of a model type find: attribute -> a list with an entry per layer."""
    known: dict[str, list[Any]] = {}
    for rule in rules(model_type):
        if rule.attribute not in known and (values := rule.read(text, depth, known)) is not None:
            known[rule.attribute] = values
    return known


def write_rules(model_type: str, text: dict[str, Any], wanted: Mapping[str, Values]) -> None:
    """Write the attributes `wanted` (attribute -> a value per layer) into `text`.

    The first rule of each attribute that can express the values writes them. The keys of later rules are kept for other
    programs if they can express the same values; otherwise they are removed.
    """
    for attribute in dict.fromkeys(rule.attribute for rule in rules(model_type)):
        values = list(wanted[attribute])
        mine = [rule for rule in rules(model_type) if rule.attribute == attribute]
        for number, rule in enumerate(mine):
            patch = rule.write(values, text)
            if patch is None:
                continue
            also = {key: value for later in mine[number + 1 :] for key, value in _same(later, values, text).items()}
            others = _keys(mine[number + 1 :]) - _keys(mine[: number + 1]) - also.keys()
            trial = {key: value for key, value in text.items() if key not in others} | also | patch
            if attributes_by_rules(model_type, trial, len(values)).get(attribute) == values:
                for key in others:
                    text.pop(key, None)
                text.update(also | patch)
                break


def _same(rule: Rule, values: Values, text: Text) -> dict[str, Any]:
    """The keys of a rule that express `values` too; {} if the config lacks them or they cannot express the values."""
    if rule.read(text, len(values), {}) in (None, values):
        return {key: text[key] for key in rule.keys if key in text}
    patch = rule.write(values, text)
    if not patch or not patch.keys() <= text.keys():
        return {}
    return patch if rule.read({**text, **patch}, len(values), {}) == values else {}


def _keys(group: Iterable[Rule]) -> frozenset[str]:
    return frozenset(key for rule in group for key in rule.keys)
