"""One job: a process that writes its events as JSON lines to a folder, where they are read during the run and after.

A job's folder is named by its number and contains `recipe.yaml`, `about.json` (command, output and size of the job),
`events.jsonl` (the process's stdout), `log.txt` (its stderr) and `process.json` (identity of the process). Watchers
only read files. The process does not depend on them, and keeps running when terminal and connection are lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ..process import Recorded
from ..statefile import open_regular, read, rest
from . import job_events as events_of
from .job_events import Event

Kind = Literal["running", "done", "failed", "cancelled", "crashed"]

_FINAL: dict[str, Kind] = {"done": "done", "error": "failed", "cancelled": "cancelled"}
_TAIL = 65536
_MOST = 64_000_000
"""Maximum bytes of events read at a time; a day of writing gives a tenth of it."""
_WHY = 300
_CANCEL = "cancel"
"""Name of the empty file that says the job was asked to stop, even if its process ends before it writes that event."""


@dataclass(frozen=True)
class State:
    """The state of a job. `reason` says as a sentence why it failed, was cancelled or crashed."""

    kind: Kind
    reason: str = ""
    progress: Event = field(default_factory=dict)
    cancelling: bool = False

    @property
    def word(self) -> str:
        """The state as one word."""
        return "cancelling" if self.cancelling else self.kind


@dataclass
class Job:
    """A job, started by this process or another one. `poll` reads new events and appends them to `events`."""

    folder: Path
    events: list[Event] = field(default_factory=list)
    _offset: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def number(self) -> int:
        """The number that names the job."""
        return int(self.folder.name)

    @cached_property
    def about(self) -> dict[str, Any]:
        """The contents of about.json: `verb`, `out`, `recipe` (its file, or None), `cwd`, `started`, `arguments`, and
        `layers`, `letters`, `bytes` and `tensors` if they are there. Values of a wrong type are left out."""
        record = read(self.folder / "about.json")
        paths = {name: record.path(name) for name in ("out", "recipe", "cwd")}
        found: dict[str, Any] = {
            "verb": record.text("verb"),
            "out": str(paths["out"]) if paths["out"] and paths["out"].name else None,
            "recipe": str(paths["recipe"]) if paths["recipe"] else None,
            "cwd": str(paths["cwd"]) if paths["cwd"] else None,
            "started": record.number("started"),
            "arguments": list(record.texts("arguments") or ()),
        }
        more = {name: record.count(name) for name in ("layers", "bytes", "tensors")}
        letters = record.texts("letters")
        more_found = {name: value for name, value in more.items() if value is not None}
        return {**found, **more_found, **({} if letters is None else {"letters": list(letters)})}

    @property
    def out(self) -> Path | None:
        """The output folder; None if it is not known."""
        out = self.about["out"]
        return Path(out) if out is not None else None

    @property
    def recipe_name(self) -> str:
        """The name of the recipe's file, as a person knows it; `the recipe` if it was not saved."""
        recipe = self.about["recipe"]
        return Path(recipe).name if recipe else "the recipe"

    def _with_its_name(self, text: str) -> str:
        """A text of the process, with the recipe's name in the place of the copy that the process was given."""
        copy = self.folder / "recipe.yaml"
        for path in dict.fromkeys((str(copy), os.path.realpath(copy))):
            text = text.replace(path, self.recipe_name)
        return text

    def _parsed(self, data: bytes) -> list[Event]:
        """Events of the process; their messages name the recipe."""
        found = events_of.parsed(data)
        for event in found:
            if isinstance(event.get("message"), str):
                event["message"] = self._with_its_name(event["message"])
        return found

    @property
    def process(self) -> Recorded | None:
        """The job's process; None if it was never started or is not known."""
        return Recorded.read(read(self.folder / "process.json"))

    @property
    def pid(self) -> int | None:
        """The id of the job's process. Another process may have it by now."""
        process = self.process
        return process.pid if process else None

    @property
    def running(self) -> bool:
        """Whether the job's process is still alive; another process with the same id does not count."""
        if self._process is not None:
            return self._process.poll() is None
        process = self.process
        lives = process.lives() if process else False
        return self._holds_output() if lives is None else lives

    def _holds_output(self) -> bool:
        """Whether the output is locked. Used if the process is not visible here, as on another machine."""
        from ..assemble.resume.workspace import holder_of

        return self.out is not None and bool(holder_of(self.out))

    def poll(self) -> list[Event]:
        """The events written since the last call; a line that is not complete yet is left for the next."""
        try:
            with self._open("events.jsonl") as file:
                self._offset = max(self._offset, file.seek(0, os.SEEK_END) - _MOST)
                file.seek(self._offset)
                data = rest(file, _MOST)
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        self._offset += end
        fresh = self._parsed(data[:end])
        self.events += fresh
        return fresh

    def state(self) -> State:
        """The current state. Only the end of the events is read."""
        # Look at the process first: if it ends after that, its final event is among the events read.
        running = self.running
        last = self._last_events()
        progress = next((event for event in last if event["event"] == "progress"), {})
        final = next((event for event in last if event["event"] in _FINAL), None)
        if final is not None:
            return State(_FINAL[final["event"]], final.get("message", ""), progress)
        if running:
            return State("running", "", progress, self.cancelled)
        if self.cancelled:
            # It ended before it could write its final event.
            return State("cancelled", "cancelled.", progress)
        return State("crashed", self._why(), progress)

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop, by this process or another."""
        return os.path.lexists(self.folder / _CANCEL)

    def _last_events(self) -> list[Event]:
        """The last events, latest first."""
        try:
            with self._open("events.jsonl") as file:
                start = max(0, file.seek(0, os.SEEK_END) - _TAIL)
                file.seek(start)
                data = file.read(_TAIL)
        except OSError:
            return []
        return self._parsed(data[data.find(b"\n") + 1 if start else 0 :])[::-1]

    def _why(self) -> str:
        """Why a job without a final event ended."""
        process = self.process
        if process is None:
            return "its process was never started"
        code = self._process.poll() if self._process else None
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"its process was ended by {signal.Signals(-code).name}"
        if (logged := [line.strip() for line in self.log().splitlines() if line.strip()]) and code != 0:
            last = next((line for line in logged if line.startswith("Fatal Python error")), logged[-1])
            if not last.startswith(("note:", "warning:")):
                return last[:_WHY]
        if process.ended_with_boot():
            return "the machine was restarted"
        return "its process was killed, by a user or because memory ran out"

    def cancel(self) -> bool:
        """Ask the process to stop so that the job can be resumed; returns whether it was asked.

        Nothing is signalled unless the process is certain to be the job's.
        """
        asked = self._signalled()
        if asked:
            # Without the file, only the reason in `state` is less exact.
            with contextlib.suppress(OSError):
                (self.folder / _CANCEL).touch(0o600)
        return asked

    def _signalled(self) -> bool:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            return True
        process = self.process
        return process is not None and process.signal(signal.SIGTERM)

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds` for the process to end; returns whether it has ended."""
        end = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def log(self) -> str:
        """The last 64 KiB that the process wrote to stderr; the recipe is called by its name."""
        try:
            with self._open("log.txt") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                return self._with_its_name(file.read(_TAIL).decode("utf-8", "replace"))
        except OSError:
            return ""

    def _open(self, name: str) -> BinaryIO:
        return open_regular(self.folder / name)
