"""One job: a process of its own whose events are JSON lines in a folder, readable while it runs and after.

A job's folder, named by its number, holds `recipe.yaml`, `about.json` (what it is), `events.jsonl` (the process's
stdout), `log.txt` (its stderr) and `process.json` (which one it is). Whoever watches reads files only: the process
neither knows nor needs its watcher, and goes on when terminal and connection have gone.
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
"""Bytes of events that are read at a time: a day of writing gives a tenth."""
_WHY = 300
_CANCEL = "cancel"
"""An empty file: the job was asked to stop. It says so before its process can, and when that ended before it could."""


@dataclass(frozen=True)
class State:
    """How a job is: `reason` says why it failed, was cancelled or crashed, as a sentence."""

    kind: Kind
    reason: str = ""
    progress: Event = field(default_factory=dict)
    cancelling: bool = False

    @property
    def word(self) -> str:
        """How it is, in a word."""
        return "cancelling" if self.cancelling else self.kind


@dataclass
class Job:
    """A job, started here or by another process; `events` grows as `poll` reads what it has written."""

    folder: Path
    events: list[Event] = field(default_factory=list)
    _offset: int = 0
    _process: subprocess.Popen[bytes] | None = None

    @property
    def number(self) -> int:
        """What it is called by."""
        return int(self.folder.name)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What it is: `verb`, `out`, `recipe` (the file it came from, or null), `cwd`, `started`, `arguments`, and of
        `layers`, `letters`, `bytes` and `tensors` what is known. What is not as surgeon writes it is left out."""
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
        """The folder that it writes."""
        out = self.about["out"]
        return Path(out) if out is not None else None

    @property
    def process(self) -> Recorded | None:
        """Its process; None where that was never started, or is not known."""
        return Recorded.read(read(self.folder / "process.json"))

    @property
    def pid(self) -> int | None:
        """The number of its process, which may be another's by now."""
        process = self.process
        return process.pid if process else None

    @property
    def running(self) -> bool:
        """Whether its process still lives, and not merely another of the same number."""
        if self._process is not None:
            return self._process.poll() is None
        process = self.process
        lives = process.lives() if process else False
        return self._holds_output() if lives is None else lives

    def _holds_output(self) -> bool:
        """Whether its process, which cannot be seen from here, is writing: the output's lock tells."""
        from ..assemble.resume.workspace import holder_of

        return self.out is not None and bool(holder_of(self.out))

    def poll(self) -> list[Event]:
        """Events written since the last call, whole lines only."""
        try:
            with self._open("events.jsonl") as file:
                self._offset = max(self._offset, file.seek(0, os.SEEK_END) - _MOST)
                file.seek(self._offset)
                data = rest(file, _MOST)
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        self._offset += end
        fresh = events_of.parsed(data[:end])
        self.events += fresh
        return fresh

    def state(self) -> State:
        """How it is now. Reads no more than the end of its events."""
        # In this order: what has ended between the two has told of it.
        running = self.running
        told = self._last_events()
        progress = next((event for event in told if event["event"] == "progress"), {})
        final = next((event for event in told if event["event"] in _FINAL), None)
        if final is not None:
            return State(_FINAL[final["event"]], final.get("message", ""), progress)
        if running:
            return State("running", "", progress, self.cancelled)
        if self.cancelled:
            # It had not got as far as to answer.
            return State("cancelled", "cancelled.", progress)
        return State("crashed", self._why(), progress)

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to stop, by this process or another."""
        return os.path.lexists(self.folder / _CANCEL)

    def _last_events(self) -> list[Event]:
        """The last events, the latest first."""
        try:
            with self._open("events.jsonl") as file:
                start = max(0, file.seek(0, os.SEEK_END) - _TAIL)
                file.seek(start)
                data = file.read(_TAIL)
        except OSError:
            return []
        return events_of.parsed(data[data.find(b"\n") + 1 if start else 0 :])[::-1]

    def _why(self) -> str:
        """Why a job ended that has not told of its end."""
        process = self.process
        if process is None:
            return "its process was never started"
        code = self._process.poll() if self._process else None
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"its process was ended by {signal.Signals(-code).name}"
        if (said := [line.strip() for line in self.log().splitlines() if line.strip()]) and code != 0:
            last = next((line for line in said if line.startswith("Fatal Python error")), said[-1])
            if not last.startswith(("note:", "warning:")):
                return last[:_WHY]
        if process.ended_with_boot():
            return "the machine was started anew meanwhile"
        return "its process was killed without a word: by a person, or because memory ran out"

    def cancel(self) -> bool:
        """Ask the process to stop so that it can be resumed; gives whether it was asked. Only that very process is."""
        asked = self._signalled()
        if asked:
            # Without it, only the reason is less true.
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
        """Wait for the process to end, that long at most; gives whether it has."""
        end = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def log(self) -> str:
        """The end of what the process wrote on stderr."""
        try:
            with self._open("log.txt") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                return file.read(_TAIL).decode("utf-8", "replace")
        except OSError:
            return ""

    def _open(self, name: str) -> BinaryIO:
        return open_regular(self.folder / name)
