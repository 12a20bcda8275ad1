"""Donors' tensors that no output needs: buffers that a load recomputes, and layers that the config does not count."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ...checkpoint import Checkpoint, TensorEntry
from ...text import one_line, plural
from ..findings import Finding
from ..model import Donor

_ROTARY = re.compile(r"(.*\.)?rotary_emb\.inv_freq")
_MASKS = re.compile(r"(attn|attention)\.(masked_)?bias")
_WITH_MASKS = frozenset({"gpt2", "gpt_neox", "gptj", "gpt_neo", "codegen", "imagegpt"})


def is_buffer(donor: Checkpoint, suffix: str, entry: TensorEntry) -> bool:
    """Whether a layer's tensor is a buffer of an old checkpoint that transformers recomputes at load."""
    if not suffix.endswith(("inv_freq", "bias")):
        return False
    if _ROTARY.fullmatch(suffix):
        return True
    family = donor.config.model_type if donor.config else ""
    return family in _WITH_MASKS and len(entry.shape) in (0, 4) and bool(_MASKS.fullmatch(suffix))


def weights(donor: Checkpoint, index: int) -> dict[str, TensorEntry]:
    """The tensors of a layer that the output needs."""
    tensors = donor.layers[index].tensors
    return {suffix: entry for suffix, entry in tensors.items() if not is_buffer(donor, suffix, entry)}


def others(template: Checkpoint, moved: bool) -> dict[str, TensorEntry]:
    """The tensors outside layers and ends that the output keeps; `moved` excludes layers that the config omits."""
    return {name: entry for name, entry in template.other.items() if not (moved and _is_layer(template, name))}


def is_rotary(name: str) -> bool:
    """Whether a tensor is a table of rotary frequencies, which a load recomputes."""
    return bool(_ROTARY.fullmatch(name))


def _is_layer(donor: Checkpoint, name: str) -> bool:
    return donor.naming is not None and donor.naming.place(name).role == "layer"


def findings(template: Donor, used: list[Donor], moved: bool) -> Iterator[Finding]:
    """Findings about tensors that are left out."""
    kept = others(template.checkpoint, moved)
    uncounted = [name for name in template.checkpoint.other if name not in kept]
    if uncounted:
        yield Finding(
            "warning",
            "uncounted-layers",
            f"{plural(len(uncounted), 'tensor')} of {template.letter} are left out",
            "they belong to layers that its config.json does not count, and their names could mean other layers in the "
            f"output (for instance {one_line(uncounted[0])})",
        )
    for donor in used:
        buffers = _buffers(donor.checkpoint)
        if buffers:
            yield Finding(
                "note",
                "buffers",
                f"{plural(len(buffers), 'buffer')} of {donor.letter} are left out",
                f"they are recomputed when a model is loaded (for instance {one_line(buffers[0])})",
            )


def _buffers(donor: Checkpoint) -> list[str]:
    layers: tuple[Mapping[str, TensorEntry], ...] = tuple(layer.tensors for layer in donor.layers)
    return [entry.name for tensors in layers for suffix, entry in tensors.items() if is_buffer(donor, suffix, entry)]
