"""`surgeon cancel [JOB]`: stop a job so that it can be gone on with."""

from __future__ import annotations

from ..errors import InputError, SurgeonError
from ..text import one_line
from .attach import JobArgument

PATIENCE = 30.0
"""Seconds that a job's end is waited for."""


def cancel(job: JobArgument = None) -> None:
    """Stop a job; `surgeon assemble --resume` goes on with it."""
    from ..jobs import job_list
    from .jobs import lines

    found = job_list.find(job)
    if not found.running:
        raise InputError(f"job {found.number} is not running", why=f"it is {found.state().kind}")
    if not found.cancel():
        process = found.process
        raise SurgeonError(
            f"job {found.number} was not stopped",
            why="it cannot be seen from here that its process is the one that was started",
            remedy=f"end process {process.pid} on {one_line(process.host)}" if process and process.host else "",
        )
    if not found.wait(PATIENCE):
        raise SurgeonError(
            f"job {found.number} has not stopped within {PATIENCE:.0f} seconds",
            remedy=f"`kill -9 {found.pid}` ends it; what it has written can be gone on with all the same",
        )
    for line in lines(found, found.state()):
        print(line)
