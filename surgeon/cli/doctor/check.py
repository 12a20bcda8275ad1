"""One check of `surgeon doctor`, and running a command for its output."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "FAIL"]


@dataclass(frozen=True)
class Check:
    """What was checked, what was found, and the change to make if it is not as it should be."""

    name: str
    status: Status
    found: str
    change: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"check": self.name, "status": self.status, "found": self.found, "change": self.change}


def ask(command: Sequence[str], timeout: float = 2.0) -> str | None:
    """The output of a command; None if it does not exist, fails, or takes longer than `timeout` seconds."""
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
