"""Every colour of the interface, in one place: exact members of the 256-colour palette, so that nothing collapses
when a terminal over SSH has no true colour. Provenance is a letter first; its hue is only a second channel."""

from __future__ import annotations

from rich.style import Style
from textual.theme import Theme

DARK = Theme(
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
)

HUES = ("#5fd7ff", "#ffd75f", "#ff87d7", "#87d787", "#ffaf5f", "#afafff")
"""Donors A, B, C, ... in turn."""

PLAIN = Style()
DIM = Style(color="#8a8a8a")
BOLD = Style(bold=True)
TITLE = Style(color="#5fafd7", bold=True)
CURSOR = Style(reverse=True)
UNDERLINE = Style(underline=True)
SELECTED = Style(color="#121212", bgcolor="#87afaf")
ADDED = Style(color="#87d787")
REMOVED = Style(color="#ff5f5f")
SEVERITY = {
    "error": Style(color="#ff5f5f", bold=True),
    "warning": Style(color="#ffaf5f"),
    "note": Style(color="#8a8a8a"),
}


def hue(letter: str) -> Style:
    """The style of a donor's letter."""
    index = ord(letter[-1]) - ord("A") if letter else 0
    return Style(color=HUES[index % len(HUES)])
