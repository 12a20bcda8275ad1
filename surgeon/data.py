"""Files that are installed with surgeon: the checkpoints of the demo, and example recipes."""

from __future__ import annotations

from pathlib import Path


def folder(name: str) -> Path:
    """The folder `demo` or `recipes`, in an installed package or in a source checkout."""
    package = Path(__file__).parent
    packed = package / "_data" / name
    return packed if packed.is_dir() else package.parent / {"demo": "assets/demo"}.get(name, name)
