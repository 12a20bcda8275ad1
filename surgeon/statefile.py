"""Reading back what surgeon has noted in files of its own, which anybody may have changed since.

A file is read only if it is a regular file of bearable size; its JSON is nested like surgeon's; and a value is taken
only if it has the type that surgeon gives it.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from .text import size

DEEPEST = 100
"""Lists and tables in one another; those that surgeon reads are seven deep."""
SMALL = 4_000_000
"""Bytes of a file that describes one thing."""
_LONGEST = 4_096
"""Characters of a path."""
_LARGEST = 2**63
"""Above any count or time: larger numbers are no longer exact, or overflow."""


class TooDeep(ValueError):
    """JSON that is nested deeper than whatever follows it down can go."""


def parse(raw: str | bytes) -> Any:
    """A JSON text's value; ValueError for anything else, NaN, infinity and deep nesting included."""
    try:
        value = json.loads(raw, parse_constant=_refused)
    except RecursionError as error:
        raise TooDeep("it is nested too deeply") from error
    check_depth(value, raw)
    return value


def check_depth(value: Any, raw: str | bytes) -> None:
    """TooDeep where lists and tables of a JSON text's value lie in one another more than `DEEPEST` deep."""
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
    """A regular file, open for reading; OSError for anything else, such as a pipe, which could be waited for for ever.

    Args:
        follow: whether a symbolic link may lead to it.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags)
    except ValueError as error:  # a name that no file can have
        raise OSError(str(error)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("it is no regular file")
    return os.fdopen(fd, "rb")


def read_bytes(path: Path, most: int = SMALL, *, follow: bool = False) -> bytes:
    """A regular file's bytes; OSError where it cannot be read, ValueError where it has more than `most`."""
    with open_regular(path, follow=follow) as file:
        data = rest(file, most + 1)
    if len(data) > most:
        raise ValueError(f"it has more than {size(most)}")
    return data


def rest(file: BinaryIO, most: int) -> bytes:
    """What follows in a file, `most` bytes of it; memory is taken for what there is and not for `most`."""
    left = os.fstat(file.fileno()).st_size - file.tell()
    return file.read(max(0, min(most, left)))


class StateRecord:
    """The values of a JSON table by the types that they should have; what has another type counts as missing."""

    def __init__(self, values: object = None) -> None:
        self.values: Mapping[str, Any] = values if isinstance(values, dict) else {}

    def text(self, name: str) -> str | None:
        """Text that has an encoding."""
        value = self.values.get(name)
        return value if isinstance(value, str) and _encodes(value) else None

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of such texts."""
        value = self.values.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) and _encodes(item) for item in value):
            return None
        return tuple(value)

    def path(self, name: str) -> Path | None:
        """An absolute path with a name at its end."""
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
        """A whole number from 0 on."""
        value = self.values.get(name)
        return value if is_count(value) else None

    def number(self, name: str) -> float | None:
        """A finite number, fractions included."""
        value = self.values.get(name)
        return value if is_number(value) else None


def is_count(value: object) -> bool:
    """Whether something is a whole number from 0 on, and not a truth value."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def is_number(value: object) -> bool:
    """Whether something is a number that can be computed with, and not a truth value."""
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
    """The table in a file of surgeon's, empty where the file is missing, of another kind or broken."""
    try:
        return StateRecord(parse(read_bytes(path, most)))
    except (OSError, ValueError):
        return StateRecord()
