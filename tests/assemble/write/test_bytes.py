"""Layout, copying and conversion: every byte where it belongs, whatever way it takes."""

from __future__ import annotations

import errno
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from surgeon.assemble import layout
from surgeon.assemble.io import byte_copy as copying
from surgeon.assemble.io import system_calls
from surgeon.assemble.io.byte_copy import BUFFER, OpenFile, copy_range
from surgeon.assemble.layout import DATA_ALIGNMENT, ByteRun, Placed, lay_out, steps
from surgeon.checkpoint import TensorEntry, read_header
from surgeon.checkpoint.families.naming import Place
from surgeon.errors import SurgeonError
from surgeon.methods.cast import CHUNK, Converter, convert
from surgeon.plan.model import PlannedTensor
from surgeon.plan.operands import Convert, Copy
from tests.support.assembling import contents, donor, passthrough, plan_of, write_file


def planned(entry: TensorEntry, *, factor: float | None = None, dtype: str | None = None) -> PlannedTensor:
    source = Copy(entry) if factor is None else Convert(entry, factor)
    return PlannedTensor(entry.name, dtype or entry.dtype, entry.shape, source, Place("other", -1, entry.name), "A")


def written(folder: Path, layout) -> None:
    """Files of a layout with every tensor's bytes put at the offset the layout gives."""
    folder.mkdir()
    for shard in layout.shards:
        data = bytearray(shard.nbytes)
        data[: len(shard.header)] = shard.header
        for placed in shard.tensors:
            entry = placed.tensor.source.entry
            data[placed.offset : placed.stop] = entry.file.read_bytes()[entry.offset : entry.offset + entry.nbytes]
        (folder / shard.name).write_bytes(data)
    if layout.index:
        (folder / "model.safetensors.index.json").write_text(layout.index)


