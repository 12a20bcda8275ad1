"""A limit on address space (`ulimit -v`) under which torch cannot be loaded: said before it is tried.

torch's libraries end the process where they get no memory while they are loaded, so nothing could be said after it.
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
"""Bytes of address space that loading torch's CPU build takes, measured; a CUDA build takes more."""

REMEDY = "raise the limit on address space (ulimit -v) or on memory; torch alone maps several GB"


def watch() -> None:
    """From now on, importing torch under such a limit raises a SurgeonError."""
    if _limit() is not None and not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch(MetaPathFinder):
    """Finds no module, and looks at the limit when torch is looked for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        limit = _limit() if fullname == "torch" else None
        if limit is not None and limit - _held() < NEEDED:
            raise SurgeonError(
                "there is too little memory to load torch",
                why=f"address space is limited to {size(limit)}",
                remedy=REMEDY,
            )
        return None


def _limit() -> int | None:
    """Bytes of address space that this process may have; None without a limit, or where none can be asked for."""
    try:
        import resource
    except ImportError:
        return None
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _held() -> int:
    """Bytes of address space that it has; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
