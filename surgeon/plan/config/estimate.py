"""Estimate the size of the output: on disk, in shards, and in memory when it runs."""

from __future__ import annotations

from collections.abc import Sequence

from ...checkpoint.families.model_config import ModelConfig
from ..model import Estimates, PlannedLayer, PlannedTensor

DEFAULT_SHARD = 5_000_000_000
"""Bytes per shard; transformers' default."""

HEADER_PER_TENSOR = 160
RUN_CONTEXT = 4096


def split(tensors: Sequence[PlannedTensor], limit: int) -> list[list[PlannedTensor]]:
    """The tensors in order, in shards of at most `limit` bytes each; a larger tensor gets a shard alone."""
    filled: list[list[PlannedTensor]] = []
    room = 0
    for tensor in tensors:
        if not filled or tensor.nbytes > room:
            filled.append([])
            room = limit
        filled[-1].append(tensor)
        room -= tensor.nbytes
    return filled


def kv_per_token(layers: Sequence[PlannedLayer], config: ModelConfig | None, width: int) -> int:
    """Bytes of the key-value cache per token, over all layers with attention.

    A layer has as many elements as its key and value projections have rows; if a family names these differently,
    2 x KV heads x head width of the config.

    Args:
        layers: the output's layers.
        config: the template's config.
        width: bytes per element.
    """
    stated = 2 * (config.kv_heads or 0) * (config.head_dim or 0) if config else 0
    total = 0
    for layer in layers:
        if layer.attributes.get("attention") == "linear":
            continue
        both = [t for t in layer.tensors if t.place.suffix.endswith((".k_proj.weight", ".v_proj.weight"))]
        rows = [t.shape[0] for t in both if len(t.shape) == 2 and t.shape[1] > 1]  # one column means packed 4-bit
        total += sum(rows) if len(rows) == 2 else stated
    return total * width


def estimate(
    tensors: Sequence[PlannedTensor], layers: Sequence[PlannedLayer], config: ModelConfig | None, shard_size: int
) -> Estimates:
    """All sizes of an output."""
    nbytes = sum(tensor.nbytes for tensor in tensors)
    shards = len(split(tensors, shard_size))
    largest = max(tensors, key=lambda tensor: tensor.nbytes).dtype if tensors else "BF16"
    per_token = kv_per_token(layers, config, 4 if largest == "F32" else 2)
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
