"""`surgeon cancel [JOB]`: stop a job so that it can be resumed."""

from __future__ import annotations

from ..errors import InputError, SurgeonError
from ..text import one_line
from .attach import JobArgument

PATIENCE = 30.0
"""Seconds to wait for the end of the job."""


def cancel(job: JobArgument = None) -> None:
    """Stop a job; `surgeon assemble --resume` resumes it."""
    from ..jobs import job_list
    from .jobs import lines

    found = job_list.find(job)
    if not found.running:
        raise InputError(f"job {found.number} is not running", why=f"it is {found.state().kind}")
    if not found.cancel():
        process = found.process
        raise SurgeonError(
            f"job {found.number} was not stopped",
            why="this machine cannot tell whether the recorded process is still that of the job",
            remedy=f"end process {process.pid} on {one_line(process.host)}" if process and process.host else "",
        )
    if not found.wait(PATIENCE):
        raise SurgeonError(
            f"job {found.number} has not stopped after {PATIENCE:.0f} seconds",
            remedy=f"end it with `kill -9 {found.pid}`; it can be resumed after that too",
        )
    for line in lines(found, found.state()):
        print(line)
