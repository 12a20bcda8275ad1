"""Textual's Linux driver, for a terminal that may disappear while it is read."""

from __future__ import annotations

import contextlib

from textual.drivers.linux_driver import LinuxDriver


class TerminalDriver(LinuxDriver):
    """Reads keys until the terminal is gone; `shutdown.ShutdownWatch` then ends the interface."""

    def run_input_thread(self) -> None:
        """Read keys until the interface, or the terminal, ends."""
        with contextlib.suppress(OSError):
            super().run_input_thread()
