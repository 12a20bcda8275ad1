"""What the interface writes to a real terminal (a pty): over SSH every byte counts."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.tui import donors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pty")


class Terminal:
    """A program on a pty of 80x24; `read` gives what it wrote until it has been silent for a while."""

    def __init__(self, master: int) -> None:
        self.master = master

    def read(self, quiet: float = 0.4, limit: float = 20.0) -> bytes:
        out, end = b"", time.monotonic() + limit
        while time.monotonic() < end and select.select([self.master], [], [], quiet)[0]:
            try:
                out += os.read(self.master, 65536)
            except OSError:
                break
        return out

    def wait_for(self, text: bytes, limit: float = 30.0) -> bytes:
        out, end = b"", time.monotonic() + limit
        while text not in out and time.monotonic() < end:
            out += self.read(0.2, 1.0)
        assert text in out, out[-2000:]
        return out + self.read()

    def press(self, keys: str) -> bytes:
        os.write(self.master, keys.encode())
        return self.read()


@contextmanager
def terminal(arguments: list[str], cwd: Path, **environment: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    wanted = {"TERM": "xterm-256color", "PYTHONUTF8": "1", **environment}
    base = {name: value for name, value in os.environ.items() if name not in {"COLORTERM", "NO_COLOR", "TMUX"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "surgeon", *arguments],
        stdin=slave, stdout=slave, stderr=slave, cwd=cwd, env={**base, **wanted}, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def stack_of_30(folder: Path) -> list[str]:
    refs = donors(folder, "ab", layers=30)
    (folder / "r.yaml").write_text(
        "slices:\n- sources: [{model: ./a, layer_range: [0, 20]}]\n- sources: [{model: ./b, layer_range: [10, 30]}]\n"
    )
    return ["--recipe", "r.yaml", *refs]


def test_bytes_on_the_wire(in_tmp: Path) -> None:
    with terminal(stack_of_30(in_tmp), in_tmp) as screen:
        first = screen.wait_for(b"STACK")
        assert len(first) <= 20_000
        screen.press("gg")
        moves = [len(screen.press("j")) for _ in range(8)]
        assert max(moves) <= 400, moves
        assert screen.read(1.5) == b"", "idle must write nothing"
        steps = [len(screen.press("j")) for _ in range(20)]
        assert sum(steps) / len(steps) <= 900, steps
        screen.press("gg")
        screen.press("j")
        selecting = len(screen.press("v")) + len(screen.press("15j"))
        assert selecting <= 2_500
        screen.press("\x1b")
        # Textual draws the whole screen (9 kB) when the focus moves.
        focus = {key: len(screen.press(key)) for key in ("\t", "\t", "''", ":", "\x1b", "/", "\x1b")}
        assert max(focus.values()) <= 1_000, focus
        assert len(screen.press(":delete 3\r")) <= 6_000


def test_no_colour_means_none(in_tmp: Path) -> None:
    with terminal(stack_of_30(in_tmp), in_tmp, NO_COLOR="1") as screen:
        first = screen.wait_for(b"STACK")
    for sequence in (b"\x1b[38;", b"\x1b[48;", b";38;5;", b";48;5;", b";38;2;", b"\x1b[31m", b"\x1b[36m"):
        assert sequence not in first
    assert b"A00" in first


def test_the_mouse_is_left_alone_over_ssh(in_tmp: Path) -> None:
    arguments = stack_of_30(in_tmp)
    with terminal(arguments, in_tmp, SSH_CONNECTION="1.2.3.4 5 6.7.8.9 22") as screen:
        assert b"\x1b[?1000h" not in screen.wait_for(b"STACK")
    with terminal(arguments, in_tmp) as screen:
        assert b"\x1b[?1000h" in screen.wait_for(b"STACK")


def test_without_a_terminal_there_is_a_sentence(in_tmp: Path) -> None:
    donors(in_tmp, "a")
    done = subprocess.run([sys.executable, "-m", "surgeon", "./a"], capture_output=True, text=True, cwd=in_tmp)
    assert done.returncode == 2 and "needs a terminal" in done.stderr and "Traceback" not in done.stderr
