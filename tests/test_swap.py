"""Unsaved work survives: a swap file after every edit, offered at the next start."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from test_tui_budget import terminal
from tui import app, cells, command, donors, keys, line

from surgeon.jobs.job import state_folder
from surgeon.tui import swap
from surgeon.tui.screens.dialogs import Ask

DEAD = 2**22 - 3
"""A process id that no machine hands out by chance while the test runs."""


def leave_behind(folder: Path, text: str, recipe: Path | None = None, pid: int = DEAD) -> Path:
    file = state_folder("swap") / f"{pid}.json"
    record = {
        "pid": pid, "recipe_path": str(recipe.resolve()) if recipe else None, "folder": str(folder),
        "refs": ["./a", "./b"], "text": text, "written": 1.0,
    }  # fmt: skip
    file.write_text(json.dumps(record))
    return file


TEXT = "merge_method: passthrough\nslices:\n  - sources:\n      - model: ./b\n        layer_range: [1, 3]\n"


async def test_every_edit_is_kept_and_a_clean_end_forgets(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    own = state_folder("swap") / f"{os.getpid()}.json"
    async with application.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert not own.exists()
        await command(pilot, "insert A:0-3")
        assert "layer_range: [0, 4]" in json.loads(own.read_text())["text"]
        await keys(pilot, "u")
        assert not own.exists()
        await command(pilot, "insert A:0-3")
        await command(pilot, "write r.yaml")
        assert not own.exists()
        await keys(pilot, "q")


async def test_recovering(in_tmp: Path) -> None:
    donors(in_tmp)
    file = leave_behind(in_tmp, TEXT)
    application = app([])
    async with application.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert isinstance(application.screen, Ask)
        await keys(pilot, "r")
        assert cells(application) == ["B01", "B02"]
        assert not file.exists() and application.session.dirty
        assert "recovered" in line(pilot, "status")
        await keys(pilot, "u")
        assert cells(application) == []


@pytest.mark.parametrize(("key", "stays"), [("d", False), ("l", True), ("escape", True)])
async def test_not_recovering(in_tmp: Path, key: str, stays: bool) -> None:
    donors(in_tmp)
    file = leave_behind(in_tmp, TEXT)
    application = app(["./a"])
    async with application.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        await keys(pilot, key)
        assert cells(application) == []
        assert file.exists() is stays


async def test_only_the_same_recipe_of_a_dead_session_is_offered(in_tmp: Path) -> None:
    donors(in_tmp)
    other, mine = in_tmp / "other.yaml", in_tmp / "mine.yaml"
    mine.write_text("slices: []\n")
    leave_behind(in_tmp, TEXT, other, DEAD)
    leave_behind(in_tmp, TEXT, mine, os.getpid())
    (state_folder("swap") / "broken.json").write_text("{")
    assert swap.left_behind(mine) is None
    found = swap.left_behind(other)
    assert found is not None and found.refs == ("./a", "./b")


def test_a_lost_connection_leaves_the_work(in_tmp: Path) -> None:
    donors(in_tmp)
    with terminal(["./a", "./b"], in_tmp) as screen:
        screen.wait_for(b"STACK")
        for char in ":insert A:0-3":
            screen.press(char)
        screen.press("\r")
        files = list(state_folder("swap").glob("*.json"))
        assert len(files) == 1
        os.kill(int(files[0].stem), signal.SIGKILL)
    with terminal(["./a", "./b"], in_tmp) as screen:
        screen.wait_for(b"without saving")
        assert b"A03" in screen.press("r")
