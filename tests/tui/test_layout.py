"""What fits where: the barcode, the row of donors, long and wide names."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from surgeon.tui.app import SurgeonApp
from surgeon.tui.surgery.surgery_view import SurgeryView
from tests.support.sparse import sparse_llama
from tests.support.tui import SIZES, app, command, donors, keys, line, rows

WIDE = "模型一号大语言模型合并实验版本"


def named(folder: Path, *names: str) -> list[str]:
    for name in names:
        sparse_llama(folder / name, layers=8, hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)
    return [f"./{name}" for name in names]


async def barcode(application: SurgeonApp, *commands: str, width: int = 80) -> str:
    async with application.run_test(size=(width, 24)) as pilot:
        for text in commands:
            application.surgery.commands.run(text)
        await pilot.pause()
        return line(pilot, "barcode").strip()


@pytest.mark.parametrize(
    ("commands", "shown"),
    [
        (["insert A:0-3", "insert A:2-5"], "AAAA|AAAA"),
        (["insert A:0-3", "insert A:4-7"], "AAAAAAAA"),
        (["insert A:0-3", "insert B:2-5", "insert A:6-7"], "AAAABBBBAA"),
        (["insert A:0-3", "duplicate 1"], "AA|AAA"),
        (["insert A:0-3", "reverse 1-2"], "A|A|A|A"),
        (["insert A:0-5", "blend 2-3 B:2-3 method=slerp t=.5"], "AAaaAA"),
        (["insert A:0-5", "blend 2-3 B:2-3 method=ties base=A weight=.5 density=.5"], "AAbbAA"),
        (["insert A:0-3", "blend 0-3 B:0-3 method=slerp t=.5", "duplicate 0-3"], "aaaa|aaaa"),
    ],
)
async def test_the_barcode_shows_seams_and_blends(in_tmp: Path, commands: list[str], shown: str) -> None:
    assert await barcode(app(donors(in_tmp)), *commands) == shown


async def test_a_base_that_is_no_source_makes_a_blend_too(in_tmp: Path) -> None:
    donors(in_tmp)
    (in_tmp / "r.yaml").write_text(
        "merge_method: task_arithmetic\nbase_model: ./a\n"
        "slices:\n- sources: [{model: ./b, layer_range: [0, 4], parameters: {weight: 1}}]\n"
    )
    assert await barcode(app([], in_tmp / "r.yaml")) == "aaaa"


async def test_where_seams_have_no_room_letters_are_underlined(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(20, 24)) as pilot:
        for _ in range(6):
            application.surgery.commands.run("insert A:0-2")
        await pilot.pause()
        assert line(pilot, "barcode") == " " + "A" * 18
        strip = application.screen._compositor.render_strips()[1]
        underlined = "".join(s.text for s in strip if s.style and s.style.underline)
        assert underlined == "AAAAA"


@pytest.mark.parametrize("size", SIZES)
async def test_the_donor_in_view_is_on_the_row_of_donors(in_tmp: Path, size: tuple[int, int]) -> None:
    refs = named(in_tmp, *(f"SmolLM2-135M-Instruct-number-{n:02d}" for n in range(12)))
    application = app(refs)
    async with application.run_test(size=size) as pilot:
        for letter in "abcdefghijkl":
            await keys(pilot, f"apostrophe {letter}")
            view: SurgeryView = application.surgery.view
            for pane in view.donor_panes:
                tab = f"[{application.session.letters[pane.ref]} "
                assert tab in rows(application)[2], (letter, pane.ref)
        await keys(pilot, "apostrophe a")
        assert rows(application)[2].startswith(" [A SmolLM2-135…ct-number-00]")


@pytest.mark.parametrize("size", SIZES)
async def test_wide_names_are_measured_in_cells(in_tmp: Path, size: tuple[int, int]) -> None:
    application = app(named(in_tmp, f"{WIDE}甲", f"{WIDE}乙", "🧪" * 12))
    async with application.run_test(size=size) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "insert C:0-3")
        for letter in "abc":
            await keys(pilot, f"apostrophe {letter}")
            assert {cell_len(row) for row in rows(application)} == {size[0]}
            assert " 8L" in rows(application)[3], "the number of layers is behind the name"
        await keys(pilot, "apostrophe apostrophe 0 G b")
        assert {cell_len(row) for row in rows(application)} == {size[0]}
        assert "乙" in rows(application)[1] + rows(application)[2], "what tells them apart is not left out"
        await keys(pilot, "enter f")
        await pilot.press(*"模型", "enter")
        await pilot.pause()
        assert {cell_len(row) for row in rows(application)} == {size[0]}
