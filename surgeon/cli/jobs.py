"""`surgeon jobs`: list the jobs that write in the background, running and ended."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import expanded
from ..text import duration, one_line, plural, size
from .common import JsonOption

if TYPE_CHECKING:
    from ..assemble import AssembleOptions
    from ..jobs.job import Job, State
    from ..plan import Plan
    from ..recipe.document import Document


def jobs(
    clean: Annotated[bool, typer.Option("--clean", help="Remove ended jobs from the list; outputs stay.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the jobs that write in the background, running and ended."""
    from ..jobs import job_list

    if clean:
        print(f"{plural(job_list.clean(), 'job')} forgotten")
        return
    found = [(job, job.state()) for job in job_list.every()]
    if as_json:
        print(json.dumps([_values(job, state) for job, state in found], indent=2))
        return
    if not found:
        print("no jobs")
    for job, state in found:
        for line in lines(job, state):
            print(line)


def _values(job: Job, state: State) -> dict[str, Any]:
    from ..jobs import job_list

    left = job_list.unfinished(job) if state.kind != "running" else None
    return {
        "job": job.number,
        "state": state.kind,
        "cancelling": state.cancelling,
        "reason": state.reason,
        "resumable": left is not None,
        "pid": job.pid if state.kind == "running" else None,
        "progress": state.progress,
        **job.about,
    }


def lines(job: Job, state: State) -> list[str]:
    """A job as text: number, state and output, then progress or why it ended."""
    from ..jobs import job_list

    started = job.about["started"]
    # The clock may have been set back since.
    age = time.time() - started if started is not None else -1
    since = f", started {duration(age)} ago" if age >= 0 else ""
    found = [f"{job.number:>4}  {state.word:<9}  {one_line(job.out or '')}{since}"]
    if state.kind == "running":
        found.append(f"{'':17}{progress(state)}")
        return found
    left = job_list.unfinished(job) if state.kind in ("failed", "cancelled", "crashed") else None
    later = job_list.finished_by(job) if state.kind != "done" and left is None else None
    if later is not None:
        # The reason says how to resume the job, which is done by now.
        found.append(f"{'':17}job {later.number} has written the output since")
    elif state.reason:
        found.append(f"{'':17}{one_line(state.reason)}")
    if left is not None:
        done, total = left.tensors
        found.append(f"{'':17}{done:,} of {total:,} tensors are written; --resume continues")
    return found


def progress(state: State) -> str:
    """The progress of a running job as a phrase."""
    event = state.progress
    if not event.get("total"):
        return "starting"
    text = f"{100 * event['bytes'] / event['total']:.0f}% of {size(event['total'])}"
    text += f", {size(event['rate'])}/s" if event.get("rate") else ""
    return f"{text}, {duration(event['eta'])} left" if event.get("eta") else text


def detached(
    document: Document, plan: Plan, out: Path, options: AssembleOptions, *, as_json: bool = False, quiet: bool = False
) -> None:
    """Start a job for a plan that `ready` has accepted, and print its number."""
    from ..jobs import job_list

    final = Path(os.path.realpath(expanded(out)))
    letters = [layer.sources[0][0] for layer in plan.layers]
    about = {"layers": len(letters), "letters": letters, "bytes": plan.estimates.nbytes, "tensors": len(plan.tensors)}
    arguments = [str(final), *options.arguments(), *job_list.rooted(document.roots)]
    job = job_list.start("assemble", arguments, document.text, out=final, recipe=document.path, about=about)
    if as_json:
        print(json.dumps({"job": job.number, "pid": job.pid, "out": str(final), "folder": str(job.folder)}))
    elif not quiet:
        print(f"job {job.number} writes {one_line(final)}: `surgeon attach {job.number}` shows it", file=sys.stdout)
