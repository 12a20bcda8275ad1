"""The cases of the matrix of model families, as data: model type, note, config keys, and what is refused why."""

from __future__ import annotations

from typing import Any

DEPTH = 6
SPLICES: dict[str, tuple[tuple[int, int], ...]] = {
    "grow": ((0, 4), (1, 6)),
    "shrink": ((0, 2), (4, 6)),
    "reorder": ((0, 1), (3, 4), (1, 3), (4, 6)),
}

DROP = object()
"""Value of a key in `Case.config` that takes the common one away."""

PLAIN = """
    llama mistral qwen2 qwen3 qwen2_moe qwen3_moe gemma gemma2 gemma3_text phi phi3 gpt2 gpt_neox gptj bloom opt mpt
    codegen gpt_bigcode starcoder2 stablelm olmo olmo2 olmo3 olmoe cohere cohere2 granite granitemoe granitemoehybrid
    granitemoeshared smollm3 exaone4 gpt_oss glm glm4 glm4_moe helium nemotron persimmon mixtral phimoe jetmoe
    llama4_text mamba mamba2 falcon_mamba bamba recurrent_gemma lfm2 qwen3_next ernie4_5 ernie4_5_moe hunyuan_v1_dense
    hunyuan_v1_moe arcee apertus seed_oss ministral ministral3 xglm biogpt modernbert-decoder vaultgemma bitnet cwm
    flex_olmo doge nanochat afmoe granite_swa granitemoe_swa minimax_m2 exaone_moe mimo_v2_flash qwen3_5_text
    gpt_neox_japanese solar_open openai-gpt internlm3 hy_v3 mellum laguna lfm3 aria_text qwen3_5_moe_text
    hy_v4 minimax_m3_vl_text cohere2_moe jais2 kolibri1 flint moshi iquestcoder hyperclovax gpt-sw3
    hrm_text
"""
"""Model types whose tiny config needs nothing more, and whose splices all come out right."""

_PREFIX = "the kind of MLP"
_PERIOD = "the attention kind"
_SHARED = "its attention blocks are shared between layers by their index"
_SHARING = "its layers share keys and values by position"
_MLA = {"num_key_value_heads": 4}
_MIXED = ("linear_attention", "full_attention", "linear_attention") * 2
_CONVS = ("conv", "full_attention", "conv", "conv", "full_attention", "conv")
_BLOCKS = ("linear_attention", "moe", "full_attention", "mlp", "linear_attention", "full_attention")
_ZAMBA = {"layers_block_type": ["linear_attention", "hybrid"] * 3}
_THIRDS = {"attn_layer_period": 3, "attn_layer_offset": 1, "expert_layer_period": 3, "expert_layer_offset": 2}
_GEMMA4 = {
    "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0,
    "layer_types": ["sliding_attention", "full_attention"] * 3, "global_head_dim": 16,
    "num_global_key_value_heads": 1, "attention_k_eq_v": True,
}  # fmt: skip
_INDEXERS = ("full", "full", "shared", "shared", "full", "shared")
_DEEPSEEK4 = {"num_hash_layers": 0, "o_lora_rank": 8, "o_groups": 2, "head_dim": 16}
_DBRX = {
    "hidden_size": DROP, "d_model": 32, "num_attention_heads": DROP, "n_heads": 4,
    "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4}, "ffn_config": {"ffn_hidden_size": 48},
}  # fmt: skip
_INKLING = {
    "d_rel": 4, "rel_extent": 8, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8,
    "layer_types": ["hybrid", "hybrid_sliding", "hybrid_sliding"] * 2,
}  # fmt: skip
DOTS3 = {
    **_MLA, "num_attention_heads": 4, "head_dim": 16, "shared_experts_intermediate_size": 16,
    "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 16, "swa_kv_lora_rank": 8,
    "swa_head_dim": 16, "swa_qk_nope_head_dim": 8, "swa_v_head_dim": 8,
}  # fmt: skip
QWEN4 = {
    "hc_count": 2, "hc_lowrank": 4, "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8,
    "indexer_budget": 4, "indexer_compress_ratio": 2,
}  # fmt: skip
_NGRAMS = {
    "ngram_vocab_size_base": 20, "heads_per_ngram": 2, "make_ngram_vocab_size_divisible_by": 8, "split_ngram_parts": 2,
}  # fmt: skip
_TABLES = "the tables of n-grams"
_ALTERNATE = ["sliding_attention", "full_attention"] * 3
_ROPE = {"rope_type": "default", "rope_theta": 1e4}
_CPMANT = {
    "dim_head": 8, "dim_ff": 48, "prompt_types": 4, "prompt_length": 4, "segment_types": 4,
    "position_bias_num_buckets": 8, "position_bias_max_distance": 16,
}  # fmt: skip
_WIDTHS = {
    "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64,
}  # fmt: skip
_BYTES = {**_WIDTHS, "hidden_size": 32, "vocab_size": 96, "num_hidden_layers": 2}
_BLT = {
    "encoder_hash_byte_group_vocab": 50, "encoder_hash_byte_group_size": [3, 4], "cross_attn_k": 2,
    "patcher_config": _BYTES, "global_config": {**_WIDTHS, "hidden_size": 48, "num_hidden_layers": DEPTH},
    "encoder_config": {**_BYTES, "hidden_size_global": 48}, "decoder_config": {**_BYTES, "hidden_size_global": 48},
}  # fmt: skip


