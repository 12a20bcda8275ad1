"""The process that holds models: one for all Try screens, ended when it is idle, restarted when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from surgeon.tui.try_model.model_process import ModelProcess
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.trying import Requests, answer, opened, ready, screen_of, until
from tests.support.tui import app, command, donors, keys


class TestOneProcess:
    """The process belongs to the application: it is there again for the next screen, and ends with the interface."""

    async def test_the_second_screen_finds_the_model_loaded(self, chats: list[str]) -> None:
        async with opened(chats) as (application, pilot, screen):
            process = application.try_state.process.process
            assert process is not None
            assert ready(screen)
            await keys(pilot, "escape escape")
            assert application.screen is application.surgery and process.returncode is None
            await keys(pilot, "T")
            again = screen_of(application)
            await until(pilot, lambda: ready(again))
            assert application.try_state.process.process is process
            await keys(pilot, "escape escape")
            await command(pilot, "delete 0")
            await keys(pilot, "T")
            last = screen_of(application)
            await until(pilot, lambda: ready(last))
            assert application.try_state.process.process is process
            (given,) = last.conversation._copies.values()
            assert given.is_file()
        assert not given.exists()
        for _ in range(100):
            if process.returncode is not None:
                break
            await asyncio.sleep(0.1)
        assert process.returncode == -signal.SIGTERM

    async def test_the_time_is_that_since_the_screen_was_opened(self, in_tmp: Path, requests: Requests) -> None:
        application = app(donors(in_tmp, "a"))
        async with application.run_test(size=(80, 24)) as pilot:
            await command(pilot, "insert A:0-2")
            await keys(pilot, "T")
            screen = screen_of(application)
            await until(pilot, lambda: bool(requests.sent))
            loading = screen.conversation.left.loading
            assert loading is not None
            loading.since -= 7
            requests.sinks[0]({"event": "loaded", "seconds": 0.1, "layers": 3, "chat": False})
            requests.sinks[0]({"event": "done", "text": None, "load_seconds": 0.1})
            assert loading.state.startswith("ready after 7.")

    async def test_it_ends_when_it_is_idle_for_long_and_starts_again(self, in_tmp: Path) -> None:
        tiny_tokenizer(tiny_model(in_tmp / "a", layers=1))
        process, found = ModelProcess(idle=0.5), list[dict[str, Any]]()
        request = {"target": str(in_tmp / "a"), "kind": "path", "prompt": "Hi", "n": 2, "device": "cpu"}
        pids = []
        for _ in range(2):
            found.clear()
            await process.send(request, found.append)
            assert process.process is not None
            pids.append(process.process.pid)
            child = process.process
            while not found or found[-1]["event"] != "done":
                await asyncio.sleep(0.05)
            await asyncio.wait_for(child.wait(), 20)
            assert process.process is None and child.returncode == -signal.SIGTERM
        assert pids[0] != pids[1]

    async def test_a_process_that_is_killed_is_reported_and_the_next_prompt_starts_another(
        self, chats: list[str]
    ) -> None:
        async with opened(chats) as (application, pilot, screen):
            process = application.try_state.process.process
            assert process is not None
            await keys(pilot, "escape")
            application.try_state.settings.tokens = 100_000
            await keys(pilot, "i H i enter")
            await until(pilot, lambda: screen.conversation.busy)
            os.kill(process.pid, signal.SIGKILL)
            await until(pilot, lambda: answer(screen).bad)
            assert "the model's process ended" in answer(screen).state
            application.try_state.settings.tokens = 2
            await keys(pilot, "enter")
            await until(pilot, lambda: "2 tokens" in answer(screen).state)

    async def test_leaving_stops_what_was_asked(self, chats: list[str]) -> None:
        async with opened(chats) as (application, pilot, screen):
            application.try_state.settings.tokens = 100_000
            await keys(pilot, "H i enter enter")
            turns = screen.conversation.turns
            await until(pilot, lambda: len(turns) == 2 and any(one.text for one in turns[0].answers.values()))
            numbers = [one.number for turn in turns for one in turn.answers.values()]
            await keys(pilot, "escape escape")
            process = application.try_state.process
            await until(pilot, lambda: not process.is_open(number for number in numbers if number is not None))
            assert process.running

    async def test_it_imports_no_module_of_the_working_folder(self, chats: list[str]) -> None:
        for name in ("torch", "json", "transformers"):
            Path(f"{name}.py").write_text("raise SystemExit('imported')\n")
        async with opened(chats) as (_, _, screen):
            assert ready(screen)


async def test_the_wait_for_a_cancelled_request_is_short(in_tmp: Path) -> None:
    """A forward pass over a long text is left at once."""
    tiny_tokenizer(tiny_model(in_tmp / "a", layers=24, max_position_embeddings=40_000))
    (in_tmp / "long.txt").write_text("some words " * 1700)
    process, found = ModelProcess(), list[dict[str, Any]]()
    request = {"target": str(in_tmp / "a"), "kind": "path", "prompt": None, "device": "cpu"}
    await process.send(request, found.append)
    while not found or found[-1]["event"] != "done":
        await asyncio.sleep(0.02)
    found.clear()
    number = await process.send({**request, "texts": [str(in_tmp / "long.txt")]}, found.append)
    while not any(event["event"] == "loaded" for event in found):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    before = time.monotonic()
    await process.cancel([number])
    while found[-1]["event"] not in {"cancelled", "done"}:
        await asyncio.sleep(0.02)
    took = time.monotonic() - before
    await process.end()
    assert found[-1]["event"] == "cancelled", took
