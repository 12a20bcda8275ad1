"""Keys that arrive together, as SSH delivers them: each means what it would mean alone."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from surgeon.tui import key_queue
from surgeon.tui.app import SurgeonApp
from surgeon.tui.dialogs import Ask, Help
from surgeon.tui.terminal_driver import KeyParser
from tests.support.tui import app, cells, command, donors, keys
from tests.tui.test_budget import Terminal, stack_of_30, terminal

pty_only = pytest.mark.skipif(sys.platform == "win32", reason="needs a pty")


def parsed(text: str) -> list[str]:
    """The keys that the driver makes of what a terminal sends."""
    parser = KeyParser()
    found = list(parser.feed(text))
    if parser._timeout_time is not None:
        parser._timeout_time = 0.0  # nothing follows
        found += parser.tick()
    return [event.key for event in found if isinstance(event, events.Key)]


@pytest.mark.parametrize(
    ("sent", "wanted"),
    [
        ("\x1bj", "escape j"),
        ("\x1bjk", "escape j k"),
        ("\x1bb", "escape b"),  # elsewhere: a word to the left
        ("\x1bf", "escape f"),
        ("\x1bG", "escape G"),
        ("\x1b:", "escape colon"),
        ("\x1b?", "escape question_mark"),
        ("\x1b\r", "escape enter"),
        ("\x1b\t", "escape tab"),
        ("\x1b\x1bj", "escape escape j"),
        ("\x1b", "escape"),
        ("\x1b[", "escape left_square_bracket"),
        ("\x1bO", "escape O"),
        ("\x1b[1;3B", "alt+down"),
        ("\x1b[1;3A", "alt+up"),
        ("\x1b[B", "down"),
        ("\x1bOP", "f1"),
        ("\x1b[1;2A", "shift+up"),
        ("\x1b[106;3u", "alt+j"),
    ],
)
def test_escape_and_a_key_are_two_keys(sent: str, wanted: str) -> None:
    assert parsed(sent) == wanted.split()


def send(application: SurgeonApp, text: str) -> None:
    """Keys all at once, before any of them is handled."""
    for key in text.split():
        application.post_message(events.Key(key, key if len(key) == 1 else {"space": " ", "minus": "-"}.get(key)))


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        await pilot.pause(0.01)
    await pilot.pause()
    assert true()


async def test_keys_behind_escape_are_not_typed_into_the_line_that_it_closes(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-5")
        await keys(pilot, "apostrophe apostrophe 3 G colon d e l")
        send(application, "escape j d")
        await until(pilot, lambda: len(cells(application)) == 5)
        assert cells(application) == ["A00", "A01", "A02", "A03", "A05"]


async def test_keys_behind_enter_come_after_the_command(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-5")
        await keys(pilot, "apostrophe apostrophe")
        send(application, "5 G colon d e l e t e space 0 enter k d")
        await until(pilot, lambda: len(cells(application)) == 4)
        assert cells(application) == ["A01", "A02", "A03", "A04"]


async def test_a_key_behind_one_that_closes_a_window_is_for_what_is_under_it(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-5")
        await keys(pilot, "apostrophe apostrophe 0 G q")
        assert isinstance(application.screen, Ask)
        send(application, "escape j j d question_mark")
        await until(pilot, lambda: isinstance(application.screen, Help))
        assert cells(application) == ["A00", "A01", "A03", "A04", "A05"]
        send(application, "escape d f escape j d")
        await until(pilot, lambda: len(cells(application)) == 3)
        assert cells(application) == ["A00", "A01", "A04"]


async def test_a_key_whose_end_is_never_known_holds_up_the_next_for_a_moment_only(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_queue, "PATIENCE", 0.05)
    monkeypatch.setattr(key_queue.KeyQueue, "_follow", lambda *arguments: None)
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        pane = application.surgery.view.pane
        send(application, "j j j")
        await until(pilot, lambda: pane.cursor == 3)


def shown(out: bytes) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.decode(errors="replace"))


def at_layer(screen: Terminal, sent: str, layer: int) -> None:
    os.write(screen.master, sent.encode())
    out = shown(screen.read())
    assert f"layer {layer} =" in out, out


@pty_only
def test_escape_and_a_key_in_one_write(in_tmp: Path) -> None:
    with terminal(stack_of_30(in_tmp), in_tmp) as screen:
        screen.wait_for(b"STACK")
        screen.press("5G")
        at_layer(screen, "\x1bj", 6)
        screen.press(":delete 3")
        at_layer(screen, "\x1bj", 7)
        screen.press("/x")
        at_layer(screen, "\x1bk", 6)
        screen.press("?")
        at_layer(screen, "\x1bj", 7)
        screen.press("v3j")
        at_layer(screen, "\x1b8G", 8)
        screen.press("b")
        screen.press("d")  # its line
        os.write(screen.master, b"\x1b\x1bj")
        out = shown(screen.read())
        assert "layer 9 =" in out, out
