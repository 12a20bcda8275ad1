"""The journal: what is read back is what was written, whatever a killed process or a power loss has left of it."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from surgeon.assemble.io.digest import FileMark, digest
from surgeon.assemble.resume import journal
from surgeon.assemble.resume.journal import Journal, JournalLine


def line(number: int, shard: str = "one.safetensors", warning: str = "") -> JournalLine:
    return JournalLine(f"layers.{number}", shard, digest(str(number).encode()), warning)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def reopened(path: Path, flush: bool = True) -> tuple[dict[str, JournalLine], set[str]]:
    found = Journal(path, flush)
    found.close()
    assert journal.read(path) == found.lines
    return found.lines, found.marked


def test_lines_come_back(path: Path) -> None:
    one = Journal(path, flush=True)
    for number in range(5):
        one.add(line(number, warning="odd \n\t\udc80 ☃" if number == 3 else ""))
    one.close()
    lines, marked = reopened(path)
    assert lines == one.lines and list(lines) == [f"layers.{number}" for number in range(5)]
    assert lines["layers.3"].warning.startswith("odd \n")
    assert marked == set()
    assert path.read_bytes().count(b"\n") == 5


def test_a_mark_is_of_the_tensors_it_names(path: Path) -> None:
    one = Journal(path, flush=True)
    for number in range(4):
        one.add(line(number))
    one.mark(["layers.0", "layers.2"])
    one.mark([])
    one.close()
    assert reopened(path)[1] == one.marked == {"layers.0", "layers.2"}
    assert path.read_bytes().count(b"\n") == 5


def test_without_flush_nothing_is_marked(path: Path) -> None:
    one = Journal(path, flush=False)
    one.add(line(0))
    one.mark(["layers.0"])
    one.close()
    assert reopened(path, flush=False) == ({"layers.0": line(0)}, set())


def test_what_was_false_is_void_until_it_is_written_again(path: Path) -> None:
    one = Journal(path, flush=True)
    one.add(line(0))
    one.mark(["layers.0"])
    one.void("layers.0")
    assert reopened(path) == ({}, set())
    one.add(line(0))
    one.close()
    assert reopened(path) == ({"layers.0": line(0)}, set())


def test_a_mark_of_what_has_no_line_is_none(path: Path) -> None:
    one = Journal(path, flush=True)
    one.add(line(0))
    one.void("layers.0")
    one.mark(["layers.0", "layers.1"])
    one.close()
    assert reopened(path) == ({}, set())


@given(cut=st.integers(0, 400), junk=st.binary(max_size=60))
@example(cut=227, junk=b"\n")
@settings(deadline=None, max_examples=150)
def test_whatever_a_last_line_has_become(tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    one = Journal(path, flush=True)
    ends = [0]
    for number in range(3):
        one.add(line(number))
        ends.append(path.stat().st_size)
    one.mark(["layers.0"])
    one.close()
    whole = path.read_bytes()
    found = whole[:cut] + junk  # which may be just what was cut off
    path.write_bytes(found)
    lines, _ = reopened(path)
    # Nothing that is whole gets lost, nothing is invented, and what is added afterwards is found.
    assert list(lines.values()) == [
        line(number) for number in range(sum(found.startswith(whole[:end]) for end in ends[1:]))
    ]
    two = Journal(path, flush=True)
    two.add(line(7))
    two.close()
    assert list(reopened(path)[0].values()) == [*lines.values(), line(7)]


def test_a_flipped_bit_ends_it(path: Path) -> None:
    one = Journal(path, flush=True)
    one.add(line(0))
    start = path.stat().st_size
    one.add(line(1))
    one.add(line(2))
    one.close()
    data = bytearray(path.read_bytes())
    data[start + 40] ^= 1
    path.write_bytes(data)
    assert list(reopened(path)[0]) == ["layers.0"]


@pytest.mark.parametrize(
    "values", ['["a"]', '["a","b","short"]', '{"a":1}', "[1,2,3]", "nothing", '["a","b","' + 32 * "0" + '","w","x"]']
)
def test_lines_that_are_none(path: Path, values: str) -> None:
    import zlib

    body = f"+{values}".encode()
    path.write_bytes(b"%08x " % zlib.crc32(body) + body + b"\n")
    assert reopened(path) == ({}, set())
    assert path.stat().st_size == 0


def test_data_is_on_the_disk_before_its_mark(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the mark itself when `mark` returns."""
    seen: list[bytes] = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (seen.append(path.read_bytes()), real(fd))[1])
    one = Journal(path, flush=True)
    one.add(line(0))
    assert seen == []
    one.mark(["layers.0"])
    assert seen == [path.read_bytes()]
    one.close()


def test_many_threads(path: Path) -> None:
    one = Journal(path, flush=True)

    def work(start: int) -> None:
        for number in range(start, start + 50):
            one.add(line(number, f"{start}.safetensors"))
        one.mark([f"layers.{number}" for number in range(start, start + 50)])

    threads = [threading.Thread(target=work, args=(50 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    lines, marked = reopened(path)
    assert len(lines) == len(marked) == 200


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    path.symlink_to(tmp_path / "mine")
    with pytest.raises(OSError):
        Journal(path, flush=True)
    assert (tmp_path / "mine").read_text() == "mine"


def test_hashes_are_those_of_the_reference() -> None:
    """XXH3 128 of nothing and of `a`, from the published implementation (https://github.com/Cyan4973/xxHash)."""
    assert digest(b"") == "99aa06d3014798d86001c324468d497f"
    assert digest(b"a") == "a96faf705af16834e6c632b61e964e1f"


def test_a_file_mark_tells_headers_sizes_and_times(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((4).to_bytes(8, "little") + b"{ab}" + b"data")
    one = FileMark.of(path)
    os.utime(path, ns=(1, 5_000_000_001))
    assert FileMark.of(path).modified == 5_000_000_001
    path.write_bytes((4).to_bytes(8, "little") + b"{ab}" + b"DATA")
    assert (FileMark.of(path).header, FileMark.of(path).size) == (one.header, one.size)
    path.write_bytes((4).to_bytes(8, "little") + b"{aB}" + b"data")
    assert FileMark.of(path).header != one.header
    path.write_bytes(b"\xff" * 20)
    assert FileMark.of(path).size == 20


def test_a_line_with_a_right_sum_that_is_nested_deeply(tmp_path: Path) -> None:
    body = b"+" + b"[" * 100_000 + b"]" * 100_000
    (tmp_path / "journal").write_bytes(b"%08x " % zlib.crc32(body) + body + b"\n")
    assert journal.read(tmp_path / "journal") == {}


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "journal")
    assert journal.read(tmp_path / "journal") == {}
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 10**12)
    assert journal.read(tmp_path / "large") == {}
