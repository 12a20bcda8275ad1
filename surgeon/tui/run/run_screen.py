"""Writing the model: a detached child does it, this screen reads what it reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult

from ...errors import SurgeonError
from ...files import expanded, is_dir, is_file
from ...jobs import job_list as jobs
from ...jobs.job import Job
from ...text import duration, one_line, plural, size
from .. import theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..widgets.line import Line, Piece
from ..widgets.text_pane import TextPane, wrapped

if TYPE_CHECKING:
    from ..app import SurgeonApp

INTERVAL = 0.5
"""Seconds between looks at the job; what the screen writes to the terminal stays under 1.5 kB/s."""

_MOST_CELLS = 10_000
"""Layers that are drawn, where a job's file says that there are more than any model has."""

_BECAME = {"cancelled": "was cancelled", "crashed": "crashed", "error": "failed", "failed": "failed"}

_CHOICES = 9
"""Jobs that one key chooses from."""


def begin(app: SurgeonApp, name: str) -> None:
    """Start writing the recipe to the folder `name`, asking before anything there is replaced or thrown away."""
    surgery = app.surgery
    if not name:
        surgery.do_run(None)
        return
    if app.running():
        surgery.refuse("a job is running already: R shows it")
        return
    if not app.session.plan.ok:
        surgery.refuse(f"it cannot be written yet: {app.session.plan.errors[0].sentence()} (f lists all)")
        return
    out = Path(os.path.realpath(expanded(name)))
    if (job := _running_on(out)) is not None:
        surgery.say(f"job {job.number} is writing {out} already")
        show(app, job)
    elif is_file(out):
        surgery.refuse(f"{out} is a file: give a folder")
    elif is_dir(out) and any(out.iterdir()):

        def answered(answer: str | None) -> None:
            if answer == "y":
                _ask_and_start(app, out, force=True)

        app.ask(
            f"{out} is not empty. Replace it when the new model is complete?",
            [("y", "replace it"), ("n", "no")],
            answered,
        )
    else:
        _ask_and_start(app, out, force=False)


def _running_on(out: Path) -> Job | None:
    """The job that is writing a folder."""
    return next((job for job in jobs.of_output(jobs.every(), out) if job.running), None)


def _ask_and_start(app: SurgeonApp, out: Path, *, force: bool) -> None:
    """Ask what is to become of what an earlier run has left, if it has left anything, and start."""
    from ...assemble.resume.unfinished import look

    left = look(out)
    if left is None or left.holder:
        _start(app, out, force=force)
        return

    def answered(answer: str | None) -> None:
        if answer in ("g", "a"):
            _start(app, out, force=force, how="resume" if answer == "g" else "restart")

    done, total = left.tensors
    app.ask(
        f"An earlier run has written {done:,} of the {total:,} tensors of {out}.",
        [("g", "go on with it"), ("a", "write it anew"), ("n", "neither")],
        answered,
    )


def _start(app: SurgeonApp, out: Path, *, force: bool, how: str = "") -> None:
    from ...assemble import AssembleOptions, ready

    session = app.session
    options = AssembleOptions(force=force, resume=how == "resume", restart=how == "restart", check=True)
    try:
        text = session.current.text
        ready(session.plan, out, options, recipe=text)
    except SurgeonError as error:
        app.surgery.refuse(error.sentence())
        return
    arguments = [str(out), *options.arguments(), *jobs.rooted(session.document.roots)]
    about = {"layers": len(session.plan.layers), "letters": [layer.sources[0][0] for layer in session.plan.layers]}
    path = session.document.path
    try:
        job = jobs.start("assemble", arguments, text, out=out, recipe=path, about=about)
    except SurgeonError as error:
        app.surgery.say(error.sentence(), "error")
        return
    show(app, job)


def show(app: SurgeonApp, job: Job) -> None:
    """Make a job the one of this session, and show it."""
    app.job, app.job_out = job, job.out
    app.show_run()


def offer(app: SurgeonApp) -> None:
    """Offer what this recipe's jobs are doing, or have left to be gone on with; the last of them."""
    for job in reversed(jobs.of_recipe(app.session.document.path, Path.cwd())):
        state = job.state()
        if state.kind == "running":
            _offer_running(app, job)
            return
        if state.kind != "done" and (left := jobs.unfinished(job)) is not None:
            _offer_unfinished(app, job, left.tensors, state.reason)
            return


