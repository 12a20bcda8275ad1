"""One check of `surgeon doctor`, and how commands are asked."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and the change to make when it is not as it should be."""

    name: str
    status: Status
    found: str
    change: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"check": self.name, "status": self.status, "found": self.found, "change": self.change}


def ask(command: Sequence[str], timeout: float = 2.0) -> str | None:
    """What a command prints, or None when it is not there, fails, or does not answer in time."""
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
