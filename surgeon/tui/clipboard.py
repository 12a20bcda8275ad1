"""Copies text to the clipboard of the user's terminal, also over SSH and through tmux."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from textual.app import App

from ..text import plural, size

LIMIT = 74_000
"""Most bytes that common terminals accept at a time (xterm and others: 100,000 characters of base64)."""
_PATIENCE = 1.0


def copy(app: App[Any], text: str) -> str:
    """Copy a text to the clipboard; returns the sentence to show.

    The terminal gets it by the escape sequence OSC 52. Inside tmux, which ignores that sequence by default, tmux itself
    gets it and passes it on to its terminal.
    """
    data = text.encode("utf-8", "replace")
    if not data.strip():
        return "there is nothing to copy"
    if len(data) > LIMIT:
        return f"the text has {size(len(data))}, and terminals accept {size(LIMIT)}: nothing is copied"
    lines = plural(text.rstrip("\n").count("\n") + 1, "line")
    if "TMUX" in os.environ and _by_tmux(data):
        return f"copied {lines}, to tmux's buffer too"
    app.copy_to_clipboard(data.decode())
    return f"copied {lines} (by OSC 52, which the terminal must allow)"


def _by_tmux(data: bytes) -> bool:
    """Give tmux a text for its buffer and, with -w (tmux 3.2), for its terminal's clipboard."""
    program = shutil.which("tmux")
    if program is None:
        return False
    for options in (["-w"], []):
        try:
            done = subprocess.run(
                [program, "load-buffer", *options, "-"],
                input=data,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_PATIENCE,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        if done.returncode == 0:
            return True
    return False
