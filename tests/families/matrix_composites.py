"""Cases of the matrix of model families whose layers are a part of something else: towers beside them, two stacks."""

from __future__ import annotations

from typing import Any

from tests.families.matrix_cases import DOTS3, DROP, QWEN4

_VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_SIGLIP = {**_VISION, "model_type": "siglip_vision_model"}
_TURNS = ("sliding_attention", "full_attention") * 3
_GEMMA4 = {
    "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 0, "layer_types": list(_TURNS), "global_head_dim": 16,
    "num_global_key_value_heads": 1, "attention_k_eq_v": True,
}  # fmt: skip
_GEMMA4_VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "position_embedding_size": 64,
}  # fmt: skip
_UNIFIED_VISION = {"mm_embed_dim": 16, "mm_posemb_size": 16, "output_proj_dims": 16}
_MOSS_AUDIO = {
    "num_mel_bins": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "hidden_size": 16,
    "max_source_positions": 16,
}  # fmt: skip
_PHI4_AUDIO = {
    "hidden_size": 16, "intermediate_size": 16, "num_blocks": 2, "num_attention_heads": 2, "ext_pw_out_channel": 16,
    "depthwise_separable_out_channel": 16, "nemo_conv_channels": 16,
}  # fmt: skip
_EMU3_VQ = {
    "codebook_size": 8, "embed_dim": 4, "latent_channels": 4, "base_channels": 32, "channel_multiplier": [1, 1],
    "num_res_blocks": 1, "hidden_size": 16, "temporal_downsample_factor": 2,
}  # fmt: skip
_MLLAMA_VISION = {
    **_VISION, "attention_heads": 2, "num_global_layers": 1, "intermediate_layers_indices": [0, 1],
    "vision_output_dim": 48,
}  # fmt: skip
_DECODER = {"is_decoder": True}
_STACK = {
    "d_model": 32, "decoder_layers": 6, "encoder_layers": 1, "decoder_attention_heads": 4,
    "encoder_attention_heads": 4, "decoder_ffn_dim": 48, "encoder_ffn_dim": 48, "num_hidden_layers": DROP,
}  # fmt: skip
_WHOLES = ("marian", "mbart", "pegasus", "blenderbot")
_WHOLE = {"is_encoder_decoder": True, "decoder_start_token_id": 2}
_PROPHETNET = {
    "num_encoder_layers": 1, "num_decoder_layers": 6, "num_hidden_layers": DROP, "num_decoder_attention_heads": 4,
    "num_encoder_attention_heads": 4, "decoder_ffn_dim": 48, "encoder_ffn_dim": 48,
}  # fmt: skip
_ROC_BERT = {
    "pronunciation_vocab_size": 10, "shape_vocab_size": 10, "pronunciation_embed_dim": 16, "shape_embed_dim": 16,
}  # fmt: skip
_REFORMER = {
    "attn_layers": ["local", "lsh", "local", "local", "lsh", "local"], "axial_pos_embds": False,
    "feed_forward_size": 48, "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "hash_seed": 1,
    "num_buckets": 2,
}  # fmt: skip
_ENCODERS = """
    bert bert-generation big_bird camembert data2vec-text electra ernie megatron-bert rembert roberta
    roberta-prelayernorm roformer xlm-roberta xlm-roberta-xl
"""
_STACKS = "bart bigbird_pegasus blenderbot blenderbot-small marian mbart mvp pegasus plbart trocr whisper"

CASES: tuple[tuple[str, str, dict[str, Any], dict[str, str]], ...] = (
    ("fuyu", "", {"text_config": {"model_type": "persimmon"}, "patch_size": 4}, {}),
    (
        "gemma3", "",
        {"text_config": {}, "vision_config": _SIGLIP, "mm_tokens_per_image": 4},
        {},
    ),
    ("gemma4", "", {"text_config": _GEMMA4, "vision_config": _GEMMA4_VISION, "audio_config": None}, {}),
    (
        "gemma4_unified", "",
        {"text_config": _GEMMA4, "vision_config": _UNIFIED_VISION, "audio_config": {"audio_embed_dim": 16}}, {},
    ),
    ("git", "", {"vision_config": _VISION}, {}),
    (
        "got_ocr2", "", {
            "text_config": {"model_type": "qwen2"},
            "vision_config": {**_VISION, "output_channels": 16, "mlp_dim": 16, "global_attn_indexes": [1]},
        }, {},
    ),
    ("llama4", "", {"text_config": {}, "vision_config": _VISION}, {}),
    ("moss_transcribe_diarize", "", {"text_config": {"model_type": "qwen3"}, "audio_config": _MOSS_AUDIO}, {}),
    ("phi4_multimodal", "", {"vision_config": _VISION, "audio_config": _PHI4_AUDIO}, {}),
    ("qwen3_5", "", {"text_config": {}}, {}),
    ("qwen3_5_moe", "", {"text_config": {}}, {}),
    ("qwen4_exp", "", {"text_config": QWEN4}, {}),
    (
        "dots3_note", "",
        {"text_config": DOTS3, "vision_config": {"adapter_out_dim": 32}, "audio_config": {"adapter_out_dim": 32}}, {},
    ),
    ("emu3", "", {"text_config": {}, "vq_config": _EMU3_VQ, "vocabulary_map": {"<|visual token 000000|>": 90}}, {}),
    ("mllama", "", {"text_config": {"cross_attention_layers": [1, 4]}, "vision_config": _MLLAMA_VISION}, {}),
    ("musicgen", "", {"ffn_dim": 48}, {}),
    ("musicgen_melody", "", {"ffn_dim": 48}, {}),
    ("bart", "encoder and decoder", {**_STACK, **_WHOLE}, {}),
    *((kind, "encoder and decoder", {**_STACK, **_WHOLE}, {}) for kind in _WHOLES),
    *((kind, "", _DECODER, {}) for kind in _ENCODERS.split()),
    ("roc_bert", "", {**_DECODER, **_ROC_BERT}, {}),
    ("xmod", "", {**_DECODER, "languages": ["en_XX", "de_DE"], "default_language": "en_XX"}, {}),
    *((kind, "", _STACK, {}) for kind in _STACKS.split()),
    ("prophetnet", "", _PROPHETNET, {}),
    ("prophetnet", "encoder and decoder", {**_PROPHETNET, **_WHOLE}, {}),
    ("reformer", "", {**_DECODER, **_REFORMER}, {}),
    ("xlm", "", {"emb_dim": 32, "n_layers": 6, "n_heads": 4, "n_words": 96}, {}),
    ("xlnet", "", {"d_model": 32, "n_layer": 6, "n_head": 4, "d_inner": 48, "max_position_embeddings": DROP}, {}),
)  # fmt: skip
"""Model type, note, config and refusals, as in `matrix_cases`."""
