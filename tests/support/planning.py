"""What the tests of plans share: a plan from a recipe's text, and what its findings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from surgeon.plan import Donors, Finding, Plan, resolve
from surgeon.recipe.document import parse


def plan_of(folder: Path, text: str, **more: Any) -> Plan:
    """The plan of a recipe that would lie in `folder`."""
    document = parse(text, folder / "recipe.yml")
    return resolve(document, Donors(document.roots), **more)


def stack_of(*ranges: tuple[str, int, int], **keys: str) -> str:
    """A recipe's text: slices, and top-level keys as YAML."""
    lines = ["merge_method: passthrough", *(f"{key}: {value}" for key, value in keys.items()), "slices:"]
    lines += [f"- sources: [{{model: {model}, layer_range: [{start}, {stop}]}}]" for model, start, stop in ranges]
    return "\n".join(lines) + "\n"


def codes(plan: Plan) -> list[str]:
    """What was found, in order: `error:layer-range`."""
    return [f"{finding.severity}:{finding.code}" for finding in plan.findings]


def found(plan: Plan, code: str) -> Finding:
    """The one finding of that code."""
    (finding,) = (finding for finding in plan.findings if finding.code == code)
    return finding
