"""Helpers for tests of the interface: donors, an app, keys."""

from __future__ import annotations

from pathlib import Path

from textual.pilot import Pilot

from surgeon.recipe import document as documents
from surgeon.tui.app import SurgeonApp
from surgeon.tui.session import Session
from surgeon.tui.widgets.line import Line
from tests.support.sparse import sparse_llama

SIZES = ((80, 24), (120, 40), (200, 60))


def donors(folder: Path, names: str = "abc", layers: int = 8) -> list[str]:
    """Sparse donors in `folder`, as relative paths."""
    for name in names:
        sparse_llama(folder / name, layers=layers, hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)
    return [f"./{name}" for name in names]


def app(refs: list[str], recipe: Path | None = None) -> SurgeonApp:
    """The interface on these donors and recipe."""
    return SurgeonApp(Session(refs, documents.load(recipe) if recipe else None))


def line(pilot: Pilot[None], name: str) -> str:
    """The text of a line of the current screen."""
    return pilot.app.screen.query_one(f"#{name}", Line).text


def rows(application: SurgeonApp) -> list[str]:
    """What the terminal shows, row by row."""
    return [strip.text for strip in application.screen._compositor.render_strips()]


def cells(application: SurgeonApp) -> list[str]:
    """The stack as labels: `A00`, `B03`, ..."""
    return [layer.label for layer in application.session.plan.layers]


async def keys(pilot: Pilot[None], text: str) -> None:
    """Press keys written with spaces between them, and wait until all is drawn."""
    await pilot.press(*text.split())
    await pilot.pause()


async def command(pilot: Pilot[None], text: str) -> None:
    """Type a command line."""
    await pilot.press("colon")
    for char in text:
        await pilot.press(_NAMES.get(char, char))
    await pilot.press("enter")
    await pilot.pause()


_NAMES = {
    " ": "space", ":": "colon", "@": "at", "-": "minus", "/": "slash", ".": "full_stop", "=": "equals_sign",
    "_": "underscore", "~": "tilde", "*": "asterisk",
}  # fmt: skip
