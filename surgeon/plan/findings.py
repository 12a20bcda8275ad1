"""What a plan reports: errors, warnings and notes, each a sentence with its reason and its remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..text import one_line
from .finding_codes import CODES

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Something a user should know before writing: what, why, and what to do.

    Attributes:
        severity: an `error` stops assembling; a `warning` is likely wrong; a `note` says what is done.
        code: one of `CODES`, such as `hidden-size`.
        what: one sentence without a full stop.
        why: the reason.
        remedy: what to do about it; may be empty.
        layers: output layers it is about.
        line: line of the recipe, from 1.
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
        """All of it as text, safe for a terminal."""
        text = f"{self.what}: {self.why}." if self.why else f"{self.what}."
        if self.remedy:
            end = "" if self.remedy.endswith("?") else "."
            text += f" {self.remedy[0].upper()}{self.remedy[1:]}{end}"
        return one_line(text)
