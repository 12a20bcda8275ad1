"""Suggests the rest of a half-typed command line behind the cursor, where the first thing that fits is a good guess."""

from __future__ import annotations

from textual.suggester import Suggester

from ..files import exists, expanded
from .completion import PATHS, paths


class CommandSuggester(Suggester):
    """Suggests the rest of a command, or of the path that some commands take."""

    def __init__(self, commands: list[str]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._commands = commands

    async def get_suggestion(self, value: str) -> str | None:
        """The completed line; None when nothing fits."""
        word, space, rest = value.partition(" ")
        if not space:
            return next((known for known in self._commands if word and known.startswith(word) and known != word), None)
        if word not in PATHS or not rest or exists(expanded(rest)):
            # What is typed is something already: Enter takes it, whatever else begins like it.
            return None
        found = [path for path in paths(rest) if word != "open" or path.endswith(("/", ".safetensors"))]
        return f"{word} {found[0]}" if found and found[0] != rest else None
