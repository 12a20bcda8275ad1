"""Reads what a GGUF file says of itself; its weights are not read. The file is untrusted input.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import InputError
from ..statefile import open_regular
from ..text import one_line

MAX_ENTRIES = 200_000
"""Most metadata keys, and most tensors."""
MAX_TEXT = 10_000_000
"""Most bytes of one text."""
MAX_ARRAY = 2_000_000
"""Most items of one list; the largest vocabularies have 300,000."""
_KEPT_TEXT = 2_000
_LIMIT = 2**63
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True)
class GgufHeader:
    """The header of a GGUF file.

    Attributes:
        metadata: numbers and short texts by key; lists are counted, not kept.
        lengths: the number of items of each list.
        types: number of elements by tensor type (`Q4_K`), the largest first.
        tensors: number of tensors.
        nbytes: size of the file.
    """

    version: int
    metadata: Mapping[str, Any]
    lengths: Mapping[str, int]
    types: Mapping[str, int]
    tensors: int
    nbytes: int

    def of_architecture(self, name: str) -> Any:
        """The value of `<architecture>.<name>`, such as `llama.block_count`; None without one."""
        return self.metadata.get(f"{self.metadata.get('general.architecture')}.{name}")


def read_gguf(path: Path) -> GgufHeader:
    """Read the header of a GGUF file.

    Raises:
        InputError: it cannot be read, or is not such a file.
    """
    try:
        with open_regular(path, follow=True) as file:
            return _Reader(file).header()
    except (struct.error, EOFError) as error:
        raise _bad(path, "the header ends too early, or is not a header") from error
    except ValueError as error:
        raise _bad(path, str(error)) from error
    except OSError as error:
        raise _bad(path, f"the file cannot be read: {error.strerror or error}") from error


def _bad(path: Path, what: str) -> InputError:
    return InputError(what, where=one_line(path), remedy="download the file again")


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        file.seek(0)

    def header(self) -> GgufHeader:
        if self._file.read(4) != b"GGUF":
            raise ValueError("this is not a GGUF file")
        version = self._number("I")
        if version not in (2, 3):
            raise ValueError(f"this GGUF file has version {version}, and versions 2 and 3 are known")
        tensors, count = self._number("Q"), self._number("Q")
        if max(tensors, count) > MAX_ENTRIES:
            raise ValueError("the file has too many entries to be a model")
        metadata: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        for _ in range(count):
            key, kind = self._text(), self._number("I")
            if kind == _ARRAY:
                lengths[key] = self._skip_array()
            else:
                metadata[key] = self._text() if kind == _TEXT else self._scalar(kind)
        types: Counter[str] = Counter()
        for _ in range(tensors):
            self._text()
            rank = self._number("I")
            if rank > 8:
                raise ValueError(f"a tensor has {rank} dimensions")
            shape = [self._number("Q") for _ in range(rank)]
            if prod(shape) >= _LIMIT:
                raise ValueError("a tensor has more elements than a file can hold")
            kind = self._number("I")
            self._number("Q")
            types[_TYPES.get(kind, f"type {kind}")] += prod(shape)
        return GgufHeader(version, metadata, lengths, dict(types.most_common()), tensors, self._size)

    def _number(self, code: str) -> int:
        return int(self._scalar_of(code))

    def _scalar(self, kind: int) -> Any:
        if kind not in _SCALARS:
            raise ValueError(f"a value has the unknown type {kind}")
        return self._scalar_of(_SCALARS[kind])

    def _scalar_of(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._file.read(struct.calcsize(code)))[0]

    def _text(self) -> str:
        length = self._number("Q")
        if length > MAX_TEXT:
            raise ValueError("a text is too long")
        raw = self._file.read(length)
        if len(raw) < length:
            raise EOFError
        return one_line(raw[:_KEPT_TEXT].decode("utf-8", "replace"))

    def _skip_array(self) -> int:
        """Skip a list; returns its number of items."""
        kind, count = self._number("I"), self._number("Q")
        if count > MAX_ARRAY:
            raise ValueError("a list is too long")
        if kind == _TEXT:
            for _ in range(count):
                length = self._number("Q")
                if length > MAX_TEXT:
                    raise ValueError("a text is too long")
                self._skip(length)
        elif kind in _SCALARS:
            self._skip(count * struct.calcsize(_SCALARS[kind]))
        else:
            raise ValueError("a list holds lists, or values of an unknown type")
        return count

    def _skip(self, count: int) -> None:
        if self._file.seek(count, 1) > self._size:
            raise EOFError