class TestLayout:
    @pytest.mark.parametrize("files", range(1, 8))
    @pytest.mark.parametrize("workers", [1, 2, 3])
    def test_workers_have_files_of_their_own_as_long_as_there_are_several(
        self, files: int, workers: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two that write to one file wait for each other, above all to the last one when it is alone."""
        monkeypatch.setattr(layout, "SMALLEST", 1)
        entry = TensorEntry("t", "U8", (100,), Path("donor"), 0, 100)
        tensors = [replace(planned(entry), name=f"t{number}") for number in range(4 * files)]
        laid = lay_out(tensors, 400)
        assert len(laid.shards) == files
        found = layout.parts(laid, workers)
        names = [placed.tensor.name for part in found for placed in part.tensors]
        assert sorted(names) == sorted(t.name for t in tensors)
        if files >= workers:
            for first in range(len(found) - workers + 1):
                assert len({part.shard.name for part in found[first : first + workers]}) == workers

    def test_one_shard_is_named_without_a_number_and_starts_at_a_block(self, tmp_path: Path) -> None:
        plan = plan_of(passthrough((donor(tmp_path / "a"), 0, 3)))
        layout = lay_out(plan.tensors, 10**9)
        assert [shard.name for shard in layout.shards] == ["model.safetensors"]
        assert layout.index is None
        assert len(layout.shards[0].header) % DATA_ALIGNMENT == 0
        written(tmp_path / "out", layout)
        assert contents(tmp_path / "out") == contents(tmp_path / "a")
        assert set(load_file(tmp_path / "out" / "model.safetensors")) == {tensor.name for tensor in plan.tensors}
        assert read_header(tmp_path / "out" / "model.safetensors")[1] == {"format": "pt"}

    def test_shards_and_index_are_as_hugging_face_names_them(self, tmp_path: Path) -> None:
        plan = plan_of(passthrough((donor(tmp_path / "a"), 0, 3)))
        layout = lay_out(plan.tensors, 1000)
        count = len(layout.shards)
        assert count > 2
        assert [shard.name for shard in layout.shards] == [
            f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)
        ]
        index = json.loads(layout.index)  # type: ignore[arg-type]
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in plan.tensors)
        written(tmp_path / "out", layout)
        for name, file in index["weight_map"].items():
            assert name in load_file(tmp_path / "out" / file)
        assert contents(tmp_path / "out") == contents(tmp_path / "a")

    def test_a_narrow_tensor_never_puts_a_wide_one_at_an_odd_address(self, tmp_path: Path) -> None:
        specs = [
            ("mask", "U8", (3,), b"\1\2\3"),
            ("half", "F16", (1,), struct.pack("<e", 0.5)),
            ("wide", "F32", (2,), struct.pack("<2f", 1.5, -2.0)),
        ]
        write_file(tmp_path / "in.safetensors", specs)
        entries = read_header(tmp_path / "in.safetensors")[0]
        layout = lay_out([planned(entry) for entry in entries], 10**9)
        assert [placed.tensor.name for placed in layout.shards[0].tensors] == ["wide", "half", "mask"]
        written(tmp_path / "out", layout)
        loaded = load_file(tmp_path / "out" / "model.safetensors")
        assert loaded["wide"].tolist() == [1.5, -2.0]
        assert loaded["half"].tolist() == [0.5]
        assert loaded["mask"].tolist() == [1, 2, 3]

    def test_adjacent_ranges_become_one_run_and_others_do_not(self, tmp_path: Path) -> None:
        path = tmp_path / "in.safetensors"
        write_file(path, [(name, "U8", (4,), name.encode() * 4) for name in "abcd"])
        a, b, c, d = (planned(entry) for entry in read_header(path)[0])
        together = steps(lay_out([a, b, c, d], 10**9).shards[0].tensors)
        assert [(step.nbytes, len(step.tensors)) for step in together] == [(16, 4)]
        apart = steps(lay_out([c, d, b, a], 10**9).shards[0].tensors)
        assert [[placed.tensor.name for placed in step.tensors] for step in apart] == [["c", "d"], ["b"], ["a"]]

    def test_a_computed_tensor_ends_a_run(self, tmp_path: Path) -> None:
        path = tmp_path / "in.safetensors"
        write_file(path, [(name, "F16", (2,), b"\0\0\0\0") for name in "abc"])
        a, b, c = read_header(path)[0]
        found = steps(lay_out([planned(a), planned(b, factor=0.5), planned(c)], 10**9).shards[0].tensors)
        assert [type(step) for step in found] == [ByteRun, Placed, ByteRun]


@pytest.fixture
def source(tmp_path: Path):
    path = tmp_path / "source"
    path.write_bytes(os.urandom(3 * BUFFER + 12345))
    fd = os.open(path, os.O_RDONLY)
    yield OpenFile(path, fd, kernel=True)
    os.close(fd)


@pytest.fixture
def target(tmp_path: Path):
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def copied(source: OpenFile, target: int, start: int, offset: int, count: int) -> bytes:
    """The bytes that lie in the target afterwards, which are also those that were given out on the way."""
    seen = b"".join(map(bytes, copy_range(source, target, start, offset, count, memoryview(bytearray(BUFFER)))))
    found = os.pread(target, count, offset)
    assert seen == found and len(found) == count
    return found


class TestCopy:
    @pytest.mark.parametrize("kernel", [True, False])
    @pytest.mark.parametrize("count", [0, 1, BUFFER, 2 * BUFFER + 7])
    def test_bytes_arrive_at_odd_offsets(self, source: OpenFile, target: int, kernel: bool, count: int) -> None:
        source.kernel = kernel
        expected = source.path.read_bytes()[4097 : 4097 + count]
        assert copied(source, target, 4097, 77, count) == expected

    @pytest.mark.parametrize("code", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
    def test_where_the_kernel_cannot_the_buffer_does(
        self, source: OpenFile, target: int, monkeypatch, code: int
    ) -> None:
        def refuse(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "copy_file_range", refuse)
        assert copied(source, target, 5, 0, 2 * BUFFER) == source.path.read_bytes()[5 : 5 + 2 * BUFFER]
        assert not source.kernel

    def test_it_also_takes_over_half_way(self, source: OpenFile, target: int, monkeypatch) -> None:
        real, calls = os.copy_file_range, []

        def twice(src: int, dst: int, count: int, start: int, offset: int) -> int:
            calls.append(count)
            return real(src, dst, 1000, start, offset) if len(calls) < 3 else 0

        monkeypatch.setattr(os, "copy_file_range", twice)
        assert copied(source, target, 0, 10, BUFFER) == source.path.read_bytes()[:BUFFER]
        assert len(calls) == 3

    def test_a_system_without_copy_file_range(self, source: OpenFile, target: int, monkeypatch) -> None:
        monkeypatch.delattr(os, "copy_file_range")
        assert copied(source, target, 0, 0, 999) == source.path.read_bytes()[:999]
        assert not source.kernel

    def test_the_kernel_is_not_asked_where_it_would_only_copy(self, source: OpenFile, target: int, monkeypatch) -> None:
        monkeypatch.setattr(os, "copy_file_range", lambda *_: pytest.fail("it was asked"))
        source.kernel = False
        assert copied(source, target, 0, 0, 999) == source.path.read_bytes()[:999]

    def test_where_blocks_are_shared_it_is(self, tmp_path: Path, monkeypatch) -> None:
        for kind, asked in [("ext4", False), ("tmpfs", False), ("btrfs", True), ("xfs", True), ("", False)]:
            monkeypatch.setattr(system_calls, "file_system", lambda folder, kind=kind: kind)
            assert system_calls.shares_blocks(tmp_path) == asked
        monkeypatch.setattr(system_calls, "file_system", lambda folder: "btrfs")
        monkeypatch.delattr(os, "copy_file_range")
        assert not system_calls.shares_blocks(tmp_path)

    def test_a_full_disk_is_not_retried(self, source: OpenFile, target: int, monkeypatch) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "copy_file_range", full)
        with pytest.raises(OSError, match="No space"):
            copied(source, target, 0, 0, 10)

    @pytest.mark.parametrize("kernel", [True, False])
    def test_a_source_that_ends_too_early_is_named(self, source: OpenFile, target: int, kernel: bool) -> None:
        source.kernel = kernel
        length = source.path.stat().st_size
        with pytest.raises(SurgeonError, match="ends at byte") as error:
            copied(source, target, length - 10, 0, 11)
        assert str(source.path) in str(error.value)

    def test_short_reads_and_writes_are_finished(self, source: OpenFile, target: int, monkeypatch) -> None:
        read, write = os.preadv, os.pwrite
        monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: read(fd, [buffers[0][:100]], at))
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:33], at))
        source.kernel = False
        assert copied(source, target, 3, 1, 1000) == source.path.read_bytes()[3:1003]

    def test_few_sources_are_open_at_a_time(self, tmp_path: Path) -> None:
        sources = copying.Sources()
        for number in range(3 * copying.MAX_OPEN):
            path = tmp_path / str(number)
            path.write_bytes(b"x")
            fd = sources.get(path).fd
        assert len(list(Path("/proc/self/fd").iterdir())) < 3 * copying.MAX_OPEN + 20
        sources.close()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


TORCH = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
SPECIAL = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, -1e-45, 3.0e38, 65504.0, 1.00390625, 1 / 3]


def values(dtype: str, count: int = 1000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, dtype=torch.float64, generator=generator)
    return torch.cat([torch.tensor(SPECIAL, dtype=torch.float64), x]).to(TORCH[dtype])


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal bits, signs of zeros included; but any NaN is like any other, as torch's own code paths have it."""
    assert torch.equal(one.isnan(), other.isnan())
    return raw(one.nan_to_num(0, torch.inf, -torch.inf)) == raw(other.nan_to_num(0, torch.inf, -torch.inf))


def run(tensor: torch.Tensor, source: str, target: str, factor: float = 1.0) -> tuple[torch.Tensor, Converter]:
    """The tensor through a Converter, chunk by chunk, as the engine does it."""
    converter, data, out = Converter(source, target, factor), raw(tensor), b""
    for start in range(0, tensor.numel(), CHUNK):
        piece = data[start * converter.source_width : (start + CHUNK) * converter.source_width]
        converter.source[: len(piece)] = piece
        out += bytes(converter.run(len(piece) // converter.source_width))
    return torch.frombuffer(bytearray(out), dtype=TORCH[target]), converter


class TestConvert:
    @pytest.mark.parametrize("target", TORCH)
    @pytest.mark.parametrize("source", TORCH)
    def test_a_cast_rounds_as_torch_does(self, source: str, target: str) -> None:
        x = values(source)
        assert same(run(x, source, target)[0], x.to(TORCH[target]))

    @pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
    def test_chunk_borders(self, count: int) -> None:
        x = torch.randn(count, generator=torch.Generator().manual_seed(1))
        assert raw(run(x, "F32", "BF16", 0.3)[0]) == raw((x * 0.3).to(torch.bfloat16))

    @pytest.mark.parametrize("source", TORCH)
    @pytest.mark.parametrize("target", TORCH)
    @pytest.mark.parametrize("factor", [0.707, -3.1, 1e-3, 0.0])
    def test_a_scale_is_within_one_ulp_of_float64(self, source: str, target: str, factor: float) -> None:
        x = torch.randn(5000, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(TORCH[source])
        got = run(x, source, target, factor)[0].double()
        exact = x.double() * factor
        near = exact.to(TORCH[target])
        ulp = (torch.nextafter(near.abs(), torch.tensor(float("inf"), dtype=near.dtype)) - near.abs()).double()
        assert bool(((got - exact).abs() <= ulp).all())

    @pytest.mark.parametrize("target", TORCH)
    def test_a_tensor_in_memory_is_converted_to_the_same_bits(self, target: str) -> None:
        x = values("BF16", CHUNK + 128 - len(SPECIAL)).view(64, -1).T
        got = convert(x, target, 0.37)
        assert got.shape == x.shape
        assert same(got.reshape(-1), run(x.reshape(-1), "BF16", target, 0.37)[0])

    def test_values_that_float16_cannot_hold_are_counted(self) -> None:
        x = torch.tensor([1.0, 65504.0, 65520.0, -1e9, float("inf"), float("nan")])
        assert run(x, "F32", "F16")[1].overflowed == 2
        assert run(x, "F32", "BF16")[1].overflowed == 0

    def test_integers_are_refused(self) -> None:
        with pytest.raises(SurgeonError, match="I64"):
            Converter("I64", "F32")

    def test_buffers_are_one_chunk(self) -> None:
        converter = Converter("BF16", "F32", 2.0)
        assert len(converter.source) == 2 * CHUNK
        assert len(converter.run(CHUNK)) == 4 * CHUNK
