"""What a newcomer sees: an empty stack, the footer, the list of keys, marks."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input

from surgeon.tui.dialogs import Help
from surgeon.tui.widgets.text_pane import TextPane
from tests.support.tui import SIZES, app, command, donors, keys, line


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a state folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.mark.asyncio
async def test_an_empty_stack_is_no_error_and_says_how_to_build(home: Path) -> None:
    application = app(donors(home, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        assert "error" not in line(pilot, "header")
        stack = application.surgery.view.stack
        shown = "\n".join(stack.render_line(y).text for y in range(stack.size.height))
        assert all(f"\n  {key}  " in shown for key in "vyp")
        await keys(pilot, "j v j y p")
        assert stack.hint == []
        assert "2L" in line(pilot, "header")


@pytest.mark.asyncio
async def test_without_a_donor_the_hint_is_to_open_one() -> None:
    application = app([])
    async with application.run_test(size=(80, 24)):
        assert any(text.startswith("o ") for text in application.surgery.view.stack.hint)


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [*SIZES, (20, 5)])
async def test_the_footer_always_has_the_key_that_lists_all(home: Path, size: tuple[int, int]) -> None:
    application = app(donors(home, "a"))
    async with application.run_test(size=size) as pilot:
        text = line(pilot, "footer")
        assert text.endswith(" ? keys")
        assert len(text) <= size[0]
        if size[0] >= 80:
            assert all(f" {key} " in text for key in ("tab", "b", "c", "'"))
        if size[0] >= 120:
            assert all(f" {key} " in text for key in "wRud")


@pytest.mark.asyncio
async def test_the_list_of_keys_is_searched(home: Path) -> None:
    application = app(donors(home, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "question_mark slash u n d o")
        assert isinstance(application.screen, Help)
        pane = application.screen.query_one(TextPane)
        assert "Editing" in pane.text
        assert all("undo" in text.lower() for text in pane.text.splitlines() if text.startswith("  "))
        await keys(pilot, "enter escape")
        assert application.screen.query_one(Input).value == ""
        assert "Moving" in pane.text
        await keys(pilot, "slash x q z")
        assert "No line" in pane.text
        await keys(pilot, "escape escape")
        assert not isinstance(application.screen, Help)


@pytest.mark.asyncio
async def test_a_repeat_is_marked_while_composing(home: Path) -> None:
    application = app(donors(home, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "j v j y p p")
        rows = application.surgery.view.stack.rows[1:5]
        assert [row.marker for row in rows] == ["+"] * 4
        assert [row.repeat for row in rows] == [False, False, True, True]
        stack = application.surgery.view.stack
        assert "+xA00" in "".join(stack.render_line(y).text for y in range(stack.size.height))


@pytest.mark.asyncio
async def test_a_wide_terminal_shows_findings_and_the_yaml_of_the_slice(home: Path) -> None:
    application = app(donors(home, "ab"))
    async with application.run_test(size=(200, 60)) as pilot:
        await command(pilot, "insert A:0-3 B:4-7")
        pane = application.surgery.query_one("#recipe", TextPane)
        await keys(pilot, "apostrophe apostrophe 1 G")
        assert "FINDINGS" in pane.text
        assert "layer_range: [4, 8]" in pane.text
        assert [text for text in pane.text.splitlines() if text.startswith(">")] == [">  - sources:"]
        first = pane.text
        await keys(pilot, "j")
        assert pane.text == first
        await keys(pilot, "5 G")
        assert pane.text != first
        await keys(pilot, "i")
        assert not application.surgery.query_one("#side").display
        await pilot.resize_terminal(120, 40)
        await keys(pilot, "i")
        assert application.surgery.query_one("#side").display
        assert not pane.display
