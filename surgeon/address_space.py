"""Reports an address space limit (`ulimit -v`) that is too low for torch before torch is loaded.

torch's libraries end the process if they get no memory while they are loaded, so an error must be raised before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from .errors import SurgeonError
from .text import size

NEEDED = 600_000_000
"""Bytes of address space that loading torch's CPU build needs (measured); a CUDA build needs more."""

REMEDY = "raise the limit on address space (ulimit -v) or on memory; torch alone maps several GB"


def watch() -> None:
    """Make an import of torch raise a SurgeonError if the limit is too low."""
    if _limit() is not None and not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch(MetaPathFinder):
    """An import finder that finds no module; it checks the limit when torch is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        limit = _limit() if fullname == "torch" else None
        if limit is not None and limit - address_space() < NEEDED:
            raise SurgeonError(
                "there is too little memory to load torch",
                why=f"address space is limited to {size(limit)}",
                remedy=REMEDY,
            )
        return None


def _limit() -> int | None:
    """Bytes of address space that this process may use; None without a limit, or if the system has no limits."""
    try:
        import resource
    except ImportError:
        return None
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def address_space() -> int:
    """Bytes of address space that this process uses; 0 if unknown."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
