"""Tiny checkpoints and a tiny tokenizer for the tests, made from nothing.

torch and transformers are imported in the functions: collecting tests must not pay for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VOCAB = 320
HIDDEN = 32
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _HEADS,
    "mistral": {**_HEADS, "sliding_window": 16},
    "qwen2": _HEADS,
    "qwen3": {**_HEADS, "head_dim": 8, "tie_word_embeddings": True},
    "gemma": {**_HEADS, "head_dim": 8},
    "gemma2": {**_HEADS, "head_dim": 8, "sliding_window": 16},
    "gemma3_text": {**_HEADS, "head_dim": 8, "sliding_window": 16},
    "phi3": {**_HEADS, "original_max_position_embeddings": 128},
    "gpt2": {"n_embd": HIDDEN, "n_head": 4, "n_positions": 128},
    "gpt_neox": {"num_attention_heads": 4},
    "falcon": {"num_attention_heads": 4, "multi_query": True, "parallel_attn": True, "bias": False},
    "mixtral": {**_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**_HEADS, "head_dim": 8, "num_experts": 4, **_MOE},
}
"""Config keys of each family the tests build, over `_COMMON`."""


def tiny_config(model_type: str, layers: int = 4, **config: Any) -> Any:
    """A transformers config of that family, small enough that a forward pass takes milliseconds."""
    from transformers import AutoConfig

    return AutoConfig.for_model(
        model_type, **{**_COMMON, "num_hidden_layers": layers, **FAMILIES.get(model_type, _HEADS), **config}
    )


def tiny_model(
    folder: Path, model_type: str = "llama", layers: int = 4, seed: int = 0, dtype: str = "float32", **config: Any
) -> Path:
    """Save a random checkpoint and return its folder.

    Every weight is random, norms and biases too, so that no two layers are alike. Keys of `config` go to the config.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(tiny_config(model_type, layers, **config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.15
            parameter.copy_(noise + (parameter.ndim == 1))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def tiny_tokenizer(folder: Path) -> Path:
    """Save a byte-level BPE tokenizer (any text round-trips, ids below `VOCAB`) and return its folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {token: index for index, token in enumerate(("<pad>", "<s>", "</s>"))}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab[symbol] = len(vocab)
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", vocab["<s>"])])
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
    return folder


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: more of them cost such small models more than they bring."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
