"""The blend screen: which donors it offers, what is refused before it opens, and the same for the method alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from surgeon.tui.app import SurgeonApp
from surgeon.tui.blend.blend_screen import BlendScreen
from surgeon.tui.curves.curve_screen import CurveScreen
from surgeon.tui.widgets.text_pane import TextPane
from tests.support.sparse import sparse_llama
from tests.support.tui import app, cells, command, donors, keys, line


def wide(folder: Path, name: str) -> str:
    """A donor whose hidden size is another."""
    sparse_llama(folder / name, layers=8, hidden=32, heads=4, kv_heads=2, intermediate=64, vocab=64)
    return f"./{name}"


def offers(pilot: Pilot[None]) -> list[str]:
    return pilot.app.screen.query_one("#offers", TextPane).text.split("\n")


async def at_blend(pilot: Pilot[None], what: str = "0 G v 3 j b") -> None:
    await command(pilot, "insert A:0-7")
    await keys(pilot, f"apostrophe apostrophe {what}")


async def test_donors_are_chosen_from_a_list_with_space(in_tmp: Path) -> None:
    application = app(["./a", wide(in_tmp, "w"), *donors(in_tmp, "abcd")])
    async with application.run_test(size=(80, 24)) as pilot:
        await at_blend(pilot)
        assert isinstance(application.screen, BlendScreen)
        assert [row.split()[:4] for row in offers(pilot)] == [
            ["[x]", "C", "0-3", "b"], ["[", "]", "D", "0-3"], ["[", "]", "E", "0-3"], ["[", "]", "B", "0-3"],
        ]  # fmt: skip
        assert "hidden size of B is 32" in offers(pilot)[3]
        await keys(pilot, "tab j space")
        assert [row[:4] for row in offers(pilot)] == [" [x]", " [x]", " [ ]", " [ ]"]
        assert "C 0-3 ./b  D 0-3 ./c" in line(pilot, "donors")
        await keys(pilot, "k space G j j j space")
        assert [row[:4] for row in offers(pilot)] == [" [ ]", " [x]", " [ ]", " [ ]"]
        assert "B cannot be blended, because the hidden size of B is 32" in line(pilot, "status")
        await keys(pilot, "k space tab j enter")
        assert isinstance(application.screen, CurveScreen)
        await keys(pilot, "enter")
        layer = application.session.plan.layers[0]
        assert (layer.label, layer.method) == ("A00~D00~E00", "linear")
        assert application.session.plan.ok


async def test_the_next_donor_is_one_that_can_be_blended(in_tmp: Path) -> None:
    application = app(["./a", wide(in_tmp, "w"), *donors(in_tmp, "abc")])
    async with application.run_test(size=(80, 24)) as pilot:
        await at_blend(pilot)
        seen = []
        for _ in range(3):
            seen.append(line(pilot, "donors").split()[1])
            await keys(pilot, "right_square_bracket")
        assert seen == ["C", "D", "C"]


@pytest.mark.parametrize(
    ("refs", "select", "why"),
    [
        (["./a"], "0 G v 3 j b", "there is no other donor to blend with layers 0-3. Open one with o"),
        (["./a", "./w"], "3 G b", "no other donor can be blended with layer 3, because the hidden size of B is 32"),
        (["./a", "./short"], "0 G v 3 j b", "no other donor has 4 layers to blend with layers 0-3. Select fewer"),
        (["./a", "./b"], "g g b", "there is no layer here to blend"),
        (["./a", "./b"], "0 G v 3 j m", "there is no blend among layers 0-3. B blends with another donor"),
        (["./a", "./b"], "2 G m", "layer 2 is not a blend"),
        (["./a", "./b"], "g g m", "there is no layer here"),
    ],
)
async def test_what_cannot_be_is_refused_before_any_question(
    in_tmp: Path, refs: list[str], select: str, why: str
) -> None:
    donors(in_tmp, "ab")
    wide(in_tmp, "w")
    sparse_llama(in_tmp / "short", layers=2, hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)
    application = app(refs)
    async with application.run_test(size=(80, 24)) as pilot:
        await at_blend(pilot, select)
        assert application.screen is application.surgery
        assert why.lower() in line(pilot, "status").lower()


async def test_other_layers_of_the_same_donor_are_blended_when_they_are_yanked(in_tmp: Path) -> None:
    application = app(donors(in_tmp, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-7")
        await keys(pilot, "apostrophe a 4 G 2 y apostrophe apostrophe 0 G v j b enter enter")
        assert cells(application)[:2] == ["A00~A04", "A01~A05"]


async def test_typed_layers_are_on_the_list(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await at_blend(pilot)
        await keys(pilot, "d")
        await pilot.press(*"C", "colon", "4", "minus", "7", "enter")
        await pilot.pause()
        assert offers(pilot)[0].split() == ["[x]", "C", "4-7", "c"]
        await keys(pilot, "tab space")
        assert offers(pilot)[0].startswith(" [ ]")


async def blend_of(application: SurgeonApp, pilot: Pilot[None], text: str) -> None:
    await command(pilot, "insert A:0-7")
    application.surgery.commands.run(text)
    await keys(pilot, "apostrophe apostrophe")


async def test_the_method_of_blends_is_chosen_from_the_same_list(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await blend_of(application, pilot, "blend 2-5 B:2-5 method=slerp t=0.25")
        await keys(pilot, "3 G v 2 j m")
        screen = application.screen
        assert isinstance(screen, BlendScreen) and screen.method.name == "slerp"
        assert "METHOD 3-5" in line(pilot, "header")
        assert not screen.query_one("#offers").display and not screen.query_one("#donors").display
        await keys(pilot, "space")
        assert "no donor to choose" in line(pilot, "status")
        await keys(pilot, "d")
        assert "only the method" in line(pilot, "status")
        await keys(pilot, "j enter")
        assert isinstance(application.screen, CurveScreen)
        await keys(pilot, "enter")
        assert "blend 3-5 method=linear" in line(pilot, "status")
        assert [layer.method for layer in application.session.plan.layers][2:6] == ["slerp", *["linear"] * 3]


async def test_a_method_that_needs_a_base_gets_one(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await blend_of(application, pilot, "blend 2-5 B:2-5 method=linear")
        await keys(pilot, "2 G V m")
        screen = application.screen
        assert isinstance(screen, BlendScreen)
        names = [method.name for method in screen.choice.methods]
        await keys(pilot, " ".join(["j"] * (names.index("ties") - names.index("linear"))))
        await keys(pilot, "enter")
        await keys(pilot, "enter")
        layer = application.session.plan.layers[2]
        assert layer.method == "ties" and layer.base is not None and application.session.plan.ok
