"""Reading tables put together from rows: the same bits however they are cut, in few reads, in little memory."""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.plan.operands import MEAN, Rows, Stored
from tests.support.vocabularies import Memory, entry


def rows_of(takes: list[list[int]], heights: list[int], width: int) -> Rows:
    parts = tuple(Stored(entry(str(number), height, width)) for number, height in enumerate(heights))
    return Rows(parts, tuple(array("i", take).tobytes() for take in takes))


def reader(rows: Rows, dtype: Any = None) -> Any:
    import torch

    from surgeon.assemble.compute.token_rows_reader import RowsReader

    generator = torch.Generator().manual_seed(1)
    parts = [Memory(torch.randn(part.shape, generator=generator, dtype=dtype or torch.float32)) for part in rows.parts]
    return RowsReader(rows, parts)


def plain(made: Any, rows: Rows, dtype: Any) -> Any:
    """Row by row, in float64."""
    import torch

    takes = [array("i", take) for take in rows.take]
    table: list[Any] = []
    for row in range(rows.shape[0]):
        found = [
            part.values[take[row]].double() for part, take in zip(made._parts, takes, strict=True) if take[row] >= 0
        ]
        if not found:
            table.append(None if takes[0][row] == MEAN else torch.zeros(rows.shape[1:], dtype=torch.float64))
        else:
            table.append((sum(found) / len(found)).to(dtype).double())
    known = [row for row in table if row is not None]
    mean = sum(known) / len(known) if known else torch.zeros(rows.shape[1:], dtype=torch.float64)
    return torch.stack([mean if row is None else row for row in table]).to(dtype), [row is not None for row in table]


def whole(made: Any, dtype: Any, cuts: list[int] | None = None) -> Any:
    import torch

    out = torch.full((made.numel,), float("nan"), dtype=dtype)
    edges = sorted({0, made.numel, *(cut % (made.numel + 1) for cut in cuts or [])})
    for start, stop in pairwise(edges):
        made.read(start, out[start:stop])
    return out.view(made.shape)


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    width, heights = draw(st.integers(1, 7)), draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))
    count = draw(st.integers(1, 20))
    take = [
        draw(st.lists(st.integers(-1, height - 1) | st.just(-1), min_size=count, max_size=count)) for height in heights
    ]
    for row in draw(st.lists(st.integers(0, count - 1), max_size=3)):
        for part in take:
            part[row] = -1
        take[0][row] = MEAN
    if draw(st.booleans()):
        run = draw(st.integers(0, heights[0] - 1))
        take[0] = [min(run + row, heights[0] - 1) for row in range(count)]
    return rows_of(take, heights, width)


@given(rows=tables(), cuts=st.lists(st.integers(0, 200), max_size=6), double=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_cut_gives_the_rows(rows: Rows, cuts: list[int], double: bool) -> None:
    import torch

    dtype = torch.float64 if double else torch.float32
    made = reader(rows, dtype)
    wanted, exact = plain(made, rows, dtype)
    found = whole(made, dtype)
    assert found[exact].equal(wanted[exact])
    assert found.allclose(wanted, atol=1e-6)
    assert whole(reader(rows, dtype), dtype, cuts).equal(found)


def test_a_mean_is_made_in_float64() -> None:
    import torch

    from surgeon.assemble.compute.token_rows_reader import RowsReader

    parts = [Memory(torch.tensor([[value]])) for value in (1e8, 1.0, -1e8)]
    made = RowsReader(rows_of([[0], [0], [0]], [1, 1, 1], 1), parts)
    assert float(whole(made, torch.float32)) == pytest.approx(1 / 3)


def test_runs_are_one_read_and_scattered_neighbours_too() -> None:
    import torch

    made = reader(rows_of([[*range(5000), *range(9000, 14000)]], [20_000], 64))
    whole(made, torch.float32)
    assert made._parts[0].reads == [(0, 5000 * 64), (9000 * 64, 5000 * 64)]
    backwards = reader(rows_of([list(reversed(range(1000)))], [1000], 64))
    found = whole(backwards, torch.float32)
    assert found.equal(backwards._parts[0].values.flip(0))
    assert len(backwards._parts[0].reads) == 1


def test_no_read_is_much_larger_than_what_is_asked_for() -> None:
    import torch

    count, width = 3000, 64
    order = [number * 7 % count for number in range(count)]
    made = reader(rows_of([[*order, MEAN]], [count], width))
    out = torch.empty(4096)
    for start in range(0, made.numel, 4096):
        made.read(start, out[: min(4096, made.numel - start)])
    assert max(length for _, length in made._parts[0].reads) <= 2 * 64 * 1024


def test_a_table_of_one_dimension_and_an_empty_one() -> None:
    import torch

    from surgeon.assemble.compute.token_rows_reader import RowsReader

    bias = RowsReader(rows_of([[2, 0, MEAN]], [3], 1), [Memory(torch.tensor([1.0, 2.0, 5.0]))])
    assert bias.shape == (3,)
    assert whole(bias, torch.float32).tolist() == [5.0, 1.0, 3.0]
    empty = RowsReader(rows_of([[0, 1]], [2], 0), [Memory(torch.empty(2, 0))])
    assert empty.numel == 0
    empty.read(0, torch.empty(0))