def everywhere(words: str) -> dict[str, str]:
    """Every splice refused with these words."""
    return dict.fromkeys(SPLICES, words)


NAMED: tuple[tuple[str, str, dict[str, Any], dict[str, str]], ...] = (
    ("falcon", "", {"head_dim": DROP}, {}),
    ("falcon", "new decoder", {"head_dim": DROP, "new_decoder_architecture": True}, {}),
    ("gpt_neo", "", {"attention_types": [[["global", "local"], 3]], "window_size": 4}, {}),
    ("ctrl", "", {"dff": 48}, {}),
    ("dbrx", "", _DBRX, {}),
    ("deepseek_v2", "two dense first", {**_MLA, "first_k_dense_replace": 2}, {"grow": _PREFIX, "reorder": _PREFIX}),
    ("deepseek_v2", "all sparse", _MLA, {}),
    ("deepseek_v3", "one dense first", {**_MLA, "first_k_dense_replace": 1}, {}),
    ("deepseek_v3", "five dense first", {**_MLA, "first_k_dense_replace": 5}, {}),
    ("glm4_moe_lite", "", _MLA, {}),
    ("dots1", "", {"n_shared_experts": 1, "first_k_dense_replace": 1}, {}),
    ("youtu", "", {**_MLA, "pad_token_id": None}, {}),
    ("minicpm3", "scaled by depth", {**_MLA, "scale_depth": 1.4}, {}),
    ("falcon_h1", "", {"mamba_d_ssm": 64}, {}),
    ("jamba", "", {}, {"grow": _PREFIX, "reorder": _PREFIX}),
    ("jamba", "period of three", _THIRDS, {"shrink": _PERIOD, "reorder": _PERIOD}),
    ("bamba", "mixed", {"attn_layer_indices": [1, 4]}, {}),
    ("lfm2", "mixed", {"full_attn_idxs": [1, 4]}, {}),
    ("lfm2_moe", "", {"layer_types": list(_CONVS), "num_dense_layers": 1}, {}),
    ("granitemoehybrid", "mixed", {"layer_types": list(_MIXED)}, {}),
    ("nemotron_h", "", {"layers_block_type": list(_BLOCKS)}, {}),
    ("olmo_hybrid", "", {}, {"shrink": "a stack without a layer of full attention"}),
    ("llama4_text", "every second", {"interleave_moe_layer_step": 2}, {}),
    ("ernie4_5_moe", "to the fifth", {"moe_layer_end_index": 4}, {}),
    ("qwen3_moe", "every second", {"decoder_sparse_step": 2}, {}),
    ("qwen2", "upper layers slide", {"use_sliding_window": True, "max_window_layers": 3}, {}),
    ("hunyuan_v1_moe", "experts by layer", {"moe_topk": [1, 2, 1, 2, 2, 1]}, {}),
    (
        "gpt2", "scaled by index", {"scale_attn_by_inverse_layer_idx": True},
        everywhere("it makes the computation depend on the depth or on a layer's position"),
    ),
    ("minimax", "", {}, everywhere("its decay depends on a layer's index and the depth")),
    ("diffllama", "", {}, everywhere("each layer's lambda depends on its index")),
    ("zamba", "", {"attn_layer_period": 3, "attn_layer_offset": 1, **_ZAMBA}, everywhere(_SHARED) | {"join": _SHARED}),
    ("zamba2", "", _ZAMBA, everywhere(_SHARED) | {"join": _SHARED}),
    ("zaya", "", {"num_experts_per_tok": 1}, {}),
    ("deepseek_v32", "", _MLA, {}),
    ("deepseek_v4", "", _DEEPSEEK4, {}),
    ("axk1", "", _MLA, {}),
    ("axk2", "", _MLA, {}),
    ("glm_moe_dsa", "", _MLA, {}),
    ("glm_moe_dsa", "shared indexers", {**_MLA, "indexer_types": list(_INDEXERS)}, {}),
    ("bailing_hybrid", "", {**_MLA, "layer_group_size": 3}, {}),
    ("kimi_linear", "", {**_MLA, "linear_head_dim": 8, "linear_num_heads": 4, "q_lora_rank": None}, {}),
    ("longcat_flash", "", {**_MLA, "moe_topk": 2, "num_experts_per_tok": DROP, "zero_expert_num": 2}, {}),
    ("rwkv", "", {"attention_hidden_size": 32}, {}),
    ("xlstm", "", {"v_head_dim": DROP}, {}),
    ("cpmant", "", _CPMANT, {}),
    ("blt", "", _BLT, {}),
    ("dots3_note_text", "", DOTS3, {}),
    ("inkling_text", "", _INKLING, {}),
    ("inkling2_text", "", {**_INKLING, "unpadded_vocab_size": 90}, everywhere("depends on their index")),
    ("qwen4_exp_text", "", QWEN4, {}),
    ("qwen4_exp_text", "tables of n-grams below and above", {**QWEN4, **_NGRAMS, "ple_layer_ids": [1, 6]}, {}),
    ("qwen4_exp_text", "tables of n-grams within", {**QWEN4, **_NGRAMS, "ple_layer_ids": [3, 6]}, {
        "grow": _TABLES, "shrink": _TABLES,
    }),
    (
        "cohere_compass_text", "rope where it slides",
        {"layer_types": _ALTERNATE, "rope_parameters": {"sliding_attention": _ROPE, "full_attention": None}}, {},
    ),
    (
        "cohere_compass_text", "two ropes", {
            "layer_types": _ALTERNATE,
            "rope_parameters": {"sliding_attention": _ROPE, "full_attention": {**_ROPE, "rope_theta": 5e5}},
        }, {},
    ),
    ("beam", "", {}, everywhere("what a layer adds to the residual stream depends on its index")),
    ("gemma4_unified_text", "", {"num_kv_shared_layers": 0}, {}),
    (
        "gemma4_unified_text", "shared keys and values",
        {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 3}, everywhere(_SHARING),
    ),
    (
        "gemma3n_text", "", {"num_kv_shared_layers": 2, "layer_types": ["sliding_attention", "full_attention"] * 3},
        everywhere(_SHARING),
    ),
    ("gemma4_text", "embeddings per layer", {"num_kv_shared_layers": 0}, everywhere(_SHARING)),
    ("gemma4_text", "nothing shared", _GEMMA4, {}),
    (
        "gemma4_text", "experts", {**_GEMMA4, "enable_moe_block": True, "top_k_experts": 2}, {},
    ),
)  # fmt: skip
