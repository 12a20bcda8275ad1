"""Where the tests find the checkout and its data."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

CONFORMANCE = ROOT / "tests" / "conformance" / "data"
"""Tiny donors, recipes, and what mergekit wrote for them."""


def child_environment(**more: str) -> dict[str, str]:
    """The environment of a child process that imports surgeon and the tests from this checkout."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}
