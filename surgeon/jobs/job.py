"""One job: a child process whose events are JSON lines in a folder, readable while it runs and after.

A job's folder holds `recipe.yaml`, `argv.json`, `events.jsonl` (the child's stdout), `log.txt` (its stderr) and
`pid`. Whoever watches reads files only: the child neither knows nor needs its watcher.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from ..process import alive


def state_folder(name: str) -> Path:
    """A folder of surgeon's in the user's state directory (`jobs`, `swap`), made if it is missing."""
    folder = user_state_path("surgeon", appauthor=False) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass
class Job:
    """A started child; `events` grows as `poll` reads what the child has written."""

    folder: Path
    pid: int
    events: list[dict[str, Any]] = field(default_factory=list)
    _offset: int = 0
    _process: subprocess.Popen[bytes] | None = None

    def poll(self) -> list[dict[str, Any]]:
        """Events written since the last call, whole lines only."""
        try:
            with (self.folder / "events.jsonl").open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        end = data.rfind(b"\n") + 1
        self._offset += end
        fresh = []
        for line in data[:end].splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    fresh.append(event)
        self.events += fresh
        return fresh

    @property
    def running(self) -> bool:
        """Whether the child still lives."""
        if self._process is not None:
            return self._process.poll() is None
        return alive(self.pid)

    @property
    def exit_code(self) -> int | None:
        """The child's exit code, when this process started it and it has ended."""
        return self._process.poll() if self._process else None

    def cancel(self) -> None:
        """Ask the child to stop and clean up."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGINT)

    def log(self) -> str:
        """What the child wrote on stderr."""
        try:
            return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""


def start(verb: str, arguments: Sequence[str], recipe_text: str) -> Job:
    """Start `surgeon VERB RECIPE ARGUMENTS...` detached, RECIPE being `recipe_text` in the job's folder.

    Args:
        verb: a command of surgeon that takes a recipe and `--events`.
        arguments: what follows the recipe.
        recipe_text: YAML in which every donor is an absolute path or a Hub id.
    """
    folder = (
        state_folder("jobs") / f"{time.strftime('%Y%m%d-%H%M%S')}-{verb}-{os.getpid()}-{time.monotonic_ns() % 10**6}"
    )
    folder.mkdir(parents=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe_text, encoding="utf-8")
    argv = [sys.executable, "-m", "surgeon", verb, str(recipe), *arguments, "--events"]
    (folder / "argv.json").write_text(json.dumps(argv), encoding="utf-8")
    with (folder / "events.jsonl").open("wb") as out, (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=log, start_new_session=True, cwd=Path.cwd()
        )
    (folder / "pid").write_text(str(process.pid), encoding="utf-8")
    return Job(folder, process.pid, _process=process)
