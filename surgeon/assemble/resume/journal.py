"""The journal: an append-only file with one line for each written tensor.

A line says that a tensor's bytes are written to its file, and has their hash. A later mark says that tensors are on the
disk. Data is flushed before its mark, so a mark is always true. A line without a mark is true after a killed process,
but may be false after a power loss; then the hash decides.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...statefile import parse, read_bytes, rest
from ..io.byte_copy import write_all
from ..io.digest import LENGTH

_WRITTEN, _MARK, _VOID = "+", "=", "-"
LARGEST = 200_000_000
"""Most bytes that are read; a hundred thousand tensors take an eighth of it."""


@dataclass(frozen=True)
class JournalLine:
    """A finished tensor.

    Attributes:
        tensor: its name.
        shard: its file.
        hash: the hash of its bytes.
        warning: a warning about it; may be empty.
    """

    tensor: str
    shard: str
    hash: str
    warning: str = ""


class Notes(Protocol):
    """A worker's access to a journal, including the lines of an earlier run.

    Attributes:
        lines: finished tensors by name.
        marked: names of those that are on the disk.
    """

    lines: dict[str, JournalLine]
    marked: set[str]

    def add(self, line: JournalLine) -> None:
        """Record a written tensor."""

    def void(self, tensor: str) -> None:
        """Remove a false line, because the tensor must be written again."""

    def mark(self, tensors: Sequence[str]) -> None:
        """Record that tensors with a line are on the disk."""


class Journal(Notes):
    """The journal of one output, open for writing.

    Every method may be called from any thread, and raises OSError if the file cannot be written.
    """

    def __init__(self, path: Path, flush: bool) -> None:
        """Open or create the file. With `flush`, `mark` returns when marks are on the disk; without, it does nothing.

        An incomplete last line, after a killed process or a power loss, is cut off.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        self._flush, self._lock = flush, threading.Lock()
        self.lines, self.marked = {}, set()
        with open(self._fd, "rb", closefd=False) as file:
            self._end = self._replay(rest(file, LARGEST))
        os.ftruncate(self._fd, self._end)

    def _replay(self, data: bytes) -> int:
        """Read the existing lines; returns the offset after the last complete line."""
        end = 0
        for kind, values, stop in _records(data):
            if kind == _WRITTEN:
                line = JournalLine(*values)
                self.lines[line.tensor] = line
                self.marked.discard(line.tensor)
            elif kind == _VOID:
                self.lines.pop(values[0], None)
                self.marked.discard(values[0])
            else:
                self.marked.update(name for name in values if name in self.lines)
            end = stop
        return end

    def add(self, line: JournalLine) -> None:
        with self._lock:
            values = [line.tensor, line.shard, line.hash]
            self._append(_WRITTEN, [*values, line.warning] if line.warning else values)
            self.lines[line.tensor] = line

    def void(self, tensor: str) -> None:
        with self._lock:
            self._append(_VOID, [tensor])
            del self.lines[tensor]

    def mark(self, tensors: Sequence[str]) -> None:
        if not self._flush or not tensors:
            return
        with self._lock:
            self._append(_MARK, tensors)
            self.marked.update(tensors)
        os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def _append(self, kind: str, values: Sequence[str]) -> None:
        text = json.dumps(values, separators=(",", ":"))
        body = f"{kind}{text}".encode()
        data = b"%08x " % zlib.crc32(body) + body + b"\n"
        write_all(self._fd, data, self._end)
        self._end += len(data)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read(path: Path) -> dict[str, JournalLine]:
    """The finished tensors of a journal, read without opening it for writing; none if it cannot be read."""
    lines: dict[str, JournalLine] = {}
    try:
        data = read_bytes(path, LARGEST)
    except (OSError, ValueError):
        return lines
    for kind, values, _ in _records(data):
        if kind == _WRITTEN:
            lines[values[0]] = JournalLine(*values)
        elif kind == _VOID:
            lines.pop(values[0], None)
    return lines


def _records(data: bytes) -> Iterator[tuple[str, list[str], int]]:
    """(kind, values, offset after it) of each line up to the first damaged one, after which nothing is reliable."""
    start = 0
    while (stop := data.find(b"\n", start) + 1) > 0:
        record = _record(data[start : stop - 1])
        if record is None:
            return
        yield (*record, stop)
        start = stop


def _record(line: bytes) -> tuple[str, list[str]] | None:
    check, _, body = line.partition(b" ")
    if check != b"%08x" % zlib.crc32(body):
        return None
    try:
        kind, values = body[:1].decode(), parse(body[1:])
    except ValueError:
        return None
    return (kind, values) if _is_record(kind, values) else None


def _is_record(kind: str, values: Any) -> bool:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        return False
    if kind == _WRITTEN:
        return len(values) in (3, 4) and len(values[2]) == LENGTH
    return (kind == _VOID and len(values) == 1) or (kind == _MARK and len(values) > 0)
