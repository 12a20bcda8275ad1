"""Checkpoints of any size that take no room: real headers and JSON, the data only claimed with ftruncate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from surgeon.checkpoint import open_checkpoint
from surgeon.checkpoint.dtypes import BITS, TORCH_NAMES

Spec = Mapping[str, tuple[str, Sequence[int]]]
"""Tensor name -> (safetensors dtype, shape), in the order of their bytes."""

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma": "GemmaForCausalLM",
    "phi3": "Phi3ForCausalLM",
}

LLAMA2_70B: dict[str, Any] = {
    "layers": 80, "hidden": 8192, "heads": 64, "kv_heads": 8, "intermediate": 28672, "vocab": 32000,
}  # fmt: skip
LLAMA3_70B: dict[str, Any] = {**LLAMA2_70B, "vocab": 128256}
LLAMA3_8B: dict[str, Any] = {
    "layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 8, "intermediate": 14336, "vocab": 128256,
}  # fmt: skip
MISTRAL_7B: dict[str, Any] = {**LLAMA3_8B, "vocab": 32000}
TINY: dict[str, Any] = {"layers": 4, "hidden": 16, "heads": 4, "kv_heads": 2, "intermediate": 32, "vocab": 64}


def header_bytes(spec: Spec, metadata: Mapping[str, str] | None = None) -> bytes:
    """The first bytes of a safetensors file with these tensors: length, JSON, padding to eight bytes."""
    table: dict[str, Any] = {"__metadata__": dict({"format": "pt"} if metadata is None else metadata)}
    offset = 0
    for name, (dtype, shape) in spec.items():
        nbytes = prod(shape) * BITS[dtype] // 8
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def sparse_file(path: Path, spec: Spec, metadata: Mapping[str, str] | None = None) -> Path:
    """One safetensors file whose data is a hole (reads as zeros)."""
    head = header_bytes(spec, metadata)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + sum(prod(shape) * BITS[dtype] // 8 for dtype, shape in spec.values()))
    return path


def sparse_checkpoint(folder: Path, spec: Spec, config: Mapping[str, Any] | None, *, shards: int = 1) -> Path:
    """A folder with these tensors in `shards` files of about equal size (with an index if several), and the config."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config, indent=2))
    if shards == 1:
        sparse_file(folder / "model.safetensors", spec)
        return folder
    sizes = {name: prod(shape) * BITS[dtype] // 8 for name, (dtype, shape) in spec.items()}
    total, done = sum(sizes.values()), 0
    parts: list[dict[str, tuple[str, Sequence[int]]]] = [{} for _ in range(shards)]
    for name, value in spec.items():
        parts[min(shards - 1, done * shards // total)][name] = value
        done += sizes[name]
    weight_map = {}
    for number, part in enumerate(parts, start=1):
        path = folder / f"model-{number:05d}-of-{shards:05d}.safetensors"
        sparse_file(path, part)
        weight_map.update(dict.fromkeys(part, path.name))
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return folder


def llama_tensors(
    *,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    intermediate: int,
    vocab: int,
    dtype: str = "BF16",
    tied: bool = False,
    bias: bool = False,
    qk_norm: bool = False,
    head_dim: int | None = None,
    prefix: str = "model.",
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Names, dtypes and shapes of a Llama-like decoder; `bias` as qwen2 has it, `qk_norm` as qwen3 has it."""
    width = head_dim or hidden // heads
    query, value = heads * width, kv_heads * width
    out: dict[str, tuple[str, tuple[int, ...]]] = {f"{prefix}embed_tokens.weight": (dtype, (vocab, hidden))}
    for index in range(layers):
        layer: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (hidden,),
            "self_attn.q_proj.weight": (query, hidden),
            "self_attn.k_proj.weight": (value, hidden),
            "self_attn.v_proj.weight": (value, hidden),
            "self_attn.o_proj.weight": (hidden, query),
            "post_attention_layernorm.weight": (hidden,),
            "mlp.gate_proj.weight": (intermediate, hidden),
            "mlp.up_proj.weight": (intermediate, hidden),
            "mlp.down_proj.weight": (hidden, intermediate),
        }
        if bias:
            rows = {"q": query, "k": value, "v": value}
            layer |= {f"self_attn.{key}_proj.bias": (size,) for key, size in rows.items()}
        if qk_norm:
            layer |= {"self_attn.q_norm.weight": (width,), "self_attn.k_norm.weight": (width,)}
        out |= {f"{prefix}layers.{index}.{name}": (dtype, shape) for name, shape in layer.items()}
    out[f"{prefix}norm.weight"] = (dtype, (hidden,))
    if not tied:
        out["lm_head.weight"] = (dtype, (vocab, hidden))
    return out


def sparse_llama(
    folder: Path,
    *,
    layers: int = 4,
    hidden: int = 16,
    heads: int = 4,
    kv_heads: int = 2,
    intermediate: int = 32,
    vocab: int = 64,
    shards: int = 1,
    dtype: str = "BF16",
    tied: bool = False,
    bias: bool = False,
    qk_norm: bool = False,
    head_dim: int | None = None,
    model_type: str = "llama",
    extra_config: Mapping[str, Any] | None = None,
    tokenizer: Sequence[str] | None = None,
) -> Path:
    """A Llama-like checkpoint of that size in `folder`; gives `folder`.

    Args:
        extra_config: keys set over the config's; a None value removes the key.
        tokenizer: the vocabulary of a small word-level tokenizer.json to put beside it, ids in order.
    """
    spec = llama_tensors(
        layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads, intermediate=intermediate, vocab=vocab,
        dtype=dtype, tied=tied, bias=bias, qk_norm=qk_norm, head_dim=head_dim,
    )  # fmt: skip
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES.get(model_type, "LlamaForCausalLM")],
        "model_type": model_type,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": vocab,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "torch_dtype": TORCH_NAMES[dtype],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if head_dim is not None:
        config["head_dim"] = head_dim
    config |= extra_config or {}
    sparse_checkpoint(folder, spec, {k: v for k, v in config.items() if v is not None}, shards=shards)
    if tokenizer is not None:
        write_tokenizer(folder, tokenizer)
    return folder


def mark(folder: Path, name: str, text: bytes = b"mark") -> None:
    """Write some bytes into the middle of a tensor, which is zeros else."""
    entry = open_checkpoint(str(folder)).tensors[name]
    with entry.file.open("r+b") as file:
        file.seek(entry.offset + entry.nbytes // 2)
        file.write(text)


def write_tokenizer(folder: Path, words: Sequence[str], *, added: Mapping[str, int] | None = None) -> None:
    """A word-level tokenizer.json and tokenizer_config.json that transformers loads; ids are positions in `words`."""
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index, "content": text, "special": True, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False,
            }
            for text, index in (added or {}).items()
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": words[0]},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(document, indent=2))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": words[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
