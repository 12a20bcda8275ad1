"""Unsaved work survives: a swap file after every edit, offered at the next start."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from surgeon import process
from surgeon.jobs.state_folder import state_folder
from surgeon.tui import swap
from surgeon.tui.dialogs import Ask
from tests.support.tui import app, cells, command, donors, keys, line
from tests.tui.test_budget import terminal

DEAD = 2**22 - 3
"""A process id that no machine hands out by chance while the test runs."""


def leave_behind(place: Path, work: str, recipe: Path | None = None, pid: int = DEAD, **more: object) -> Path:
    file = state_folder("swap") / f"{pid}-{len(list(state_folder('swap').iterdir()))}.json"
    who = {"pid": pid, "birth": process.birth(pid) if type(pid) is int else "", "host": socket.gethostname()}
    record = {
        **who, "recipe_path": str(recipe.resolve()) if recipe else None, "folder": str(place),
        "refs": ["./a", "./b"], "text": work, "written": 1.0,
        **more,
    }  # fmt: skip
    file.write_text(json.dumps(record))
    return file


TEXT = "merge_method: passthrough\nslices:\n  - sources:\n      - model: ./b\n        layer_range: [1, 3]\n"


async def test_every_edit_is_kept_and_a_clean_end_forgets(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    own = swap.own()
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


@pytest.mark.slow
def test_a_lost_connection_leaves_the_work(in_tmp: Path) -> None:
    donors(in_tmp)
    with terminal(["./a", "./b"], in_tmp) as screen:
        screen.wait_for(b"STACK")
        for char in ":insert A:0-3":
            screen.press(char)
        screen.press("\r")
        (file,) = state_folder("swap").glob("*.json")
        os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)
    with terminal(["./a", "./b"], in_tmp) as screen:
        screen.wait_for(b"without saving")
        assert b"A03" in screen.press("r")


class TestWhoseItIs:
    """Ids of processes repeat: after a reboot, in containers, on hosts that share a home."""

    def test_a_process_of_that_number_is_not_the_session(self, in_tmp: Path) -> None:
        file = leave_behind(in_tmp, TEXT, pid=os.getpid(), birth=f"{process.boot()}:1")
        found = swap.left_behind(None)
        assert found is not None and (found.file, found.host) == (file, "")

    def test_after_a_reboot(self, in_tmp: Path) -> None:
        leave_behind(in_tmp, TEXT, pid=os.getpid(), birth="another boot:1")
        assert swap.left_behind(None) is not None

    def test_the_work_of_a_session_of_this_number_stays(self, in_tmp: Path) -> None:
        file = leave_behind(in_tmp, TEXT, pid=os.getpid(), birth="another boot:1")
        assert swap.write("slices: []\n", [], None) == ""
        assert json.loads(file.read_text())["text"] == TEXT
        assert len(list(state_folder("swap").iterdir())) == 2
        swap.clear()
        assert file.exists()

    def test_a_session_that_lives_keeps_its_work(self, in_tmp: Path) -> None:
        leave_behind(in_tmp, TEXT, pid=os.getppid())
        assert swap.left_behind(None) is None

    @pytest.mark.parametrize("more", [{"host": "elsewhere"}, {"space": "1"}])
    async def test_one_that_cannot_be_seen_is_copied_and_not_taken(self, in_tmp: Path, more: dict[str, str]) -> None:
        donors(in_tmp)
        file = leave_behind(in_tmp, TEXT, pid=os.getppid(), **more)  # type: ignore[arg-type]
        before = file.read_bytes()
        application = app([])
        async with application.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert isinstance(application.screen, Ask)
            assert "may still be open" in application.screen.question
            await keys(pilot, "r")
            assert cells(application) == ["B01", "B02"]
            assert file.read_bytes() == before
            await keys(pilot, "u")

    async def test_the_old_copy_goes_when_there_is_a_new_one(self, in_tmp: Path, monkeypatch) -> None:
        donors(in_tmp)
        file = leave_behind(in_tmp, TEXT)
        monkeypatch.setattr(swap, "write", lambda *_: "the disk is full.")
        application = app([])
        async with application.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            await keys(pilot, "r")
            assert cells(application) == ["B01", "B02"]
            assert file.exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"pid": -1}, {"pid": True}, {"pid": 2**70}, {"pid": "7"}, {"text": 3}, {"text": "\ud800"}, {"refs": "ab"},
        {"refs": [1]}, {"recipe_path": 3}, {"recipe_path": "a\0b"}
    ],
)  # fmt: skip
def test_what_is_no_swap_file_does_not_hide_one(in_tmp: Path, changed: dict[str, object]) -> None:
    changed = dict(changed)
    pid: Any = changed.pop("pid", DEAD)
    leave_behind(in_tmp, "slices: []\n", pid=pid, **{"written": 9.0, **changed})  # type: ignore[arg-type]
    os.mkfifo(state_folder("swap") / "pipe.json")
    (state_folder("swap") / "deep.json").write_text("[" * 100_000)
    (state_folder("swap") / "latin.json").write_bytes(b"\xff{}")
    file = leave_behind(in_tmp, TEXT)
    found = swap.left_behind(None)
    assert found is not None and found.file == file


async def test_what_a_swap_file_says_does_not_drive_the_terminal(in_tmp: Path) -> None:
    donors(in_tmp)
    mine = in_tmp / "r\x1b[2J.yaml"
    mine.write_text("slices: []\n")
    leave_behind(in_tmp, TEXT, mine, host="\x1b[31mred")
    application = app([], mine)
    async with application.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert isinstance(application.screen, Ask)
        assert "\x1b" not in application.screen.question and "\\x1b[31mred" in application.screen.question
