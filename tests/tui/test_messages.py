"""Messages: the line that shows them, and the list of the last ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from surgeon.tui.cells import cut, pad, shortened, wrapped
from surgeon.tui.dialogs import TextDialog
from surgeon.tui.widgets.status_line import MAX_ROWS, StatusLine
from tests.support.tui import app, command, donors, keys, line, rows

LONG = "insert: there is no donor Q (known: " + "another donor with a long name, " * 4 + "and no more of them). The end"


def joined(shown: list[str]) -> str:
    return " ".join(" ".join(shown).split())


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12)])
async def test_a_long_message_is_shown_whole_until_the_next_key(in_tmp: Path, size: tuple[int, int]) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=size) as pilot:
        before = rows(application)
        application.say(LONG, "error")
        await pilot.pause()
        assert LONG in joined(rows(application))
        await keys(pilot, "y")
        application.surgery.query_one(StatusLine).show()
        await pilot.pause()
        assert rows(application)[: size[1] - 3] == before[: size[1] - 3]


async def test_a_key_cuts_it_off_where_it_can_be_seen_and_the_list_has_it(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        application.say(LONG, "error")
        await pilot.pause()
        await keys(pilot, "tab")
        assert rows(application)[22].endswith("…") and "The end" not in joined(rows(application))
        application.say("short")
        application.say("short")
        await command(pilot, "messages")
        assert isinstance(application.screen, TextDialog)
        shown = joined(rows(application))
        assert LONG in shown and shown.index("short") < shown.index("insert: there is no donor Q")


async def test_what_keys_and_commands_say_is_kept(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-7")
        await keys(pilot, "u u b")
        await command(pilot, "insret A:0")
        said = [text.split(":")[0] for _, text, _ in application.messages]
        assert said == [
            "there is no command 'insret'", "blend works on the stack", "nothing to undo",
            "undone insert A", "insert A",
        ]  # fmt: skip


async def test_the_list_ends_with_the_hundredth(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        for number in range(120):
            application.say(f"message {number}")
        await pilot.pause()
        assert [text for _, text, _ in application.messages] == [f"message {n}" for n in range(119, 19, -1)]
        await keys(pilot, "v")
        await pilot.press("5")
        assert application.messages[0][1] == "message 119", "counts and selections are no messages"


async def test_what_is_longer_than_any_screen_says_where_the_rest_is(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        application.say("word " * 400)
        await pilot.pause()
        shown = rows(application)
        assert shown[22].rstrip().endswith("… :messages")
        assert sum("word word" in row for row in shown) == MAX_ROWS


async def test_messages_of_every_screen_are_kept_and_wrapped(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-7")
        await keys(pilot, "apostrophe apostrophe 0 G v 3 j b")
        application.screen.query_one(StatusLine).say(LONG)
        await pilot.pause()
        assert LONG in joined(rows(application))
        await keys(pilot, "escape R escape R")
        application.open_run()
        await pilot.pause()
        application.screen.query_one(StatusLine).say(f"run: {LONG}")
        await pilot.pause()
        assert f"run: {LONG}" in joined(rows(application))
        assert [text for _, text, _ in application.messages][:1] == [f"run: {LONG}"]
        assert LONG in [text for _, text, _ in application.messages]


async def test_a_line_that_is_cut_off_says_so(in_tmp: Path) -> None:
    application = app(donors(in_tmp, "abcdefgh"))
    async with application.run_test(size=(24, 12)) as pilot:
        await command(pilot, "insert A:0-3")
        assert len(line(pilot, "header")) > 24
        assert rows(application)[0].endswith("…")


def test_texts_are_measured_in_cells() -> None:
    assert [pad("模型", 6), pad("ab", 4), pad("abc", 2)] == ["模型  ", "ab  ", "abc"]
    assert [cut("模型一号", 5), cut("abc", 3), cut("abcd", 3)] == ["模型…", "abc", "ab…"]
    assert shortened("SmolLM2-135M-Instruct-code", 13) == "SmolLM…t-code"
    assert cell_len(shortened("模型模型模型模型", 9)) <= 9
    assert shortened("abcdefgh", 4) == "abc…"
    assert wrapped("模型 " * 10, 20) == ["模型 模型 模型 模型", "模型 模型 模型 模型", "模型 模型"]
    assert wrapped("a" * 45, 20) == ["a" * 20, "a" * 20, "a" * 5]
    assert wrapped("模" * 25, 21) == ["模" * 10, "模" * 10, "模" * 5]
    assert wrapped("  name  x y", 30) == ["  name  x y"]
    assert wrapped("one two three four five six", 20, indent="  ") == ["one two three four", "  five six"]
    assert wrapped("", 20) == [""]
