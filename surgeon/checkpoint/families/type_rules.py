"""Which model type says by which rules what its layers are, and what else surgeon knows of keys by layer.

`RULES` has, for each model type that says it in a way of its own, the rules in the order in which transformers heeds
them (read off transformers 5.23; tests hold them against it).
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
"""By model type, the first rule for an attribute that reads one counts, and the first that can say it writes."""


@dataclass(frozen=True)
class Depth:
    """How a model type counts its layers under a key of its own.

    Attributes:
        key: the key.
        runs: how often each layer counts in `num_hidden_layers`, which is 1 where that key is another name; None where
            it counts the layers of another stack.
    """

    key: str
    runs: Callable[[Text], int] | None = lambda text: 1


DEPTHS: Mapping[str, Depth] = {
    # Two stacks run in turns: the lower one L_cycles times for each time of the upper one, all that H_cycles times.
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
"""Model types whose sliding window has another name or a default: the key, and the window when it is absent."""

VALUE_LISTS = (
    "layer_rope_theta", "num_attention_heads_per_layer", "num_key_value_heads_per_layer", "activation_sparsity_pattern",
    "intermediate_size", "moe_topk", "num_experts", "attention_window", "swiglu_limits", "swiglu_limits_shared",
    "attention_layers", "attn_layers", "num_query_heads", "num_kv_heads", "ffn_multipliers", "block_configs",
)  # fmt: skip
"""Keys that hold, where they hold a list, a value for each layer that goes along with it."""

INDEX_LISTS: Mapping[str, int] = {"ple_layer_ids": 1}
"""Keys that list the layers with tables of n-grams, and the number that means the first layer."""

NEEDED: Mapping[str, tuple[str, ...]] = {"olmo_hybrid": ("linear", "full")}
"""Kinds of attention of which a model type must have at least one layer."""

UNTIED = frozenset({
    "bailing_hybrid", "cpmant", "inkling2_text", "inkling_text", "kimi_linear", "mllama_text_model", "moshi",
    "musicgen_decoder", "musicgen_melody_decoder", "nemotron_h", "reformer", "rembert", "xlstm",
})  # fmt: skip
"""Model types whose head is never the embedding, whatever the config says."""

LAST_IS_FULL = frozenset({
    "gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text", "diffusion_gemma", "diffusion_gemma_text",
})  # fmt: skip
"""Model types that make their last layer one of full attention."""

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
"""Lists that transformers fills in for model types of which surgeon knows no rule: without them it cannot tell."""


def rules(model_type: str) -> tuple[Rule, ...]:
    """The rules of a model type, () for most."""
    return RULES.get(model_type, ())


def rule_keys(model_type: str) -> frozenset[str]:
    """Every config key that a model type's rules read and write."""
    return frozenset(key for rule in rules(model_type) for key in rule.keys)


def ruled(model_type: str, text: Text, depth: int) -> dict[str, list[Any]]:
    """The attributes that rules say, one list per attribute with an entry per layer."""
    known: dict[str, list[Any]] = {}
    for rule in rules(model_type):
        if rule.attribute not in known and (values := rule.read(text, depth, known)) is not None:
            known[rule.attribute] = values
    return known


def write_rules(model_type: str, text: dict[str, Any], wanted: Mapping[str, Values]) -> None:
    """Make `text` say `wanted` of each layer, by the first rule of each attribute that can.

    What later rules read stays where it can say the same, for other programs, and goes where it cannot.
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
            if ruled(model_type, trial, len(values)).get(attribute) == values:
                for key in others:
                    text.pop(key, None)
                text.update(also | patch)
                break


def _same(rule: Rule, values: Values, text: Text) -> dict[str, Any]:
    """What the keys of a rule must be to say `values` too; {} where the config lacks them, or they cannot."""
    if rule.read(text, len(values), {}) in (None, values):
        return {key: text[key] for key in rule.keys if key in text}
    said = rule.write(values, text)
    if not said or not said.keys() <= text.keys():
        return {}
    return said if rule.read({**text, **said}, len(values), {}) == values else {}


def _keys(group: Iterable[Rule]) -> frozenset[str]:
    return frozenset(key for rule in group for key in rule.keys)
