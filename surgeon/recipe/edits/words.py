"""The words of an edit's text, read one by one: ranges, donors, settings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import InputError
from ..letters import letters, named
from .edit import Edit

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?|\[(\d{1,9}),(\d{1,9})\)")


class EditWords:
    """The arguments of one edit, read from its words one by one.

    Attributes:
        settings: the words `name=value` that the edit knows.
        rest: the words that are not read yet.
    """

    def __init__(self, kind: type[Edit], words: list[str], models: Sequence[str]) -> None:
        self.kind, self.models = kind, models
        self.rest = words
        self.settings: dict[str, str] = {}

    def wrong(self, why: str) -> InputError:
        """An error with the edit's usage as remedy."""
        return InputError(f"{self.kind.verb}: {why}", remedy=f"write it like: {self.kind.usage}")

    def next(self, what: str) -> str:
        """The next word; InputError that names `what` if there is none."""
        if not self.rest:
            raise self.wrong(f"{what} is missing")
        return self.rest.pop(0)

    def model(self, text: str) -> str:
        """A donor's reference, from its letter, folder name or path."""
        found = named(text, self.models)
        if found is not None:
            return found
        if re.fullmatch(r"[A-Za-z]{1,2}", text):
            known = ", ".join(f"{letter} {model}" for model, letter in letters(self.models).items())
            raise self.wrong(f"there is no donor {text} (known: {known or 'none'})")
        return text

    def range(self, text: str) -> tuple[int, int]:
        """A half-open range from `8-23`, `8` or `[8,24)`."""
        match = _RANGE.fullmatch(text)
        if not match:
            raise self.wrong(f"{text!r} is not a range")
        if match[3]:
            return int(match[3]), int(match[4])
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise self.wrong(f"the range {text} runs backwards")
        return first, last + 1

    def donor_range(self) -> tuple[str, int, int]:
        """The next word as a donor and a range of its layers: `B:8-23`."""
        word = self.next("a donor's range")
        model, _, text = word.rpartition(":")
        if not model:
            raise self.wrong(f"{word!r} is not a donor's range")
        return (self.model(model), *self.range(text))

    def setting(self, name: str, default: int | None = None) -> int:
        """Take out a setting that is a whole number."""
        text = self.settings.pop(name, None)
        if text is None:
            if default is None:
                raise self.wrong(f"{name}= is missing")
            return default
        if not re.fullmatch(r"\d{1,6}", text):
            raise self.wrong(f"{name}={text} is not a whole number")
        return int(text)
