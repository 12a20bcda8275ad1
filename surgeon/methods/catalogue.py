"""All merge methods, looked up by name: importing the modules of `formulas/` registers them."""

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
    """All methods by their names."""
    for module in pkgutil.iter_modules(formulas.__path__):
        importlib.import_module(f"{formulas.__name__}.{module.name}")
    return dict(sorted(METHODS.items()))


def find(name: str) -> Method | None:
    """The method of that name; None when there is none."""
    return every().get(name)


def suggestion(name: str) -> str | None:
    """The method that was probably meant."""
    return nearest(name, every())
