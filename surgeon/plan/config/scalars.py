"""Config scalars that affect the computation of layers or ends: find those in which donors differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from ...checkpoint.families.model_config import ModelConfig
from ...text import one_line
from ..findings import Finding, Severity
from ..model import Donor

_SAME_FUNCTION = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new", "gelu_fast": "gelu_new"}
_UNKNOWN: Final = object()


class ConfigScalar(NamedTuple):
    """One scalar.

    Attributes:
        keys: its names in configs.
        severity: the severity of a difference; an `error` if a layer computes something else with the other value.
        name: its name in messages.
        default: its value in every family's config without it; `DEFAULTS` has the values of single families. Without
            a known default, configs are only compared if both state the value.
        ends: whether it also matters for a donor of only embeddings, final norm or head.
    """

    keys: tuple[str, ...]
    severity: Severity
    name: str
    default: Any = _UNKNOWN
    ends: bool = False


ACTIVATION = ConfigScalar(
    ("hidden_activation", "hidden_act", "activation_function", "activation"), "error", "activation function"
)
EPSILON = ConfigScalar(
    ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_eps", "norm_epsilon"),
    "warning", "norm epsilon", ends=True,
)  # fmt: skip

SETTINGS: tuple[ConfigScalar, ...] = (
    ACTIVATION,
    EPSILON,
    ConfigScalar(("attn_logit_softcapping",), "error", "attention soft cap"),
    ConfigScalar(("final_logit_softcapping",), "warning", "soft cap of the logits", ends=True),
    ConfigScalar(("query_pre_attn_scalar",), "error", "attention scale"),
    ConfigScalar(("attention_multiplier",), "error", "attention multiplier", 1.0),
    ConfigScalar(("residual_multiplier",), "error", "residual multiplier", 1.0),
    ConfigScalar(("embedding_multiplier",), "warning", "embedding multiplier", 1.0, ends=True),
    ConfigScalar(("logits_scaling", "logit_scale", "lm_head_multiplier"), "warning", "scale of the logits", ends=True),
    ConfigScalar(("attention_in_multiplier",), "error", "multiplier of the attention's input"),
    ConfigScalar(("attention_out_multiplier",), "error", "multiplier of the attention's output"),
    ConfigScalar(("key_multiplier",), "error", "multiplier of the keys"),
    ConfigScalar(("mlp_multipliers",), "error", "multipliers of the MLP"),
    ConfigScalar(("ssm_multipliers",), "error", "multipliers of the state space"),
    ConfigScalar(("alibi",), "error", "position scheme", False),
    ConfigScalar(("parallel_attn", "use_parallel_residual"), "error", "residual layout"),
    ConfigScalar(("new_decoder_architecture",), "error", "decoder layout", False),
    ConfigScalar(("do_layer_norm_before",), "error", "norm placement", True),
    ConfigScalar(("apply_residual_connection_post_layernorm",), "error", "residual layout", False),
    ConfigScalar(("scale_attn_weights",), "error", "attention scaling", True),
    ConfigScalar(("qk_layernorm", "use_qk_norm"), "error", "norm of queries and keys"),
    ConfigScalar(("attn_temperature_tuning",), "warning", "attention temperature"),
    ConfigScalar(("clip_qkv",), "warning", "clipping of queries, keys and values", None),
    ConfigScalar(("swiglu_limit",), "warning", "limit of the gated activation"),
    ConfigScalar(
        ("num_experts_per_tok", "num_experts_per_token", "experts_per_token"), "warning", "number of experts per token"
    ),
    ConfigScalar(("norm_topk_prob",), "warning", "expert weighting"),
    ConfigScalar(("routed_scaling_factor",), "warning", "expert weighting"),
    ConfigScalar(("scoring_func",), "error", "function of the router"),
    ConfigScalar(("topk_group",), "warning", "number of expert groups per token"),
)

_SILU = ("silu", 1e-6)
_SILU_5 = ("silu", 1e-5)
_GELU = ("gelu_pytorch_tanh", 1e-6)
_PAIRS: dict[str, tuple[str, float]] = {
    "arcee": ("relu2", 1e-5), "cohere": _SILU_5, "cohere2": _SILU_5, "ernie4_5": _SILU_5, "exaone4": _SILU_5,
    "falcon": ("gelu", 1e-5), "gemma2": _GELU, "gemma3": _GELU, "gemma3_text": _GELU, "gpt2": ("gelu_new", 1e-5),
    "gpt_neox": ("gelu", 1e-5), "granite": _SILU, "granitemoe": _SILU, "llama": _SILU, "mistral": _SILU,
    "mixtral": _SILU_5, "nemotron": ("relu2", 1e-5), "olmo2": _SILU_5, "olmo3": _SILU_5, "olmoe": _SILU_5,
    "phi": ("gelu_new", 1e-5), "phi3": _SILU_5, "qwen2": _SILU, "qwen2_moe": _SILU, "qwen3": _SILU,
    "qwen3_moe": _SILU, "seed_oss": _SILU, "smollm3": _SILU, "stablelm": _SILU_5,
    "starcoder2": ("gelu_pytorch_tanh", 1e-5),
}  # fmt: skip
_OTHERS: dict[str, dict[str, Any]] = {
    "falcon": {"parallel_attn": True},
    "gemma2": {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 256},
    "gemma3": {"query_pre_attn_scalar": 256},
    "gemma3_text": {"query_pre_attn_scalar": 256},
    "gpt_neox": {"use_parallel_residual": True},
    "stablelm": {"use_parallel_residual": False},
    "mixtral": {"num_experts_per_tok": 2},
    "olmoe": {"num_experts_per_tok": 8, "norm_topk_prob": False},
    "qwen2_moe": {"num_experts_per_tok": 4, "norm_topk_prob": False},
    "qwen3_moe": {"num_experts_per_tok": 8, "norm_topk_prob": False},
}

DEFAULTS: Mapping[str, Mapping[tuple[str, ...], Any]] = {
    kind: {ACTIVATION.keys: _PAIRS[kind][0], EPSILON.keys: _PAIRS[kind][1]}
    | {
        setting.keys: value
        for key, value in _OTHERS.get(kind, {}).items()
        for setting in SETTINGS
        if key in setting.keys
    }
    for kind in _PAIRS
}
"""Model type -> keys of a setting -> the default of transformers 5.23."""


def value_of(config: ModelConfig, setting: ConfigScalar) -> Any:
    """The value that a config gives a setting, or its default; `_UNKNOWN` if the default is unknown."""
    value = config.get(*setting.keys)
    if value is None and (setting in (ACTIVATION, EPSILON) or not any(key in config.text for key in setting.keys)):
        value = DEFAULTS.get(config.model_type, {}).get(setting.keys, setting.default)
    return _SAME_FUNCTION.get(value, value) if isinstance(value, str) else value


def compare_settings(donor: Donor, template: Donor, layers: tuple[int, ...], line: int | None) -> Iterator[Finding]:
    """Findings for each scalar that differs from the template's, whose value the output gets.

    For a donor without layers only the scalars that matter for ends are compared.
    """
    one, other = donor.checkpoint.config, template.checkpoint.config
    assert one and other
    for setting in SETTINGS:
        if (setting is ACTIVATION and one.model_type == "gemma") or not (layers or setting.ends):
            continue  # gemma's first configs say gelu but mean the tanh form, which transformers always uses.
        mine, theirs = value_of(one, setting), value_of(other, setting)
        if mine is not _UNKNOWN and theirs is not _UNKNOWN and mine != theirs:
            yield Finding(
                setting.severity,
                "setting",
                f"The {setting.name} of {donor.letter} is {one_line(mine)}, that of {template.letter} is "
                f"{one_line(theirs)}",
                f"the output has one value for all layers, that of {template.letter}",
                "use donors with the same value"
                if setting.severity == "error"
                else "set base_model to the donor whose value the output needs, or use donors with the same value",
                layers,
                line,
            )
