"""Saving a recipe: nothing that another program has put into the file is lost, whichever way leads to saving."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.cli import edit
from surgeon.cli.app import run
from surgeon.errors import SurgeonError
from surgeon.recipe import document as documents
from surgeon.recipe.saving import Occupied, Seen
from surgeon.tui.app import SurgeonApp
from surgeon.tui.dialogs import Ask
from tests.support.tui import app, command, donors, keys, line

TEXT = "slices:\n- sources: [{model: ./a, layer_range: [0, 2]}]\n"
THEIRS = "# theirs\n" + TEXT


@pytest.fixture
def recipe(in_tmp: Path) -> Path:
    donors(in_tmp, "a")
    path = in_tmp / "r.yaml"
    path.write_text(TEXT)
    return path


def changed(path: Path) -> Path:
    path.write_text(THEIRS)
    return path


def linked(path: Path) -> Path:
    target = path.with_name("important.yaml")
    target.write_text(THEIRS)
    path.unlink()
    path.symlink_to(target)
    return target


def linked_to_the_same(path: Path) -> Path:
    target = linked(path)
    target.write_text(TEXT)
    return target


def unreadable(path: Path) -> Path:
    path.write_bytes(b"\xff" + THEIRS.encode())
    return path


WAYS = {
    "w": ["w"],
    "command": [":write"],
    "save as": [":write r.yaml"],
    "quit": ["q", "w"],
    "quit command": [":quit", "w"],
}


async def save(pilot, way: str) -> None:
    for step in WAYS[way]:
        await (command(pilot, step[1:]) if step.startswith(":") else keys(pilot, step))


@pytest.mark.parametrize("other", [changed, linked, linked_to_the_same, unreadable])
@pytest.mark.parametrize("way", WAYS)
class TestInTheInterface:
    async def opened(self, pilot, application: SurgeonApp, recipe: Path, other, way: str) -> Path:
        await command(pilot, "delete 0")
        target = other(recipe)
        await save(pilot, way)
        assert isinstance(application.screen, Ask)
        assert "another program" in application.screen.question
        return target

    async def test_it_is_asked_about_and_left(self, recipe: Path, other, way: str) -> None:
        application = app([], recipe)
        async with application.run_test(size=(80, 24)) as pilot:
            target = await self.opened(pilot, application, recipe, other, way)
            before = target.read_bytes()
            await keys(pilot, "n")
            assert target.read_bytes() == before
            assert application.session.dirty and application.is_running
            assert "not saved" in line(pilot, "status")

    async def test_it_is_overwritten_on_purpose(self, recipe: Path, other, way: str) -> None:
        application = app([], recipe)
        async with application.run_test(size=(80, 24)) as pilot:
            target = await self.opened(pilot, application, recipe, other, way)
            await keys(pilot, "y")
            assert "layer_range: [1, 2]" in target.read_text()
            assert not application.session.dirty
        assert application._exit == way.startswith("quit")

    async def test_it_is_saved_elsewhere(self, recipe: Path, other, way: str) -> None:
        application = app([], recipe)
        async with application.run_test(size=(80, 24)) as pilot:
            target = await self.opened(pilot, application, recipe, other, way)
            before = target.read_bytes()
            await keys(pilot, "s")
            assert application.screen is application.surgery
            await keys(pilot, "ctrl+u")
            await pilot.press(*"write", "space", *"mine", "enter")
            await pilot.pause()
            assert target.read_bytes() == before
            assert "layer_range: [1, 2]" in (recipe.parent / "mine.yaml").read_text()


async def test_what_is_as_it_was_is_written_without_a_question(recipe: Path) -> None:
    application = app([], recipe)
    async with application.run_test(size=(80, 24)) as pilot:
        recipe.touch()  # No more than the time is another.
        for step in ("delete 0", "insert A:3"):
            await command(pilot, step)
            await keys(pilot, "w")
            assert application.screen is application.surgery and not application.session.dirty
        recipe.unlink()
        await command(pilot, "insert A:4")
        await keys(pilot, "w")
        assert recipe.exists() and not application.session.dirty


async def test_another_file_is_asked_about(recipe: Path) -> None:
    other = recipe.with_name("other.yaml")
    other.write_text(TEXT)
    application = app([], recipe)
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "delete 0")
        await command(pilot, "write other.yaml")
        assert isinstance(application.screen, Ask) and "it exists" in application.screen.question
        await keys(pilot, "n")
        assert other.read_text() == TEXT
        await command(pilot, "write .")
        assert "is a folder" in line(pilot, "status")


def test_one_that_was_made_meanwhile(in_tmp: Path) -> None:
    path = in_tmp / "new.yaml"
    seen = Seen.at(path)
    path.write_text(THEIRS)
    with pytest.raises(Occupied, match="another program created it"):
        seen.write(path, TEXT)
    assert path.read_text() == THEIRS


def test_line_ends_and_marks_are_no_change(in_tmp: Path) -> None:
    path = in_tmp / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    seen = Seen.of(documents.load(path))
    assert seen.problem(path) == ""
    assert seen.write(path, TEXT).problem(path) == ""


@pytest.mark.parametrize("flags", [(), ("-o", "r.yaml")])
@pytest.mark.parametrize("other", [changed, linked])
def test_edit_does_not_write_over_it(recipe: Path, other, flags, monkeypatch, capsys) -> None:
    real, target = edit._edited, []

    def while_it_edits(*args):
        target.append(other(recipe))
        return real(*args)

    monkeypatch.setattr(edit, "_edited", while_it_edits)
    assert run(["edit", "r.yaml", "--op", "delete 0", *flags]) == 2
    assert "another program" in capsys.readouterr().err
    assert target[0].read_text() == THEIRS


def test_edit_replaces_what_is_named(recipe: Path) -> None:
    other = changed(recipe.with_name("other.yaml"))
    assert run(["edit", "r.yaml", "--op", "delete 0", "-o", "other.yaml"]) == 0
    assert "[1, 2]" in other.read_text()
    assert recipe.read_text() == TEXT
    assert issubclass(Occupied, SurgeonError)
