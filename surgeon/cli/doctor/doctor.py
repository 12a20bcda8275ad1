"""`surgeon doctor`: check the terminal, tmux, SSH, torch and the disk, and say what to change."""

from __future__ import annotations

import json as json_format
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..common import JsonOption

if TYPE_CHECKING:
    from ..table import Style
    from .check import Check


def doctor(json: JsonOption = False) -> None:
    """Check the terminal, tmux, SSH, torch and the disk, and say what to change."""
    from ..table import Style, say
    from .machine_checks import Devices, machine_checks
    from .terminal_checks import TerminalFacts, terminal_checks

    devices = Devices()  # a child that imports torch while the other checks run
    checks = [*terminal_checks(TerminalFacts.here(os.environ)), *machine_checks(os.environ, Path.cwd(), devices)]
    if json:
        print(json_format.dumps([check.to_dict() for check in checks], indent=2))
    else:
        for line in lines(checks, Style.of(sys.stdout)):
            say(line)
    if any(check.status == "FAIL" for check in checks):
        raise typer.Exit(1)


def lines(checks: Sequence[Check], style: Style) -> Iterator[str]:
    """For each check its result, then the change to make."""
    from ..table import pad, wrap

    width = max(len(check.name) for check in checks)
    indent = " " * (width + 8)
    for check in checks:
        found = wrap(check.found, max(20, style.width - len(indent)))
        lead = f"{pad(check.status, 4)}  {pad(check.name, width)}  "
        yield (lead if check.status == "ok" else style.bold(lead)) + found[0]
        yield from (indent + line for line in found[1:])
        if check.change:
            yield from (indent + line for line in wrap(f"-> {check.change}", max(20, style.width - len(indent))))
