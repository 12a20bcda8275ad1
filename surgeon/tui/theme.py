"""Every colour of the interface, in one place: exact members of the 256-colour palette, so that nothing collapses
when a terminal over SSH has no true colour. Provenance is a letter first; its hue is only a second channel.

The styles are those of the palette in use, which `use` changes; read them as `theme.DIM`, never copy them at import.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from rich.style import Style
from textual.theme import Theme


@dataclass(frozen=True)
class Palette:
    """The colours of a theme: one for each role, and one for each of six donors in turn."""

    theme: Theme
    hues: tuple[str, ...]
    dim: str
    title: str
    added: str
    removed: str
    selected: tuple[str, str]
    warning: str


DARK = Palette(
    Theme(
        name="surgeon",
        primary="#5fafd7",
        secondary="#87afaf",
        accent="#ffd75f",
        warning="#ffaf5f",
        error="#ff5f5f",
        success="#87d787",
        foreground="#d0d0d0",
        background="#121212",
        surface="#1c1c1c",
        panel="#262626",
        dark=True,
        variables={"input-selection-background": "#3a3a3a", "scrollbar": "#444444", "scrollbar-background": "#1c1c1c"},
    ),
    hues=("#5fd7ff", "#ffd75f", "#ff87d7", "#87d787", "#ffaf5f", "#afafff"),
    dim="#8a8a8a",
    title="#5fafd7",
    added="#87d787",
    removed="#ff5f5f",
    selected=("#121212", "#87afaf"),
    warning="#ffaf5f",
)

LIGHT = Palette(
    Theme(
        name="surgeon-light",
        primary="#005f87",
        secondary="#5f8787",
        accent="#875f00",
        warning="#af5f00",
        error="#af0000",
        success="#005f00",
        foreground="#262626",
        background="#ffffff",
        surface="#eeeeee",
        panel="#e4e4e4",
        dark=False,
        variables={"input-selection-background": "#bcbcbc", "scrollbar": "#bcbcbc", "scrollbar-background": "#eeeeee"},
    ),
    hues=("#005faf", "#875f00", "#af005f", "#005f00", "#870000", "#5f00af"),
    dim="#626262",
    title="#005f87",
    added="#005f00",
    removed="#af0000",
    selected=("#ffffff", "#005f5f"),
    warning="#875f00",
)

PALETTES: Mapping[str, Palette] = {"dark": DARK, "light": LIGHT}

PLAIN = Style()
BOLD = Style(bold=True)
CURSOR = Style(reverse=True)
UNDERLINE = Style(underline=True)


def use(name: str) -> str:
    """Use the palette `dark`, `light` or, by what the terminal tells of itself, `auto`; returns its theme's name."""
    global DIM, TITLE, SELECTED, ADDED, REMOVED, SEVERITY, _hues
    palette = PALETTES.get(name) or (LIGHT if _light_terminal() else DARK)
    DIM = Style(color=palette.dim)
    TITLE = Style(color=palette.title, bold=True)
    SELECTED = Style(color=palette.selected[0], bgcolor=palette.selected[1])
    ADDED = Style(color=palette.added)
    REMOVED = Style(color=palette.removed)
    SEVERITY = {
        "error": Style(color=palette.removed, bold=True),
        "warning": Style(color=palette.warning),
        "note": DIM,
    }
    _hues = palette.hues
    return palette.theme.name


def _light_terminal() -> bool:
    """Whether COLORFGBG, which some terminals set to `foreground;background`, names a light background."""
    last = os.environ.get("COLORFGBG", "").rsplit(";", 1)[-1]
    return last in {"7", "15"}


DIM: Style
TITLE: Style
SELECTED: Style
ADDED: Style
REMOVED: Style
SEVERITY: dict[str, Style]
_hues: tuple[str, ...]
use("dark")


def hue(letter: str) -> Style:
    """The style of a donor's letter."""
    index = ord(letter[-1]) - ord("A") if letter else 0
    return Style(color=_hues[index % len(_hues)])


def difference(line: str) -> Style:
    """The style of a line of a unified difference."""
    return {"+": ADDED, "-": REMOVED, "@": DIM}.get(line[:1], PLAIN)
