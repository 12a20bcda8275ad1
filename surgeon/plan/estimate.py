"""How large the result is: on disk, in shards, and in memory when it runs."""

from __future__ import annotations

from collections.abc import Sequence

from ..checkpoint.config import ModelConfig
from .types import Estimates, PlannedTensor

DEFAULT_SHARD = 5_000_000_000
"""Bytes; what transformers writes by default."""

HEADER_PER_TENSOR = 160
RUN_CONTEXT = 4096


def split(tensors: Sequence[PlannedTensor], limit: int) -> list[list[PlannedTensor]]:
    """Tensors in their order, filled into shards of at most `limit` bytes (a larger tensor gets one of its own)."""
    filled: list[list[PlannedTensor]] = []
    room = 0
    for tensor in tensors:
        if not filled or tensor.nbytes > room:
            filled.append([])
            room = limit
        filled[-1].append(tensor)
        room -= tensor.nbytes
    return filled


def kv_per_token(config: ModelConfig, layers: int, width: int) -> int:
    """Bytes of keys and values one token keeps: 2 x layers x KV heads x head width x bytes per element."""
    if not config.kv_heads or not config.head_dim:
        return 0
    return 2 * layers * config.kv_heads * config.head_dim * width


def estimate(tensors: Sequence[PlannedTensor], config: ModelConfig | None, layers: int, shard_size: int) -> Estimates:
    """All sizes of an output."""
    nbytes = sum(tensor.nbytes for tensor in tensors)
    shards = len(split(tensors, shard_size))
    largest = max(tensors, key=lambda tensor: tensor.nbytes).dtype if tensors else "BF16"
    per_token = kv_per_token(config, layers, 4 if largest == "F32" else 2) if config else 0
    context = min(RUN_CONTEXT, (config.context if config else None) or RUN_CONTEXT)
    return Estimates(
        parameters=sum(tensor.numel for tensor in tensors),
        nbytes=nbytes,
        shards=shards,
        kv_per_token=per_token,
        run_context=context,
        run_bytes=nbytes + per_token * context,
        disk_bytes=nbytes + HEADER_PER_TENSOR * len(tensors) + 20_000_000 if tensors else 0,
    )
