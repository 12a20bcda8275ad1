"""Look-up of merge methods by name. Importing the modules of `formulas/` registers them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from ..text import nearest
from . import formulas
from .registry import METHODS, Method


@cache
def every() -> Mapping[str, Method]:
    """All methods by name."""
    for module in pkgutil.iter_modules(formulas.__path__):
        importlib.import_module(f"{formulas.__name__}.{module.name}")
    return dict(sorted(METHODS.items()))


def find(name: str) -> Method | None:
    """The method of that name, or None."""
    return every().get(name)


def suggestion(name: str) -> str | None:
    """The name of the method that is most similar to `name`, or None."""
    return nearest(name, every())
