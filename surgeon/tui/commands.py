"""Commands of the command line that are not edits of the recipe."""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, str]] = {
    "open": ("open PATH", "open a donor"),
    "write": ("write [FILE]", "save the recipe"),
    "run": ("run OUT", "write the model to the folder OUT"),
    "jobs": ("jobs", "show the jobs, running and ended"),
    "try": ("try", "generate text"),
    "plan": ("plan", "findings, YAML, difference"),
    "messages": ("messages", "the last messages, with the time"),
    "mouse": ("mouse on|off", "use the mouse, or leave it to the terminal"),
    "quit": ("quit", "leave"),
}
"""Name -> usage, help."""
