"""The rows that donor panes and the stack show, as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ...checkpoint import Checkpoint
from ...plan import Convert, Plan, PlannedTensor
from ...plan.model import Donor
from ...text import number, one_line, plural
from .blend_labels import is_blend, main_value
from .layer_runs import runs

END_NAMES = {"embeddings": "emb", "final_norm": "norm", "lm_head": "head"}
Kind = Literal["end", "layer", "slice"]


@dataclass(frozen=True)
class PaneRow:
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
        marker: `+` new, `~` with changed parameters, `!` a finding, or blank, in the stack.
        repeat: whether the stack has the same layer before.
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
    repeat: bool = False
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


def donor_rows(checkpoint: Checkpoint, letter: str, uses: Sequence[int], donor: Donor | None = None) -> list[PaneRow]:
    """A donor's column: embeddings, layers (with how often the stack uses each), norm, head.

    Args:
        donor: as the plan knows it: for a stage, where its layers come from; for an adapter, what it changes.
    """
    width = max(2, len(str(max(checkpoint.depth - 1, 0))))
    uniform = len({repr(sorted(layer.attributes.items())) for layer in checkpoint.layers}) <= 1
    rows = [_donor_end(checkpoint, "embeddings", letter)]
    for layer in checkpoint.layers:
        used = uses[layer.index] if layer.index < len(uses) else 0
        mark = "" if not used else " ·" if used == 1 else f" x{used}"
        text = layer_text(dict(layer.attributes), layer.numel, uniform)
        if donor is not None and layer.index < len(donor.layer_labels):
            text = f"= {donor.layer_labels[layer.index]}"
        elif donor is not None and (adapted := donor.adapted(layer.tensors)):
            text += f" +{len(adapted)}"
        text += mark
        rows.append(
            PaneRow("layer", "layer", layer.index, layer.index + 1, f"{layer.index:0{width}d}", "", text, letter)
        )
    rows += [_donor_end(checkpoint, role, letter) for role in ("final_norm", "lm_head")]
    return rows


def _donor_end(checkpoint: Checkpoint, role: str, letter: str) -> PaneRow:
    entries = checkpoint.ends.get(role, {})
    total = sum(entry.numel for entry in entries.values())
    if entries:
        text = f"{number(total):>6}"
    else:
        text = "  tied" if role == "lm_head" and checkpoint.tied else "     -"
    return PaneRow("end", role, -1, -1, END_NAMES[role], "", text, letter)


def stack_rows(plan: Plan, markers: Sequence[str], zoomed_out: bool) -> list[PaneRow]:
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


def _stack_end(plan: Plan, role: str) -> PaneRow:
    end = plan.ends[role]
    letter = end.donor or ""
    how = _HOW[end.how]
    numel = sum(tensor.numel for tensor in end.tensors)
    text = f"{number(numel):>7} {how}".rstrip() if numel else f"{'':7} {how}"
    label = "~".join(end.donors) or letter or "-"
    return PaneRow("end", role, -1, -1, END_NAMES[role], label, text, letter)


def _stack_layers(plan: Plan, markers: Sequence[str], flagged: set[int]) -> Iterator[PaneRow]:
    uniform = len({repr(sorted(layer.attributes.items())) for layer in plan.layers}) <= 1
    edges = _brackets([layer.slice_index for layer in plan.layers])
    seen: set[tuple[tuple[str, int], ...]] = set()
    for layer in plan.layers:
        marker = markers[layer.index] if layer.index < len(markers) else " "
        text = layer_text(dict(layer.attributes), layer.numel, uniform) if layer.planned else "missing"
        factors = {factor for _, factor in scaled(layer.firsts)}
        if factors:
            text += " scaled " + ", ".join(f"{factor:g}" for factor in sorted(factors)[:3])
        if is_blend(layer):
            text += f" {one_line(layer.method)}"
        yield PaneRow(
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
            layer.sources in seen,
            main_value(layer) if is_blend(layer) else "",
        )
        seen.add(layer.sources)


def scaled(tensors: Sequence[PlannedTensor]) -> list[tuple[str, float]]:
    """Those tensors of a layer that are multiplied, by name, with their factors."""
    return [
        (one_line(tensor.place.suffix), tensor.source.factor)
        for tensor in tensors
        if isinstance(tensor.source, Convert) and tensor.source.factor != 1.0
    ]


def _brackets(slices: Sequence[int]) -> list[str]:
    out = []
    for index, own in enumerate(slices):
        first = index == 0 or slices[index - 1] != own
        last = index == len(slices) - 1 or slices[index + 1] != own
        out.append("─" if first and last else "┌" if first else "└" if last else "│")
    return out


def _slice_rows(plan: Plan, flagged: set[int]) -> Iterator[PaneRow]:
    for run in runs(plan):
        start, stop = run.start, run.stop
        layers = plan.layers[start:stop]
        numel = sum(layer.numel for layer in layers)
        marker = "!" if flagged & set(range(start, stop)) else " "
        text = f"{number(numel):>7}  {start}-{stop - 1}, {plural(stop - start, 'layer')}"
        text += f", {one_line(layers[0].method)}" if is_blend(layers[0]) else ""
        yield PaneRow("slice", "layer", start, stop, str(start), run.label, text, run.sources[0][0], marker, "─")
