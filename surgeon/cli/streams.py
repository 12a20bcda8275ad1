"""Standard streams that are closed, full or broken do not stop a command.

Text that stderr does not take is dropped. Text that stdout does not take is an error, except when the reader has closed
the pipe (head, less).
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO

from ..errors import SurgeonError


class Watched:
    """A stream that keeps its last error in `lost`.

    Args:
        lenient: errors are not raised.
    """

    def __init__(self, stream: TextIO, *, lenient: bool) -> None:
        self._stream, self._lenient = stream, lenient
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        """Write; an error is kept in `lost`, and raised unless lenient."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        """Flush; an error is kept in `lost`, and raised unless lenient."""
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
    """Replace closed standard streams by the null device, and watch stdout and stderr for errors.

    The descriptor of a closed stream would go to the next file that is opened, and text that a library prints would
    end up in a model's weights.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Opened for reading only: writing to it fails, as it does on a closed stream.
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
    """Flush stdout and stderr. Return the error to show if stdout failed; None if it did not or its reader is gone.

    Args:
        raised: the exception that ended the command; raised again unless it is stdout's.
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
    """The last error of a watched stream; None if there was none."""
    found = getattr(stream, "lost", None)
    return found if isinstance(found, OSError) else None


def _drop() -> None:
    """Discard the text that stdout still buffers, so that Python does not report an error at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        sys.stdout.flush()
