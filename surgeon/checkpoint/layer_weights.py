"""The tensors of a layer that a model needs, with the tensors of its experts in groups.

A layer of a mixture of experts has up to a thousand tensors of a dozen kinds. What holds for one tensor of a group
holds for all of it, so callers look at one.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TypeVar

from ..text import ranges
from .header import TensorEntry

_ROTARY = re.compile(r"(.*\.)?rotary_emb\.inv_freq")
_MASKS = re.compile(r"(attn|attention)\.(masked_)?bias")
_WITH_MASKS = frozenset({"gpt2", "gpt_neox", "gptj", "gpt_neo", "codegen", "imagegpt"})
_EXPERT = re.compile(r"(?<=experts\.)[0-9]{1,6}(?=\.)")
_UNPACKED = (".weight", ".bias")

Shapes = frozenset[tuple[str, tuple[int, ...]]]
_Kept = TypeVar("_Kept", bound=Hashable)


@dataclass(frozen=True)
class LayerWeights:
    """The tensors of one layer.

    Attributes:
        tensors: those that a model needs, by name within the layer, in the order of the file.
        groups: their names; the tensors of a group have one dtype, one shape, and names that differ in the number of
            the expert. A tensor of no expert is a group alone.
        partition: the groups without their order. Layers with equal partitions share one object.
        buffers: names of the buffers that are left out, in the checkpoint.
        shapes: name and shape of every tensor. Layers with equal shapes share one object.
        packed: names of all tensors that are neither a weight nor a bias.
    """

    tensors: Mapping[str, TensorEntry]
    groups: tuple[tuple[str, ...], ...]
    partition: frozenset[frozenset[str]]
    buffers: tuple[str, ...]
    shapes: Shapes
    packed: frozenset[str]


def layer_weights(tensors: Mapping[str, TensorEntry], family: str) -> LayerWeights:
    """Sort the tensors of a layer of a model type."""
    kept = {suffix: entry for suffix, entry in tensors.items() if not is_buffer(family, suffix, entry)}
    groups = _groups(kept)
    return LayerWeights(
        MappingProxyType(kept),
        groups,
        _one(frozenset(map(frozenset, groups))),
        tuple(entry.name for suffix, entry in tensors.items() if suffix not in kept),
        _one(frozenset((suffix, entry.shape) for suffix, entry in kept.items())),
        _one(frozenset(suffix for suffix in tensors if not suffix.endswith(_UNPACKED))),
    )


def _groups(tensors: Mapping[str, TensorEntry]) -> tuple[tuple[str, ...], ...]:
    found: dict[tuple[tuple[str, int], str, Sequence[int]], list[str]] = {}
    for suffix, entry in tensors.items():
        kind = _EXPERT.subn("", suffix) if "experts." in suffix else (suffix, 0)
        found.setdefault((kind, entry.dtype, entry.shape), []).append(suffix)
    return tuple(map(tuple, found.values()))


def group_name(group: Sequence[str]) -> str:
    """The common name of a group: `mlp.experts.0-127.up_proj.weight`."""
    found = [match for name in group if (match := _EXPERT.search(name))]
    if len(group) == 1 or len(found) < len(group):
        return group[0]
    start, stop = found[0].span()
    return group[0][:start] + ranges(int(match[0]) for match in found) + group[0][stop:]


@lru_cache(maxsize=1024)
def _one(value: _Kept) -> _Kept:
    """The first of all equal values: comparing it with itself is free, and with an equal one is not."""
    return value


def is_rotary(name: str) -> bool:
    """Whether a tensor is a table of rotary frequencies, which a load recomputes."""
    return bool(_ROTARY.fullmatch(name))


def is_buffer(family: str, suffix: str, entry: TensorEntry) -> bool:
    """Whether a layer's tensor is a buffer of an old checkpoint that transformers recomputes at load."""
    if not suffix.endswith(("inv_freq", "bias")):
        return False
    if is_rotary(suffix):
        return True
    return family in _WITH_MASKS and len(entry.shape) in (0, 4) and bool(_MASKS.fullmatch(suffix))
