"""What the status line says about keys: which can follow, and that one means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.tui.actions import keymap
from surgeon.tui.curves.curve_screen import CurveScreen
from surgeon.tui.surgery.surgery_screen import SurgeryScreen
from tests.support.tui import app, command, donors, keys, line


async def test_keys_that_can_follow_are_shown(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-7")
        await keys(pilot, "apostrophe")
        assert line(pilot, "status") == " ':  A a  B b  C c  ' stack"
        await keys(pilot, "apostrophe g")
        assert line(pilot, "status") == " g:  g  first line"
        await keys(pilot, "escape 3")
        assert line(pilot, "status").startswith(" 3:  j k lines  G to that layer")
        await keys(pilot, "2")
        assert line(pilot, "status").startswith(" 32:  ")
        await keys(pilot, "escape")
        assert line(pilot, "status") == ""
        await keys(pilot, "0 G 0 G")
        assert line(pilot, "status") == "", "not even where the key changes nothing"


@pytest.mark.parametrize("screen", [SurgeryScreen, CurveScreen])
def test_the_hint_for_counts_names_keys_that_there_are(screen: type[SurgeryScreen | CurveScreen]) -> None:
    named = [word for word in screen.counted_keys.split() if len(word) == 1]
    assert len(named) > 6
    names = {".": "full_stop"}
    assert {names.get(key, key) for key in named} <= set(keymap(screen.kind))


@pytest.mark.parametrize(("key", "shown"), [("X", "X"), ("percent_sign", "%"), ("f5", "f5"), ("g x", "g x")])
async def test_a_key_that_means_nothing_says_so_until_the_next(in_tmp: Path, key: str, shown: str) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-7")
        await keys(pilot, f"apostrophe apostrophe 2 G {key}")
        assert line(pilot, "status") == f" there is no key {shown} here: ? lists the keys"
        assert "no key" not in str(application.messages)
        await keys(pilot, "2 G")
        assert line(pilot, "status") == ""
        await keys(pilot, "left_shift ctrl+c")
        assert "there is no key" not in line(pilot, "status")
        await keys(pilot, "V b X")
        assert "there is no key X here" in line(pilot, "status")
        await keys(pilot, "enter X")
        assert isinstance(application.screen, CurveScreen)
        await keys(pilot, "Z")
        assert "there is no key Z here" in line(pilot, "status")


async def test_what_a_search_found_stays_on_the_screen(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "interleave A B")
        await keys(pilot, "apostrophe apostrophe g g slash B 0 enter")
        await pilot.pause()
        assert "/B0  1 of 4" in line(pilot, "status")
        await keys(pilot, "n")
        assert "/B0  2 of 4" in line(pilot, "status")
        assert "layer 3 = B03" in line(pilot, "detail")
