"""Selections of the surgery screen: which stay, and which the next move drops."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tui import app, cells, command, donors, keys, line


def run(letter: str, first: int, last: int) -> list[str]:
    return [f"{letter}{index:02d}" for index in range(first, last + 1)]


MOTIONS = ("k", "j k", "ctrl+u", "g g 3 j", "3 G", "left_curly_bracket 3 j", "slash L 3 enter", "slash A enter N")


@pytest.mark.parametrize("motion", MOTIONS)
async def test_a_motion_drops_the_selection_that_an_edit_left(in_tmp: Path, motion: str) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "apostrophe a V y apostrophe apostrophe p")
        stack = application.surgery.view.stack
        assert stack.selection == (1, 9)
        await keys(pilot, motion)
        assert stack.selection is None and stack.current is not None
        gone = stack.current.label
        await keys(pilot, "d")
        assert cells(application) == [label for label in run("A", 0, 7) if label != gone]


async def test_the_mouse_drops_it_too(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "apostrophe a V y apostrophe apostrophe p")
        stack = application.surgery.view.stack
        await pilot.click(stack, offset=(4, 3))
        await pilot.pause()
        assert stack.selection is None and stack.cursor == 2


async def test_a_motion_at_the_edge_drops_it_too(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await keys(pilot, "apostrophe apostrophe G")
        stack = application.surgery.view.stack
        stack.select(2, len(stack.rows), sticky=False)
        await keys(pilot, "j")
        assert stack.selection is None


async def test_v_starts_afresh_after_an_edit(in_tmp: Path) -> None:
    application = app(donors(in_tmp, layers=12))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "apostrophe a V y apostrophe apostrophe p")
        await keys(pilot, "apostrophe b 2 G 2 y apostrophe apostrophe v k r")
        assert cells(application) == [*run("A", 0, 9), "B02", "B03"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("K", "B02 B03 A00 A01 A02 A03"),
        ("J", "A00 A01 B02 B03 A02 A03"),
        ("D", "A00 B02 B03 B02 B03 A01 A02 A03"),
        ("tilde", "A00 B03 B02 A01 A02 A03"),
        ("d", "A00 A01 A02 A03"),
        ("J J", "A00 A01 A02 B02 B03 A03"),
    ],
)
async def test_an_action_right_after_an_edit_uses_what_it_left(in_tmp: Path, key: str, expected: str) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await keys(pilot, "apostrophe b 2 G 2 y apostrophe apostrophe 0 G p")
        await keys(pilot, key)
        assert cells(application) == expected.split()


@pytest.mark.parametrize(("key", "begins"), [("asterisk", "scale 1-2"), ("C", "collapse 1-2"), ("E", "expand 1-2")])
async def test_a_command_right_after_an_edit_names_what_it_left(in_tmp: Path, key: str, begins: str) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await keys(pilot, "apostrophe b 2 G 2 y apostrophe apostrophe 0 G p")
        await keys(pilot, key)
        assert application.surgery.query_one("#line").value.startswith(begins)


async def test_a_count_after_an_edit_is_counted_from_the_cursor(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "apostrophe a V y apostrophe apostrophe p 1 d")
        assert cells(application) == run("A", 0, 6)


async def test_a_selection_that_was_begun_by_hand_is_extended_by_motions(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-7")
        await keys(pilot, "apostrophe apostrophe 1 G v j j")
        assert "stack 1-3" in line(pilot, "status")
        await keys(pilot, "g g V k")
        assert "stack 0-6" in line(pilot, "status")
