"""The process that holds models for the Try screen: requests go in as JSON lines, events come out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

LINE_LIMIT = 16_000_000


class ModelProcess:
    """Starts the process at the first request and keeps it; `on_event` gets its events, in the event loop."""

    def __init__(self, on_event: Callable[[dict[str, Any]], None]) -> None:
        self.on_event = on_event
        self.process: asyncio.subprocess.Process | None = None
        self.next_id = 1
        self.open: set[int] = set()
        self.errors: deque[str] = deque(maxlen=20)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def busy(self) -> bool:
        """Whether a request is unanswered."""
        return bool(self.open)

    async def send(self, request: dict[str, Any]) -> int:
        """Send a request; returns the id that its events have."""
        if self.process is None or self.process.returncode is not None:
            await self._start()
        assert self.process is not None and self.process.stdin is not None
        number, self.next_id = self.next_id, self.next_id + 1
        self.open.add(number)
        self.process.stdin.write((json.dumps({"id": number, **request}) + "\n").encode())
        with contextlib.suppress(ConnectionError):
            await self.process.stdin.drain()
        return number

    async def _start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "surgeon.probe.resident_child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LINE_LIMIT,
        )
        self._tasks = [
            asyncio.create_task(self._read(self.process)),
            asyncio.create_task(self._read_errors(self.process)),
        ]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event.get("event") in {"done", "error", "cancelled"}:
                    self.open.discard(event.get("id"))
                self.on_event(event)
        code = await process.wait()
        for number in sorted(self.open):
            reason = self.errors[-1] if self.errors else f"exit code {code}"
            self.on_event({"id": number, "event": "error", "message": f"the model's process ended: {reason}"})
        self.open.clear()

    async def _read_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            if text := line.decode(errors="replace").strip():
                self.errors.append(text)

    def interrupt(self) -> None:
        """Stop the request that is being worked on."""
        if self.process is not None and self.process.returncode is None and self.open:
            self.process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """End the process."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
        for task in self._tasks:
            task.cancel()
