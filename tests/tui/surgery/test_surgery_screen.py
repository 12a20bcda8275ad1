"""The surgery screen, driven by keys as a person would."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input

from surgeon.recipe import document as documents
from surgeon.recipe.edits import grammar
from surgeon.tui.dialogs import Ask, Help, TextDialog
from surgeon.tui.plan.plan_screen import PlanScreen
from tests.support.tui import SIZES, app, cells, command, donors, keys, line


def run(letter: str, first: int, last: int) -> list[str]:
    return [f"{letter}{index:02d}" for index in range(first, last + 1)]


@pytest.mark.parametrize("size", SIZES)
async def test_splice_undo_save_reload(in_tmp: Path, size: tuple[int, int]) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=size) as pilot:
        await keys(pilot, "apostrophe a 0 G v 3 j y apostrophe apostrophe p")
        assert cells(application) == run("A", 0, 3)
        await keys(pilot, "apostrophe b 2 G 4 y apostrophe apostrophe G p")
        assert cells(application) == run("A", 0, 3) + run("B", 2, 5)
        assert "insert B:2-5" in line(pilot, "status")
        assert "8L" in line(pilot, "header")
        await keys(pilot, "u")
        assert cells(application) == run("A", 0, 3)
        await keys(pilot, "ctrl+r")
        assert cells(application) == run("A", 0, 3) + run("B", 2, 5)
        await command(pilot, "write mine.yaml")
        assert "saved" in line(pilot, "status")
        assert not application.session.dirty
    recipe = documents.load(in_tmp / "mine.yaml").recipe
    assert [(s.sources[0].model, s.sources[0].layer_range) for s in recipe.slices or ()] == [
        ("./a", (0, 4)),
        ("./b", (2, 6)),
    ]
    reopened = app([], in_tmp / "mine.yaml")
    async with reopened.run_test(size=size) as pilot:
        await pilot.pause()
        assert cells(reopened) == run("A", 0, 3) + run("B", 2, 5)


@pytest.mark.slow
async def test_the_walk_through_of_keys_equals_the_command_line(in_tmp: Path) -> None:
    refs = donors(in_tmp, "ab", layers=32)
    by_keys, by_commands = app(refs), app(refs)
    async with by_keys.run_test(size=(80, 24)) as pilot:
        for letter, first in (("a", "0"), ("b", "8"), ("a", "1 6")):
            await keys(pilot, f"apostrophe {letter} {first} G v 1 5 j y tab G p")
            await keys(pilot, "escape")
        text = by_keys.session.current.text
    async with by_commands.run_test(size=(80, 24)) as pilot:
        for part in ("insert A:0-15", "insert B:8-23", "insert A:16-31"):
            await command(pilot, part)
        assert by_commands.session.current.text == text
    recipe = documents.parse("").recipe
    for part in ("insert A:0-15", "insert B:8-23", "insert A:16-31"):
        recipe = grammar.parse(part, refs).apply(recipe, lambda model: 32)
    assert documents.fresh(recipe).text == text


async def test_every_editing_key(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-5")
        await keys(pilot, "apostrophe apostrophe escape 2 G 2 d")
        assert cells(application) == ["A00", "A01", "A04", "A05"]
        await keys(pilot, "1 G v j D")
        assert cells(application) == ["A00", "A01", "A04", "A01", "A04", "A05"]
        await keys(pilot, "escape 0 G J")
        assert cells(application)[:2] == ["A01", "A00"]
        await keys(pilot, "escape 1 G K")
        assert cells(application)[:2] == ["A00", "A01"]
        await keys(pilot, "escape 0 G v 2 j tilde")
        assert cells(application)[:3] == ["A04", "A01", "A00"]
        await keys(pilot, "u")
        await keys(pilot, "escape 0 G x G p")
        assert cells(application)[-1] == "A00"
        await keys(pilot, "apostrophe b 7 G y apostrophe apostrophe escape 0 G r")
        assert cells(application)[0] == "B07"
        await keys(pilot, "escape 0 G P")
        assert cells(application)[:2] == ["B07", "B07"]
        await keys(pilot, "escape 3 G full_stop")
        assert cells(application).count("B07") == 3


async def test_paste_behind_and_before_the_cursor_the_selection_and_the_ends(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await keys(pilot, "apostrophe b 5 G y apostrophe apostrophe")
        for where, key, expected in (
            ("escape 1 G", "p", "A00 A01 B05 A02 A03"),
            ("escape 1 G", "P", "A00 B05 A01 A02 A03"),
            ("escape 1 G v j", "p", "A00 A01 A02 B05 A03"),
            ("escape 1 G v j", "P", "A00 B05 A01 A02 A03"),
            ("escape g g", "p", "B05 A00 A01 A02 A03"),
            ("escape g g", "P", "B05 A00 A01 A02 A03"),
            ("escape G", "p", "A00 A01 A02 A03 B05"),
            ("escape G", "P", "A00 A01 A02 A03 B05"),
        ):
            await keys(pilot, f"{where} {key}")
            assert cells(application) == expected.split(), (where, key)
            await keys(pilot, "escape u")
            assert cells(application) == run("A", 0, 3), (where, key)


async def test_ends_are_yanked_and_set(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(120, 40)) as pilot:
        await command(pilot, "insert A:0-3")
        await keys(pilot, "apostrophe b G y p")
        recipe = application.session.recipe
        assert recipe.lm_head is not None and recipe.lm_head.model == "./b"
        await command(pilot, "end lm_head tie")
        assert application.session.plan.tied
        assert application.surgery.view.stack.rows[-1].head == "head"
        assert "tied" in application.surgery.view.stack.rows[-1].text


async def test_selection_is_told_in_both_ways_of_counting(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "apostrophe b 2 G v 3 j")
        assert "B 2-5" in line(pilot, "status") and "[2, 6)" in line(pilot, "status")
        await keys(pilot, "escape")
        assert line(pilot, "status") == ""


async def test_what_cannot_be_done_says_why(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "apostrophe apostrophe p")
        assert "nothing is yanked" in line(pilot, "status")
        await keys(pilot, "d")
        assert "no layer" in line(pilot, "status")
        await keys(pilot, "u")
        assert "nothing to undo" in line(pilot, "status")
        await keys(pilot, "R")
        assert "cannot be written yet" in line(pilot, "status")
        await command(pilot, "insert A:0-99")
        assert "there are no layers 0-99" in line(pilot, "status")
        await command(pilot, "insret A:0-1")
        assert "did you mean insert" in line(pilot, "status")
        await command(pilot, "open ./nowhere")
        assert "no checkpoint" in line(pilot, "status")
        await keys(pilot, "apostrophe x")
        assert "no donor X" in line(pilot, "status")


async def test_search_and_next(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "interleave A B")
        await keys(pilot, "apostrophe apostrophe g g slash B 0 enter")
        stack = application.surgery.view.stack
        assert stack.current is not None and stack.current.label == "B01"
        await keys(pilot, "n")
        assert stack.current.label == "B03"
        await keys(pilot, "N")
        assert stack.current.label == "B01"
        await keys(pilot, "slash z z z enter")
        assert "nothing here matches" in line(pilot, "status")


async def test_expansion_writes_its_filters_into_the_recipe(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await keys(pilot, "apostrophe apostrophe 2 E enter")
        session = application.session
        assert [layer.label for layer in session.plan.layers] == ["A00", "A01", "A01", "A02", "A03", "A03"]
        assert "layer-identity" in [finding.code for finding in session.plan.findings]
        assert "filter: o_proj" in session.current.text
        await keys(pilot, "u")
        assert len(session.plan.layers) == 4
        await keys(pilot, "ctrl+r")
        assert len(session.plan.layers) == 6


async def test_detail_help_zoom_and_plan(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "upscale A m=2")
        await keys(pilot, "apostrophe apostrophe escape 7 G enter")
        assert isinstance(application.screen, TextDialog)
        assert "A03" in application.screen.heading
        assert any("q_proj" in str(row) for row in application.screen.lines)
        await keys(pilot, "escape question_mark")
        assert isinstance(application.screen, Help)
        await keys(pilot, "escape z")
        rows = [row for row in application.surgery.view.stack.rows if row.kind == "slice"]
        assert [(row.start, row.stop, row.label) for row in rows] == [(0, 6, "A 0-5"), (6, 12, "A 2-7")]
        await keys(pilot, "z f")
        assert isinstance(application.screen, PlanScreen)
        await keys(pilot, "tab")
        assert "layer_range" in application.screen.query_one("#body").text
        await keys(pilot, "tab")
        assert "+merge_method" in application.screen.query_one("#body").text
        await keys(pilot, "escape")
        assert application.screen is application.surgery


async def test_a_text_to_read_is_a_window_over_a_wide_screen(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(200, 60)) as pilot:
        await keys(pilot, "question_mark")
        window = application.screen.query_one("Vertical").region
        assert window.width == 110 and window.x == 45


async def test_a_finding_leads_to_its_layer(in_tmp: Path) -> None:
    donors(in_tmp)
    (in_tmp / "bad.yaml").write_text(
        "merge_method: passthrough\nslices:\n- sources: [{model: ./a, layer_range: [0, 4]}]\n"
        "- sources: [{model: ./b, layer_range: [5, 10]}]\n"
    )
    application = app([], in_tmp / "bad.yaml")
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "f")
        text = application.screen.query_one("#body").text
        assert "[5, 10]" in text and "line 4" in text
        await keys(pilot, "enter")
        stack = application.surgery.view.stack
        assert application.screen is application.surgery
        assert stack.current is not None and stack.current.start == 7 and stack.current.marker == "!"


async def test_donors_are_opened_and_switched(in_tmp: Path) -> None:
    donors(in_tmp, "abcd")
    application = app(["./a"])
    async with application.run_test(size=(80, 24)) as pilot:
        for name in "bcd":
            await command(pilot, f"open ./{name}")
        assert list(application.session.letters.values()) == ["A", "B", "C", "D"]
        assert [pane.ref for pane in application.surgery.view.donor_panes] == ["./d"]
        await keys(pilot, "left_square_bracket")
        assert [pane.ref for pane in application.surgery.view.donor_panes] == ["./c"]
        await pilot.resize_terminal(200, 60)
        await pilot.pause()
        assert [pane.ref for pane in application.surgery.view.donor_panes] == ["./a", "./b", "./c", "./d"]
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert len(application.surgery.view.donor_panes) == 1


async def test_quitting_with_unsaved_work_asks(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await keys(pilot, "q")
        assert isinstance(application.screen, Ask)
        await keys(pilot, "escape")
        assert application.is_running and application.screen is application.surgery
        await keys(pilot, "ctrl+q d")
    assert application.return_code == 0


async def test_overwriting_another_file_asks(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    (in_tmp / "there.yaml").write_text("# not mine\n")
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "write there.yaml")
        assert isinstance(application.screen, Ask)
        await keys(pilot, "n")
        assert (in_tmp / "there.yaml").read_text() == "# not mine\n"
        await command(pilot, "write there.yaml")
        await keys(pilot, "y")
        assert "layer_range" in (in_tmp / "there.yaml").read_text()


async def test_saving_into_another_folder_keeps_the_donors(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    (in_tmp / "sub").mkdir()
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "write here.yaml")
        await command(pilot, "write sub/there.yaml")
        assert application.session.plan.ok
        await keys(pilot, "u")
    moved = documents.load(in_tmp / "sub" / "there.yaml")
    assert (in_tmp / "sub" / moved.recipe.model_refs()[0]).resolve() == (in_tmp / "a").resolve()


async def test_small_terminals_and_hostile_names(in_tmp: Path) -> None:
    sparse = donors(in_tmp)
    (in_tmp / "a").rename(in_tmp / "e\x1b[31mvil")
    application = app(["./e\x1b[31mvil", *sparse[1:]])
    async with application.run_test(size=(40, 10)) as pilot:
        await command(pilot, "insert A:0-3")
        for row in ("header", "tabs", "detail", "status"):
            assert "\x1b" not in line(pilot, row)
        assert cells(application) == run("A", 0, 3)


async def test_what_a_line_offers_is_replaced_by_typing(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        for key, offered in (("w", "write recipe.yaml"), ("W", "write recipe.yaml"), ("R", "run ./model-out")):
            await keys(pilot, key)
            box = application.surgery.query_one("#line", Input)
            assert box.value == offered
            await keys(pilot, "x")
            assert box.value == f"{offered.split()[0]} x"
            await keys(pilot, "escape")
        await keys(pilot, "t x")
        assert application.surgery.query_one("#line", Input).value == "edges first 2 x", "a beginning is kept"
