"""A layer or an end in full: provenance, attributes, tensors."""

from __future__ import annotations

from collections.abc import Mapping

from rich.cells import cell_len

from ...checkpoint import Checkpoint, TensorEntry
from ...plan import Plan, PlannedLayer
from ...text import number, one_line, ranges, size
from ..cells import pad
from .blend_labels import is_blend, main_value, source_lines, value_lines
from .pane_rows import PaneRow, scaled_tensors


def tensor_lines(tensors: Mapping[str, TensorEntry]) -> list[str]:
    """A table of tensors: the name they are listed under, dtype, shape, bytes."""
    rows = [
        (one_line(name), entry.dtype, "x".join(map(str, entry.shape)) or "scalar", size(entry.nbytes))
        for name, entry in tensors.items()
    ]
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
    return f"layer {row.start} of {letter}", [
        *lines, *_attribute_lines(dict(source.attributes)), "", *tensor_lines(source.tensors)
    ]  # fmt: skip


def _stack_detail(plan: Plan, layer: PlannedLayer) -> tuple[str, list[str]]:
    """Title and lines about an output layer."""
    donor = plan.donors.get(layer.sources[0][0])
    title = f"layer {layer.index} = {layer.label}"
    title += f" of {one_line(donor.ref)}" if donor and not is_blend(layer) else f" {main_value(layer)}".rstrip()
    lines = [f"{number(layer.numel)} parameters, {size(layer.nbytes)}, {one_line(layer.method)}"]
    if is_blend(layer):
        lines += source_lines(plan, layer)
    lines += _finding_lines(plan, layer.index)
    values = list(value_lines(layer.tensors, [letter for letter, _ in layer.sources])) if is_blend(layer) else []
    lines += ["", *values] if values else []
    lines += _attribute_lines(dict(layer.attributes))
    lines += ["", *tensor_lines({tensor.place.suffix: tensor.entry for tensor in layer.tensors})]
    lines += [f"{name} x {factor:g}" for name, factor in scaled_tensors(layer)]
    return title, lines


def _attribute_lines(attributes: dict[str, object]) -> list[str]:
    return [", ".join(f"{name} {one_line(value)}" for name, value in attributes.items())] if attributes else []


def _finding_lines(plan: Plan, index: int) -> list[str]:
    return [f"{f.severity}: {f.sentence()}" for f in plan.findings if index in f.layers]
