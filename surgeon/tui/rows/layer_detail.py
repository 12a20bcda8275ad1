"""A layer or an end in full: provenance, attributes, tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rich.cells import cell_len

from ...checkpoint import Checkpoint, TensorEntry
from ...checkpoint.adapter.adapter_text import adapter_facts
from ...checkpoint.layer_weights import group_name
from ...plan import Plan, PlannedLayer
from ...text import number, one_line, plural, ranges, size
from ..cells import pad
from .blend_labels import donor_layer, is_blend, main_value, source_lines, value_lines
from .pane_rows import PaneRow, scaled


def tensor_lines(tensors: Mapping[str, TensorEntry], counts: Mapping[str, int] | None = None) -> list[str]:
    """A table of tensors: the name they are listed under, dtype, shape, bytes.

    Args:
        tensors: by name; of a group one tensor, under the name of the group.
        counts: the number of tensors of each group.
    """
    rows = []
    for name, entry in tensors.items():
        shape, count = "x".join(map(str, entry.shape)) or "scalar", (counts or {}).get(name, 1)
        many = f"{count} of {shape}" if count > 1 else shape
        rows.append((one_line(name), entry.dtype, many, size(entry.nbytes * count)))
    widths = [max((cell_len(row[column]) for row in rows), default=0) for column in range(4)]
    return [
        f"{pad(name, widths[0])}  {dtype:<{widths[1]}}  {shape:<{widths[2]}}  {nbytes:>{widths[3]}}"
        for name, dtype, shape, nbytes in rows
    ]


def layer_detail(
    plan: Plan, checkpoint: Checkpoint | None, row: PaneRow, letter: str, in_stack: bool
) -> tuple[str, list[str]]:
    """Title and lines that describe a row in full: provenance, attributes, tensors."""
    if in_stack and row.kind != "end":
        return _stack_detail(plan, plan.layers[row.start])
    if in_stack:
        end = plan.ends[row.role]
        title = f"{row.role}: {'~'.join(end.donors) or end.donor or 'none'} ({end.how})"
        lines = list(value_lines(end.tensors, end.donors))
        return title, [*lines, *([""] if lines else []), *tensor_lines({t.name: t.entry for t in end.tensors})]
    assert checkpoint is not None
    if row.kind == "end":
        return f"{row.role} of {letter}", tensor_lines(checkpoint.ends.get(row.role, {}))
    source = checkpoint.layers[row.start]
    where = [layer.index for layer in plan.layers if (letter, row.start) in layer.sources]
    lines = [f"{number(source.numel)} parameters, {size(source.nbytes)}"]
    lines.append(f"in the stack at {ranges(where)}" if where else "not in the stack")
    donor = plan.donors.get(letter)
    if donor and row.start < len(donor.layer_labels):
        lines.append(f"computed in stage {donor_layer(donor, row.start)}")
    adapted = donor.adapted(source.tensors) if donor else []
    if donor and donor.adapter is not None:
        lines += [f"{name} {text}" for name, text in adapter_facts(donor.adapter).items()]
        which = ", ".join(one_line(name.removesuffix(".weight")) for name in adapted)
        lines.append(f"the adapter changes {plural(len(adapted), 'tensor')} of this layer: {which}" if adapted else
                     "the adapter changes nothing in this layer")  # fmt: skip
    return f"layer {row.start} of {letter}", [
        *lines, *_attribute_lines(dict(source.attributes)), "", *_donor_lines(checkpoint, row.start)
    ]  # fmt: skip


def _donor_lines(checkpoint: Checkpoint, index: int) -> list[str]:
    """The tensors of a donor's layer, those of its experts on one line."""
    every, weights = checkpoint.layers[index].tensors, checkpoint.weights(index)
    groups = {group_name(group): group for group in weights.groups}
    shown = {name: every[group[0]] for name, group in groups.items()}
    shown |= {suffix: entry for suffix, entry in every.items() if suffix not in weights.tensors}
    return tensor_lines(shown, {name: len(group) for name, group in groups.items()})


def _stack_detail(plan: Plan, layer: PlannedLayer) -> tuple[str, list[str]]:
    """Title and lines about an output layer."""
    donor = plan.donors.get(layer.sources[0][0])
    title = f"layer {layer.index} = {layer.label}"
    if donor and not is_blend(layer):
        title += f" of {donor_layer(donor, layer.sources[0][1])}"
    else:
        title += f" {main_value(layer)}".rstrip()
    lines = [f"{number(layer.numel)} parameters, {size(layer.nbytes)}, {one_line(layer.method)}"]
    if is_blend(layer):
        lines += source_lines(plan, layer)
    lines += _finding_lines(plan, layer.index)
    groups = [(group_name(group), len(group), first) for first, group in layer.groups]
    named = [replace(first, place=replace(first.place, suffix=name)) for name, _, first in groups]
    values = list(value_lines(named, [letter for letter, _ in layer.sources])) if is_blend(layer) else []
    lines += ["", *values] if values else []
    lines += _attribute_lines(dict(layer.attributes))
    counts = {name: count for name, count, _ in groups}
    lines += ["", *tensor_lines({name: first.entry for name, _, first in groups}, counts)]
    lines += [f"{name} x {factor:g}" for name, factor in scaled(named)]
    return title, lines


def _attribute_lines(attributes: dict[str, object]) -> list[str]:
    return [", ".join(f"{name} {one_line(value)}" for name, value in attributes.items())] if attributes else []


def _finding_lines(plan: Plan, index: int) -> list[str]:
    return [f"{f.severity}: {f.sentence()}" for f in plan.findings if index in f.layers]
