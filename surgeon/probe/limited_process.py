"""Untrusted programs, such as chat templates and regular expressions, in a process with limits on time and memory."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..address_space import address_space

SECONDS = 5
"""Seconds of CPU time in which a function must end."""
MEMORY = 1_000_000_000
"""Bytes of memory that it may allocate."""
_READ = 1 << 16


def limited(function: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """The JSON table that a function returns in a forked process with limits; None if the process was killed.

    A template may contain `9 ** 9 ** 9`, which no signal interrupts, so only the end of a process stops it.
    """
    if not hasattr(os, "fork"):
        return function()
    source, target = os.pipe()
    with warnings.catch_warnings():
        # The process only works on text: it needs no lock that a thread of this one may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            os.close(source)
            _limit()
            with os.fdopen(target, "wb") as out:
                out.write(json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(target)
    data = bytearray()
    try:
        while piece := os.read(source, _READ):
            data += piece
    finally:
        os.close(source)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        answer = json.loads(data)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _limit() -> None:
    """Limit this process; where the system knows no such limit, leave it as it is."""
    import resource

    # An interrupt of the terminal ends the process silently.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    held = address_space()
    for kind, value in (
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_AS, held + MEMORY if held else resource.RLIM_INFINITY),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(OSError, ValueError):
            hard = resource.getrlimit(kind)[1]
            if value != resource.RLIM_INFINITY:
                resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
