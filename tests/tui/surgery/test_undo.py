"""Undo and redo show where something changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tui import app, command, donors, keys


@pytest.mark.parametrize(
    ("edit", "undone_at", "redone_at"),
    [
        ("delete 6-7", 6, 6),
        ("delete 28-29", 28, 27),
        ("insert B:3-4 @20", 20, 20),
        ("replace 9-10 B:9-10", 9, 9),
        ("move 20-21 @4", 4, 4),
        ("blend 12-13 B:12-13 method=slerp t=0.5", 12, 12),
        ("scale 17-18 o_proj=0.5", 17, 17),
    ],
)
async def test_the_cursor_goes_to_the_change(in_tmp: Path, edit: str, undone_at: int, redone_at: int) -> None:
    application = app(donors(in_tmp, "ab", layers=30))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-29")
        await command(pilot, edit)
        stack = application.surgery.view.stack
        for elsewhere in ("g g", "G"):
            await keys(pilot, f"apostrophe apostrophe {elsewhere} u")
            assert stack.current is not None and stack.current.start == undone_at
            assert stack.selection is None and stack.top <= stack.cursor < stack.top + stack.page
            await keys(pilot, f"{elsewhere} ctrl+r")
            assert stack.current is not None and stack.current.start == redone_at


async def test_the_cursor_goes_to_an_end_that_changed(in_tmp: Path) -> None:
    application = app(donors(in_tmp, "ab"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-7")
        await command(pilot, "end lm_head B")
        await keys(pilot, "apostrophe apostrophe g g u")
        stack = application.surgery.view.stack
        assert stack.current is not None and stack.current.role == "lm_head"


async def test_more_steps_than_there_are(in_tmp: Path) -> None:
    application = app(donors(in_tmp, "ab"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-7")
        await command(pilot, "delete 3")
        await keys(pilot, "apostrophe apostrophe 9 u")
        assert not application.session.plan.layers
        await keys(pilot, "9 9 9 9 9 9 ctrl+r")
        assert len(application.session.plan.layers) == 7
