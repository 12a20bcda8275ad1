"""An evaluation as plain data, Markdown, and rows of the results file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..text import one_line
from .evaluation import Evaluation, ModelScores
from .intervals import Difference
from .measures import Measure
from .results import row


def to_dict(done: Evaluation) -> dict[str, Any]:
    """Everything but the single items, for JSON."""
    return {
        "split": done.suite.split,
        "limit": done.suite.limit,
        "base": done.models[0].target.name,
        "notes": done.notes,
        "models": [_model(done, number) for number in range(len(done.models))],
    }


def _model(done: Evaluation, number: int) -> dict[str, Any]:
    model = done.models[number]
    return {
        "name": model.target.name,
        "model": model.target.ref,
        "donor": model.target.donor,
        "seconds": round(model.seconds, 2),
        "peak_memory_bytes": model.peak_memory,
        "notes": model.notes,
        "measures": {name: _measure(done, model, one) for name, one in model.measures.items()},
        "against_base": {name: _difference(one) for name, one in model.differences.items()},
        "against_best_checkpoint": {
            name: {"checkpoint": best, **_difference(one)} for name, (best, one) in done.retained[number].items()
        },
    }


def _measure(done: Evaluation, model: ModelScores, measure: Measure) -> dict[str, Any]:
    low, high = done.interval(model, measure.name)
    found = {"value": _number(measure.value), "low": _number(low), "high": _number(high)}
    if measure.perplexity is not None:
        found["perplexity"] = _number(measure.perplexity)
    return {**found, "better": measure.better, "kind": measure.kind, "items": len(measure.units)}


def _difference(one: Difference) -> dict[str, Any]:
    return {
        "difference": _number(one.mean),
        "low": _number(one.low),
        "high": _number(one.high),
        "verdict": one.verdict,
        "needed_items": one.needed,
    }


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def value_text(measure: Measure | None) -> str:
    """The value of a measure: a perplexity for a loss."""
    if measure is None:
        return "-"
    if measure.perplexity is not None:
        return f"{measure.perplexity:.4g}"
    return f"{measure.value:.3f}"


def measure_label(name: str, measure: Measure) -> str:
    """What `value_text` shows."""
    return f"{name.removesuffix('loss')}perplexity" if measure.kind == "loss" else name


def difference_text(one: Difference | None, measure: Measure | None = None) -> str:
    """A verdict with the difference and its interval, of a loss in nats; empty without a difference."""
    if one is None:
        return ""
    if not math.isfinite(one.mean) or one.verdict in ("equal", "not comparable"):
        return one.verdict
    if measure is not None and measure.kind == "divergence":
        return ""
    if math.isinf(one.low):
        return f"{one.mean:+.3f} {one.sentence()}"
    return f"{one.mean:+.3f} [{one.low:+.3f}, {one.high:+.3f}] {one.sentence()}"


def label_of(done: Evaluation, name: str) -> str:
    """The label of a measure's row."""
    return measure_label(name, next(model.measures[name] for model in done.models if name in model.measures))


def cells(done: Evaluation, name: str) -> list[str]:
    """A measure of every model: the value and the verdict against the base."""
    found = []
    for model in done.models:
        measure = model.measures.get(name)
        text = difference_text(model.differences.get(name), measure)
        found.append(f"{value_text(measure)} {text}".strip())
    return found


def heads(done: Evaluation) -> list[str]:
    """Column heads: names of the models, marked as base or donor."""
    found = []
    for number, model in enumerate(done.models):
        mark = " (base)" if not number else " (donor)" if model.target.donor else ""
        found.append(one_line(model.target.name) + mark)
    return found


def retained_rows(done: Evaluation) -> list[tuple[str, list[str]]]:
    """(label, cell of each recipe) of the differences to the best checkpoint."""
    rows = []
    columns = [number for number, found in enumerate(done.retained) if found]
    for name in done.measures:
        texts = []
        for number in columns:
            pair = done.retained[number].get(name)
            texts.append(f"{one_line(pair[0])}: {difference_text(pair[1])}" if pair else "-")
        if any(text != "-" for text in texts):
            rows.append((label_of(done, name), texts))
    return rows


def retained_heads(done: Evaluation) -> list[str]:
    """Names of the recipes that `retained_rows` has a column for."""
    return [one_line(model.target.name) for model, found in zip(done.models, done.retained, strict=True) if found]


def markdown(done: Evaluation) -> list[str]:
    """The tables in Markdown."""
    lines = markdown_table(
        ["measure", *heads(done)], [[label_of(done, name), *cells(done, name)] for name in done.measures]
    )
    if rows := retained_rows(done):
        lines += ["", "Against the best checkpoint:", ""]
        lines += markdown_table(["measure", *retained_heads(done)], [[label, *texts] for label, texts in rows])
    notes = [*done.notes, *(note for model in done.models for note in model.notes)]
    return [*lines, *([""] if notes else []), *(f"- {_escaped(note)}" for note in notes)]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = ["| " + " | ".join(map(_escaped, head)) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(map(_escaped, one)) + " |" for one in rows]


def _escaped(text: str) -> str:
    """Text for a cell: a bar or markup in a name stays text."""
    text = one_line(text)
    for sign in "\\|<>*_`":
        text = text.replace(sign, "\\" + sign)
    return text


def model_row(model: ModelScores, base: str, split: str, file: Path) -> dict[str, Any]:
    """The row of a model for the results file, as soon as its scores are complete.

    Args:
        base: name of the base.
        split: the half that was scored.
        file: the results file.
    """
    target = model.target
    return row(
        "evaluated",
        target.name,
        file,
        path=target.path,
        recipe=target.recipe,
        measures=list(model.measures.values()),
        base=base,
        split=split,
        seconds=round(model.seconds, 2),
        peak_memory_bytes=model.peak_memory,
        verdicts={name: _difference(one) for name, one in model.differences.items()},
    )
