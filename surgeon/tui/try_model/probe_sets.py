"""Finds probe sets: files of prompts with known answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...statefile import StateRecord, open_regular, parse

MAX_LINE = 100_000
"""Bytes of a probe set's first line that are read."""


def find_probe_sets(given: Sequence[Path], roots: Iterable[Path]) -> list[Path]:
    """Probe sets that were given, and those in `probes/` in the recipe's folders or the working directory."""
    folders = {Path.cwd() / "probes", *(root / "probes" for root in roots)}
    found = [path for folder in sorted(folders) if folder.is_dir() for path in sorted(folder.glob("*.jsonl"))]
    return list(dict.fromkeys([*given, *found]))


def first_prompt(paths: Iterable[Path]) -> str:
    """The first prompt of the first probe set that has one; empty when none has."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError), open_regular(path, follow=True) as file:
            if prompt := StateRecord(parse(file.readline(MAX_LINE))).text("prompt"):
                return prompt
    return ""
