"""Estimate the size of the output: on disk, in shards, and in memory when it runs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from ...checkpoint.families.model_config import ModelConfig
from ..model import Estimates, Plan, PlannedLayer, PlannedTensor

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


def shards(sums: Iterable[Sequence[int]], limit: int) -> int:
    """The number of parts that `split` makes.

    Args:
        sums: for runs of tensors in order, the bytes before each tensor of the run, and last the bytes of all.
        limit: most bytes of a part.
    """
    count, room = 0, -1
    for run in sums:
        place, last = 0, len(run) - 1
        while True:
            fits = max(place, bisect_right(run, run[place] + room) - 1) if count else place
            room -= run[fits] - run[place]
            if fits == last:
                break
            count, room, place = count + 1, limit - (run[fits + 1] - run[fits]), fits + 1
    return count


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
        both = [
            tensor
            for tensor, group in layer.groups
            if tensor.place.suffix.endswith((".k_proj.weight", ".v_proj.weight"))
            for _ in group
        ]
        rows = [t.shape[0] for t in both if len(t.shape) == 2 and t.shape[1] > 1]  # one column means packed 4-bit
        total += sum(rows) if len(rows) == 2 else stated
    return total * width


def estimate(plan: Plan, config: ModelConfig | None, shard_size: int) -> Estimates:
    """All sizes of an output; `config` is the template's."""
    front, *back = (plan.ends[role].tensors for role in ("embeddings", "final_norm", "lm_head"))
    outer = [*front, *(tensor for tensors in back for tensor in tensors), *plan.extra]
    layers = [layer.contents for layer in plan.layers if layer.contents]
    runs = [_sums(front), *(layer.sums for layer in layers), _sums(outer[len(front) :])]
    nbytes, count = sum(run[-1] for run in runs), sum(len(run) - 1 for run in runs)
    every = (*front, *(first for layer in layers for first in layer.firsts), *outer[len(front) :])
    largest = max(every, key=lambda tensor: tensor.nbytes).dtype if every else "BF16"
    per_token = kv_per_token(plan.layers, config, 4 if largest == "F32" else 2)
    context = min(RUN_CONTEXT, (config.context if config else None) or RUN_CONTEXT)
    return Estimates(
        parameters=sum(tensor.numel for tensor in outer) + sum(layer.numel for layer in layers),
        nbytes=nbytes,
        shards=shards(runs, shard_size),
        kv_per_token=per_token,
        run_context=context,
        run_bytes=nbytes + per_token * context,
        disk_bytes=nbytes + HEADER_PER_TENSOR * count + 20_000_000 if count else 0,
    )


def _sums(tensors: Sequence[PlannedTensor]) -> tuple[int, ...]:
    return tuple(accumulate((tensor.nbytes for tensor in tensors), initial=0))
