"""`surgeon doctor`: what it says of terminals, tmux, SSH and machines of every kind, without asking the terminal."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from surgeon.cli.doctor import machine_checks as doctor_machine
from surgeon.cli.doctor import terminal_checks as doctor_terminal
from surgeon.cli.doctor.check import Check, ask
from surgeon.cli.doctor.doctor import lines
from surgeon.cli.doctor.machine_checks import Devices, machine_checks, memory
from surgeon.cli.doctor.terminal_checks import TerminalFacts, terminal_checks
from surgeon.cli.table import Style

GOOD = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "en_US.UTF-8"}
QUICK = "print('[4, [[\"GPU\", 80000000000]]]')"


def terminal(
    env: Mapping[str, str] = GOOD,
    *,
    attached: bool = True,
    size: tuple[int, int] | None = (120, 40),
    encoding: str = "utf-8",
    answers: Mapping[str, str] | None = None,
) -> dict[str, Check]:
    """The checks of such a terminal by name; `answers` are what tmux prints, by the last word of the command."""

    def answer(command: Sequence[str]) -> str | None:
        return (answers or {}).get(command[-1])

    checks = terminal_checks(TerminalFacts(env, attached, size if attached else None, encoding, answer))
    return {check.name: check for check in checks}


def test_a_good_terminal_has_nothing_to_change() -> None:
    checks = terminal()
    assert {check.status for check in checks.values()} == {"ok"}
    assert set(checks) == {"terminal", "colours", "encoding", "size", "mouse"}
    assert checks["colours"].found.startswith("16 million") and checks["size"].found == "120x40"


@pytest.mark.parametrize(
    ("env", "colours"),
    [
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, 2**24),
        ({"TERM": "xterm", "COLORTERM": "24bit"}, 2**24),
        ({"TERM": "xterm-direct"}, 2**24),
        ({"TERM": "tmux-256color"}, 256),
        ({"TERM": "screen"}, 16),
        ({"TERM": "xterm", "TEXTUAL_COLOR_SYSTEM": "256"}, 256),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, 0),
        ({}, 0),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, 0),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, 256),
    ],
)
def test_the_colours_that_will_be_used(env: dict[str, str], colours: int) -> None:
    assert TerminalFacts(env, True, (80, 24), "utf-8").colours == colours


@pytest.mark.parametrize(
    ("env", "name", "status", "text"),
    [
        ({"TERM": "dumb"}, "terminal", "FAIL", "export TERM=xterm-256color"),
        ({}, "terminal", "FAIL", "TERM=not set"),
        ({**GOOD, "NO_COLOR": "1"}, "colours", "ok", "NO_COLOR is set"),
        ({"TERM": "vt100"}, "colours", "warn", "export TERM=xterm-256color"),
        ({"TERM": "xterm-256color"}, "colours", "ok", "export COLORTERM=truecolor"),
        ({**GOOD, "LANG": "C"}, "encoding", "warn", "export LANG=C.UTF-8"),
        ({**GOOD, "LC_ALL": "de_DE.ISO-8859-1"}, "encoding", "warn", "locale de_DE.ISO-8859-1"),
        ({"TERM": "xterm", "SSH_CONNECTION": "1 2 3 4"}, "ssh", "warn", "SendEnv=COLORTERM"),
        ({**GOOD, "SSH_TTY": "/dev/pts/0"}, "ssh", "ok", "over SSH"),
        ({**GOOD, "SSH_CONNECTION": "1 2 3 4"}, "mouse", "ok", "over SSH"),
        ({**GOOD, "STY": "1.pts"}, "screen", "warn", "use tmux"),
        ({**GOOD, "TMUX": "/tmp/x"}, "tmux", "warn", "tmux does not answer"),
    ],
)
def test_each_trouble_has_a_remedy(env: dict[str, str], name: str, status: str, text: str) -> None:
    check = terminal(env)[name]
    assert check.status == status
    assert text in f"{check.found} {check.change}"


@pytest.mark.parametrize(("size", "status"), [((80, 24), "ok"), ((79, 24), "FAIL"), ((80, 23), "FAIL")])
def test_the_least_size(size: tuple[int, int], status: str) -> None:
    assert terminal(size=size)["size"].status == status


def test_an_ascii_stream_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal(encoding="ansi_x3.4-1968")["encoding"].status == "warn"


def test_a_pipe_is_not_a_failure() -> None:
    checks = terminal({}, attached=False)
    assert not any(check.status == "FAIL" for check in checks.values())
    assert "pipe" in checks["terminal"].found and "no terminal" in checks["size"].found


TMUX = {**GOOD, "TMUX": "/tmp/tmux-0/default,1,0"}
ANSWERS = {"-V": "tmux 3.4", "set-clipboard": "on", "escape-time": "20", "#{client_termfeatures}": "256,RGB,title"}


def test_a_good_tmux() -> None:
    checks = terminal(TMUX, answers=ANSWERS)
    assert {check.status for check in checks.values()} == {"ok"}
    assert checks["tmux"].found == "tmux 3.4"


@pytest.mark.parametrize(
    ("answer", "name", "change"),
    [
        ({"set-clipboard": "external"}, "tmux clipboard", "tmux set -s set-clipboard on"),
        ({"set-clipboard": "off"}, "tmux clipboard", "tmux set -s set-clipboard on"),
        ({"escape-time": "500"}, "tmux escape-time", "tmux set -s escape-time 20"),
        ({"escape-time": "odd"}, "tmux escape-time", "tmux set -s escape-time 20"),
        ({"#{client_termfeatures}": "256,title"}, "tmux colours", "terminal-features ',*:RGB'"),
        ({"-V": "tmux 3.1c"}, "tmux", "install tmux 3.2"),
    ],
)
def test_a_tmux_that_loses_something(answer: dict[str, str], name: str, change: str) -> None:
    check = terminal(TMUX, answers={**ANSWERS, **answer})[name]
    assert check.status == "warn" and change in check.change


def test_tmux_is_asked_with_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "tmux"
    script.write_text('#!/bin/sh\ncase "$*" in\n-V) echo tmux 3.4;;\n"show -sv set-clipboard") echo on;;\nesac\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    checks = {check.name: check for check in terminal_checks(TerminalFacts(TMUX, True, (80, 24), "utf-8"))}
    assert checks["tmux"].found == "tmux 3.4" and checks["tmux clipboard"].status == "ok"
    assert checks["tmux escape-time"].status == "warn"


def test_a_command_that_hangs_or_fails_is_no_answer() -> None:
    assert ask([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2) is None
    assert ask([sys.executable, "-c", "raise SystemExit(3)"]) is None
    assert ask(["no-such-program-anywhere"]) is None
    assert ask([sys.executable, "-c", "print(input())"]) is None


def machine(tmp_path: Path, code: str = QUICK) -> dict[str, Check]:
    return {check.name: check for check in machine_checks({}, tmp_path, Devices(code, timeout=5))}


def test_the_machine(tmp_path: Path) -> None:
    checks = machine(tmp_path)
    assert checks["torch"].status == "ok" and checks["torch"].found.endswith("4 threads")
    assert checks["torch"].found.startswith(importlib.metadata.version("torch"))
    assert checks["devices"].found == "GPU (80.0 GB)"
    assert str(tmp_path) in checks["working folder"].found and "free in" in checks["working folder"].found
    assert {"python", "transformers", "memory", "cpus", "hub cache", "data folder"} <= set(checks)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import sys; sys.exit('the driver is too old')", "the driver is too old"),
        ("import os; os._exit(7)", "it ended with code 7"),
        ("print('{}')", "it ended with code 0"),
    ],
)
def test_a_torch_that_does_not_start(tmp_path: Path, code: str, text: str) -> None:
    check = machine(tmp_path, code)["torch"]
    assert check.status == "FAIL" and text in check.found and check.change


def test_a_torch_that_hangs(tmp_path: Path) -> None:
    assert Devices("import time; time.sleep(60)", timeout=0.2).answer() == "it did not answer in 0 s"


def test_packages_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    checks = machine(tmp_path)
    assert checks["torch"].status == checks["transformers"].status == "FAIL"
    assert "pip install torch" in checks["torch"].change


def test_an_old_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "4.57.6")
    assert machine(tmp_path)["transformers"].status == "warn"


def test_the_child_does_not_import_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('imported from the working folder')")
    monkeypatch.chdir(tmp_path)
    answer = Devices(timeout=120).answer()
    assert isinstance(answer, tuple) and answer[0] >= 1


def test_little_space_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def usage(path: Any) -> Any:
        return type("Usage", (), {"free": 5_000_000})

    monkeypatch.setattr(doctor_machine.shutil, "disk_usage", usage)
    checks = machine(tmp_path)
    assert checks["working folder"].status == checks["hub cache"].status == "warn"
    assert "5.0 MB free" in checks["working folder"].found


def test_a_folder_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert machine(tmp_path)["working folder"].status == "warn"


@pytest.mark.parametrize("error", [OSError(38, "Function not implemented"), PermissionError(13, "Permission denied")])
def test_copying_without_the_kernel_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*args: Any) -> int:
        raise error

    monkeypatch.setattr(os, "copy_file_range", fail, raising=False)
    assert machine(tmp_path)["fast copying"].status in {"ok", "warn"}
    monkeypatch.delattr(os, "copy_file_range")
    assert "through memory" in machine(tmp_path)["fast copying"].found


def test_memory_respects_the_container(tmp_path: Path) -> None:
    proc = tmp_path / "meminfo"
    proc.write_text("MemTotal: 1000000 kB\nMemFree: 5 kB\nMemAvailable: 600000 kB\n")
    assert memory(proc, tmp_path) == (1_024_000_000, 614_400_000)
    (tmp_path / "memory.max").write_text("500000000\n")
    (tmp_path / "memory.current").write_text("100000000\n")
    assert memory(proc, tmp_path) == (500_000_000, 400_000_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory(proc, tmp_path) == (1_024_000_000, 614_400_000)
    assert memory(tmp_path / "none", tmp_path)[0]


def test_lines_show_status_name_finding_and_change() -> None:
    checks = [Check("size", "FAIL", "70x20", "make the window larger"), Check("a b", "ok", "word " * 40)]
    out = list(lines(checks, Style(width=60)))
    assert out[0] == "FAIL  size  70x20"
    assert out[1] == "            -> make the window larger"
    assert all(len(line) <= 60 for line in out)
    assert sum(line.count("word") for line in out) == 40


@pytest.mark.parametrize(("bad", "code"), [(False, 0), (True, 1)])
def test_the_exit_code_tells_whether_something_fails(
    bad: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from surgeon.cli.app import run

    real = Devices.__init__
    child = "raise SystemExit(1)" if bad else QUICK
    monkeypatch.setattr(Devices, "__init__", lambda self: real(self, child, 5))
    assert run(["doctor", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert all(list(one) == ["check", "status", "found", "change"] for one in report)
    assert any(one["status"] == "FAIL" for one in report) is bad


def test_the_whole_command_in_a_pipe_writes_no_escape_sequence_and_leaves_nothing(tmp_path: Path) -> None:
    env = {**os.environ, "TERM": "xterm-256color", "TMUX": "", "STY": ""}
    command = [sys.executable, "-m", "surgeon", "doctor"]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout and done.stderr == ""
    for name in ("terminal", "colours", "encoding", "size", "torch", "devices", "working folder", "fast copying"):
        assert f"  {name}" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_doctor_itself_stays_light() -> None:
    code = (
        "import sys\nfrom surgeon.cli.doctor import doctor, machine_checks, terminal_checks\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(names & {'torch', 'transformers', 'numpy', 'textual'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert doctor_terminal.LEAST == (80, 24)
