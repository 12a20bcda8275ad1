"""What in a config ties layers to their places: keys that count layers, and computations that depend on the depth.

A family in `FAMILIES` has been read: only what nobody could expect there is doubted. Of any other, each key that may
count layers is, because a config that goes on counting the old layers loads and computes something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..checkpoint.config import DEPTH_KEYS, ModelConfig

LISTS = ("layer_types", "no_rope_layers", "mlp_layer_types")
"""Config keys with one entry per layer that are gathered as they stand."""

_REWRITTEN = frozenset({
    *DEPTH_KEYS, *LISTS, "sliding_window_pattern", "_sliding_window_pattern", "no_rope_layer_interval",
    "max_window_layers", "use_sliding_window", "mlp_only_layers", "decoder_sparse_step", "first_k_dense_replace",
})  # fmt: skip
"""Keys that the output's config is made to say the right thing by."""

_DEPTH_MATHS = ("scale_attn_by_inverse_layer_idx", "rescale_every", "scale_depth", "rescale_layer", "use_depth_scaled")
_COUNTS = re.compile(
    r"layer|block|interval|period|pattern|_idx|indices|first_k|nextn|mtp|sparse_step|_freq|kv_shar|stage"
)
_HARMLESS = re.compile(r"layer_?norm|layer_?drop|layer_scale|encoder_|initializer|block_(size|length|multiple)")
_NEUTRAL = {"moe_layer_freq": 1, "decoder_sparse_step": 1, "interleave_moe_layer_step": 1, "expert_layer_period": 1}
_NOT_BY_LAYER = frozenset({
    "architectures", "eos_token_id", "bos_token_id", "pad_token_id", "suppress_tokens", "begin_suppress_tokens",
    "bad_words_ids", "keys_to_ignore_at_inference", "mlp_only_layers",
})  # fmt: skip

_SHARING = "its layers share keys and values by position, and have columns of a table outside them"
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
    "gpt_neox_japanese": "only its last layer has a bias",
    "minicpm3": "its residual scale depends on the depth",
    "minimax": "its decay depends on a layer's index and the depth",
    "modernbert-decoder": "its first layer lacks a norm that the others have",
    "recurrent_gemma": "its block types repeat from the first layer on",
    "rwkv": "its weights are rescaled by the layer's index",
    "zamba": _ZAMBA,
    "zamba2": _ZAMBA,
}
"""Model types whose computation depends on where a layer stands, whatever their config says."""


def depth_bound(config: ModelConfig) -> str | None:
    """Why layers of this model type cannot be moved at all, or None."""
    return _DEPTH_BOUND.get(config.model_type)


def suspects(config: ModelConfig, depth: int) -> Iterator[tuple[str, str]]:
    """Keys of a config of `depth` layers that would be wrong once layers move, each with the reason."""
    kind = config.model_type or "this model"
    vision = config.raw.get("vision_config")
    if isinstance(vision, dict) and vision.get("deepstack_visual_indexes"):
        yield "deepstack_visual_indexes", "the features of images enter the first layers by their position"
    for key, value in config.text.items():
        if key in _DEPTH_MATHS and value:
            yield key, "it makes the computation depend on the depth or on a layer's position"
        elif key in LISTS or not value:
            continue
        elif isinstance(value, list) and len(value) == depth > 2 and key not in _NOT_BY_LAYER:
            yield key, f"it has one entry per layer, and surgeon has no rule for it in {kind}"
        elif config.family is None and _may_count(key, value):
            yield key, f"it may count layers, and surgeon has no rule for it in {kind}"


def _may_count(key: str, value: object) -> bool:
    """Whether a key of an unread family may say something by layer: a number, list, table or pattern, by its name."""
    if key in _REWRITTEN or isinstance(value, (bool, float)) or _NEUTRAL.get(key, ()) == value:
        return False
    return bool(_COUNTS.search(key)) and not _HARMLESS.search(key)