def _offer_running(app: SurgeonApp, job: Job) -> None:
    def answered(answer: str | None) -> None:
        if answer == "y":
            show(app, job)
        else:
            app.job, app.job_out = job, job.out

    app.ask(
        f"Job {job.number} is writing {job.out}. Show it?", [("y", "show it"), ("n", "later: R shows it")], answered
    )


def _offer_unfinished(app: SurgeonApp, job: Job, tensors: tuple[int, int], reason: str) -> None:
    done, total = tensors

    def answered(answer: str | None) -> None:
        if answer == "g":
            try:
                show(app, jobs.again(job))
            except SurgeonError as error:
                app.surgery.refuse(error.sentence())

    app.ask(
        f"Job {job.number} stopped when {done:,} of {total:,} tensors of {job.out} were written"
        + (f": {one_line(reason.rstrip('.'))}." if reason else "."),
        [("g", "go on with it"), ("n", "not now")],
        answered,
    )


def choose(app: SurgeonApp) -> None:
    """Choose one of the last jobs to be shown."""
    last = jobs.every()[-_CHOICES:][::-1]
    if not last:
        app.surgery.refuse("there are no jobs yet: R starts one")
        return
    keys = {str(number): job for number, job in enumerate(last, start=1)}

    def answered(answer: str | None) -> None:
        if answer:
            show(app, keys[answer])

    answers = [(key, f"{job.number}: {job.state().word}, {one_line(job.out or '')}") for key, job in keys.items()]
    app.ask("Which job?", answers, answered)


