"""Donors of published shapes that take no room: real headers and configs, the weights only claimed as a hole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..checkpoint.locate import SINGLE
from ..errors import SurgeonError

_WIDTH = 2
"""Bytes per bfloat16 element."""


@dataclass(frozen=True)
class SparseShape:
    """The sizes of a decoder; with `experts` it is a qwen3_moe, else a llama."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    experts: int = 0

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of all tensors, as in transformers."""
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, self.hidden)}
        layer = self._layer()
        for index in range(self.layers):
            found |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
        return found | {"model.norm.weight": (self.hidden,), "lm_head.weight": (self.vocab, self.hidden)}

    def _layer(self) -> dict[str, tuple[int, ...]]:
        query, value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        found: dict[str, tuple[int, ...]] = {
            "input_layernorm": (self.hidden,),
            "self_attn.q_proj": (query, self.hidden),
            "self_attn.k_proj": (value, self.hidden),
            "self_attn.v_proj": (value, self.hidden),
            "self_attn.o_proj": (self.hidden, query),
            "post_attention_layernorm": (self.hidden,),
        }
        if self.experts:
            found |= {"self_attn.q_norm": (self.head_dim,), "self_attn.k_norm": (self.head_dim,)}
            found["mlp.gate"] = (self.experts, self.hidden)
        for name in [f"mlp.experts.{index}" for index in range(self.experts)] or ["mlp"]:
            found[f"{name}.gate_proj"] = found[f"{name}.up_proj"] = (self.intermediate, self.hidden)
            found[f"{name}.down_proj"] = (self.hidden, self.intermediate)
        return found

    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        experts = {
            "num_experts": self.experts, "num_experts_per_tok": 8, "moe_intermediate_size": self.intermediate,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
        }  # fmt: skip
        return {
            "architectures": ["Qwen3MoeForCausalLM" if self.experts else "LlamaForCausalLM"],
            "model_type": "qwen3_moe" if self.experts else "llama",
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocab,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            **(experts if self.experts else {}),
        }


DENSE = SparseShape(80, 8192, 64, 8, 128, 28672, 32000)
"""Llama-2-70B (https://huggingface.co/meta-llama/Llama-2-70b-hf): 723 tensors."""

EXPERTS = SparseShape(94, 4096, 64, 4, 128, 1536, 151936, experts=320)
"""Qwen3-235B-A22B (https://huggingface.co/Qwen/Qwen3-235B-A22B) with 320 experts per layer: 91,089 tensors."""


def make_sparse(folder: Path, shape: SparseShape) -> Path:
    """Write a checkpoint whose weights read as zeros and take no room on the disk; gives its folder.

    Raises:
        SurgeonError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(shape.config(), indent=2), encoding="utf-8")
        head, nbytes = _header(shape.tensors())
        with (folder / SINGLE).open("wb") as file:
            file.write(head)
            file.truncate(len(head) + nbytes)
    except OSError as error:
        raise SurgeonError(f"cannot write a donor: {error.strerror or error}", where=str(folder)) from error
    return folder


def _header(tensors: Mapping[str, tuple[int, ...]]) -> tuple[bytes, int]:
    """The start of a safetensors file, and the number of bytes that follow it."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in tensors.items():
        stop = position + prod(shape) * _WIDTH
        table[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, position
