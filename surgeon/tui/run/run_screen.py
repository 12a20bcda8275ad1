"""The progress of a job: a process of its own writes the model, and this screen shows what it reports."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from ...jobs.job import Job
from ...text import one_line, plural
from .. import theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..cells import shortened, wrapped
from ..navigation import Navigation
from ..widgets.line import Line, Piece
from ..widgets.status_line import StatusLine
from ..widgets.text_pane import TextPane
from .job_progress import JobProgress

INTERVAL = 0.5
"""Seconds between looks at the job; what the screen writes to the terminal stays under 1.5 kB/s."""

_BECAME = {"cancelled": "was cancelled", "crashed": "crashed", "error": "failed", "failed": "failed"}


class RunScreen(ActionScreen):
    """Progress of the job: the stack fills layer by layer."""

    kind: ClassVar[ScreenName] = "run"
    DEFAULT_CSS = """
    RunScreen #header, RunScreen #footer { background: $panel; }
    RunScreen #cells { height: auto; max-height: 12; }
    """

    def __init__(self, job: Job | None, navigation: Navigation) -> None:
        super().__init__()
        self._navigation = navigation
        self.job, self.out = job, job.out if job else None
        self.progress = JobProgress(job)

    def compose(self) -> ComposeResult:
        """Header, cells of the layers, progress, log."""
        yield Line(id="header")
        yield Line(id="bar")
        yield Line(id="numbers")
        yield StatusLine(id="space", down=True)
        yield TextPane(id="body")
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Look at the job now and twice a second."""
        self.query_one("#body", TextPane).focus()
        self.show_footer(self.query_one("#footer", Line))
        self.call_after_refresh(self.look)
        self.timer = self.set_interval(INTERVAL, self.look)

    def look(self) -> None:
        """Read what the job has written since, and show it."""
        if self.job is None or self.progress.finished:
            return
        self.progress.poll(self.job)
        self._draw()
        if self.progress.finished:
            self.timer.stop()

    def _draw(self) -> None:
        progress = self.progress
        state, style = self._state()
        self.query_one("#header", Line).show(
            (" RUN ", theme.TITLE),
            (state, style),
            (f"  {shortened(one_line(self.job.recipe_name), 20)}" if self.job else "", theme.PLAIN),
            (f" -> {shortened(one_line(self.out), max(20, self.size.width - 48))}", theme.DIM),
        )
        width = max(10, self.size.width - 10)
        filled = round(width * progress.done / progress.total) if progress.total else 0
        share = f" {100 * progress.done / progress.total:3.0f}% " if progress.total else "   0% "
        self.query_one("#bar", Line).show(
            (share, theme.BOLD), ("#" * filled, theme.ADDED), ("." * (width - filled), theme.DIM)
        )
        self.query_one("#numbers", Line).show((f" {progress.numbers()}", theme.PLAIN))
        self.query_one("#body", TextPane).show([*self._cells(), [], *self._files(), *self._words()])

    def _state(self) -> Piece:
        progress = self.progress
        if progress.finished is None:
            if self.job is not None and self.job.cancelled:
                return "cancelling", theme.SEVERITY["warning"]
            return "checking that it loads" if progress.checking else "writing", theme.BOLD
        if progress.ended("done"):
            return "done", theme.ADDED
        if progress.ended("cancelled"):
            return "cancelled", theme.SEVERITY["warning"]
        return "crashed" if progress.ended("crashed") else "failed", theme.SEVERITY["error"]

    def _files(self) -> list[list[Piece]]:
        lines: list[list[Piece]] = [[(f" {line}", theme.DIM)] for line in self.progress.file_lines()]
        return [*lines, []] if lines else []

    def _cells(self) -> list[list[Piece]]:
        """The stack, a letter for each written layer and a dot for each that is not."""
        progress = self.progress
        width = max(10, min(64, self.size.width - 8))
        everything = progress.ended("done")
        lines = []
        for start in range(0, len(progress.letters), width):
            row: list[Piece] = [(f" {start:>4} ", theme.DIM)]
            for index in range(start, min(start + width, len(progress.letters))):
                here = everything or index in progress.written
                letter = progress.letters[index]
                row.append((one_line(letter[:1])[:1] or "#", theme.hue(letter.upper())) if here else (".", theme.DIM))
            lines.append(row)
        return lines

    def _words(self) -> list[list[Piece]]:
        job, progress = self.job, self.progress
        width = self.size.width - 4
        lines: list[list[Piece]] = []
        if progress.ended("cancelled"):
            lines += [[(" Cancelled: what is written is kept. R resumes it.", theme.SEVERITY["warning"])]]
        elif progress.finished and not progress.ended("done"):
            message = str(progress.finished.get("message") or "nothing was written")
            lines += [[(f" {part}", theme.SEVERITY["error"])] for part in wrapped(one_line(message), width)]
            lines += [[(" R resumes it, where part of it is written.", theme.DIM)]]
        elif progress.ended("done"):
            done = f" {plural(len(progress.letters), 'layer')} written. T tries the model, esc goes back."
            lines.append([(done, theme.ADDED)])
        if job is not None:
            said = str(progress.finished.get("message") or "\0") if progress.finished else "\0"
            tail = [line for line in job.log().splitlines() if line.strip() and said not in line][-5:]
            lines += [[(f" {row}", theme.DIM)] for line in tail for row in wrapped(one_line(line), width, indent="  ")]
        return lines

    def do_cancel(self, count: int | None) -> None:
        """Ask, then stop the job."""
        job = self.job
        if job is None or self.progress.finished:
            self.say("the job has ended: there is nothing to cancel")
            return
        if job.cancelled:
            self.say("the job was asked to stop and ends after the current chunk")
            return

        def answered(answer: str | None) -> None:
            if answer != "y" or self.progress.finished:
                return
            if job.running and not job.cancel():
                self.say("not stopped: this machine cannot tell whether the process is still that of the job", "error")
            self.look()

        self._navigation.ask("Stop writing? R resumes it later.", [("y", "stop"), ("n", "continue")], answered)

    def do_resume(self, count: int | None) -> None:
        """Resume a job that was cancelled, or that failed."""
        if self.job is None or not self.progress.finished:
            self.say("the job is running: c cancels it")
        elif self.progress.ended("done"):
            self.say("the job is done: T tries the model")
        else:
            self.app.pop_screen()
            self._navigation.resume_job(self.job)

    def do_try_output(self, count: int | None) -> None:
        """Open the Try screen on the model that was written."""
        if self.progress.ended("done") and self.out:
            self.app.pop_screen()
            self._navigation.open_try(self.out)
        elif self.progress.finished:
            self.say(f"there is nothing to try: the job {_BECAME.get(self.progress.finished['event'], 'failed')}")
        else:
            self.say("the model can be tried when it is complete; until then T in the stack tries the recipe")

    def say(self, text: str, severity: str = "warning") -> None:
        """Put a sentence above the log."""
        self.query_one("#space", StatusLine).say(text, severity)
