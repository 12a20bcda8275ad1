"""Findings of a plan: errors, warnings and notes, each with a reason and a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..text import one_line
from .finding_codes import CODES

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Something a user should know before writing: what, why, and the remedy.

    Attributes:
        severity: an `error` prevents assembling; a `warning` reports a likely mistake; a `note` reports a decision.
        code: one of `CODES`, such as `hidden-size`.
        what: one sentence without a full stop.
        why: the reason; may be empty.
        remedy: what to do about it; may be empty.
        layers: the output layers that it concerns.
        line: the line of the recipe, counted from 1.
    """

    severity: Severity
    code: str
    what: str
    why: str = ""
    remedy: str = ""
    layers: tuple[int, ...] = ()
    line: int | None = None

    def __post_init__(self) -> None:
        assert self.code in CODES, self.code

    def sentence(self) -> str:
        """The whole finding as text without control characters."""
        text = f"{self.what}: {self.why}." if self.why else f"{self.what}."
        if self.remedy:
            end = "" if self.remedy.endswith("?") else "."
            text += f" {self.remedy[0].upper()}{self.remedy[1:]}{end}"
        return one_line(text)
