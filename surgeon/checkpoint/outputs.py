"""Which tensors of a layer write to the residual stream: with those at zero, and only then, a layer is the identity.

Each entry was checked by running such a layer (`probe.identity`; a test does it for all of them): what comes out is
bit for bit what went in. A family is missing where that is not so or where nobody has looked.
"""

from __future__ import annotations

from ..errors import InputError
from ..text import one_line
from .config import ModelConfig

_USUAL = ("o_proj", "down_proj")

RESIDUAL_OUTPUTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        """apertus arcee cohere cohere2 ernie4_5 exaone4 gemma gemma2 gemma3 gemma3_text glm glm4 granite helium llama
        mistral nemotron olmo olmo2 olmo3 olmoe phi3 qwen2 qwen2_moe qwen3 qwen3_moe seed_oss smollm3 stablelm""".split(),
        _USUAL,
    ),
    "falcon": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
    "granitemoe": ("o_proj", "output_linear"),
    "mixtral": ("o_proj", ".w2."),
    "opt": ("out_proj", "fc2"),
    "phi": ("self_attn.dense", "fc2"),
    "starcoder2": ("o_proj", "mlp.c_proj"),
}
"""Model type -> parts of the names of those tensors, weights and biases, every expert's included."""


def residual_outputs(config: ModelConfig | None) -> tuple[str, ...]:
    """The filters for layers of this model.

    Raises:
        InputError: its layers are not the identity with any tensors at zero, or that is not known.
    """
    kind = config.model_type if config else ""
    filters = RESIDUAL_OUTPUTS.get(kind)
    if filters is None:
        raise InputError(
            f"a layer of {one_line(kind) or 'an unknown model type'} cannot be made the identity",
            why="no set of its tensors is known to leave the residual stream as it was when they are 0",
            remedy="repeat layers with `duplicate` instead",
        )
    if kind == "opt" and config is not None and config.get("do_layer_norm_before") is False:
        raise InputError(
            "a layer of this opt model cannot be made the identity",
            why="its config sets do_layer_norm_before to false: a norm with a bias stands in the residual stream",
            remedy="repeat layers with `duplicate` instead",
        )
    return filters
