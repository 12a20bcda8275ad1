"""Jobs of the interface: start one, resume one, offer what earlier ones left, choose which one is shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..errors import SurgeonError
from ..files import expanded, is_dir, is_file
from ..jobs import job_list
from ..jobs.job import Job
from ..text import one_line
from .navigation import Navigation
from .rows.layer_runs import barcode
from .session import Session

MAX_CHOICES = 9
"""Jobs that one key chooses from."""


class JobsController:
    """Starts and resumes jobs, which are processes that outlive the interface.

    Args:
        session: what is written.
        navigation: asks questions and opens the run screen.

    Attributes:
        current: the job that the run screen shows; None before there is one.
    """

    def __init__(self, session: Session, navigation: Navigation) -> None:
        self._session, self._navigation = session, navigation
        self.current: Job | None = None

    @property
    def running(self) -> bool:
        """Whether the current job still runs."""
        return self.current is not None and self.current.running

    def show(self, job: Job) -> None:
        """Make a job the current one and show its progress."""
        self.current = job
        self._navigation.open_run()

    # -- starting

    def start(self, name: str) -> None:
        """Start writing the recipe to the folder `name`; ask before anything there is replaced or deleted."""
        if self.running:
            self._refuse("a job is running already: R shows it")
            return
        plan = self._session.result_plan
        if not plan.ok:
            self._refuse(f"the model cannot be written yet: {plan.errors[0].sentence()} (f lists all)")
            return
        out = Path(os.path.realpath(expanded(name)))
        if (job := _job_that_writes(out)) is not None:
            self._navigation.say(f"job {job.number} is writing {out} already")
            self.show(job)
        elif is_file(out):
            self._refuse(f"{out} is a file: name a folder")
        elif is_dir(out) and any(out.iterdir()):

            def answered(answer: str | None) -> None:
                if answer == "y":
                    self._start_or_resume(out, force=True)

            question = f"{out} is not empty. Replace it when the new model is complete?"
            self._navigation.ask(question, [("y", "replace it"), ("n", "no")], answered)
        else:
            self._start_or_resume(out, force=False)

    def _start_or_resume(self, out: Path, *, force: bool) -> None:
        """Start; where an earlier run left part of the output, ask first whether to resume it."""
        from ..assemble.resume.unfinished import look

        left = look(out)
        if left is None or left.holder:
            self.start_process(out, force=force)
            return

        def answered(answer: str | None) -> None:
            if answer in ("g", "a"):
                self.start_process(out, force=force, how="resume" if answer == "g" else "restart")

        done, total = left.tensors
        question = f"An earlier run has written {done:,} of the {total:,} tensors of {out}."
        answers = [("g", "resume it"), ("a", "write it again from scratch"), ("n", "neither")]
        self._navigation.ask(question, answers, answered)

    def start_process(self, out: Path, *, force: bool, how: str = "") -> None:
        """Check that the recipe can be written to a folder, start the process, and show it.

        Args:
            force: replace a folder that is not empty.
            how: `resume` or `restart` what an earlier run left; empty where it left nothing.
        """
        from ..assemble import AssembleOptions, ready

        session = self._session
        options = AssembleOptions(force=force, resume=how == "resume", restart=how == "restart", check=True)
        try:
            text = session.current.text
            ready(session.result_plan, out, options, recipe=text)
        except SurgeonError as error:
            self._refuse(error.sentence())
            return
        arguments = [str(out), *options.arguments(), *job_list.rooted(session.document.roots)]
        layers = session.result_plan.layers
        # As in the barcode: a small letter for a blend.
        letters = [bar.letter for bar in barcode(session.result_plan, max(1, len(layers)))]
        about = {"layers": len(layers), "letters": letters}
        path = session.document.path
        try:
            job = job_list.start("assemble", arguments, text, out=out, recipe=path, about=about)
        except SurgeonError as error:
            self._navigation.say(error.sentence(), "error")
            return
        self.show(job)

    # -- earlier jobs

    def offer(self) -> None:
        """Offer the last job of this recipe that runs, or that can be resumed."""
        for job in reversed(job_list.of_recipe(self._session.document.path, Path.cwd())):
            state = job.state()
            if state.kind == "running":
                self._offer_running(job)
                return
            if state.kind != "done" and (left := job_list.unfinished(job)) is not None:
                self._offer_unfinished(job, left.tensors, state.reason)
                return

    def _offer_running(self, job: Job) -> None:
        def answered(answer: str | None) -> None:
            if answer == "y":
                self.show(job)
            else:
                self.current = job

        question = f"Job {job.number} is writing {job.out}. Show it?"
        self._navigation.ask(question, [("y", "show it"), ("n", "later: R shows it")], answered)

    def resume(self, job: Job) -> None:
        """Resume a job that was cancelled or has failed, and show it."""
        try:
            self.show(job_list.again(job))
        except SurgeonError as error:
            self._refuse(error.sentence())

    def before_writing(self, then: Callable[[], None]) -> None:
        """Offer to resume the recipe's last job if it is unfinished; else, or if that is not wanted, do `then`."""
        for job in reversed(job_list.of_recipe(self._session.document.path, Path.cwd())):
            state = job.state()
            if state.kind == "done":
                break
            if state.kind != "running" and (left := job_list.unfinished(job)) is not None:
                self._offer_unfinished(job, left.tensors, state.reason, then)
                return
        then()

    def _offer_unfinished(
        self, job: Job, tensors: tuple[int, int], reason: str, otherwise: Callable[[], None] | None = None
    ) -> None:
        done, total = tensors

        def answered(answer: str | None) -> None:
            if answer == "g":
                self.resume(job)
            elif otherwise is not None and answer == "n":
                otherwise()

        question = f"Job {job.number} stopped when {done:,} of {total:,} tensors of {job.out} were written"
        question += f": {one_line(reason.rstrip('.'))}." if reason else "."
        answers = [("g", "resume it"), ("n", "write another output" if otherwise else "not now")]
        self._navigation.ask(question, answers, answered)

    def choose(self) -> None:
        """Let the user choose one of the last jobs, and show it."""
        last = job_list.every()[-MAX_CHOICES:][::-1]
        if not last:
            self._refuse("there are no jobs yet: R starts one")
            return
        keys = {str(number): job for number, job in enumerate(last, start=1)}

        def answered(answer: str | None) -> None:
            if answer:
                self.show(keys[answer])

        answers = [(key, f"{job.number}: {job.state().word}, {one_line(job.out or '')}") for key, job in keys.items()]
        self._navigation.ask("Which job?", answers, answered)

    def _refuse(self, why: str) -> None:
        self._navigation.say(why, "warning")


def _job_that_writes(out: Path) -> Job | None:
    """The running job whose output is a folder; None when there is none."""
    return next((job for job in job_list.of_output(job_list.every(), out) if job.running), None)
