"""Reads surgeon's own state files, which are untrusted because anybody may have changed them.

A file is read only if it is a regular file of limited size and its JSON has limited nesting. A value is used only if it
has the type that surgeon writes.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .text import size

DEEPEST = 100
"""Most levels of nested lists and tables; the files that surgeon reads have seven."""
SMALL = 4_000_000
"""Most bytes of a file that describes one object."""
_LONGEST = 4_096
"""Most characters of a path."""
_LARGEST = 2**63
"""Above any count or time; larger numbers are not exact, or overflow."""


class TooDeep(ValueError):
    """JSON that is nested too deeply for recursive functions."""


def parse(raw: str | bytes) -> Any:
    """The value of a JSON text; ValueError for anything else, and for NaN, infinity and too deep nesting."""
    try:
        value = json.loads(raw, parse_constant=_refused)
    except RecursionError as error:
        raise TooDeep("it is nested too deeply") from error
    check_depth(value, raw)
    return value


def check_depth(value: Any, raw: str | bytes) -> None:
    """Raise TooDeep if the value of the JSON text `raw` has more than `DEEPEST` levels of lists and tables."""
    brackets = raw.count("[") + raw.count("{") if isinstance(raw, str) else raw.count(b"[") + raw.count(b"{")
    if brackets <= DEEPEST:
        return
    level: list[Any] = [[value]]
    for _ in range(DEEPEST + 1):
        tables = (part.values() if isinstance(part, dict) else part for part in level)
        level = [item for items in tables for item in items if isinstance(item, (dict, list))]
    if level:
        raise TooDeep("it is nested too deeply")


def _refused(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def open_regular(path: Path, *, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading; OSError for anything else, such as a pipe, which could block forever.

    Args:
        follow: whether a symbolic link is followed.
    """
    return os.fdopen(descriptor(path, follow=follow), "rb")


def descriptor(path: Path, *, follow: bool = False) -> int:
    """The descriptor of a regular file that is opened as in `open_regular`."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags)
    except ValueError as error:  # a name that no file can have
        raise OSError(str(error)) from error
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError("it is not a regular file")


def read_bytes(path: Path, most: int = SMALL, *, follow: bool = False) -> bytes:
    """The bytes of a regular file; OSError if it cannot be read, ValueError if it has more than `most` bytes."""
    with open_regular(path, follow=follow) as file:
        data = rest(file, most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {size(most)}")
    return data


def rest(file: BinaryIO, most: int) -> bytes:
    """The rest of a file, at most `most` bytes; only memory for existing bytes is allocated."""
    left = os.fstat(file.fileno()).st_size - file.tell()
    return file.read(max(0, min(most, left)))


class StateRecord:
    """Typed access to the values of a JSON table; a value of another type counts as missing (None)."""

    def __init__(self, values: object = None) -> None:
        self.values: Mapping[str, Any] = values if isinstance(values, dict) else {}

    def text(self, name: str) -> str | None:
        """A text that can be encoded."""
        value = self.values.get(name)
        return value if isinstance(value, str) and _encodes(value) else None

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of texts that can be encoded."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) and _encodes(item) for item in value):
            return None
        return tuple(value)

    def path(self, name: str) -> Path | None:
        """An absolute path of limited length."""
        value = self.values.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST or "\0" in value:
            return None
        try:
            os.fsencode(value)
        except UnicodeEncodeError:
            return None
        path = Path(value)
        return path if path.is_absolute() else None

    def count(self, name: str) -> int | None:
        """A whole number >= 0."""
        value = self.values.get(name)
        return value if is_count(value) else None

    def number(self, name: str) -> float | None:
        """A finite number."""
        value = self.values.get(name)
        return value if is_number(value) else None


def is_count(value: object) -> bool:
    """Whether a value is a whole number >= 0 and not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def is_number(value: object) -> bool:
    """Whether a value is a finite number of limited size and not a boolean."""
    if isinstance(value, float):
        return math.isfinite(value) and abs(value) < _LARGEST
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read(path: Path, most: int = SMALL) -> StateRecord:
    """The table in one of surgeon's state files; empty if the file is missing, of another kind, or invalid."""
    try:
        return StateRecord(parse(read_bytes(path, most)))
    except (OSError, ValueError):
        return StateRecord()
