"""The lines that panes show, as plain values: no widget, no colour, so that they can be tested as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...checkpoint import Checkpoint, TensorEntry
from ...plan import Convert, Plan, PlannedLayer
from ...text import number, one_line, plural, ranges, size
from .blend_labels import is_blend, source_lines, value_lines, worth

END_NAMES = {"embeddings": "emb", "final_norm": "norm", "lm_head": "head"}
Kind = Literal["end", "layer", "slice"]


@dataclass(frozen=True)
class StackRow:
    """One line of a pane.

    Attributes:
        kind: an end of the network, a layer, or a run of layers.
        role: which end; `layer` otherwise.
        start: first layer of the row, in the pane's own counting (-1 for an end).
        stop: one past its last layer.
        head: what leads the line: an index, or the end's name.
        label: provenance, in the stack.
        value: the main parameter of a blend.
        text: the rest.
        letter: donor whose hue the label has.
        marker: `+`, `x`, `!` or blank, in the stack.
        bracket: the slice's edge, in the stack.
    """

    kind: Kind
    role: str
    start: int
    stop: int
    head: str
    label: str
    text: str
    letter: str = ""
    marker: str = " "
    bracket: str = " "
    value: str = ""


def layer_text(attributes: dict[str, object] | None, numel: int, plain: bool) -> str:
    """Parameters of a layer, and what sets it apart from its neighbours."""
    text = f"{number(numel):>7}"
    if plain or not attributes:
        return text
    if attributes.get("attention") not in (None, "full"):
        text += f" {one_line(attributes['attention'])}"
    if attributes.get("mlp") == "experts":
        text += " experts"
    if attributes.get("rope") is False:
        text += " no-rope"
    return text


def donor_rows(checkpoint: Checkpoint, letter: str, uses: Sequence[int]) -> list[StackRow]:
    """A donor's column: embeddings, layers (with how often the stack uses each), norm, head."""
    width = max(2, len(str(max(checkpoint.depth - 1, 0))))
    uniform = len({repr(sorted(layer.attributes.items())) for layer in checkpoint.layers}) <= 1
    rows = [_donor_end(checkpoint, "embeddings", letter)]
    for layer in checkpoint.layers:
        used = uses[layer.index] if layer.index < len(uses) else 0
        mark = "" if not used else " ·" if used == 1 else f" x{used}"
        text = layer_text(dict(layer.attributes), layer.numel, uniform) + mark
        rows.append(
            StackRow("layer", "layer", layer.index, layer.index + 1, f"{layer.index:0{width}d}", "", text, letter)
        )
    rows += [_donor_end(checkpoint, role, letter) for role in ("final_norm", "lm_head")]
    return rows


def _donor_end(checkpoint: Checkpoint, role: str, letter: str) -> StackRow:
    entries = checkpoint.ends.get(role, {})
    total = sum(entry.numel for entry in entries.values())
    if entries:
        text = f"{number(total):>6}"
    else:
        text = "  tied" if role == "lm_head" and checkpoint.tied else "     -"
    return StackRow("end", role, -1, -1, END_NAMES[role], "", text, letter)


def stack_rows(plan: Plan, markers: Sequence[str], zoomed_out: bool) -> list[StackRow]:
    """The stack's column: embeddings, layers or runs of layers, norm, head."""
    flagged = {index for f in plan.findings if f.severity != "note" for index in f.layers}
    body = _slice_rows(plan, flagged) if zoomed_out else _stack_layers(plan, markers, flagged)
    return [_stack_end(plan, "embeddings"), *body, _stack_end(plan, "final_norm"), _stack_end(plan, "lm_head")]


_HOW = {
    "copied": "",
    "blended": "blended",
    "tied": "tied to embed",
    "materialised": "copy of its embedding",
    "missing": "none",
    "absent": "none",
}


def _stack_end(plan: Plan, role: str) -> StackRow:
    end = plan.ends[role]
    letter = end.donor or ""
    how = _HOW[end.how]
    numel = sum(tensor.numel for tensor in end.tensors)
    text = f"{number(numel):>7} {how}".rstrip() if numel else f"{'':7} {how}"
    label = "~".join(end.donors) or letter or "-"
    return StackRow("end", role, -1, -1, END_NAMES[role], label, text, letter)


def _stack_layers(plan: Plan, markers: Sequence[str], flagged: set[int]) -> Iterator[StackRow]:
    uniform = len({repr(sorted(layer.attributes.items())) for layer in plan.layers}) <= 1
    edges = _brackets([layer.slice_index for layer in plan.layers])
    for layer in plan.layers:
        marker = markers[layer.index] if layer.index < len(markers) else " "
        text = layer_text(dict(layer.attributes), layer.numel, uniform) if layer.tensors else "missing"
        factors = {factor for _, factor in _scaled(layer)}
        if factors:
            text += " scaled " + ", ".join(f"{factor:g}" for factor in sorted(factors)[:3])
        if is_blend(layer):
            text += f" {one_line(layer.method)}"
        yield StackRow(
            "layer",
            "layer",
            layer.index,
            layer.index + 1,
            str(layer.index),
            layer.label,
            text,
            layer.sources[0][0],
            "!" if layer.index in flagged else marker,
            edges[layer.index],
            worth(layer) if is_blend(layer) else "",
        )


