"""Textual's Linux driver, for a terminal that may disappear while it is read, and for keys that come in bursts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from textual import events
from textual._xterm_parser import XTermParser
from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver

ESCAPE = "\x1b"
INTRODUCERS = "[O"
"""What begins a sequence for one key, such as an arrow, behind the escape character."""


class KeyParser(XTermParser):
    """Takes the escape character with another behind it as the two keys that were pressed, not as alt with the second.

    Over SSH both arrive together. Keys that terminals send with alt as a sequence (alt and an arrow) are not affected.
    """

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[events.Key]:
        """Keys of a sequence."""
        if len(sequence) == 2 and sequence[0] == ESCAPE and sequence[1] not in INTRODUCERS:
            alt, sequence = True, sequence[1]
        if alt:
            yield events.Key("escape", ESCAPE)
        yield from super()._sequence_to_key_events(sequence)


class TerminalDriver(LinuxDriver):
    """Reads keys until the terminal is gone; `shutdown.ShutdownWatch` then ends the interface."""

    def run_input_thread(self) -> None:
        """Read keys until the interface, or the terminal, ends."""
        # The driver makes its parser in there and offers no other way to give it one.
        linux_driver.XTermParser = KeyParser  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            super().run_input_thread()
