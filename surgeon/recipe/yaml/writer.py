"""Writes plain data as YAML in one style. YAML 1.1 and 1.2 readers get the same data from it."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from .nodes import resolve_word

OFFSET = 2
"""Default indentation of a list under a key, in spaces."""

_PLAIN = re.compile(r"[A-Za-z_./][\w./@+=()-]*(?: [\w./@+=()-]+)*", re.ASCII)
_NUMBER_LIKE = re.compile(r"[-+.\d][-+.:_\deExobaftnBFTN]*")
_OLD_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def scalar(value: Any) -> str:
    """The text of a scalar, valid on a line and in brackets."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    text = str(value)
    bare = _PLAIN.fullmatch(text) and not _NUMBER_LIKE.fullmatch(text) and text.lower() not in _OLD_WORDS
    return text if bare and isinstance(resolve_word(text), str) else _quoted(text)


def _float(value: float) -> str:
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    digits, e, exponent = repr(value).partition("e")
    # YAML 1.1, which mergekit reads, parses 1e-05 as text.
    return f"{digits}.0e{exponent}" if e and "." not in digits else digits + e + exponent


def _quoted(text: str) -> str:
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif unicodedata.category(char)[0] in "CZ" and char != " ":
            out.append(json.dumps(char)[1:-1] if ord(char) < 0x10000 else f"\\U{ord(char):08x}")
        else:
            out.append(char)
    return f'"{"".join(out)}"'


def inline(value: Any) -> str:
    """Any data on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(inline(item) for item in value) + "]"
    return scalar(value)


def is_short(value: Any) -> bool:
    """Whether a value is written on one line: scalars, ranges, gradients, filters and ends."""
    if isinstance(value, Mapping):
        return not value or set(value) <= {"filter", "value"} or (len(value) == 1 and set(value) <= {"model", "tie"})
    if isinstance(value, (list, tuple)):
        return not any(isinstance(item, (Mapping, list, tuple)) for item in value)
    return True


def entry(key: str, value: Any, offset: int = OFFSET, inner: int | None = None) -> list[str]:
    """The lines of one key and its value; `offset` indents the value if it is a list, `inner` the lists in it."""
    inner = offset if inner is None else inner
    if is_short(value):
        return [f"{scalar(key)}: {inline(value)}"]
    if isinstance(value, Mapping):
        return [f"{scalar(key)}:", *(f"  {line}" for line in block(value, inner))]
    return [f"{scalar(key)}:", *(" " * offset + line for part in value for line in item(part, inner))]


def item(value: Any, offset: int = OFFSET) -> list[str]:
    """The lines of one item of a list."""
    if is_short(value) or not isinstance(value, Mapping):
        return [f"- {inline(value)}"]
    first, *rest = block(value, offset)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def block(value: Mapping[str, Any], offset: int = OFFSET) -> list[str]:
    """The lines of a table."""
    return [line for key, part in value.items() for line in entry(key, part, offset)]


def dump(value: Mapping[str, Any]) -> str:
    """A whole document."""
    return "".join(f"{line}\n" for line in block(value))
