"""The interface ends when its terminal does, or when it is told to; unsaved work and the terminal come out whole."""

from __future__ import annotations

import json
import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from surgeon.jobs.state_folder import state_folder
from tests.support.tui import donors
from tests.tui.test_budget import Terminal

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ptys and namespaces as on Linux")

AS_FIRST = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
IGNORING = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]


def can_unshare() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run([*AS_FIRST, "true"], capture_output=True).returncode == 0
    )


class Opened:
    """The interface on a pty that no session controls, so that no signal tells of its end."""

    def __init__(self, folder: Path, before: list[str]) -> None:
        master, slave = pty.openpty()
        self.screen, self.master = Terminal(master), master
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "surgeon", "./a", "./b"],
            stdin=slave, stdout=slave, stderr=slave, cwd=folder, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1"},
        )  # fmt: skip
        os.close(slave)
        self.screen.wait_for(b"STACK")

    def edit(self) -> None:
        for char in ":insert A:0-3":
            self.screen.press(char)
        self.screen.press("\r")
        assert list(state_folder("swap").glob("*.json"))

    def close(self) -> None:
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


@pytest.fixture
def opened(in_tmp: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    donors(in_tmp, "ab")
    before = getattr(request, "param", [])
    if before == AS_FIRST and not can_unshare():
        pytest.skip("no namespaces here")
    found = Opened(in_tmp, before)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()
        found.close()


@pytest.mark.parametrize("opened", [[], IGNORING, AS_FIRST], ids=["no control", "nohup", "process 1"], indirect=True)
@pytest.mark.parametrize("where", ["stack", "try"])
def test_a_terminal_that_is_gone_ends_it(opened: Opened, where: str) -> None:
    opened.edit()
    if where == "try":
        opened.screen.press("T")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    opened.close()
    assert opened.process.wait(20) == 128 + signal.SIGHUP
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # All that it took, its start included: a loop would take the whole of the wait.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15
    (file,) = state_folder("swap").glob("*.json")
    assert "layer_range: [0, 4]" in json.loads(file.read_text())["text"]
    assert not list(state_folder("try").glob("*"))


@pytest.mark.parametrize("opened", [[], AS_FIRST], ids=["plain", "process 1"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_before(opened: Opened, number: signal.Signals) -> None:
    opened.edit()
    (file,) = state_folder("swap").glob("*.json")
    pid = opened.process.pid
    if json.loads(file.read_text())["pid"] == 1:
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
    os.kill(pid, number)
    shown = opened.screen.read(1.0)
    assert opened.process.wait(20) == 128 + number
    shown += opened.screen.read()
    for sequence in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l"):
        assert sequence in shown
    assert file.exists()


def test_one_that_waits_for_its_terminal_is_ended_all_the_same(opened: Opened) -> None:
    """Nobody reads what it draws, as when a connection hangs."""
    opened.edit()
    for _ in range(60):
        os.write(opened.master, b"zz\tz\t\x1b[B" * 20)
        time.sleep(0.02)
    opened.process.send_signal(signal.SIGTERM)
    assert opened.process.wait(30) == 128 + signal.SIGTERM
    assert list(state_folder("swap").glob("*.json"))


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_what_is_no_terminal_is_refused(in_tmp: Path, name: str) -> None:
    donors(in_tmp, "a")
    master, slave = pty.openpty()
    streams = {"stdin": slave, "stdout": slave, "stderr": slave, name: subprocess.DEVNULL}
    found = subprocess.run([sys.executable, "-m", "surgeon", "./a"], cwd=in_tmp, timeout=60, **streams)  # type: ignore[call-overload]
    assert found.returncode == 2
    os.close(slave)
    os.close(master)
