"""What the plan screen shows: findings, YAML, difference, as lines that a cursor moves over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...plan import Finding
from ...text import one_line
from .. import theme
from ..cells import wrapped
from ..widgets.line import Piece


@dataclass(frozen=True)
class View:
    """Lines and where the cursor stops among them.

    Attributes:
        stops: the lines on which the cursor stands; each begins an entry.
        text: everything as plain text, to be copied.
    """

    lines: list[list[Piece]]
    stops: tuple[int, ...]
    text: str


def findings_view(findings: Sequence[Finding], width: int) -> View:
    """Every finding with its severity and places; the cursor stops once for each."""
    lines: list[list[Piece]] = []
    stops = []
    for finding in findings:
        stops.append(len(lines))
        lines.append([(f" {heading(finding)}", theme.SEVERITY[finding.severity])])
        lines += [[(f"   {part}", theme.PLAIN)] for part in wrapped(finding.sentence(), width - 2)]
    if not lines:
        lines = [[(" No findings: R writes the model, T tries it.", theme.ADDED)]]
        stops = [0]
    text = "\n".join(f"{heading(finding)}: {finding.sentence()}" for finding in findings)
    return View(lines, tuple(stops), text)


def heading(finding: Finding) -> str:
    """Severity, line of the file, first layer."""
    parts = [f"line {finding.line}"] if finding.line else []
    parts += [f"layer {finding.layers[0]}"] if finding.layers else []
    return ", ".join([finding.severity, *parts])


def yaml_view(text: str) -> View:
    """The recipe with line numbers; the cursor stops on every line."""
    rows = text.splitlines()
    width = len(str(len(rows)))
    lines: list[list[Piece]] = [
        [
            (f" {number:>{width}}  ", theme.DIM),
            (one_line(row), theme.DIM if row.lstrip().startswith("#") else theme.PLAIN),
        ]
        for number, row in enumerate(rows, start=1)
    ]
    return View(lines, tuple(range(len(lines))), text)


def difference_view(diff: Sequence[str]) -> View:
    """What changed since the recipe was saved; the cursor stops on every line."""
    lines: list[list[Piece]] = [[(f" {one_line(line)}", theme.difference(line))] for line in diff]
    lines = lines or [[(" The recipe has no unsaved changes.", theme.DIM)]]
    return View(lines, tuple(range(len(lines))), "\n".join(diff))
