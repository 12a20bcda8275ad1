"""Shuts the interface down when a signal or the loss of its terminal ends it from outside.

Unsaved work is in its swap file after every edit, so nothing has to be saved here: child processes are ended, and the
terminal is restored if it is still there. Not every loss of a terminal sends a signal (nohup, process 1 of a container,
no controlling terminal), so the terminal is watched as well.
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
from typing import Protocol

from textual.driver import Driver

PATIENCE = 3.0
"""Seconds that the event loop has to end the interface; it may be blocked by a terminal that reads nothing."""
_RESTORE = "\x1b[?2004l\x1b[?7h\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l"
"""Paste, wrapping, mouse, keyboard, screen and cursor as they were before."""


class Application(Protocol):
    """What has to be shut down."""

    @property
    def driver(self) -> Driver | None:
        """What draws on the terminal."""

    def end_children(self) -> None:
        """End the processes that work for the interface."""

    def end(self, code: int) -> None:
        """Leave the interface with an exit code."""


class ShutdownWatch:
    """Watches for signals and the loss of the terminal, and shuts the application down."""

    def __init__(self, app: Application) -> None:
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
        """Stop: the interface has ended by itself."""
        self._over.set()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=self._end, args=(128 + number,), daemon=True).start()

    def _watch(self) -> None:
        """Block until the terminal is gone, then shut down."""
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
        """End the interface in its event loop, or without it when the loop is blocked."""
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
        self._app.end(code)

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
