"""`surgeon plan RECIPE`: show what a recipe would write, and all findings."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..text import number, one_line, plural, ranges, size
from .common import JsonOption, SetOption, bytes_option, finite
from .plan_values import to_rows, value_lines
from .table import pad, say

if TYPE_CHECKING:
    from ..plan import Donor, Finding, Plan, PlannedLayer

WIDTH = 80
_SHOWN_LAYERS = 60
_HOW = {
    "copied": "",
    "blended": "blended",
    "tied": "tied: the embedding",
    "materialised": "a copy of its embedding",
    "missing": "none",
    "absent": "none",
}


def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe to plan.", metavar="RECIPE")],
    as_json: JsonOption = False,
    sets: SetOption = None,
    shard_size: Annotated[str, typer.Option(help="Bytes per weight file.", metavar="SIZE")] = "5GB",
    layers: Annotated[bool, typer.Option("--layers", help="List each layer on one line.")] = False,
    values: Annotated[
        bool, typer.Option("--values", help="Print the value of each parameter for each tensor, and where it is set.")
    ] = False,
) -> None:
    """Show what a recipe would write, and all errors and warnings."""
    from ..plan.load import load_plan

    _, made = load_plan(recipe, sets, shard_size=bytes_option(shard_size))
    if as_json:
        print(json.dumps(finite(to_dict(made, recipe, values=values)), indent=2))
    else:
        for line in lines(made, recipe, every_layer=layers, values=values):
            say(line)
    if not made.ok:
        raise typer.Exit(2)


def lines(made: Plan, recipe: Path, *, every_layer: bool = False, values: bool = False) -> Iterator[str]:
    """The plan as text, in at most 80 columns; lines of values may be longer."""
    yield one_line(recipe)
    yield from ("", "donors", *_donors(made))
    depth = len(made.layers)
    yield from ("", f"stack: {plural(depth, 'layer')} (ranges with both ends, as on screen)")
    yield from _layers(made.layers) if every_layer else _runs(made)
    yield from ("", "ends", *_ends(made))
    if values:
        yield from ("", "values of parameters", *value_lines(made))
    if made.layers and all(layer.planned for layer in made.layers):
        yield from ("", "size", *_sizes(made))
    yield from ("", *_findings(made.findings))


def _donors(made: Plan) -> Iterator[str]:
    for donor in made.donors.values():
        checkpoint = donor.checkpoint
        facts = [
            (checkpoint.config.architecture or checkpoint.config.model_type) if checkpoint.config else "no config",
            plural(checkpoint.depth, "layer"),
            "+".join(list(checkpoint.dtypes)[:3]),
            number(checkpoint.numel),
        ]
        yield from _hanging(f"  {donor.letter}  ", f"{one_line(donor.ref)}")
        yield "     " + one_line("  ".join(facts))
    if not made.donors:
        yield "  none could be opened"


def _hanging(lead: str, text: str) -> list[str]:
    """A lead and a wrapped text; further lines of the text are indented to the lead's width."""
    indent = min(len(lead), WIDTH // 2)
    first, *rest = textwrap.wrap(text, WIDTH - indent, break_on_hyphens=False) or [""]
    # A lead that is too wide (a blend of many donors) gets its own line.
    start = [lead + first] if indent == len(lead) else [lead.rstrip(), " " * indent + first]
    return [*start, *(" " * indent + line for line in rest)]


def runs(layers: Sequence[PlannedLayer]) -> list[list[PlannedLayer]]:
    """The stack as runs of layers that are consecutive in their donors too, within one slice."""
    found: list[list[PlannedLayer]] = []
    for layer in layers:
        before = found[-1][-1] if found else None
        follows = before is not None and before.slice_index == layer.slice_index
        if before is not None and follows and layer.sources == tuple((a, i + 1) for a, i in before.sources):
            found[-1].append(layer)
        else:
            found.append([layer])
    return found


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _runs(made: Plan) -> Iterator[str]:
    for run in runs(made.layers):
        first, last = run[0], run[-1]
        pairs = zip(first.sources, last.sources, strict=True)
        source = " ~ ".join(f"{letter} {_span(start, stop)}" for (letter, start), (_, stop) in pairs)
        numel = sum(layer.numel for layer in run)
        notes = sorted({_attributes(layer) for layer in run} - {""})
        count = number(numel) if numel else "missing"
        text = f"  {_span(first.index, last.index):>9}  {source:<12} {plural(len(run), 'layer'):>11}  {count:>7}"
        yield from _hanging(text + "  ", "; ".join(notes)) if notes else [text]


def _layers(layers: Sequence[PlannedLayer]) -> Iterator[str]:
    width = max((len(layer.label) for layer in layers), default=0)
    for layer in layers:
        sizes = f"{number(layer.numel):>7}  {size(layer.nbytes):>9}" if layer.planned else "missing"
        lead = f"  {layer.index:>5}  {layer.label:<{width}}  {sizes}"
        notes = _attributes(layer)
        yield from _hanging(lead + "  ", notes) if notes else [lead]


def scaled(layer: PlannedLayer) -> dict[str, float]:
    """The factors of a layer's scaled tensors, by the tensor's name within the layer."""
    from ..plan import Convert

    sources = ((tensor.place.suffix, tensor.source) for tensor in layer.tensors)
    return {name: source.factor for name, source in sources if isinstance(source, Convert) and source.factor != 1}


def _attributes(layer: PlannedLayer) -> str:
    """How a layer differs from a copied dense layer with full attention, as a phrase; empty if it does not."""
    kinds = layer.attributes
    parts = [layer.method] if layer.method != "passthrough" else []
    if kinds.get("attention") not in (None, "full"):
        window = kinds.get("window")
        parts.append(f"{kinds['attention']} {window:,}" if window else str(kinds["attention"]))
    parts += ["experts"] if kinds.get("mlp") == "experts" else []
    parts += ["no rope"] if kinds.get("rope") is False else []
    by_factor: dict[float, list[str]] = {}
    for name, factor in scaled(layer).items():
        by_factor.setdefault(factor, []).append(name.removesuffix(".weight").rsplit(".", 1)[-1])
    for factor, names in by_factor.items():
        some = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        parts.append(f"x{factor:g} on {some}")
    return one_line(", ".join(parts))


def _ends(made: Plan) -> Iterator[str]:
    for role, end in made.ends.items():
        numel = sum(tensor.numel for tensor in end.tensors)
        whose = "~".join(end.donors) or end.donor or "-"
        lead = f"  {role:<11} {whose:<3} {number(numel) if numel else '':>8}  {_HOW[end.how]}"
        yield lead.rstrip()
    if made.config_donor:
        yield f"  config and tokenizer from {made.config_donor}"


def _sizes(made: Plan) -> Iterator[str]:
    sizes = made.estimates
    rows = (
        ("parameters", f"{number(sizes.parameters)} ({sizes.parameters:,})"),
        ("weights", f"{size(sizes.nbytes)} in {plural(sizes.shards, 'shard')}"),
        ("KV cache", f"{size(sizes.kv_per_token)} per token"),
        ("to run it", f"{size(sizes.run_bytes)} of memory: weights, and KV cache of {sizes.run_context:,} tokens"),
        ("to write it", f"{size(sizes.disk_bytes)} of free disk"),
    )
    for name, text in rows:
        yield f"  {name:<12} {text}"


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    counts = [
        plural(count, name)
        for name in ("error", "warning", "note")
        if (count := sum(finding.severity == name for finding in findings))
    ]
    yield f"findings: {', '.join(counts)}" if counts else "findings: none"
    for finding in findings:
        line = f"line {finding.line}" if finding.line else ""
        lead = pad(f"  {finding.severity:<8} {line:<9}", 21)
        where = f" (layer {_some(finding.layers)})" if finding.layers else ""
        yield from _hanging(lead, finding.sentence() + where)


def _some(layers: Sequence[int]) -> str:
    text = ranges(layers)
    return text if len(text) <= _SHOWN_LAYERS else text[:_SHOWN_LAYERS].rsplit(",", 1)[0] + ", ..."


def to_dict(made: Plan, recipe: Path, *, values: bool = False) -> dict[str, Any]:
    """The plan for JSON; layer numbers count from 0."""
    return {
        "recipe": str(recipe),
        "ok": made.ok,
        "donors": [_donor(donor) for donor in made.donors.values()],
        "layers": [
            {
                "index": layer.index,
                "label": layer.label,
                "sources": [{"donor": letter, "layer": index} for letter, index in layer.sources],
                "method": layer.method,
                "slice": layer.slice_index,
                "parameters": layer.numel,
                "bytes": layer.nbytes,
                "attributes": dict(layer.attributes),
                "scaled": scaled(layer),
                **({"values": to_rows(layer.tensors, [letter for letter, _ in layer.sources])} if values else {}),
            }
            for layer in made.layers
        ],
        "ends": {
            role: {
                "donor": end.donor,
                "how": end.how,
                "donors": list(end.donors),
                **({"values": to_rows(end.tensors, end.donors)} if values else {}),
                "parameters": sum(tensor.numel for tensor in end.tensors),
                "bytes": sum(tensor.nbytes for tensor in end.tensors),
            }
            for role, end in made.ends.items()
        },
        "other_tensors": [tensor.name for tensor in made.extra],
        "config_donor": made.config_donor,
        "config": made.config,
        "files": list(made.files),
        "tied": made.tied,
        "needs_arithmetic": made.needs_arithmetic,
        "estimates": asdict(made.estimates),
        "findings": [asdict(finding) for finding in made.findings],
    }


def _donor(donor: Donor) -> dict[str, Any]:
    checkpoint = donor.checkpoint
    return {
        "letter": donor.letter,
        "ref": donor.ref,
        "path": str(checkpoint.path),
        "architecture": checkpoint.config.architecture if checkpoint.config else None,
        "model_type": checkpoint.config.model_type if checkpoint.config else None,
        "layers": checkpoint.depth,
        "dtypes": checkpoint.dtypes,
        "parameters": checkpoint.numel,
        "bytes": checkpoint.nbytes,
    }
