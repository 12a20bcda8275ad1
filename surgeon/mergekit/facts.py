"""What mergekit 0.1.5 has: methods with their parameters' defaults, and architectures it has a template for."""

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
"""Parameters of every method with their defaults."""

WEIGHTED_DELTAS = frozenset(name for name, table in METHODS.items() if "lambda" in table)
"""Methods whose result is the base, to the bit, where every weight is 0."""

BASELESS = frozenset({"passthrough", "linear", "karcher"})
"""Methods to which base_model is nothing but the donor of the config."""

RANDOM = frozenset({"dare_linear", "dare_ties", "della", "della_linear"})
"""Methods that drop elements by chance."""

RANKED = frozenset({"ties", "breadcrumbs", "breadcrumbs_ties", "sce"})
"""Methods that keep a number of elements by their size: which ones of equal size, mergekit leaves open."""

WIDE = frozenset({"passthrough", "linear", "slerp"})
"""Methods that mergekit computes in float32 whatever the donors' dtype, and rounds once."""

RESCALE: Mapping[str, bool] = {"l1": True, "none": False}
"""The values of `rescale` that mergekit has, by surgeon's words for them."""

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
"""Causal language models that it has a template for. Of others it guesses the layout."""
