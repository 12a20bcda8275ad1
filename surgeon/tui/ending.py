"""Ending the interface from outside: a termination, a hang-up, or a terminal that is no longer there.

Unsaved work is in its swap file after every edit, so there is nothing to keep here: children end, and the terminal is
put right where there is one. Where no signal tells of a lost terminal (nohup, process 1 of a container, no controlling
terminal), only looking at it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app import SurgeonApp

PATIENCE = 3.0
"""Seconds that the event loop has to end the interface; it may wait for a terminal that takes nothing any more."""
_RESTORE = "\x1b[?2004l\x1b[?7h\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l"
"""Paste, wrapping, mouse, keyboard, screen and cursor as they were before."""


class Ending:
    """Watches for the end of an application that runs on a terminal."""

    def __init__(self, app: SurgeonApp) -> None:
        self._app = app
        self._loop = asyncio.get_running_loop()
        self._begun = threading.Event()
        self._gone = False
        self._over = threading.Event()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # nohup and background jobs of a shell ignore some of these, and so does this then.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        threading.Thread(target=self._watch, daemon=True, name="surgeon-terminal").start()

    def close(self) -> None:
        """The interface has ended: nothing is left to be done."""
        self._over.set()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=self._end, args=(128 + number,), daemon=True).start()

    def _watch(self) -> None:
        """Wait until the terminal is no longer there; takes no time while it is."""
        if not hasattr(select, "poll"):
            return
        poll = select.poll()
        for stream in (sys.__stdin__, sys.__stderr__):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                if stream.isatty():  # type: ignore[union-attr]
                    poll.register(stream.fileno(), 0)  # type: ignore[union-attr]
        while True:
            found = poll.poll()
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in found):
                self._gone = True
                self._end(128 + signal.SIGHUP)
                return
            if found:  # a system that cannot say
                return

    def _end(self, code: int) -> None:
        """End the interface in its event loop; without that, when it does not get to it."""
        if not self._begun.is_set():
            self._begun.set()
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end_in_loop, code)
        if self._over.wait(PATIENCE):
            return
        self._app.end_children()
        if not self._gone:
            self._restore()
        os._exit(code)

    def _end_in_loop(self, code: int) -> None:
        self._app.end_children()
        if self._gone:
            # There is nobody to be shown anything, and writing might wait for ever.
            os._exit(code)
        self._app.exit(return_code=code)

    def _restore(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            fd = sys.__stderr__.fileno()  # type: ignore[union-attr]
            # A terminal that takes nothing would be waited for for ever.
            if select.select([], [fd], [], 0.5)[1]:
                os.write(fd, _RESTORE.encode())
        before = getattr(self._app.driver, "attrs_before", None)
        if before is not None:
            import termios

            with contextlib.suppress(OSError, ValueError, AttributeError, termios.error):
                termios.tcsetattr(sys.__stdin__.fileno(), termios.TCSANOW, before)  # type: ignore[union-attr]
