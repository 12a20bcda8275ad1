"""Saving a recipe: only over what was read from that file, or written to it, last; anything else is asked about."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..files import exists, write_atomic
from ..statefile import read_bytes
from .document import MAX_BYTES, Document


class Occupied(InputError):
    """The file holds what the writer has not seen: writing would lose it."""


@dataclass(frozen=True)
class Seen:
    """A recipe's file as it was when it was read or written last.

    Attributes:
        path: where it is; None for a recipe that no file holds yet.
        real: the same without symbolic links.
        text: what it held; None when it was not there.
    """

    path: Path | None = None
    real: str = ""
    text: str | None = None

    @classmethod
    def of(cls, document: Document) -> Seen:
        """The file of a document that was just loaded from it, or that is to be its first."""
        path = document.path
        return cls() if path is None else cls(path, os.path.realpath(path), document.text)

    @classmethod
    def at(cls, path: Path) -> Seen:
        """A file as it is now."""
        return cls(path, os.path.realpath(path), _held(path))

    def is_own(self, path: Path) -> bool:
        """Whether a path means this file, by its name or by where the name leads."""
        return self.path is not None and (_full(path) == _full(self.path) or os.path.realpath(path) == self.real)

    def problem(self, path: Path) -> str:
        """Why writing to `path` would lose something, as a clause; empty when it would not."""
        if not exists(path):
            return ""
        if not self.is_own(path):
            return "it exists"
        if os.path.realpath(path) != self.real:
            return "another program put a link there since it was opened"
        if self.text is None:
            return "another program made it since"
        return "" if _held(path) == self.text else "another program changed it since it was opened"

    def write(self, path: Path, text: str, *, over: bool = False) -> Seen:
        """Write `text` to `path`, and give the file as it is then.

        Args:
            over: replace the file whatever it holds.

        Raises:
            Occupied: it holds something that was not seen.
            SurgeonError: it cannot be written.
        """
        if not over and (why := self.problem(path)):
            raise Occupied("the recipe was not saved", where=str(path), why=why, remedy="save it under another name")
        write_atomic(path, text)
        return Seen(path, os.path.realpath(path), text)


def _full(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - links are kept


def _held(path: Path) -> str | None:
    try:
        return read_bytes(path, MAX_BYTES, follow=True).decode("utf-8-sig")
    except (OSError, ValueError):
        return None
