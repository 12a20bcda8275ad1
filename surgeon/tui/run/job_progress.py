"""How far a job is, by the events that its process has reported. It has no widget."""

from __future__ import annotations

from typing import Any

from ...jobs.job import Job
from ...text import duration, one_line, plural, size

MAX_CELLS = 10_000
"""Layers that are drawn, where a job's file says that there are more than any model has."""


class JobProgress:
    """The state of a job as its events tell it.

    Attributes:
        letters: the donor of each output layer.
        written: the layers that are complete.
        total: bytes to write.
        resumed: whether the job resumes what an earlier one has written.
        finished: the last event; None while the job runs.
    """

    def __init__(self, job: Job | None = None) -> None:
        self.letters: list[str] = []
        self.written: set[int] = set()
        self.total = self.shards = 0
        self.checking = False
        self.latest: dict[str, Any] = {}
        self.finished: dict[str, Any] | None = None
        self.resumed = job is not None and "--resume" in job.about["arguments"]
        if job is not None:
            for event in job.events:
                self.take(event)
            self.letters = job.about.get("letters") or ["#"] * min(job.about.get("layers", 0), MAX_CELLS)

    def poll(self, job: Job) -> None:
        """Take the events that a job has reported since; notice when it has ended without a last one."""
        running = job.running
        for event in job.poll():
            self.take(event)
        if not running and not self.finished:
            state = job.state()
            self.finished = {"event": state.kind, "message": state.reason}

    def take(self, event: dict[str, Any]) -> None:
        """Take one event."""
        kind = event.get("event")
        if kind == "layer":
            self.written.add(event["index"])
        elif kind == "progress":
            self.latest = event
        elif kind == "check":
            self.checking = True
        elif kind == "start":
            self.total, self.shards = event["bytes"], event["shards"]
        elif kind in {"done", "error", "cancelled"}:
            self.finished = event

    def ended(self, kind: str) -> bool:
        """Whether the job has ended in a given way: `done`, `cancelled`, `crashed`, ..."""
        return self.finished is not None and self.finished.get("event") == kind

    @property
    def done(self) -> int:
        """Bytes that are written."""
        return self.total if self.ended("done") else min(self.total, self.latest.get("bytes", 0))

    def numbers(self) -> str:
        """Bytes, rate, time left, layer and memory in one line."""
        done = self.done
        if self.ended("done") and self.finished:
            seconds = self.finished.get("seconds", 0.0)
            # The check is no copying: a rate over both would be of neither.
            rest = ", including the load-back check" if self.checking else f", {size(done / max(seconds, 0.001))}/s"
            return f"{size(done)} in {duration(seconds)}{rest}"
        if self.resumed and not self.latest.get("bytes"):
            return "comparing what an earlier run has written with its journal"
        if not self.total:
            return "starting"
        if self.checking:
            return f"{size(self.total)} written; the load-back check compares config and tensors"
        parts = [f"{size(done)} of {size(self.total)}"]
        if self.latest.get("rate"):
            parts.append(f"{size(self.latest['rate'])}/s")
        if self.latest.get("eta") is not None:
            parts.append(f"{duration(self.latest['eta'])} left")
        if self.latest.get("layer") is not None:
            parts.append(f"now {one_line(self.latest['layer'])}")
        if self.latest.get("memory"):
            parts.append(f"{size(self.latest['memory'])} memory")
        return ", ".join(parts)

    def file_lines(self) -> list[str]:
        """The files that are being written, and how far each is."""
        files = self.latest.get("files")
        if self.finished or self.checking or self.shards < 2 or files is None:
            return []
        lines = [f"{self.latest.get('files_done', 0)} of {plural(self.shards, 'file')} written"]
        for name, (written, total) in sorted(files.items()):
            lines.append(f"{one_line(name)} {100 * written // max(1, total):3}%")
        return lines