class RunScreen(ActionScreen):
    """Progress of the job: the stack fills layer by layer."""

    kind: ClassVar[ScreenName] = "run"
    DEFAULT_CSS = """
    RunScreen #header, RunScreen #footer { background: $panel; }
    RunScreen #cells { height: auto; max-height: 12; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: set[int] = set()
        self.total = self.shards = 0
        self.checking = False
        self.progress: dict[str, Any] = {}
        self.letters: list[str] = []
        self.finished: dict[str, Any] | None = None

    def compose(self) -> ComposeResult:
        """Header, cells of the layers, progress, log."""
        yield Line(id="header")
        yield Line(id="bar")
        yield Line(id="numbers")
        yield Line(id="space")
        yield TextPane(id="body")
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Look at the job now and twice a second."""
        self.query_one("#body", TextPane).focus()
        self.show_footer(self.query_one("#footer", Line))
        job = self.surgeon.job
        if job is not None:
            for event in job.events:
                self._take(event)
            self.letters = job.about.get("letters") or ["#"] * min(job.about.get("layers", 0), _MOST_CELLS)
        self.call_after_refresh(self.look)
        self.timer = self.set_interval(INTERVAL, self.look)

    def look(self) -> None:
        """Read what the job has written since, and show it."""
        job = self.surgeon.job
        if job is None or self.finished:
            return
        running = job.running
        for event in job.poll():
            self._take(event)
        if not running and not self.finished:
            state = job.state()
            self.finished = {"event": state.kind, "message": state.reason}
        self._draw()
        if self.finished:
            self.timer.stop()

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.get("event")
        if kind == "layer":
            self.written.add(event["index"])
        elif kind == "progress":
            self.progress = event
        elif kind == "check":
            self.checking = True
        elif kind == "start":
            self.total, self.shards = event["bytes"], event["shards"]
        elif kind in {"done", "error", "cancelled"}:
            self.finished = event

    def _draw(self) -> None:
        out = self.surgeon.job_out
        state, style = self._state()
        self.query_one("#header", Line).show((" RUN ", theme.TITLE), (state, style), (f"  {one_line(out)}", theme.DIM))
        done = self.total if self._is("done") else min(self.total, self.progress.get("bytes", 0))
        width = max(10, self.size.width - 10)
        filled = round(width * done / self.total) if self.total else 0
        share = f" {100 * done / self.total:3.0f}% " if self.total else "   0% "
        self.query_one("#bar", Line).show(
            (share, theme.BOLD), ("#" * filled, theme.ADDED), ("." * (width - filled), theme.DIM)
        )
        self.query_one("#numbers", Line).show((f" {self._numbers(done)}", theme.PLAIN))
        self.query_one("#body", TextPane).show([*self._cells(), [], *self._files(), *self._words()])

    def _is(self, kind: str) -> bool:
        return self.finished is not None and self.finished.get("event") == kind

    def _state(self) -> tuple[str, Any]:
        if self.finished is None:
            if self.surgeon.job is not None and self.surgeon.job.cancelled:
                return "cancelling", theme.SEVERITY["warning"]
            return "checking that it loads" if self.checking else "writing", theme.BOLD
        if self._is("done"):
            return "done", theme.ADDED
        if self._is("cancelled"):
            return "cancelled", theme.SEVERITY["warning"]
        return "crashed" if self._is("crashed") else "failed", theme.SEVERITY["error"]

    def _numbers(self, done: int) -> str:
        if self._is("done") and self.finished:
            seconds = self.finished.get("seconds", 0.0)
            # The check is no copying: a rate over both would be of neither.
            rest = ", the load-back check included" if self.checking else f", {size(done / max(seconds, 0.001))}/s"
            return f"{size(done)} in {duration(seconds)}{rest}"
        if not self.total:
            return "starting"
        if self.checking:
            return f"{size(self.total)} written; transformers is asked whether config and tensors fit"
        parts = [f"{size(done)} of {size(self.total)}"]
        if self.progress.get("rate"):
            parts.append(f"{size(self.progress['rate'])}/s")
        if self.progress.get("eta") is not None:
            parts.append(f"{duration(self.progress['eta'])} left")
        if self.progress.get("layer") is not None:
            parts.append(f"now {one_line(self.progress['layer'])}")
        if self.progress.get("memory"):
            parts.append(f"{size(self.progress['memory'])} memory")
        return ", ".join(parts)

    def _files(self) -> list[list[Piece]]:
        """The files that are being written, and how far each is."""
        files = self.progress.get("files")
        if self.finished or self.checking or self.shards < 2 or files is None:
            return []
        done = f" {self.progress.get('files_done', 0)} of {plural(self.shards, 'file')} written"
        lines: list[list[Piece]] = [[(done, theme.DIM)]]
        for name, (written, total) in sorted(files.items()):
            lines.append([(f" {one_line(name)} {100 * written // max(1, total):3}%", theme.DIM)])
        return [*lines, []]

    def _cells(self) -> list[list[Piece]]:
        """The stack, a letter for each written layer and a dot for each that is not."""
        width = max(10, min(64, self.size.width - 8))
        everything = self._is("done")
        lines = []
        for start in range(0, len(self.letters), width):
            row: list[Piece] = [(f" {start:>4} ", theme.DIM)]
            for index in range(start, min(start + width, len(self.letters))):
                here = everything or index in self.written
                letter = self.letters[index]
                row.append((one_line(letter[:1])[:1] or "#", theme.hue(letter)) if here else (".", theme.DIM))
            lines.append(row)
        return lines

    def _words(self) -> list[list[Piece]]:
        job = self.surgeon.job
        width = self.size.width - 4
        lines: list[list[Piece]] = []
        if self.finished and not self._is("done"):
            message = str(self.finished.get("message") or "nothing was written")
            lines += [[(f" {part}", theme.SEVERITY["error"])] for part in wrapped(one_line(message), width)]
        elif self._is("done"):
            lines.append(
                [(f" {plural(len(self.letters), 'layer')} written. T tries the model, esc goes back.", theme.ADDED)]
            )
        if job is not None:
            said = str(self.finished.get("message") or "\0") if self.finished else "\0"
            tail = [line for line in job.log().splitlines() if line.strip() and said not in line][-5:]
            lines += [[(f" {one_line(line)}", theme.DIM)] for line in tail]
        return lines

    def do_cancel(self, count: int | None) -> None:
        """Ask, then stop the job."""
        job = self.surgeon.job
        if job is None or self.finished:
            self.say("it is over: there is nothing to cancel")
            return
        if job.cancelled:
            self.say("it was asked to stop, and stops at its next piece")
            return

        def answered(answer: str | None) -> None:
            if answer != "y" or self.finished:
                return
            if job.running and not job.cancel():
                self.say("it was not stopped: it cannot be seen from here that its process is the one started", "error")
            self.look()

        self.surgeon.ask("Stop writing? R goes on with it later.", [("y", "stop"), ("n", "go on")], answered)

    def do_try_output(self, count: int | None) -> None:
        """Generate from what was written."""
        if self._is("done") and self.surgeon.job_out:
            out = self.surgeon.job_out
            self.app.pop_screen()
            self.surgeon.show_try(out)
        elif self.finished:
            self.say(f"there is nothing to try: it {_BECAME.get(self.finished['event'], 'failed')}")
        else:
            self.say("it can be tried when it is complete; until then T in the stack tries the recipe")

    def say(self, text: str, severity: str = "warning") -> None:
        """A sentence above the log."""
        self.query_one("#space", Line).show((f" {text}", theme.SEVERITY.get(severity, theme.DIM)))
