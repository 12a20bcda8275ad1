"""Saving a recipe. A file is overwritten only if it still holds what was last read from it or written to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import exists, write_atomic
from ..statefile import read_bytes
from .document import MAX_BYTES, Document


class Occupied(InputError):
    """The file holds a text that the writer has not seen; writing would lose it."""


@dataclass(frozen=True)
class Seen:
    """The state of a recipe's file when it was last read or written.

    Attributes:
        path: the file; None for a recipe that is not saved yet.
        real: the path with symbolic links resolved.
        text: the content; None if the file did not exist.
    """

    path: Path | None = None
    real: str = ""
    text: str | None = None

    @classmethod
    def of(cls, document: Document) -> Seen:
        """The state that a document was just loaded from; an empty state if the document has no path."""
        path = document.path
        return cls() if path is None else cls(path, os.path.realpath(path), document.text)

    @classmethod
    def at(cls, path: Path) -> Seen:
        """The current state of a file."""
        return cls(path, os.path.realpath(path), _held(path))

    def is_own(self, path: Path) -> bool:
        """Whether a path is this file, by its name or by the target of its symbolic links."""
        return self.path is not None and (_full(path) == _full(self.path) or os.path.realpath(path) == self.real)

    def problem(self, path: Path) -> str:
        """Why writing to `path` would lose something, as a clause; empty if it would not."""
        if not exists(path):
            return ""
        if not self.is_own(path):
            return "it exists"
        if os.path.realpath(path) != self.real:
            return "another program put a link there since it was opened"
        if self.text is None:
            return "another program created it since"
        return "" if _held(path) == self.text else "another program changed it since it was opened"

    def write(self, path: Path, text: str, *, over: bool = False) -> Seen:
        """Write `text` to `path` and return the new state.

        Args:
            over: replace the file whatever it holds.

        Raises:
            Occupied: the file holds a text that was not seen.
            SurgeonError: the file cannot be written.
        """
        if not over and (why := self.problem(path)):
            raise Occupied("the recipe was not saved", where=str(path), why=why, remedy="save it under another name")
        write_atomic(path, text)
        return Seen(path, os.path.realpath(path), text)


def _full(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links


def _held(path: Path) -> str | None:
    try:
        return read_bytes(path, MAX_BYTES, follow=True).decode("utf-8-sig")
    except (OSError, ValueError):
        return None
