"""One job: a process of its own whose events are JSON lines in a folder, readable while it runs and after.

A job's folder, named by its number, holds `recipe.yaml`, `about.json` (what it is), `events.jsonl` (the process's
stdout), `log.txt` (its stderr) and `process.json` (which one it is). Whoever watches reads files only: the process
neither knows nor needs its watcher, and goes on when terminal and connection have gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_state_path

from ..process import boot, is_same

Event = dict[str, Any]
Kind = Literal["running", "done", "failed", "cancelled", "crashed"]

_FINAL: dict[str, Kind] = {"done": "done", "error": "failed", "cancelled": "cancelled"}
_TAIL = 65536
_WHY = 300


def state_folder(name: str) -> Path:
    """A folder of surgeon's in the user's state directory (`jobs`, `swap`), made if it is missing."""
    folder = user_state_path("surgeon", appauthor=False) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class State:
    """How a job is: `reason` says why it failed, was cancelled or crashed, as a sentence."""

    kind: Kind
    reason: str = ""
    progress: Event = field(default_factory=dict)


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
        """What it is: `verb`, `out`, `recipe` (the file it came from, or null), `cwd`, `started`, `arguments`."""
        return _read(self.folder / "about.json")

    @property
    def out(self) -> Path | None:
        """The folder that it writes."""
        out = self.about.get("out")
        return Path(out) if isinstance(out, str) else None

    @property
    def pid(self) -> int | None:
        """The number of its process, which may be another's by now."""
        pid = _read(self.folder / "process.json").get("pid")
        return pid if isinstance(pid, int) else None

    @property
    def running(self) -> bool:
        """Whether its process still lives, and not merely another of the same number."""
        if self._process is not None:
            return self._process.poll() is None
        found = _read(self.folder / "process.json")
        pid = found.get("pid")
        return isinstance(pid, int) and is_same(pid, str(found.get("birth", "")))

    def poll(self) -> list[Event]:
        """Events written since the last call, whole lines only."""
        try:
            with (self.folder / "events.jsonl").open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        self._offset += end
        fresh = _events(data[:end])
        self.events += fresh
        return fresh

    def state(self) -> State:
        """How it is now. Reads no more than the end of its events."""
        # In this order: what has ended between the two has told of it.
        running = self.running
        told = self._last_events()
        progress = next((event for event in told if event.get("event") == "progress"), {})
        final = next((event for event in told if event.get("event") in _FINAL), None)
        if final is not None:
            return State(_FINAL[final["event"]], str(final.get("message", "")), progress)
        return State("running", "", progress) if running else State("crashed", self._why(), progress)

    def _last_events(self) -> list[Event]:
        """The last events, the latest first."""
        try:
            with (self.folder / "events.jsonl").open("rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - _TAIL)
                file.seek(start)
                data = file.read()
        except OSError:
            return []
        return _events(data[data.find(b"\n") + 1 if start else 0 :])[::-1]

    def _why(self) -> str:
        """Why a job ended that has not told of its end."""
        process = _read(self.folder / "process.json")
        if not process:
            return "its process was never started"
        code = self._process.poll() if self._process else None
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"its process was ended by {signal.Signals(-code).name}"
        if (said := [line.strip() for line in self.log().splitlines() if line.strip()]) and code != 0:
            last = next((line for line in said if line.startswith("Fatal Python error")), said[-1])
            if not last.startswith(("note:", "warning:")):
                return last[:_WHY]
        then = str(process.get("birth", "")).partition(":")[0]
        if then and boot() and then != boot():
            return "the machine was started anew meanwhile"
        return "its process was killed without a word: by a person, or because memory ran out"

    def cancel(self) -> None:
        """Ask the process to stop so that it can be gone on with; only that very process."""
        pid = self.pid
        if pid is not None and self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

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
            with (self.folder / "log.txt").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""


def _events(data: bytes) -> list[Event]:
    found = []
    for line in data.splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                found.append(event)
    return found


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}
