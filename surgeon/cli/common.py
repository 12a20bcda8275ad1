"""What the commands share: options, and printing of errors and findings."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, SurgeonError
from ..text import parse_size

if TYPE_CHECKING:
    from ..plan import Finding, Plan

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="DONOR=PATH", help="Use PATH for a donor, named as in the recipe or by its letter."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def fail(error: SurgeonError) -> int:
    """Print an error on stderr and return its exit code."""
    print(f"surgeon: {error.sentence()}", file=sys.stderr)
    return error.exit_code


def bytes_option(text: str) -> int:
    """The bytes of a size such as 5GB.

    Raises:
        InputError: the text is no size.
    """
    try:
        return parse_size(text)
    except ValueError as error:
        raise InputError(str(error)) from error


def print_findings(findings: Sequence[Finding], *, where: str) -> None:
    """Print findings on stderr, one per line, with the line number in the recipe where it is known."""
    for finding in findings:
        place = f"{where}:{finding.line}" if finding.line else where
        print(f"{finding.severity}: {place}: {finding.sentence()}", file=sys.stderr)


def refuse(plan: Plan, where: str) -> None:
    """Print every finding, and raise if there are errors.

    Raises:
        InputError: the plan has errors.
    """
    print_findings(plan.findings, where=where)
    if not plan.ok:
        count = len(plan.errors)
        raise InputError(f"the recipe has {count} error{'s' if count > 1 else ''}, so nothing was done", where=where)


def finite(value: Any) -> Any:
    """A copy with NaN and infinities as text: JSON has none, and configs sometimes do."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
