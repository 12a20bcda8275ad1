"""Reading adapted tensors: the same bits however they are cut, exact to the last place, in little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.assemble.compute import adapter_reader
from surgeon.assemble.compute.adapter_reader import AdaptedReader
from surgeon.checkpoint import TensorEntry, read_header
from surgeon.errors import SurgeonError
from surgeon.plan.operands import Adapted, Stored
from tests.support.adapters import Tensors, noise, read
from tests.support.models import one_thread

if TYPE_CHECKING:
    import torch


class Held:
    """A reader of a tensor in memory that notes how much is asked for."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.shape, self.numel = tuple(tensor.shape), tensor.numel()
        self._flat = tensor.reshape(-1)
        self.most = self.total = 0

    def read(self, start: int, out: torch.Tensor) -> None:
        assert start >= 0 and start + out.numel() <= self.numel and out.is_contiguous()
        self.most, self.total = max(self.most, out.numel()), self.total + out.numel()
        out.copy_(self._flat[start : start + out.numel()])


class Case:
    """A tensor with an adapter, and what it is in float64."""

    def __init__(self, rows: int, columns: int, rank: int, transposed: bool, dora: bool, factor: float = 0.7) -> None:
        inside, out = (rows, columns) if transposed else (columns, rows)
        self.parts = [noise(rows, columns), noise(rank, inside, seed=1), noise(out, rank, seed=2)]
        self.parts += [noise(out, seed=3) + 1] if dora else []
        whole, a, b = (tensor.double() for tensor in self.parts[:3])
        delta = factor * (b @ a)
        self.exact = whole + (delta.T if transposed else delta)
        if dora:
            axis = 0 if transposed else 1
            magnitude = self.parts[3].double()
            self.exact *= (magnitude / self.exact.square().sum(axis).sqrt()).unsqueeze(axis)
        entries = [
            TensorEntry(name, "F32", tuple(tensor.shape), Path("x"), 0, 4 * tensor.numel())
            for name, tensor in zip("wabm", self.parts, strict=False)
        ]
        self.operand = Adapted(Stored(entries[0]), entries[1], entries[2], factor, transposed, *entries[3:])

    def reader(self) -> tuple[AdaptedReader, list[Held]]:
        held = [Held(part) for part in self.parts]
        return AdaptedReader(self.operand, *held), held


def everything(reader: AdaptedReader, dtype: torch.dtype, cuts: list[int]) -> torch.Tensor:
    import torch

    out = torch.empty(reader.numel, dtype=dtype)
    edges = sorted({0, reader.numel, *(cut % (reader.numel + 1) for cut in cuts)})
    for start, stop in pairwise(edges):
        reader.read(start, out[start:stop])
    return out


@contextmanager
def small() -> Iterator[None]:
    """Tiles and pieces of a few numbers, so that small tensors have many."""
    with mock.patch.multiple(adapter_reader, _TILE=48, _ROWS=3, _HELD=40, _PIECE=16, _AHEAD=10), one_thread():
        yield


cases = st.builds(
    Case,
    rows=st.integers(1, 40),
    columns=st.integers(1, 30),
    rank=st.integers(1, 6),
    transposed=st.booleans(),
    dora=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(case=cases, cuts=st.lists(st.integers(0, 2000), max_size=8), wide=st.booleans())
def test_any_cut_gives_the_same_bits(case: Case, cuts: list[int], wide: bool) -> None:
    import torch

    dtype = torch.float64 if wide else torch.float32
    with small():
        at_once = everything(case.reader()[0], dtype, [])
        assert torch.equal(everything(case.reader()[0], dtype, cuts), at_once)
    exact = case.exact.reshape(-1)
    tolerance = 1e-13 if wide else 2**-24
    assert bool(((at_once.double() - exact).abs() <= tolerance * exact.abs() + 1e-14).all())


@settings(max_examples=60, deadline=None)
@given(case=cases, ranges=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 300)), min_size=1, max_size=6))
def test_any_order_gives_the_same_bits(case: Case, ranges: list[tuple[int, int]]) -> None:
    import torch

    with small():
        at_once = everything(case.reader()[0], torch.float32, [])
        reader, _ = case.reader()
        for start, count in ranges:
            start %= reader.numel + 1
            out = torch.empty(min(count, reader.numel - start))
            reader.read(start, out)
            assert torch.equal(out, at_once[start : start + len(out)])


@pytest.mark.parametrize("transposed", [False, True])
def test_real_tiles(transposed: bool) -> None:
    """Several tiles of the real size, and a factor that is not held."""
    import torch

    with one_thread():
        case = Case(1500, 1100, 8, transposed, dora=True)
        at_once = everything(case.reader()[0], torch.float32, [])
        assert torch.equal(everything(case.reader()[0], torch.float32, list(range(0, 1_650_000, 70_001))), at_once)
        with mock.patch.object(adapter_reader, "_HELD", 1000):
            pieces = everything(case.reader()[0], torch.float64, [])
    torch.testing.assert_close(pieces, case.exact.reshape(-1), rtol=0, atol=1e-12)


