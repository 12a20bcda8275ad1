"""`surgeon attach [JOB]`: show a job's progress while it runs."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SurgeonError
from ..text import duration, one_line, plural, size
from .progress import Event, Show, shown

if TYPE_CHECKING:
    from ..jobs.job import Job

INTERVAL = 0.25

JobArgument = Annotated[
    str | None,
    typer.Argument(help="The job's number or output folder; by default the running job, or the last.", metavar="[JOB]"),
]


def attach(
    job: JobArgument = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the outcome only.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Show a job's progress until it ends; Ctrl-C leaves it running."""
    from ..jobs import job_list

    found = job_list.find(job)
    try:
        if events:
            _follow(found, lambda event: print(json.dumps(event), flush=True))
        else:
            with shown(_layers(found), quiet) as show:
                _follow(found, show)
    except KeyboardInterrupt:
        print(f"job {found.number} is still running; `surgeon cancel {found.number}` stops it", file=sys.stderr)
        return
    _outcome(found, quiet or events)


def _layers(job: Job) -> int:
    layers: int = job.about.get("layers", 0)
    return layers


def _follow(job: Job, show: Show) -> None:
    """Show events until the process has ended. Of several new progress events only the last is shown."""
    while True:
        running = job.running
        for event in _worth_showing(job.poll()):
            show(event)
        if not running:
            return
        time.sleep(INTERVAL)


def _worth_showing(events: list[Event]) -> list[Event]:
    last = max((number for number, event in enumerate(events) if event.get("event") == "progress"), default=-1)
    return [event for number, event in enumerate(events) if event.get("event") != "progress" or number == last]


def _outcome(job: Job, quiet: bool) -> None:
    """Print the outcome in the words of `assemble`.

    Raises:
        SurgeonError: the model was not written.
    """
    state = job.state()
    final = job.events[-1] if job.events else {}
    if state.kind == "done":
        for warning in final.get("warnings", ()):
            print(f"warning: {one_line(warning)}", file=sys.stderr)
        if not quiet:
            print(
                f"{one_line(job.out or '')}: {plural(_layers(job), 'layer')}, {size(final.get('bytes', 0))} in "
                f"{duration(final.get('seconds', 0))}"
            )
        return
    reason = f": {state.reason.rstrip('.')}" if state.reason else ""
    error = SurgeonError(f"job {job.number} {_ENDED[state.kind]}{reason}")
    error.exit_code = 130 if state.kind == "cancelled" else 1
    raise error


_ENDED = {
    "failed": "failed",
    "cancelled": "was stopped",
    "crashed": "crashed",
    "running": "has written its last event, but its process is still running",
}
