"""Standard streams that are closed, full or gone: the work that was asked for is done all the same.

What cannot be printed on stderr is left out. What cannot be printed on stdout is a failure, said in a sentence, but for
a reader that has gone (head, less): what it wanted it has.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO

from ..errors import SurgeonError


class Watched:
    """A stream that remembers in `lost` how it failed last.

    Args:
        lenient: its failures stop nothing.
    """

    def __init__(self, stream: TextIO, *, lenient: bool) -> None:
        self._stream, self._lenient = stream, lenient
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.lost = error
        if not self._lenient:
            raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def prepare() -> None:
    """Make the standard streams ones that can be used.

    A stream that is closed leaves its number to the next file that is opened: what is then printed, by whatever
    library, would go into a model's weights.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Writing there fails, as it would have.
            os.open(os.devnull, os.O_RDONLY if number != 2 else os.O_WRONLY)
            os.set_inheritable(number, True)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
    if not isinstance(sys.stdout, Watched):
        sys.stdout = Watched(sys.stdout, lenient=False)
    if not isinstance(sys.stderr, Watched):
        sys.stderr = Watched(sys.stderr, lenient=True)


def finish(raised: OSError | None = None) -> SurgeonError | None:
    """Print what is left; gives why stdout could not be printed on, None where it could or its reader has gone.

    Args:
        raised: what the command was ended by; raised again unless stdout failed so.
    """
    error: OSError | ValueError | None = raised
    if raised is not None and raised is not lost(sys.stdout) and not isinstance(raised, BrokenPipeError):
        raise raised
    sys.stderr.flush()
    if error is None:
        try:
            sys.stdout.flush()
        except (OSError, ValueError) as failed:
            error = failed
    if error is None:
        return None
    _drop()
    if isinstance(error, BrokenPipeError):
        return None
    return SurgeonError("the output could not be printed", why=getattr(error, "strerror", None) or str(error))


def lost(stream: object) -> OSError | None:
    """How a stream failed last, if it is known."""
    found = getattr(stream, "lost", None)
    return found if isinstance(found, OSError) else None


def _drop() -> None:
    """Let what is left for stdout go nowhere, so that Python does not complain about it at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        sys.stdout.flush()
