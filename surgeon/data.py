"""Files that come with surgeon: the demo's checkpoints and the recipes to start from."""

from __future__ import annotations

from pathlib import Path


def folder(name: str) -> Path:
    """The folder `demo` or `recipes`, in an installed package or in a checkout."""
    package = Path(__file__).parent
    packed = package / "_data" / name
    return packed if packed.is_dir() else package.parent / {"demo": "assets/demo"}.get(name, name)
