"""The tensors of a layer that write to the residual stream. If all of them are zero, the layer is the identity.

Each entry was checked by running such a layer (`probe.identity`; a test runs all of them): the output has the same bits
as the input. A family is missing if this does not hold or was not checked.
"""

from __future__ import annotations

from ...errors import InputError
from ...text import one_line
from .model_config import ModelConfig

_LIKE_LLAMA = (
    "afmoe", "apertus", "arcee", "cohere", "cohere2", "cwm", "deepseek_v2", "deepseek_v3", "dots1", "ernie4_5",
    "ernie4_5_moe", "exaone4", "exaone_moe", "flex_olmo", "gemma", "gemma2", "gemma3", "gemma3_text", "glm", "glm4",
    "glm4_moe", "glm4_moe_lite", "gpt_oss", "granite", "granite_swa", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe",
    "hy_v3", "internlm3", "laguna", "llama", "llama4_text", "mellum", "mimo_v2_flash", "ministral", "ministral3",
    "mistral", "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
    "seed_oss", "smollm3", "solar_open", "stablelm", "vaultgemma",
)  # fmt: skip

RESIDUAL_OUTPUTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_LIKE_LLAMA, ("o_proj", "down_proj")),
    **dict.fromkeys(("mixtral", "minimax_m2", "phimoe"), ("o_proj", ".w2.")),
    **dict.fromkeys(("granitemoe", "granitemoeshared"), ("o_proj", "output_linear")),
    **dict.fromkeys(("bloom", "falcon"), ("self_attention.dense", "mlp.dense_4h_to_h")),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), ("attn.c_proj", "mlp.c_proj")),
    **dict.fromkeys(("biogpt", "opt", "xglm"), ("out_proj", "fc2")),
    **dict.fromkeys(("codegen", "gptj"), ("out_proj", "fc_out")),
    **dict.fromkeys(("falcon_mamba", "mamba", "mamba2"), ("out_proj",)),
    "gpt_neo": ("out_proj", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "lfm2": ("out_proj", ".w2."),
    "mpt": ("out_proj", "down_proj"),
    "persimmon": ("self_attn.dense", "mlp.dense_4h_to_h"),
    "phi": ("self_attn.dense", "fc2"),
    "starcoder2": ("o_proj", "mlp.c_proj"),
}
"""Model type -> parts of the names of these tensors (weights and biases, of every expert too)."""

_NORMS_IN_THE_WAY = {
    "opt": ("do_layer_norm_before", False),
    "bloom": ("apply_residual_connection_post_layernorm", True),
    "falcon": ("apply_residual_connection_post_layernorm", True),
}
"""Model type -> (config key, value) under which its layers are not the identity despite zero tensors."""


def residual_outputs(config: ModelConfig | None) -> tuple[str, ...]:
    """Name parts of the tensors whose zeros make a layer of this model the identity.

    Raises:
        InputError: zero tensors do not make its layers the identity, or that is not known.
    """
    kind = config.model_type if config else ""
    filters = RESIDUAL_OUTPUTS.get(kind)
    if filters is None:
        raise InputError(
            f"a layer of {one_line(kind) or 'an unknown model type'} cannot be made the identity",
            why="no set of its tensors is known that leaves the residual stream unchanged if they are 0",
            remedy="repeat layers with `duplicate` instead",
        )
    key, value = _NORMS_IN_THE_WAY.get(kind, ("", None))
    if config is not None and key and config.get(key) is value:
        raise InputError(
            f"a layer of this {kind} model cannot be made the identity",
            why=f"its config sets {key} to {str(value).lower()}, so a norm changes the residual stream",
            remedy="repeat layers with `duplicate` instead",
        )
    return filters
