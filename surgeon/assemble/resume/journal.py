"""The journal: which tensors are written, a line each, in a file that only grows.

A line says that a tensor's bytes have gone to its file, and their hash. A later mark says that tensors are on the disk:
data goes to the disk before its mark, so a mark that is read back is true whatever has been lost. Lines without a mark
are true after a killed process and may be false after a power loss; the hash decides.
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
"""Bytes that are read: a hundred thousand tensors take an eighth."""


@dataclass(frozen=True)
class JournalLine:
    """A finished tensor.

    Attributes:
        tensor: its name.
        shard: the file it is in.
        hash: of its bytes.
        warning: what is to be said of it; empty for nothing.
    """

    tensor: str
    shard: str
    hash: str
    warning: str = ""


class Notes(Protocol):
    """What a worker notes in a journal, and finds there of an earlier run.

    Attributes:
        lines: finished tensors by name.
        marked: names of those that are on the disk.
    """

    lines: dict[str, JournalLine]
    marked: set[str]

    def add(self, line: JournalLine) -> None:
        """A tensor is written."""

    def void(self, tensor: str) -> None:
        """A line has turned out false: the tensor is to be written again."""

    def mark(self, tensors: Sequence[str]) -> None:
        """Tensors with a line are on the disk."""


class Journal(Notes):
    """The journal of one output, open for writing; every method may be called from any thread, and raises OSError when
    it cannot be written.
    """

    def __init__(self, path: Path, flush: bool) -> None:
        """Opens or creates it. With `flush`, marks are on the disk when `mark` returns; without, none are made.

        What a killed process or a power loss has left of a last line is cut off.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        self._flush, self._lock = flush, threading.Lock()
        self.lines, self.marked = {}, set()
        with open(self._fd, "rb", closefd=False) as file:
            self._end = self._replay(rest(file, LARGEST))
        os.ftruncate(self._fd, self._end)

    def _replay(self, data: bytes) -> int:
        """Take up what is there; gives the byte after the last line that is whole."""
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
    """The finished tensors that a journal tells of, for who does not write it; none where it cannot be read."""
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
    """(kind, values, byte after it) of each line, until one that is not whole: nothing after it can be relied on."""
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
