"""Blending by keys: choosing donors and method, drawing curves, and what becomes of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from surgeon.tui.app import SurgeonApp
from surgeon.tui.blend.blend_screen import BlendScreen
from surgeon.tui.curves.curve_screen import CurveScreen
from surgeon.tui.dialogs import Ask, Help, TextDialog
from surgeon.tui.widgets.curve_chart import CurveChart, bounds, spark
from surgeon.tui.widgets.text_pane import TextPane
from tests.support.tui import SIZES, app, cells, donors, keys, line, rows
from tests.tui.test_budget import terminal

RECIPE = """\
# eight layers
merge_method: passthrough
base_model: ./a
slices:
  - sources: [{model: ./a, layer_range: [0, 8]}]   # all of a
"""


def opened(folder: Path, text: str = RECIPE) -> SurgeonApp:
    refs = donors(folder)
    (folder / "r.yaml").write_text(text)
    return app(refs, folder / "r.yaml")


async def typed(pilot: Pilot[None], text: str) -> None:
    """Type into the line that is open, and send it."""
    await pilot.press(*(key_of(char) for char in text), "enter")
    await pilot.pause()


async def does(pilot: Pilot[None], text: str) -> None:
    """A command line, without typing it."""
    assert isinstance(pilot.app, SurgeonApp)
    pilot.app.surgery.commands.run(text)
    await pilot.pause()


def key_of(char: str) -> str:
    return {" ": "space", ",": "comma", ".": "full_stop", "-": "minus", ":": "colon", "_": "underscore"}.get(char, char)


def screen(application: SurgeonApp) -> CurveScreen:
    assert isinstance(application.screen, CurveScreen)
    return application.screen


def first_slice(application: SurgeonApp, number: int = 1) -> Any:
    slices = application.session.recipe.slices
    assert slices
    return slices[number]


@pytest.mark.parametrize("size", SIZES)
async def test_a_range_becomes_a_blend_with_a_curve(in_tmp: Path, size: tuple[int, int]) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=size) as pilot:
        await keys(pilot, "2 G v 3 j b")
        assert isinstance(application.screen, BlendScreen)
        assert "B 2-5 ./b" in line(pilot, "donors") and "A ./a" in line(pilot, "base")
        await keys(pilot, "right_square_bracket")
        assert "C 2-5 ./c" in line(pilot, "donors")
        await keys(pilot, "left_square_bracket enter")
        await pilot.pause()
        assert screen(application).state.draft.lines[0].values == (0.5,) * 4
        await keys(pilot, "equals_sign")
        await typed(pilot, "0,1")
        assert "written as [0, 1], 2 numbers for 4 layers" in line(pilot, "form")
        await keys(pilot, "enter")
        assert cells(application) == ["A00", "A01", "A02~B02", "A03~B03", "A04~B04", "A05~B05", "A06", "A07"]
        assert "blend 2-5 B:2-5 method=slerp t=0,1" in line(pilot, "status")
        assert first_slice(application).parameters == {"t": [0, 1]}
        rows = [row for row in application.surgery.view.stack.rows if row.value]
        assert [(row.label, row.value) for row in rows] == [
            ("A02~B02", "t0"), ("A03~B03", "t.33"), ("A04~B04", "t.67"), ("A05~B05", "t1"),
        ]  # fmt: skip
        assert "# all of a" in application.session.current.text
        await keys(pilot, "u")
        assert not application.session.dirty


async def test_the_stack_and_the_inspector_say_what_blends_are(in_tmp: Path) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=(120, 40)) as pilot:
        await does(pilot, "blend 2-5 B:2-5 method=slerp t=0.3 t=0.8 filter=mlp")
        await does(pilot, "blend 6-7 C:6-7 method=ties base=A weight=.5 density=.25 donor=C")
        surgery = application.surgery
        assert "AAaaaacc" in surgery.query_one("#barcode").text
        await keys(pilot, "apostrophe apostrophe 3 G")
        text = surgery.query_one("#inspector", TextPane).text
        assert "A03~B03" in text and "t.3-.8" in text and "B03 ./b" in text
        assert "mlp: t 0.8 (its slice," in text and "t 0.3 (its slice)" in text
        await keys(pilot, "7 G")
        text = " ".join(surgery.query_one("#inspector", TextPane).text.split())
        assert "A07 ./a (base)" in text
        assert "density C 0.25 (its source)" in text and "normalize true (default)" in text
        await keys(pilot, "z")
        labels = [row.label for row in surgery.view.stack.rows if row.kind == "slice"]
        assert labels == ["A 0-1", "A 2-5~B 2-5", "C 6-7"]
        await keys(pilot, "z 3 G enter")
        assert "A03~B03" in application.screen.heading  # type: ignore[attr-defined]


async def test_markers_tell_new_changed_and_repeated_layers(in_tmp: Path) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=(80, 24)) as pilot:
        await does(pilot, "blend 2-4 B:2-4 method=slerp t=0,1")
        assert "".join(application.session.markers) == "  +++   "
        await does(pilot, "write r.yaml")
        assert "".join(application.session.markers) == " " * 8
        await does(pilot, "param 2-4 t=0,.4,.75")
        assert "".join(application.session.markers) == "   ~~   "
        await does(pilot, "duplicate 7")
        assert "".join(application.session.markers) == "   ~~   +"
        await keys(pilot, "u u")
        assert "".join(application.session.markers) == " " * 8


async def test_a_slice_is_drawn_anew_with_every_operation(in_tmp: Path) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=(80, 24)) as pilot:
        await does(pilot, "blend 0-7 B:0-7 method=slerp t=0.5")
        await keys(pilot, "apostrophe apostrophe escape 4 G c")
        editor = screen(application)

        def values() -> list[float]:
            return [round(float(value), 3) for value in editor.state.line.values]

        await keys(pilot, "k plus")
        assert values() == [0.6, *[0.5] * 7]
        await keys(pilot, "2 l v 2 l minus greater_than_sign escape")
        assert values() == [0.6, 0.5, *[0.46] * 3, *[0.5] * 3]
        await keys(pilot, "m")
        assert isinstance(application.screen, Ask)
        await keys(pilot, "r")
        assert values() == [round(index / 7, 3) for index in range(8)]
        await keys(pilot, "tilde")
        assert values()[0] == 1 and values()[-1] == 0
        await keys(pilot, "asterisk")
        await typed(pilot, ".5")
        assert values()[0] == 0.5
        await keys(pilot, "a")
        await typed(pilot, ".25")
        assert values()[0] == 0.75 and values()[-1] == 0.25
        await keys(pilot, "2 t enter")
        assert values()[0] == 0 and values()[-1] == 0 and values()[1] == pytest.approx(0.339, abs=0.001)
        await keys(pilot, "V r")
        assert values() == [0] * 8
        await keys(pilot, "escape G equals_sign")
        await typed(pilot, "1")
        await keys(pilot, "3 s")
        assert 0 < values()[2] < values()[-1] < 1
        await keys(pilot, "u")
        assert values() == [*[0] * 7, 1]
        await keys(pilot, "ctrl+r u y f")
        await typed(pilot, "mlp")
        assert editor.state.line.filter == "mlp" and len(editor.state.draft.lines) == 3
        await keys(pilot, "V equals_sign")
        await typed(pilot, "0.2")
        await keys(pilot, "p")
        assert values() == [*[0] * 7, 1]
        await keys(pilot, "enter")
        assert application.session.recipe.slices
        assert application.session.recipe.slices[0].parameters["t"] == [
            {"filter": "mlp", "value": [*[0] * 7, 1]}, {"value": [*[0] * 7, 1]},
        ]  # fmt: skip
        assert len(application.session.history.done) == 2, "one edit, whatever was drawn"


async def test_the_gradient_preset_makes_tracks_of_its_own(in_tmp: Path) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "0 G v 7 j b enter m g enter")
        await pilot.pause()
        assert application.session.recipe.slices
        assert application.session.recipe.slices[0].parameters["t"] == [
            {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
            {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
            {"value": 0.5},
        ]
        assert application.session.plan.ok


async def test_tracks_of_donors_words_and_ends(in_tmp: Path) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "0 G v 7 j b j j d")
        assert application.screen.query_one("#prompt").has_class("-open")
        await typed(pilot, "B:0-7 C:0-7")
        assert "B 0-7 ./b  C 0-7 ./c" in line(pilot, "donors")
        await keys(pilot, "enter")
        editor = screen(application)
        tracks = editor.query_one("#tracks", TextPane).text
        assert "weight B" in tracks and "weight C" in tracks and "weight A" not in tracks
        await keys(pilot, "k tab V j escape")
        while editor.state.line.parameter.name != "normalize":
            await keys(pilot, "tab")
        await keys(pilot, "plus")
        assert editor.state.line.values == (False,) * 8
        while not editor.state.line.ends:
            await keys(pilot, "tab")
        assert "from layer 0" in line(pilot, "detail")
        await keys(pilot, "2 l equals_sign")
        await typed(pilot, "0.5")
        assert "from layer" not in line(pilot, "detail")
        await keys(pilot, "enter")
        recipe = application.session.recipe
        assert recipe.slices and recipe.slices[0].parameters["normalize"] is False
        assert recipe.slices[0].sources[2].parameters == {"weight": 0.45}
        assert recipe.lm_head and recipe.lm_head.parameters == {"lambda": 0.5}
        assert recipe.final_norm is None and application.session.plan.ok
        head = application.session.plan.ends["lm_head"].tensors[0].values
        assert {value.value for value in head if value.name == "lambda"} == {0.5}


async def test_leaving_drops_nothing_unasked(in_tmp: Path) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "2 G v j b escape")
        assert application.screen is application.surgery and not application.session.dirty
        await keys(pilot, "b enter k l k v escape")
        assert screen(application).state.mark is None
        await keys(pilot, "escape")
        assert "2 changes would be lost" in line(pilot, "status")
        await keys(pilot, "k escape")
        assert "3 changes" in line(pilot, "status") and application.screen is not application.surgery
        await keys(pilot, "escape")
        assert application.screen is application.surgery and not application.session.dirty
        await keys(pilot, "b enter question_mark")
        assert isinstance(application.screen, Help) and "curves" in application.screen.heading


async def test_what_was_yanked_is_blended(in_tmp: Path) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "apostrophe c 4 G v j y apostrophe apostrophe 1 G v j b enter enter")
        assert cells(application)[1:3] == ["A01~C04", "A02~C05"]
        await keys(pilot, "escape 6 G v j b enter enter")
        assert cells(application)[6:] == ["A06~C04", "A07~C05"]


async def test_methods_that_do_not_fit_say_why(in_tmp: Path) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "2 G v j b")
        names = [method.name for method in application.screen.choice.methods]  # type: ignore[attr-defined]
        await keys(pilot, " ".join(["j"] * names.index("model_stock")) + " enter")
        assert isinstance(application.screen, BlendScreen)
        assert "takes at least 2 donors plus the base" in line(pilot, "status")
        await keys(pilot, "d")
        await typed(pilot, "B:2-3 Z:1-2")
        assert "there is no donor Z" in line(pilot, "status")
        await keys(pilot, "d")
        await typed(pilot, "B:2-3 C:2")
        assert "1 layer of ./c for 2 layers" in line(pilot, "status")
        await keys(pilot, "d")
        await typed(pilot, "B:2-3 C:2-3")
        await keys(pilot, "enter")
        # Nothing of it must be chosen, so it is made at once.
        assert application.screen is application.surgery
        assert cells(application)[2] == "B02~C02" and application.session.plan.layers[2].method == "model_stock"


async def test_another_method_for_a_blend_and_back_to_copies(in_tmp: Path) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=(80, 24)) as pilot:
        await does(pilot, "blend 2-5 B:2-5 method=slerp t=0.25")
        await keys(pilot, "apostrophe apostrophe V b")
        assert "no further donor" in line(pilot, "donors")
        assert application.screen.method.name == "slerp"  # type: ignore[attr-defined]
        await keys(pilot, "j enter enter")
        assert application.session.plan.layers[3].method == "linear" and application.session.plan.ok
        await keys(pilot, "B")
        assert application.surgery.query_one("#line").value == "unblend 2-5 A"
        await keys(pilot, "enter")
        assert cells(application) == [f"A{index:02d}" for index in range(8)]
        assert not application.session.dirty
        for key, text in (("C", "collapse 2-5"), ("t", "edges last 2 ")):
            await keys(pilot, key)
            assert application.surgery.query_one("#line").value == text
            await keys(pilot, "escape")
        await does(pilot, "collapse 2-5")
        assert cells(application)[2] == "A03~A04~A05" and len(cells(application)) == 5


async def test_blends_are_not_lost_by_cutting(in_tmp: Path) -> None:
    application = opened(in_tmp)
    async with application.run_test(size=(80, 24)) as pilot:
        await does(pilot, "blend 2-3 B:2-3 method=slerp t=0.25")
        before = cells(application)
        await keys(pilot, "x")
        assert cells(application) == before and "J and K move it" in line(pilot, "status")
        await keys(pilot, "y")
        assert "first donors" in line(pilot, "status")
        await keys(pilot, "v J")
        assert cells(application)[3:5] != before[3:5] and sorted(cells(application)) == sorted(before)


async def test_hostile_names_and_small_terminals(in_tmp: Path) -> None:
    refs = donors(in_tmp)
    (in_tmp / "b").rename(in_tmp / "e\x1b[31mvil")
    (in_tmp / "r.yaml").write_text(RECIPE)
    application = app([refs[0], "./e\x1b[31mvil"], in_tmp / "r.yaml")
    async with application.run_test(size=(40, 10)) as pilot:
        await keys(pilot, "0 G v 7 j b")
        assert "\x1b" not in line(pilot, "donors") + line(pilot, "base")
        await keys(pilot, "enter l k f")
        await typed(pilot, "x")
        for row in ("header", "detail", "form", "status"):
            assert "\x1b" not in line(pilot, row)
        await keys(pilot, "enter")
        assert application.session.plan.ok


# -- the chart


def test_scale_and_sparks() -> None:
    assert bounds([0.2, 0.4], None, None) == (0, 1)
    assert bounds([-1, 3], None, None) == (-1, 3)
    assert bounds([0.2], 0, 1) == (0, 1)
    assert bounds([0], 0, 0) == (0, 1)
    assert spark([0, 0.5, 1], 0, 1, 10) == "▁▅█"
    assert len(spark([0.5] * 100, 0, 1, 24)) <= 24


async def test_long_slices_scroll_and_every_cell_is_a_layer(in_tmp: Path) -> None:
    donors(in_tmp, "ab", layers=100)
    (in_tmp / "r.yaml").write_text(
        "merge_method: slerp\nbase_model: ./a\nmodels: [{model: ./a}, {model: ./b}]\nparameters: {t: [0, 1]}\n"
    )
    application = app([], in_tmp / "r.yaml")
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "c")
        assert screen(application).state.line.ends == ("embeddings", "final_norm", "lm_head")
        await keys(pilot, "escape j c")
        chart = application.screen.query_one(CurveChart)
        top = chart.render_line(0).text
        assert chart.cell == 1 and chart.left == 0 and "█" not in top
        await keys(pilot, "G")
        assert chart.left + chart.fit >= 100 and "█" in chart.render_line(0).text
        assert "layer 99 = A99~B99" in line(pilot, "detail")
        marks = chart.render_line(chart.size.height - 1).text
        assert marks.count("^") == 1 and marks.rstrip().endswith("^")
        await keys(pilot, "4 2 G")
        assert "layer 42" in line(pilot, "detail")
        await pilot.resize_terminal(200, 60)
        await pilot.pause()
        assert chart.fit >= 100 and chart.left == 0


@pytest.mark.slow
def test_bytes_of_a_step_and_of_doing_nothing(in_tmp: Path) -> None:
    donors(in_tmp, "ab", layers=30)
    (in_tmp / "r.yaml").write_text(
        "merge_method: slerp\nbase_model: ./a\nmodels: [{model: ./a}, {model: ./b}]\n"
        "parameters: {t: [0, 0.5, 0.3, 0.7, 1]}\n"
    )
    with terminal(["--recipe", "r.yaml"], in_tmp) as pty:
        pty.wait_for(b"STACK")
        pty.press("gg")
        pty.press("j")
        pty.press("c")
        moves = [len(pty.press("l")) for _ in range(8)]
        assert 0 < max(moves) <= 400, moves
        assert pty.read(1.0) == b"", "idle must write nothing"
        assert len(pty.press("v")) + len(pty.press("15l")) <= 2_500
        assert len(pty.press("+")) <= 8_000


async def test_a_selection_is_dropped_by_the_move_after_a_change(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await does(pilot, "insert A:0-7")
        await does(pilot, "blend 0-7 B:0-7 method=slerp t=0.5")
        await keys(pilot, "apostrophe apostrophe 0 G V c")
        screen = application.screen
        assert isinstance(screen, CurveScreen)
        await keys(pilot, "v 2 l k k")
        assert screen.state.line.numbers[:4] == pytest.approx((0.6, 0.6, 0.6, 0.5))
        await keys(pilot, "l k")
        assert screen.state.line.numbers[:5] == pytest.approx((0.6, 0.6, 0.6, 0.55, 0.5))
        await keys(pilot, "v l k v l k")
        assert screen.state.line.numbers[3:7] == pytest.approx((0.6, 0.6, 0.55, 0.5))


async def test_a_track_can_be_read_in_full(in_tmp: Path) -> None:
    application = app(donors(in_tmp, "ab", layers=40))
    async with application.run_test(size=(80, 24)) as pilot:
        await does(pilot, "insert A:0-39")
        values = ",".join(f"0.{index * 17 % 40:02d}1" for index in range(40))
        await does(pilot, f"blend 0-39 B:0-39 method=slerp t={values}")
        await keys(pilot, "apostrophe apostrophe 0 G c")
        assert len(line(pilot, "form")) > 80 and any(row.endswith("…") for row in rows(application))
        await keys(pilot, "i")
        assert isinstance(application.screen, TextDialog)
        shown = " ".join(text for text, _ in application.screen.lines)
        assert "written as" in shown and "0.171" in shown and "  39  0.231" in shown
