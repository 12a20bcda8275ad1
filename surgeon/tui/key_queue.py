"""Keys one by one, each as if the one before had been pressed long ago.

A terminal over SSH delivers keys in bursts. Textual sends each to the widget that has the focus at that moment,
although a key before it, not yet handled, may close that line or window or open another. Here a key waits until the one
before has been handled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from textual import events
from textual.app import App
from textual.message_pump import MessagePump

PATIENCE = 0.5
"""Seconds after which the next key is sent although the one before is not known to be handled."""
ROUNDS = 3
"""A key, what it posted, and what that opened."""


class KeyQueue:
    """Keys and pasted texts in the order in which they came.

    Args:
        app: what they are for.
        send: sends one to the widget that has the focus.
    """

    def __init__(self, app: App[Any], send: Callable[[events.Event], Awaitable[None]]) -> None:
        self._app, self._send = app, send
        self._waiting: deque[events.Event] = deque()
        self._sent = 0
        self._patience: asyncio.TimerHandle | None = None

    async def put(self, event: events.Event) -> None:
        """Send an event when those before it are handled: at once, if they are."""
        self._waiting.append(event)
        if self._patience is None:
            await self._next()

    async def _next(self) -> None:
        if not self._waiting:
            return
        event = self._waiting.popleft()
        self._sent += 1
        later = asyncio.get_running_loop().call_later
        self._patience = later(PATIENCE, self._app.call_later, self._handled, self._sent)
        way = self._way()
        await self._send(event)
        self._follow(self._sent, way, ROUNDS)

    def _way(self) -> list[MessagePump]:
        """What a key passes: the focused widget, and what that is in."""
        return list((self._app.focused or self._app.screen).ancestors_with_self)

    def _follow(self, number: int, way: Sequence[MessagePump], rounds: int) -> None:
        """Queue behind a key at each place that it passes; after the last round it is handled."""
        for place, pump in enumerate(way):
            if pump.call_later(self._follow, number, way[place + 1 :], rounds):
                return
        if rounds > 1:
            self._follow(number, self._way(), rounds - 1)
        else:
            self._app.call_later(self._handled, number)

    async def _handled(self, number: int) -> None:
        if number != self._sent or self._patience is None:
            return
        self._patience.cancel()
        self._patience = None
        await self._next()
