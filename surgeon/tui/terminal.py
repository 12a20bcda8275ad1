"""Textual's driver, but for a terminal that goes away while it is read: that is no error of the program."""

from __future__ import annotations

import contextlib

from textual.drivers.linux_driver import LinuxDriver


class Terminal(LinuxDriver):
    """A terminal whose end `ending.Ending` deals with."""

    def run_input_thread(self) -> None:
        """Read keys until the interface, or the terminal, ends."""
        with contextlib.suppress(OSError):
            super().run_input_thread()
