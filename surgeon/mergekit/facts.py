"""Facts about mergekit 0.1.5: methods with the defaults of their parameters, and architectures with a template."""

from __future__ import annotations

from collections.abc import Mapping

from ..methods.registry import REQUIRED, Word

_SHARED: dict[str, Word] = {"int8_mask": False, "normalize": False, "rescale": False, "lambda": 1.0}
_OWN: dict[str, Word] = {"weight": REQUIRED, "density": 1.0}
_TASK: dict[str, Word] = {**_SHARED, **_OWN}

METHODS: Mapping[str, Mapping[str, Word]] = {
    "passthrough": {"scale": 1.0},
    "linear": {"weight": REQUIRED, "normalize": True},
    "slerp": {"t": REQUIRED},
    "nuslerp": {"weight": REQUIRED, "nuslerp_row_wise": False, "nuslerp_flatten": True},
    "multislerp": {"weight": REQUIRED, "normalize_weights": True, "eps": 1e-8},
    "karcher": {"max_iter": 10, "tol": 1e-5},
    "task_arithmetic": _TASK,
    "ties": {**_TASK, "normalize": True},
    "dare_linear": {**_TASK, "rescale": True},
    "dare_ties": {**_TASK, "rescale": True},
    "breadcrumbs": {**_TASK, "gamma": 0.01},
    "breadcrumbs_ties": {**_TASK, "gamma": 0.01},
    "della": {**_TASK, "normalize": True, "rescale": True, "epsilon": 0.15},
    "della_linear": {**_TASK, "rescale": True, "epsilon": 0.15},
    "model_stock": {"filter_wise": False},
    "sce": {"int8_mask": False, "select_topk": 1.0},
    "arcee_fusion": {},
    "nearswap": {"t": REQUIRED},
    "ram": {"epsilon": 1e-5},
    "ramplus_tl": {"r": 0.1, "alpha": 0.2, "epsilon": 1e-5},
}
"""Method -> parameter -> default."""

WEIGHTED_DELTAS = frozenset(name for name, table in METHODS.items() if "lambda" in table)
"""Methods whose result has exactly the bits of the base if every weight is 0."""

BASELESS = frozenset({"passthrough", "linear", "karcher"})
"""Methods for which base_model is only the donor of the config."""

RANDOM = frozenset({"dare_linear", "dare_ties", "della", "della_linear"})
"""Methods that drop random elements."""

RANKED = frozenset({"ties", "breadcrumbs", "breadcrumbs_ties", "sce"})
"""Methods that keep the elements with the largest magnitudes; among equal ones, the choice of mergekit is undefined."""

WIDE = frozenset({"passthrough", "linear", "slerp"})
"""Methods that mergekit computes in float32 for any dtype of the donors and rounds once."""

RESCALE: Mapping[str, bool] = {"l1": True, "none": False}
"""surgeon's word for `rescale` -> mergekit's value."""

ARCHITECTURES = frozenset({
    "AfmoeForCausalLM", "ApertusForCausalLM", "ArceeForCausalLM", "BaichuanForCausalLM", "ChatGLMModel",
    "Cohere2ForCausalLM", "CohereForCausalLM", "ExaoneForCausalLM", "FalconForCausalLM", "GPT2LMHeadModel",
    "GPTBigCodeForCausalLM", "GPTNeoXForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "GemmaForCausalLM",
    "Glm4ForCausalLM", "Glm4MoeForCausalLM", "GraniteForCausalLM", "GraniteMoeHybridForCausalLM",
    "InternLM2ForCausalLM", "JAISLMHeadModel", "LLaMaForCausalLM", "Lfm2ForCausalLM", "LlamaForCausalLM",
    "MambaForCausalLM", "MistralForCausalLM", "MixFormerSequentialForCausalLM", "MixtralForCausalLM",
    "Olmo2ForCausalLM", "Phi3ForCausalLM", "Phi3SmallForCausalLM", "PhiForCausalLM", "QWenLMHeadModel",
    "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "SolarForCausalLM", "StableLMEpochForCausalLM",
    "StableLmForCausalLM", "Starcoder2ForCausalLM",
})  # fmt: skip
"""Causal language models with a template in mergekit. It guesses the layout of others."""
