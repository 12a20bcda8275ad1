"""The process that holds models for the Try screen: requests go in as JSON lines, events come out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from ...jobs.job_list import child_environment

LINE_LIMIT = 16_000_000
IDLE = 600.0
"""Seconds without a request after which the process ends, because its models take memory."""

_PATIENCE = 3.0

Sink = Callable[[dict[str, Any]], None]


class _Open(NamedTuple):
    """An unanswered request: who gets its events, and the process that it was sent to."""

    sink: Sink
    process: asyncio.subprocess.Process


class ModelProcess:
    """Starts the process at the first request, and keeps it for the next screen until it is idle for long.

    Args:
        idle: seconds without a request after which the process ends; the next request starts another.
    """

    def __init__(self, idle: float = IDLE) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.errors: deque[str] = deque(maxlen=20)
        self._idle = idle
        self._next_id = 1
        self._open: dict[int, _Open] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._starting = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.returncode is None

    def is_open(self, numbers: Iterable[int]) -> bool:
        """Whether one of these requests is unanswered."""
        return any(number in self._open for number in numbers)

    async def send(self, request: dict[str, Any], on_event: Sink) -> int:
        """Send a request; `on_event` gets its events in the event loop. Returns its number."""
        async with self._starting:
            if self.process is None or self.process.returncode is not None:
                self.process = await self._start()
        number, self._next_id = self._next_id, self._next_id + 1
        self._open[number] = _Open(on_event, self.process)
        self._rest()
        await self._write({"id": number, **request})
        return number

    async def cancel(self, numbers: Iterable[int]) -> None:
        """Stop those of the requests that are unanswered."""
        for number in sorted(set(numbers) & self._open.keys(), reverse=True):
            # The current one last: until it is stopped, none of the others begins.
            await self._write({"cancel": number})

    async def forget(self, numbers: Iterable[int]) -> None:
        """Stop these requests; nobody wants their events any more."""
        await self.cancel(numbers)
        for number in numbers:
            if number in self._open:
                self._open[number] = self._open[number]._replace(sink=_nowhere)

    async def _write(self, line: dict[str, Any]) -> None:
        if self.process is None or self.process.stdin is None:
            return
        with contextlib.suppress(ConnectionError, RuntimeError):  # It has ended, and `_read` says so.
            self.process.stdin.write((json.dumps(line) + "\n").encode())
            await self.process.stdin.drain()

    async def _start(self) -> asyncio.subprocess.Process:
        self.errors.clear()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "surgeon.evaluate.scoring_child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LINE_LIMIT,
            # A folder without files of the user, which Python could import as modules.
            cwd=Path(sys.executable).anchor,
            env=child_environment(),
        )
        self._tasks = [asyncio.create_task(self._read(process)), asyncio.create_task(self._read_errors(process))]
        return process

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self._take(line)
        except ValueError:  # A line is longer than any event, so the rest cannot be read.
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        code = await process.wait()
        reason = self.errors[-1] if self.errors else f"exit code {code}"
        for number in sorted(number for number, entry in self._open.items() if entry.process is process):
            event = {"id": number, "event": "error", "message": f"the model's process ended: {reason}"}
            self._open.pop(number).sink(event)

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:
            return
        found = self._open.get(event.get("id"))
        if event.get("event") in {"done", "error", "cancelled"}:
            self._open.pop(event.get("id"), None)
            self._rest()
        if found is not None:
            found.sink(event)

    async def _read_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        with contextlib.suppress(ValueError):
            while line := await process.stderr.readline():
                if text := line.decode(errors="replace").strip():
                    self.errors.append(text)

    def _rest(self) -> None:
        """Wait again for the whole idle time before the process is ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._idle, self._end_if_idle)

    def _end_if_idle(self) -> None:
        if self._open:
            self._rest()
        else:
            self._ending = asyncio.create_task(self.end())

    async def end(self) -> None:
        """End the process, and wait for its end as long as it takes a process to die."""
        process, tasks = self.process, self._tasks
        self._tasks = []
        self.close()
        if process is not None and tasks:
            # They end with the pipes, which are closed before the event loop is.
            await asyncio.wait([*tasks, asyncio.create_task(process.wait())], timeout=_PATIENCE)
        for task in tasks:
            task.cancel()

    def close(self) -> None:
        """End the process; models are loaded again when they are needed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.process is not None and self.process.returncode is None:
            # RuntimeError: the loop is closed, or blocked and this is another thread.
            with contextlib.suppress(ProcessLookupError, RuntimeError):
                self.process.terminate()
                if self.process.stdin is not None:
                    self.process.stdin.close()
        for task in self._tasks:
            task.cancel()
        self._tasks, self.process = [], None
        self._open.clear()


def _nowhere(event: dict[str, Any]) -> None:
    """The sink of events that nobody wants."""
