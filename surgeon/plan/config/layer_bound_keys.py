"""Config keys that depend on the index or number of layers, and computations that depend on the depth.

The keys of a family in `FAMILIES` are known, so only unexpected ones are reported. In any other family every key that
may count layers is reported, because a config with a wrong count loads and computes something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ...checkpoint.families.derived_lists import FILLED_VALUES
from ...checkpoint.families.model_config import DEPTH_KEYS, ModelConfig
from ...checkpoint.families.type_rules import DEPTHS, FILLED, INDEX_LISTS, VALUE_LISTS, rule_keys

LISTS = ("layer_types", "layers_block_type", "no_rope_layers", "mlp_layer_types", "indexer_types")
"""Config keys with one entry per layer, which are gathered unchanged."""

TABLE = "per_layer_config"
"""A config key with a table from layer indices to settings of those layers."""

MTP_COUNTS = ("num_nextn_predict_layers", "num_mtp_layers")
MTP_LISTS = (
    "mtp_layer_types", "mtp_mlp_layer_types", "mtp_layers_block_type", "mtp_hybrid_override_pattern",
    "mtp_local_layer_ids",
)  # fmt: skip
"""Config keys of the layers for multi-token prediction, which follow the other layers."""

_REWRITTEN = frozenset({
    *MTP_COUNTS, *MTP_LISTS, *DEPTH_KEYS, *LISTS, "sliding_window_pattern", "_sliding_window_pattern",
    "no_rope_layer_interval", "max_window_layers", "use_sliding_window", "mlp_only_layers", "decoder_sparse_step",
    "first_k_dense_replace", "prefix_dense_sliding_window_pattern",
})  # fmt: skip
"""Keys that are rewritten in the output's config."""

_DEPTH_MATHS = ("scale_attn_by_inverse_layer_idx", "rescale_every", "scale_depth", "rescale_layer", "use_depth_scaled")
_COMPENSATED = {("scale_depth", "minicpm3"), ("rescale_every", "rwkv")}
"""minicpm3's scale is recomputed; rwkv halves weights and residual stream by the same factor at load."""
_COUNTS = re.compile(
    r"layer|block|interval|period|pattern|_idx|indices|first_k|nextn|mtp|sparse_step|_freq|kv_shar|stage"
)
_HARMLESS = re.compile(
    r"layer_?norm|layer_?drop|layer_scale|encoder_|initializer|block_(size|length|multiple)|index_(local|topk)_blocks"
)
_NEUTRAL = {"moe_layer_freq": 1, "decoder_sparse_step": 1, "interleave_moe_layer_step": 1, "expert_layer_period": 1}
_NOT_BY_LAYER = frozenset({
    "architectures", "eos_token_id", "bos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens",
    "bad_words_ids", "keys_to_ignore_at_inference", "mlp_only_layers",
})  # fmt: skip

_SHARING = "its layers share keys and values by position, and have columns of a table outside them"
_RESIDUAL_BLOCKS = "which layers form a block, whose sum later layers attend to, depends on their index"
_ZAMBA = "its attention blocks are shared between layers by their index"
_DEPTH_BOUND = {
    "albert": "its layers share their weights in groups",
    "diffllama": "each layer's lambda depends on its index",
    "beam": "what a layer adds to the residual stream depends on its index",
    "gemma3n": _SHARING,
    "gemma3n_text": _SHARING,
    "gemma4": _SHARING,
    "gemma4_text": _SHARING,
    "gemma4_unified": _SHARING,
    "gemma4_unified_text": _SHARING,
    "minimax": "its decay depends on a layer's index and the depth",
    "inkling2": _RESIDUAL_BLOCKS,
    "inkling2_text": _RESIDUAL_BLOCKS,
    "zamba": _ZAMBA,
    "zamba2": _ZAMBA,
}
"""Model types whose computation depends on a layer's index, whatever their config says."""


_SHARED_WEIGHTS = frozenset({"albert", "zamba", "zamba2"})
"""Model types whose layers share weights, which are stored once."""

_FIRST_BOUND = dict.fromkeys(("modernbert", "modernbert-decoder"), "its first layer lacks a norm that the others have")
_LAST_BOUND = {"gpt_neox_japanese": "only its last layer has a bias"}
"""Model types whose first or last layer differs from the others."""


def end_bound(config: ModelConfig, depth: int, indices: Sequence[int]) -> str | None:
    """Why the output cannot have the layers `indices` of this model type, whose first or last layer is special."""
    first, last = _FIRST_BOUND.get(config.model_type), _LAST_BOUND.get(config.model_type)
    if first and (indices[0] != 0 or 0 in indices[1:]):
        return first
    return last if last and (indices[-1] != depth - 1 or depth - 1 in indices[:-1]) else None


def depth_bound(config: ModelConfig) -> str | None:
    """Why layers of this model type cannot be moved; None if they can."""
    if _shares_nothing(config):
        return None
    return _DEPTH_BOUND.get(config.model_type)


def shares_weights(config: ModelConfig) -> bool:
    """Whether layers of this model type share weights, so that all must come from one donor."""
    return config.model_type in _SHARED_WEIGHTS


def _shares_nothing(config: ModelConfig) -> bool:
    """Whether a gemma4 has neither shared keys and values nor embeddings per layer."""
    text = config.text
    unshared = config.model_type.startswith("gemma4") and not text.get("num_kv_shared_layers")
    # gemma4_unified has no embeddings per layer, and no key for their width.
    width = text.get("hidden_size_per_layer_input", 0 if "unified" in config.model_type else None)
    return unshared and width == 0


def layer_bound(config: ModelConfig, depth: int) -> Iterator[tuple[str, str]]:
    """Keys of a config of `depth` layers that may become wrong when layers move, each with the reason."""
    kind = config.model_type or "this model"
    vision = config.raw.get("vision_config")
    if isinstance(vision, dict) and vision.get("deepstack_visual_indexes"):
        yield "deepstack_visual_indexes", "the features of images enter the first layers by their position"
    for key, kinds in FILLED.items():
        if config.model_type in kinds and not isinstance(config.text.get(key), list) and config.family is None:
            yield key, f"config.json leaves out this list, and surgeon does not know its default in {kind}"
    known = rule_keys(config.model_type) | {TABLE, *LISTS, *INDEX_LISTS}
    if config.model_type in _DEPTH_BOUND:
        known |= {"n_layers_per_attn_res_block"}
    known |= {one for (owner, _), (_, keys) in FILLED_VALUES.items() if owner == config.model_type for one in keys}
    if config.model_type in DEPTHS:
        known |= {DEPTHS[config.model_type].key}
    if _shares_nothing(config):
        known |= {"vocab_size_per_layer_input"}
    for key, value in config.text.items():
        if key in _DEPTH_MATHS and value and (key, config.model_type) not in _COMPENSATED:
            yield key, "it makes the computation depend on the depth or on a layer's position"
        elif not value or key in known or (key in VALUE_LISTS and isinstance(value, list)):
            continue
        elif isinstance(value, list) and len(value) == depth > 2 and key not in _NOT_BY_LAYER:
            yield key, f"it has one entry per layer, and surgeon has no rule for it in {kind}"
        elif config.family is None and _may_count(key, value):
            yield key, f"it may count layers, and surgeon has no rule for it in {kind}"


def _may_count(key: str, value: object) -> bool:
    """Whether a key of an unknown family may concern single layers, judged by its name and value."""
    if key in _REWRITTEN or isinstance(value, (bool, float)) or _NEUTRAL.get(key, ()) == value:
        return False
    return bool(_COUNTS.search(key)) and not _HARMLESS.search(key)
