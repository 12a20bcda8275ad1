"""Helpers for tests of the Try screen: a stack with its model loaded, and requests that are only noted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.pilot import Pilot

from surgeon.tui.app import SurgeonApp
from surgeon.tui.try_model.answers import Answer
from surgeon.tui.try_model.model_process import ModelProcess
from surgeon.tui.try_model.try_screen import TryScreen
from tests.support.tui import app, command, keys


async def until(pilot: Pilot[None], ready: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a child process to get somewhere."""
    for _ in range(int(seconds / 0.05)):
        await pilot.pause()
        if ready():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it never happened")


def screen_of(application: SurgeonApp) -> TryScreen:
    screen = application.screen
    assert isinstance(screen, TryScreen)
    return screen


def loaded(screen: TryScreen) -> bool:
    """Whether the first model is loaded, or could not be."""
    loading = screen.conversation.left.loading
    return loading is not None and loading.ended


def ready(screen: TryScreen) -> bool:
    """Whether the first model is loaded."""
    loading = screen.conversation.left.loading
    return loading is not None and loading.state.startswith("ready after ")


def answer(screen: TryScreen, column: int = 0) -> Answer:
    """The last answer of a column; one that waits before there is one."""
    found = screen.conversation
    if not found.turns or column >= len(found.columns):
        return Answer()
    return found.turns[-1].of(*shown(screen, column))[0] or Answer()


def shown(screen: TryScreen, column: int) -> tuple[str, str]:
    model = screen.conversation.columns[column].model
    return model.spec, model.key


@asynccontextmanager
async def opened(
    refs: list[str], edit: str = "insert A:0-2", size: tuple[int, int] = (120, 40)
) -> AsyncIterator[tuple[SurgeonApp, Pilot[None], TryScreen]]:
    """The Try screen of a stack, with its model loaded."""
    application = app(refs)
    async with application.run_test(size=size) as pilot:
        await command(pilot, edit)
        await keys(pilot, "T")
        screen = screen_of(application)
        await until(pilot, lambda: loaded(screen))
        yield application, pilot, screen


class Requests:
    """Notes what is sent to the process instead of sending it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sent: list[dict[str, Any]] = []
        self.sinks: list[Callable[[dict[str, Any]], None]] = []
        patch.setattr(ModelProcess, "send", self.send)

    async def send(self, request: dict[str, Any], on_event: Callable[[dict[str, Any]], None]) -> int:
        self.sent.append(request)
        self.sinks.append(on_event)
        return len(self.sent)

    @property
    def prompts(self) -> list[str]:
        return [request["prompt"] for request in self.sent if request.get("prompt") is not None]
