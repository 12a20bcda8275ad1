"""Safetensors headers: every way one can be wrong is answered with a sentence that names the file and the reason."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon.checkpoint import read_header
from surgeon.checkpoint.header import MAX_HEADER
from surgeon.errors import InputError
from tests.support.sparse import header_bytes, sparse_file

SPEC = {"a": ("F32", (2, 3)), "b": ("BF16", (4,)), "empty": ("F32", (0, 7)), "scalar": ("F64", ())}
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
DATA = 24 + 8 + 0 + 8


def put(path: Path, table: Any, data: int = 0, *, raw: bytes | None = None) -> Path:
    text = json.dumps(table).encode() if raw is None else raw
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))
    return path


def entry(start: int, stop: int, dtype: str = "U8", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [stop - start] if shape is None else shape, "data_offsets": [start, stop]}


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_header(path)
    sentence = caught.value.sentence()
    assert str(path) in sentence
    assert not CONTROL.search(sentence)
    return sentence


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_a_good_file(file: Path) -> None:
    sparse_file(file, SPEC, {"format": "pt", "note": "x"})
    entries, metadata = read_header(file)
    assert metadata == {"format": "pt", "note": "x"}
    start = file.stat().st_size - DATA
    found = {one.name: (one.dtype, one.shape, one.offset - start, one.nbytes, one.numel) for one in entries}
    assert found == {
        "a": ("F32", (2, 3), 0, 24, 6),
        "b": ("BF16", (4,), 24, 8, 4),
        "empty": ("F32", (0, 7), 32, 0, 0),
        "scalar": ("F64", (), 32, 8, 1),
    }
    assert all(one.file == file for one in entries)


def test_it_agrees_with_the_safetensors_library(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = {"x": torch.arange(6, dtype=torch.int64).reshape(2, 3), "y": torch.ones(3, dtype=torch.bfloat16)}
    path = tmp_path / "real.safetensors"
    save_file(tensors, path)
    raw = path.read_bytes()
    for one in read_header(path)[0]:
        expected = load_file(path)[one.name]
        assert tuple(expected.shape) == one.shape
        assert raw[one.offset : one.offset + one.nbytes] == expected.view(torch.uint8).numpy().tobytes()


def test_entries_come_in_the_order_of_their_bytes(file: Path) -> None:
    put(file, {"late": entry(3, 9), "early": entry(0, 3)}, 9)
    assert [one.name for one in read_header(file)[0]] == ["early", "late"]


@pytest.mark.parametrize("keep", [0, 1, 7])
def test_a_file_without_a_whole_length(file: Path, keep: int) -> None:
    sparse_file(file, SPEC)
    file.write_bytes(file.read_bytes()[:keep])
    assert "truncated" in refusal(file)


@pytest.mark.parametrize("keep", [8, 9, 60])
def test_a_file_cut_in_its_header(file: Path, keep: int) -> None:
    sparse_file(file, SPEC)
    file.write_bytes(file.read_bytes()[:keep])
    sentence = refusal(file)
    assert "truncated" in sentence and f"the file has {keep} B" in sentence


@pytest.mark.parametrize("missing", [1, 8, 9, DATA])
def test_a_file_cut_in_its_data(file: Path, missing: int) -> None:
    sparse_file(file, SPEC)
    file.write_bytes(file.read_bytes()[:-missing])
    assert "ends beyond the file: the file is truncated" in refusal(file)


def test_a_header_longer_than_the_format_allows(file: Path) -> None:
    file.write_bytes((MAX_HEADER + 1).to_bytes(8, "little") + b"{}")
    assert "more than the format's limit of 100.0 MB" in refusal(file)


def test_a_claimed_length_costs_no_memory(file: Path) -> None:
    file.write_bytes(MAX_HEADER.to_bytes(8, "little") + b"{}")
    tracemalloc.start()
    refusal(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("table", "data", "reason"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "'a' and 'b' overlap"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, 8, "'a' and 'b' overlap"),
        ({"a": entry(0, 8), "b": entry(9, 12)}, 12, "1 bytes before tensor 'b' belong to no tensor"),
        ({"a": entry(2, 8)}, 8, "2 bytes before tensor 'a' belong to no tensor"),
        ({"a": entry(0, 8)}, 9, "the last 1 bytes of the file belong to no tensor"),
        ({}, 4, "the last 4 bytes of the file belong to no tensor"),
        ({"a": entry(0, 80)}, 8, "ends beyond the file"),
        ({"a": entry(0, 2**62)}, 8, "ends beyond the file"),
        ({"a": entry(0, 8, "F32", [3])}, 8, "has 8 bytes, but F32 of shape [3] takes 12"),
        ({"a": entry(0, 8, "F32", [])}, 8, "has 8 bytes, but F32 of shape [] takes 4"),
        ({"a": entry(0, 2, "F4", [3])}, 2, "takes a broken number of bytes"),
        ({"a": entry(0, 8, "F32", [2**62, 2**62])}, 8, "has 8 bytes"),
        ({"a": entry(8, 0, "U8", [8])}, 8, "impossible data_offsets"),
        ({"a": entry(0, 8, "Q4_K", [8])}, 8, "unknown dtype 'Q4_K'"),
        ({"a": entry(0, 8, "f32", [2])}, 8, "unknown dtype"),
        ({"a": {**entry(0, 8), "dtype": 7}}, 8, "unknown dtype '7'"),
        ({"a": {**entry(0, 8), "dtype": ["F32"]}}, 8, "unknown dtype"),
        ({"a": {**entry(0, 8), "shape": 8}}, 8, "impossible shape"),
        ({"a": {**entry(0, 8), "shape": [-8]}}, 8, "impossible shape"),
        ({"a": {**entry(0, 8), "shape": [8.0]}}, 8, "impossible shape"),
        ({"a": {**entry(0, 1), "shape": [True]}}, 1, "impossible shape"),
        ({"a": {**entry(0, 8), "shape": [2**63]}}, 8, "impossible shape"),
        ({"a": {**entry(0, 8), "shape": [None]}}, 8, "impossible shape"),
        ({"a": {**entry(0, 8), "shape": [1] * 17}}, 8, "impossible shape"),
        ({"a": {**entry(0, 8), "data_offsets": [0]}}, 8, "impossible data_offsets"),
        ({"a": {**entry(0, 8), "data_offsets": [0, 8, 8]}}, 8, "impossible data_offsets"),
        ({"a": {**entry(0, 8), "data_offsets": [0, 8.0]}}, 8, "impossible data_offsets"),
        ({"a": {**entry(0, 8), "data_offsets": [False, 8]}}, 8, "impossible data_offsets"),
        ({"a": {**entry(0, 8), "data_offsets": [-1, 7]}}, 8, "impossible data_offsets"),
        ({"a": {**entry(0, 8), "data_offsets": "08"}}, 8, "impossible data_offsets"),
        ({"a": {"dtype": "U8", "shape": [8]}}, 8, "has no dtype, shape and data_offsets"),
        ({"a": [0, 8]}, 8, "has no dtype, shape and data_offsets"),
        ({"a": None}, 8, "has no dtype, shape and data_offsets"),
        ({"__metadata__": {"a": 1}}, 0, "__metadata__ is not a table of strings"),
        ({"__metadata__": ["a"]}, 0, "__metadata__ is not a table of strings"),
        ({"\ud800": entry(0, 8)}, 8, "not Unicode text"),
    ],
)
def test_a_header_that_breaks_the_format(file: Path, table: Any, data: int, reason: str) -> None:
    assert reason in refusal(put(file, table, data))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not a safetensors file"),
        (b"[]", "not a safetensors file"),
        (b" {}", "not a safetensors file"),
        (b"{", "cannot be read"),
        (b"{}}", "cannot be read"),
        (b"{'a': 1}", "cannot be read"),
        (b'{"a": 1,}', "cannot be read"),
        (b'{"a\x1b": 1}', "cannot be read"),
        (b"{\xff}", "not UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "cannot be read"),
        (b'{"a": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_001, "cannot be read"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b'{"a": {}, "b": {}, "a": {}}', "the name 'a' occurs twice"),
        (b'{"a": {"dtype": "U8", "dtype": "U8"}}', "the name 'dtype' occurs twice"),
        (b'{"a": NaN}', "has no dtype"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_header_that_is_not_json(file: Path, raw: bytes, reason: str) -> None:
    assert reason in refusal(put(file, None, raw=raw))


def test_a_long_or_hostile_name_is_shown_short_and_harmless(file: Path) -> None:
    put(file, {"\x1b]0;own\x07" + "x" * 100_000: entry(0, 8, "no")}, 8)
    sentence = refusal(file)
    assert "\\x1b]0;own\\x07" in sentence and len(sentence) < 600


def test_control_characters_in_a_good_name_are_kept_as_they_are(file: Path) -> None:
    put(file, {"a\x1b[2J\u202e": entry(0, 8)}, 8)
    assert read_header(file)[0][0].name == "a\x1b[2J\u202e"


def test_a_git_lfs_pointer_is_named(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n")
    assert "Git LFS pointer" in refusal(file) and "git lfs pull" in refusal(file).lower()


def test_something_else_entirely(tmp_path: Path) -> None:
    gguf = tmp_path / "really.safetensors"
    gguf.write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(100))
    assert "check that this is a safetensors file" in refusal(gguf).lower()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "gone.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "directory" in refusal(tmp_path / "folder.safetensors")


def only_input_errors(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    tracemalloc.start()
    try:
        entries, _ = read_header(path)
    except InputError as error:
        assert not CONTROL.search(error.sentence())
    else:
        assert sum(one.nbytes for one in entries) <= len(content)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200_000 + 200 * len(content)


fuzzing = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(content=st.binary(max_size=300))
@fuzzing
def test_random_bytes(file: Path, content: bytes) -> None:
    only_input_errors(file, content)


@given(
    length=st.integers(0, 2**64 - 1) | st.integers(0, 400),
    content=st.binary(max_size=200) | st.text(alphabet='{}[]":,0123456789aU8 \\', max_size=200).map(str.encode),
)
@fuzzing
def test_random_bytes_behind_a_length(file: Path, length: int, content: bytes) -> None:
    only_input_errors(file, length.to_bytes(8, "little") + content)


@given(
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, 40) | st.just(0),
)
@fuzzing
def test_mutated_good_files(file: Path, flips: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(header_bytes(SPEC) + bytes(DATA))
    for place, value in flips:
        content[place % len(content)] = value
    only_input_errors(file, bytes(content[: len(content) - cut]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
numbers = st.integers(-2, 40) | st.integers()


@given(
    table=st.dictionaries(
        st.text(max_size=6) | st.just("__metadata__"),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "U8", "F4", "BF16"]) | json_values,
                "shape": st.lists(numbers, max_size=3) | json_values,
                "data_offsets": st.lists(numbers, min_size=2, max_size=2) | json_values,
            }
        )
        | json_values,
        max_size=4,
    ),
    data=st.integers(0, 64),
)
@fuzzing
def test_random_tables(file: Path, table: Any, data: int) -> None:
    text = json.dumps(table).encode()
    only_input_errors(file, len(text).to_bytes(8, "little") + text + bytes(data))
