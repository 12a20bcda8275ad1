"""`surgeon cancel [JOB]`: stop a job so that it can be gone on with."""

from __future__ import annotations

from ..errors import InputError, SurgeonError
from .attach import JobArgument

PATIENCE = 30.0
"""Seconds that a job's end is waited for."""


def cancel(job: JobArgument = None) -> None:
    """Stop a job; `surgeon assemble --resume` goes on with it."""
    from ..jobs import board
    from .jobs import lines

    found = board.find(job)
    if not found.running:
        raise InputError(f"job {found.number} is not running", why=f"it is {found.state().kind}")
    found.cancel()
    if not found.wait(PATIENCE):
        raise SurgeonError(
            f"job {found.number} has not stopped within {PATIENCE:.0f} seconds",
            remedy=f"`kill -9 {found.pid}` ends it; what it has written can be gone on with all the same",
        )
    for line in lines(found, found.state()):
        print(line)
