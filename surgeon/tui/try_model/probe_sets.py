"""Finds probe sets, which are files of prompts with known answers, and texts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...statefile import StateRecord, open_regular, parse

MAX_LINE = 100_000
"""Bytes of a probe set's first line that are read."""


def find_probe_sets(given: Sequence[Path], roots: Iterable[Path]) -> list[Path]:
    """Probe sets that were given, and those in `probes/` in the recipe's folders or the working directory."""
    return _found(given, roots, "probes", (".jsonl",))


def find_texts(given: Sequence[Path], roots: Iterable[Path]) -> list[Path]:
    """Texts that were given, and those in `texts/` in the recipe's folders or the working directory."""
    return _found(given, roots, "texts", (".txt",))


def _found(given: Sequence[Path], roots: Iterable[Path], name: str, endings: Sequence[str]) -> list[Path]:
    folders = {Path.cwd() / name, *(root.absolute() / name for root in roots)}
    found: list[Path] = []
    for folder in sorted(folders):
        with contextlib.suppress(OSError):
            found += sorted(path for path in folder.iterdir() if path.suffix.lower() in endings and path.is_file())
    return list(dict.fromkeys([*given, *found]))


def first_prompt(paths: Iterable[Path]) -> str:
    """The first prompt of the first probe set that has one; empty when none has."""
    for path in paths:
        with contextlib.suppress(OSError, ValueError), open_regular(path, follow=True) as file:
            if prompt := StateRecord(parse(file.readline(MAX_LINE))).text("prompt"):
                return prompt
    return ""
