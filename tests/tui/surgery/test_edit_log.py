"""The log of edits, as a script and replayed; marks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from surgeon.recipe import document as documents
from surgeon.tui.dialogs import TextDialog
from surgeon.tui.surgery.edit_log import read_script
from tests.support.tui import app, cells, command, donors, keys, line


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a state folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


EDITS = (
    "insert A:0-4",
    "insert B:3-7",
    "blend 1-2 B:1-2 method=slerp t=0,0.5",
    "duplicate 0-1 x2",
    "end lm_head B",
    "move 0-1 @5",
)


@pytest.mark.asyncio
async def test_the_log_is_a_script_that_gives_the_same_recipe(home: Path) -> None:
    application = app(donors(home, "ab"))
    async with application.run_test(size=(120, 40)) as pilot:
        for text in EDITS:
            application.surgery.commands.run(text)
            await pilot.pause()
        assert len(application.session.history.done) == len(EDITS), line(pilot, "status")
        await command(pilot, "log edits.sh")
        recipe = application.session.recipe
        await command(pilot, "log")
        assert isinstance(application.screen, TextDialog)
        assert sum("--op" in text for text, _ in application.screen.lines) == len(EDITS)
    bin_folder = home / "bin"
    bin_folder.mkdir()
    (bin_folder / "surgeon").write_text(f'#!/bin/sh\nexec {sys.executable} -m surgeon "$@"\n')
    (bin_folder / "surgeon").chmod(0o755)
    done = subprocess.run(["sh", "edits.sh", "made.yaml"], env={"PATH": f"{bin_folder}:/usr/bin:/bin"},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert documents.load(home / "made.yaml").recipe == recipe


@pytest.mark.asyncio
async def test_replay_makes_the_same_edits_on_other_donors(home: Path) -> None:
    first = app(donors(home, "ab"))
    async with first.run_test(size=(80, 24)) as pilot:
        for text in EDITS:
            first.surgery.commands.run(text)
        await command(pilot, "log edits.sh")
        labels = cells(first)
    other = app(donors(home, "cd"))
    async with other.run_test(size=(80, 24)) as pilot:
        await command(pilot, "replay edits.sh")
        assert cells(other) == labels
        assert other.session.recipe.model_refs() == ["./c", "./d"]
        assert "replayed 6 edits" in line(pilot, "status")


@pytest.mark.asyncio
async def test_a_replay_that_fails_changes_nothing(home: Path) -> None:
    (home / "edits.txt").write_text("# mine\ninsert A:0-3\n\ndelete 90-91\n")
    application = app(donors(home, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "replay edits.txt")
        assert "edit 2" in line(pilot, "status")
        assert cells(application) == []
        assert not application.session.history.done
        await command(pilot, "replay nope.txt")
        assert "cannot be read" in line(pilot, "status")


@pytest.mark.parametrize("text", ["", "# only a remark\n", "surgeon edit x --op 'unclosed\n"])
def test_a_file_without_edits_is_refused(home: Path, text: str) -> None:
    from surgeon.errors import InputError

    (home / "f").write_text(text)
    with pytest.raises(InputError):
        read_script(home / "f")


@pytest.mark.asyncio
async def test_the_log_asks_before_it_replaces_a_file(home: Path) -> None:
    (home / "f.sh").write_text("keep")
    application = app(donors(home, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "log f.sh")
        await keys(pilot, "n")
        assert (home / "f.sh").read_text() == "keep"
        await command(pilot, "log f.sh")
        await keys(pilot, "y")
        assert read_script(home / "f.sh") == ["insert A:0-3"]


@pytest.mark.asyncio
async def test_a_mark_follows_its_layer(home: Path) -> None:
    application = app(donors(home, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-7")
        stack = application.surgery.view.stack
        await keys(pilot, "apostrophe apostrophe 5 G M a")
        await command(pilot, "delete 0-2")
        await keys(pilot, "g g grave_accent a")
        assert stack.current is not None
        assert stack.current.label == "A05"
        await command(pilot, "delete 2")
        await keys(pilot, "grave_accent a")
        assert "not in the stack any more" in line(pilot, "status")
        await keys(pilot, "grave_accent q")
        assert "no mark q" in line(pilot, "status")
        await keys(pilot, "apostrophe a 3 G M b apostrophe apostrophe grave_accent b")
        assert application.surgery.view.pane.current.start == 3
        assert application.surgery.view.pane is not stack
