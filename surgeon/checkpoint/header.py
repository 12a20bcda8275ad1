"""Reads the header of one safetensors file, which is untrusted input.

Format (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length n, n bytes of JSON, then the
data. A hostile file must lead to an error message, never to a crash, a huge allocation or a guess.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..statefile import open_regular
from ..text import one_line, size
from . import dtypes

MAX_HEADER = 100_000_000
"""Most bytes of a header; the limit of the safetensors library."""

MAX_RANK = 16
_LFS_POINTER = b"version "
_SHOWN = 120
_LIMIT = 2**63
_FIELDS = {"dtype", "shape", "data_offsets"}
_AGAIN = "download or write the file again"


class TensorEntry(NamedTuple):
    """One tensor on disk; `dtype` is the safetensors code (`BF16`), `offset` counts bytes from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def read_header(path: Path) -> tuple[list[TensorEntry], dict[str, str]]:
    """The tensors of one file in the order of their offsets, and the file's metadata.

    Raises:
        InputError: the file cannot be read, is truncated, or its header violates the format.
    """
    raw, file_size = _raw_header(path)
    document = _parse(path, raw)
    metadata = document.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(path, "__metadata__ is not a table of strings")
    data_start = 8 + len(raw)
    entries = [_entry(path, name, value, data_start) for name, value in document.items()]
    entries.sort(key=lambda entry: (entry.offset, entry.nbytes))
    _check_coverage(path, entries, data_start, file_size)
    return entries, metadata


def quoted(name: object) -> str:
    """A name from a file in quotes for a message, without control characters and with limited length."""
    text = one_line(str(name)[: _SHOWN + 1])
    return f"'{text}'" if len(text) <= _SHOWN else f"'{text[:_SHOWN]}...'"


def _broken(path: Path, what: str, *, why: str = "", remedy: str = _AGAIN) -> InputError:
    return InputError(what, where=one_line(path), why=why, remedy=remedy)


def _raw_header(path: Path) -> tuple[bytes, int]:
    try:
        with open_regular(path, follow=True) as file:
            file_size = file.seek(0, 2)
            file.seek(0)
            head = file.read(8)
            if len(head) < 8:
                raise _broken(path, "the file is truncated", why=f"it has only {size(file_size)}")
            length = int.from_bytes(head, "little")
            if head == _LFS_POINTER and file_size < 1024:
                raise _broken(path, "this is a Git LFS pointer, not the file itself", remedy="run `git lfs pull` there")
            if length > MAX_HEADER:
                raise _broken(
                    path,
                    f"the header claims {size(length)}, more than the format's limit of {size(MAX_HEADER)}",
                    remedy="check that this is a safetensors file, and download it again",
                )
            if 8 + length > file_size:
                raise _broken(
                    path,
                    f"the file is truncated: its header claims {size(length)}, the file has {size(file_size)}",
                )
            return file.read(length), file_size
    except OSError as error:
        raise _broken(path, f"cannot read the file: {error.strerror or error}", remedy="") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the name {quoted(key)} occurs twice")
            seen.add(key)
    return table


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise _broken(path, "this is not a safetensors file", why="its header does not begin with '{'", remedy="")
    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise _broken(path, "the header is not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise _broken(path, "the header cannot be read", why=str(error)) from error
    assert isinstance(document, dict)
    return document


def _entry(path: Path, name: str, value: Any, data_start: int) -> TensorEntry:
    def bad(what: str, remedy: str = _AGAIN) -> InputError:
        return _broken(path, f"tensor {quoted(name)} {what}", remedy=remedy)

    if not _is_text(name):
        raise bad("has a name that is not Unicode text")
    if not isinstance(value, dict) or not value.keys() >= _FIELDS:
        raise bad("has no dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in dtypes.BITS:
        raise bad(f"has the unknown dtype {quoted(dtype)}", remedy="")
    if not _naturals(shape) or len(shape) > MAX_RANK:
        raise bad("has an impossible shape")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise bad("has impossible data_offsets")
    start, stop = offsets
    expected = dtypes.nbytes(dtype, prod(shape))
    if expected != stop - start:
        takes = "a broken number of bytes" if expected is None else expected
        raise bad(f"has {stop - start} bytes, but {dtype} of shape {list(shape)} takes {takes}")
    return TensorEntry(name, dtype, tuple(shape), path, data_start + start, stop - start)


def _is_text(name: str) -> bool:
    """False for lone surrogates: JSON escapes can contain them, but they cannot be encoded."""
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)


def _naturals(value: Any) -> bool:
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:
        return False
    return not value or (min(value) >= 0 and max(value) < _LIMIT)


def _check_coverage(path: Path, entries: list[TensorEntry], data_start: int, file_size: int) -> None:
    position, before = data_start, ""
    for entry in entries:
        if entry.offset < position:
            raise _broken(path, f"tensors {quoted(before)} and {quoted(entry.name)} overlap")
        if entry.offset > position:
            raise _broken(
                path, f"{entry.offset - position} bytes before tensor {quoted(entry.name)} belong to no tensor"
            )
        position, before = entry.offset + entry.nbytes, entry.name
    if position > file_size:
        raise _broken(
            path,
            f"tensor {quoted(before)} ends beyond the file: the file is truncated at {size(file_size)} "
            f"of {size(position)}",
        )
    if position < file_size:
        raise _broken(path, f"the last {file_size - position} bytes of the file belong to no tensor")