def ordinal(tensor: torch.Tensor) -> torch.Tensor:
    """16-bit floats as integers in their order."""
    import torch

    bits = tensor.view(torch.int16).to(torch.int32)
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_within_a_unit_in_the_last_place_where_terms_cancel(dtype: str) -> None:
    """W is minus the sum, rounded, so that what remains is its rounding: a float32 product loses it."""
    import torch

    target = getattr(torch, dtype)
    case = Case(300, 400, 64, transposed=False, dora=False)
    whole = (-0.7 * (case.parts[2].double() @ case.parts[1].double())).to(target)
    case.parts[0] = whole.float()
    exact = whole.double() + 0.7 * (case.parts[2].double() @ case.parts[1].double())
    with one_thread():
        found = everything(case.reader()[0], torch.float32, []).view_as(exact)
    assert int((ordinal(found.to(target)) - ordinal(exact.to(target))).abs().max()) <= 1


@pytest.mark.parametrize("transposed", [False, True])
def test_rows_of_zeros_stay_zeros_under_dora(transposed: bool) -> None:
    import torch

    case = Case(6, 5, 2, transposed, dora=True)
    whole, a, b, _ = case.parts
    whole[:, 3] = 0
    whole[2, :] = 0
    (b if not transposed else a.T)[2] = 0
    (a.T if not transposed else b)[3] = 0
    with one_thread():
        out = everything(case.reader()[0], torch.float32, []).view(6, 5)
    assert bool(out.isfinite().all())
    assert bool((out[2] == 0).all()) and bool((out[:, 3] == 0).all()) and int((out == 0).sum()) == 10


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("rank", [4, 200])
def test_memory_does_not_grow_with_the_tensor(rank: int, transposed: bool) -> None:
    import torch

    with mock.patch.multiple(adapter_reader, _TILE=4096, _ROWS=4, _HELD=8192, _PIECE=4096, _AHEAD=256), one_thread():
        reader, (whole, down, up) = Case(3000, 64, rank, transposed, dora=False).reader()
        everything(reader, torch.float32, list(range(0, 192_000, 5000)))
    assert whole.total == 192_000
    assert whole.most <= 64 * 64
    assert max(down.most, up.most) <= 4096
    assert (up.total + down.total == rank * 3064) is (rank * 64 <= 8192), "read once if held, else for every tile"


def test_a_transposed_dora_takes_one_more_pass() -> None:
    import torch

    with one_thread():
        reader, (whole, *_) = Case(3000, 64, 4, transposed=True, dora=True).reader()
        everything(reader, torch.float32, [100_000])
        assert whole.total == 2 * 192_000
        everything(reader, torch.float32, [])
        assert whole.total == 3 * 192_000


def test_a_read_that_failed_leaves_nothing_behind() -> None:
    import torch

    with one_thread():
        reader, (whole, *_) = Case(3000, 64, 4, transposed=False, dora=False).reader()
        expected = everything(reader, torch.float32, [])
        out = torch.empty(1000)
        reader.read(0, out)

        def fail(start: int, out: torch.Tensor) -> None:
            out.fill_(7)
            raise SurgeonError("the file has gone")

        with mock.patch.object(whole, "read", fail), pytest.raises(SurgeonError):
            reader.read(150_000, out)
        reader.read(0, out)
    assert torch.equal(out, expected[:1000])


def stored(folder: Path, tensors: Tensors) -> dict[str, TensorEntry]:
    from safetensors.torch import save_file

    save_file(tensors, folder / "x.safetensors")
    return {entry.name: entry for entry in read_header(folder / "x.safetensors")[0]}


def test_an_adapter_on_an_adapter(tmp_path: Path) -> None:
    import torch

    tensors = {
        "w": noise(20, 12).bfloat16(),
        **{f"a{n}": noise(3, 12, seed=n) for n in (1, 2)},
        **{f"b{n}": noise(20, 3, seed=n).half() for n in (1, 2)},
    }
    entries = stored(tmp_path, tensors)
    first = Adapted(Stored(entries["w"]), entries["a1"], entries["b1"], 2.0)
    second = replace(first, whole=first, down=entries["a2"], up=entries["b2"], factor=-0.5)
    w, a1, b1, a2, b2 = (tensors[name].double() for name in ("w", "a1", "b1", "a2", "b2"))
    with one_thread():
        torch.testing.assert_close(read(second, torch.float64, 7), w + 2 * (b1 @ a1) - 0.5 * (b2 @ a2))


@pytest.mark.parametrize("broken", ["w", "a", "b", "m"])
def test_what_is_not_finite_is_an_error_that_names_the_tensor(tmp_path: Path, broken: str) -> None:
    import torch

    tensors = {"w": noise(20, 12), "a": noise(3, 12), "b": noise(20, 3), "m": noise(20)}
    tensors[broken].view(-1)[5] = float("nan")
    entries = stored(tmp_path, tensors)
    operand = Adapted(Stored(entries["w"]), entries["a"], entries["b"], 1.0, magnitude=entries["m"])
    with pytest.raises(SurgeonError, match=f"tensor {broken} holds NaN"):
        read(operand, torch.float32)
