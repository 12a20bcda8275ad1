"""Text for the user: escaped control characters, and numbers with units. Standard library only."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence

_UNITS = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}


def safe(text: object) -> str:
    """Text with control, format and bidirectional characters escaped, so that a name cannot drive a terminal."""
    raw = str(text)
    if raw.isascii() and raw.isprintable():
        return raw
    out = []
    for char in raw:
        if char == "\n" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}:
            out.append(char)
        else:
            code = ord(char)
            out.append(f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
    return "".join(out)


def one_line(text: object) -> str:
    """`safe` text with escaped line breaks too, for names in tables and on status lines."""
    return safe(text).replace("\n", "\\n")


def size(count: float) -> str:
    """A number of bytes in decimal units: 812 B, 16.4 kB, 23.0 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def number(count: float) -> str:
    """A count of parameters in short form: 532, 226.1k, 10.73B."""
    for unit, digits in (("", 0), ("k", 1), ("M", 1), ("B", 2), ("T", 2)):
        if abs(count) < 999.5 or unit == "T":
            return f"{count:.{digits}f}{unit}"
        count /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    """Seconds as 0.8s, 42s, 3m 20s or 2h 05m."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def plural(count: int, noun: str) -> str:
    """A count with a noun in singular or plural: `1 layer`, `3 layers`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def parse_size(text: str) -> int:
    """The number of bytes in `5GB`, `500MB`, `1.5GiB`, `800000`; ValueError for anything else or less than 1 byte."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if not match or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write it like 5GB, 500MB or 1.5GiB")
    value = int(float(match[1]) * _UNITS[match[2]])
    if value < 1:
        raise ValueError(f"{text!r} is less than one byte")
    return value


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar to `word`, or None."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return found[0] if found else None


MAX_ALIGNED = 1_000_000
"""Most pairs of items that are compared to find the longest common runs of two lists."""


def aligned(old: Sequence[str], new: Sequence[str]) -> dict[int, int]:
    """Position in `new` -> position in `old` of equal items in the same order.

    Equal items at both ends are matched first. Between them, the longest common runs are matched, or in long lists the
    next equal item.
    """
    head = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    rest = min(len(old), len(new)) - head
    tail = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    found = {i: i for i in range(head)} | {len(new) - i: len(old) - i for i in range(1, tail + 1)}
    left, right = old[head : len(old) - tail], new[head : len(new) - tail]
    if len(left) * len(right) <= MAX_ALIGNED:
        import difflib

        for a, b, count in difflib.SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks():
            found |= {head + b + k: head + a + k for k in range(count)}
        return found
    places: dict[str, list[int]] = {}
    for index, item in enumerate(left):
        places.setdefault(item, []).append(index)
    start = 0
    for position, item in enumerate(right):
        here = places.get(item, [])
        if (number := bisect_left(here, start)) < len(here):
            found[head + position] = head + here[number]
            start = here[number] + 1
    return found


def ranges(indices: Iterable[int]) -> str:
    """Integers as sorted inclusive ranges: `0-3, 7, 9-10`."""
    parts: list[tuple[int, int]] = []
    for index in sorted(set(indices)):
        if parts and parts[-1][1] == index - 1:
            parts[-1] = (parts[-1][0], index)
        else:
            parts.append((index, index))
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