def _scaled(layer: PlannedLayer) -> list[tuple[str, float]]:
    """Tensors of a layer that are multiplied, by name, with their factors."""
    return [
        (one_line(tensor.place.suffix), tensor.source.factor)
        for tensor in layer.tensors
        if isinstance(tensor.source, Convert) and tensor.source.factor != 1.0
    ]


def _brackets(slices: Sequence[int]) -> list[str]:
    out = []
    for index, own in enumerate(slices):
        first = index == 0 or slices[index - 1] != own
        last = index == len(slices) - 1 or slices[index + 1] != own
        out.append("─" if first and last else "┌" if first else "└" if last else "│")
    return out


@dataclass(frozen=True)
class RowRun:
    """Output layers `[start, stop)` that are neighbouring layers of the same donors, in one slice.

    `sources` are the letters with the first layer of each, without a base that is subtracted.
    """

    start: int
    stop: int
    sources: tuple[tuple[str, int], ...]

    @property
    def label(self) -> str:
        """`B 8-15`, or `A 16-23~B 8-15` for a blend."""
        count = self.stop - self.start
        return "~".join(f"{letter} {first}-{first + count - 1}" if count > 1 else f"{letter} {first}"
                        for letter, first in self.sources)  # fmt: skip


def runs(plan: Plan) -> list[RowRun]:
    """The stack as runs."""
    found: list[RowRun] = []
    for layer in plan.layers:
        sources = tuple(source for number, source in enumerate(layer.sources) if number != layer.base)
        sources = sources or layer.sources
        if found:
            last = found[-1]
            before = plan.layers[last.start]
            step = layer.index - last.start
            goes_on = tuple((letter, first + step) for letter, first in last.sources) == sources
            if goes_on and (before.slice_index, before.method) == (layer.slice_index, layer.method):
                found[-1] = RowRun(last.start, last.stop + 1, last.sources)
                continue
        found.append(RowRun(layer.index, layer.index + 1, sources))
    return found


def _slice_rows(plan: Plan, flagged: set[int]) -> Iterator[StackRow]:
    for run in runs(plan):
        start, stop = run.start, run.stop
        layers = plan.layers[start:stop]
        numel = sum(layer.numel for layer in layers)
        marker = "!" if flagged & set(range(start, stop)) else " "
        text = f"{number(numel):>7}  {start}-{stop - 1}, {plural(stop - start, 'layer')}"
        text += f", {one_line(layers[0].method)}" if is_blend(layers[0]) else ""
        yield StackRow("slice", "layer", start, stop, str(start), run.label, text, run.sources[0][0], marker, "─")


def uses(plan: Plan, letter: str, depth: int) -> list[int]:
    """How often the stack takes each layer of a donor."""
    counts = [0] * depth
    for layer in plan.layers:
        for source, index in layer.sources:
            if source == letter and 0 <= index < depth:
                counts[index] += 1
    return counts


def tensor_lines(tensors: Mapping[str, TensorEntry]) -> list[str]:
    """A table of tensors: the name they are listed under, dtype, shape, bytes."""
    rows = [
        (one_line(name), entry.dtype, "x".join(map(str, entry.shape)) or "scalar", size(entry.nbytes))
        for name, entry in tensors.items()
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    return [
        f"{name:<{widths[0]}}  {dtype:<{widths[1]}}  {shape:<{widths[2]}}  {nbytes:>{widths[3]}}"
        for name, dtype, shape, nbytes in rows
    ]


def layer_detail(
    plan: Plan, checkpoint: Checkpoint | None, row: StackRow, letter: str, in_stack: bool
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
    title += f" of {one_line(donor.ref)}" if donor and not is_blend(layer) else f" {worth(layer)}".rstrip()
    lines = [f"{number(layer.numel)} parameters, {size(layer.nbytes)}, {one_line(layer.method)}"]
    if is_blend(layer):
        lines += source_lines(plan, layer)
    lines += _finding_lines(plan, layer.index)
    values = list(value_lines(layer.tensors, [letter for letter, _ in layer.sources])) if is_blend(layer) else []
    lines += ["", *values] if values else []
    lines += _attribute_lines(dict(layer.attributes))
    lines += ["", *tensor_lines({tensor.place.suffix: tensor.entry for tensor in layer.tensors})]
    lines += [f"{name} x {factor:g}" for name, factor in _scaled(layer)]
    return title, lines


def _attribute_lines(attributes: dict[str, object]) -> list[str]:
    return [", ".join(f"{name} {one_line(value)}" for name, value in attributes.items())] if attributes else []


def _finding_lines(plan: Plan, index: int) -> list[str]:
    return [f"{f.severity}: {f.sentence()}" for f in plan.findings if index in f.layers]


def barcode(plan: Plan, width: int) -> list[tuple[str, int]]:
    """The whole stack in `width` cells: a letter per cell (small for a blend), and the first layer it stands for."""
    depth = len(plan.layers)
    if not depth or width < 1:
        return []
    per_cell = max(1, -(-depth // width))
    firsts = [plan.layers[index] for index in range(0, depth, per_cell)]
    return [(layer.sources[0][0].lower() if is_blend(layer) else layer.sources[0][0], layer.index) for layer in firsts]
