"""Completes a half-typed command line: a command, or a path."""

from __future__ import annotations

from textual.suggester import Suggester

from ..files import expanded
from ..recipe.edits import EDITS

MAX_ENTRIES = 500


class CommandSuggester(Suggester):
    """Suggests the rest of a command, or of the path that `open`, `write` and `run` take."""

    def __init__(self, commands: list[str]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.words = [*commands, *(kind.verb for kind in EDITS)]

    async def get_suggestion(self, value: str) -> str | None:
        """The completed line; None when nothing fits."""
        word, space, rest = value.partition(" ")
        if not space:
            return next((known for known in self.words if word and known.startswith(word) and known != word), None)
        if word not in {"open", "write", "run"} or not rest:
            return None
        found = complete(rest)
        return f"{word} {found}" if found else None


def complete(text: str) -> str | None:
    """The first path that begins with `text`, or None."""
    folder, _, name = text.rpartition("/")
    try:
        base = expanded(folder or ("/" if text.startswith("/") else "."))
        names = sorted(entry.name for _, entry in zip(range(MAX_ENTRIES), base.iterdir(), strict=False))
    except OSError:
        return None
    match = next((entry for entry in names if entry.startswith(name) and (name or not entry.startswith("."))), None)
    if match is None or match == name:
        return None
    return f"{folder}/{match}" if "/" in text else match
