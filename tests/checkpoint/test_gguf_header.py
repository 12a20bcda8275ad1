"""The header of a GGUF file, which is untrusted input."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.checkpoint.gguf_header import read_gguf
from surgeon.errors import InputError


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)


def gguf(metadata: dict[str, Any], tensors: dict[str, tuple[int, list[int]]], version: int = 3) -> bytes:
    """The bytes of a GGUF file without data; a tensor is its type and shape."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        out += _text(key) + _value(value)
    for name, (kind, shape) in tensors.items():
        out += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
    return out


GOOD = gguf(
    {
        "general.architecture": "llama", "llama.block_count": 4, "general.name": "tiny\x1b[2J", "a.flag": True,
        "a.float": 1.5, "tokenizer.ggml.tokens": ["a", "b", "c"], "tokenizer.ggml.token_type": [1, 2, 3],
    },
    {"token_embd.weight": (12, [64, 3]), "blk.0.attn_q.weight": (0, [64, 64]), "odd": (99, [])},
)  # fmt: skip


def test_what_a_file_says_of_itself(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(GOOD)
    header = read_gguf(tmp_path / "m.gguf")
    assert header.of_architecture("block_count") == 4
    assert header.lengths == {"tokenizer.ggml.tokens": 3, "tokenizer.ggml.token_type": 3}
    assert header.types == {"F32": 64 * 64, "Q4_K": 192, "type 99": 1}
    assert "\x1b" not in header.metadata["general.name"]


@pytest.mark.parametrize("raw", [
    b"", b"GGU", b"GGUF", b"PK\x03\x04" + b"\0" * 40, gguf({}, {}, version=1), GOOD[:60], GOOD[:-5],
    b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _text("k") + struct.pack("<IIQ", 9, 4, 2**50),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _text("k") + struct.pack("<IIQ", 9, 9, 1),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _text("k") + struct.pack("<I", 77),
    b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + _text("t") + struct.pack("<I", 2**31),
])  # fmt: skip
def test_what_is_no_header_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(raw)
    with pytest.raises(InputError):
        read_gguf(tmp_path / "m.gguf")


@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(bytes(raw))
    with contextlib.suppress(InputError):
        read_gguf(path)


@pytest.mark.parametrize("shape", [[2**63], [2**32, 2**31], [2**64 - 1] * 8])
def test_more_elements_than_a_file_can_hold_are_refused(tmp_path: Path, shape: list[int]) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf({}, {"t": (0, shape)}))
    with pytest.raises(InputError, match="more elements than a file can hold"):
        read_gguf(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").write_bytes(gguf({}, {"t": (0, [2**32, 2**30])}))
    assert read_gguf(tmp_path / "m.gguf").types == {"F32": 2**62}
