"""Without a home, or with one that cannot be written: what needs no state works, and the rest says what is lost."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from surgeon.assemble import preflight
from surgeon.cli.app import run
from surgeon.errors import SurgeonError
from surgeon.jobs import job_list
from surgeon.jobs.state_folder import state_folder
from surgeon.tui import swap
from surgeon.tui.try_model.try_screen import TryScreen
from tests.support.tui import app, cells, command, donors, keys, line
from tests.tui.test_run_and_try import until

RECIPE = "slices:\n- sources: [{model: ./a, layer_range: [0, 2]}]\n"


def no_home(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    def nobody(_user: object) -> None:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)


def no_folder(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    monkeypatch.setenv("HOME", "/dev/null")


def no_place(monkeypatch: pytest.MonkeyPatch, _folder: Path) -> None:
    """A place that is no folder, where one is wanted."""
    (_folder / "state").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(_folder / "state"))


@pytest.fixture(params=[no_home, no_folder, no_place])
def lacking(request: pytest.FixtureRequest, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    request.param(monkeypatch, in_tmp)
    donors(in_tmp, "ab")
    (in_tmp / "r.yaml").write_text(RECIPE)
    return in_tmp


def test_the_command_line(lacking: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["jobs"],
        ["jobs", "--clean"],
        ["inspect", "a"],
        ["plan", "r.yaml"],
        ["edit", "r.yaml", "--op", "delete 0"],
    ):
        assert run(words) == 0, words
    assert run(["assemble", "r.yaml", "out", "--no-check", "--quiet"]) == 0
    for words in (["attach"], ["cancel"]):
        assert run(words) == 2
    capsys.readouterr()
    assert run(["assemble", "r.yaml", "other", "--detach", "--no-check"]) == 1
    assert "XDG_STATE_HOME" in capsys.readouterr().err
    # Nothing is made of a name that was meant to be filled in.
    assert not (lacking / "~").exists() and not (lacking / "state" / "surgeon").exists()


async def test_the_interface(lacking: Path) -> None:
    application = app(["./a", "./b"])
    async with application.run_test(size=(160, 24)) as pilot:
        await pilot.pause()
        assert "neither unsaved work nor jobs are kept" in line(pilot, "status")
        await command(pilot, "insert A:0-3")
        assert cells(application) == ["A00", "A01", "A02", "A03"]
        assert "4 layers" in line(pilot, "status"), "it is said once"
        assert "not kept" in line(pilot, "header")
        await command(pilot, "run out")
        assert "XDG_STATE_HOME" in line(pilot, "status") and application.jobs.current is None
        await command(pilot, "jobs")
        await keys(pilot, "T")
        screen = application.screen
        assert isinstance(screen, TryScreen)
        (given,) = screen.conversation._copies.values()
        assert given.is_file() and stat.S_IMODE(given.stat().st_mode) == 0o600
        await keys(pilot, "escape escape")
        assert not given.exists()
        await command(pilot, "write mine")
        assert (lacking / "mine.yaml").exists()


async def test_a_disk_that_fills_up_and_is_emptied(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    application, real, full = app(donors(in_tmp)), swap.write_atomic, [True]

    def write(path: Path, text: str, *, own: bool = False) -> None:
        if full[0]:
            raise SurgeonError("cannot write the file: No space left on device", where=str(path))
        real(path, text, own=own)

    monkeypatch.setattr(swap, "write_atomic", write)
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await until(pilot, lambda: "unsaved work is not kept: cannot write the file: No space" in line(pilot, "status"))
        await command(pilot, "delete 0")
        assert "3 layers" in line(pilot, "status") and "not kept" in line(pilot, "header")
        full[0] = False
        await command(pilot, "delete 0")
        await until(pilot, lambda: "kept again" in line(pilot, "status"))
        assert "not kept" not in line(pilot, "header")
        assert swap.own().exists()


async def test_a_job_that_cannot_be_kept_is_not_started(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    application, real = app(donors(in_tmp)), job_list.write_atomic
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(job_list.subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])  # type: ignore[arg-type]

    def write(path: Path, text: str, *, own: bool = False) -> None:
        if path.name == "process.json":
            raise SurgeonError("cannot write the file: No space left on device", where=str(path))
        real(path, text, own=own)

    monkeypatch.setattr(job_list, "write_atomic", write)
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "run out")
        assert "No space left" in line(pilot, "status") or "process.json" in line(pilot, "status")
        assert application.jobs.current is None
    assert not job_list.every() and len(started) == 1 and started[0].returncode is not None


def test_nobody_else_sees_it(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    donors(in_tmp, "a")
    (in_tmp / "r.yaml").write_text(RECIPE)
    root = state_folder("jobs").parent
    # As earlier versions have left them.
    for folder in (root, root / "jobs"):
        folder.chmod(0o755)
    before = os.umask(0)
    try:
        assert run(["assemble", "r.yaml", "out", "--detach", "--no-check", "--quiet"]) == 0
        assert swap.write("slices: []\n", [], None) == ""
    finally:
        os.umask(before)
    assert job_list.find("1").wait(60)
    paths = [root, *root.rglob("*")]
    assert {"process.json", "events.jsonl", "log.txt", "about.json", "recipe.yaml"} <= {path.name for path in paths}
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_no_home_is_no_reason_to_refuse_a_folder(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_home(monkeypatch, in_tmp)
    preflight.check(in_tmp / "out", in_tmp / ".out.surgeon", (), force=False)


def test_a_home_that_can_only_be_read(in_tmp: Path) -> None:
    """For real, as permissions do not bind the superuser."""
    donors(in_tmp, "a")
    (in_tmp / "r.yaml").write_text(RECIPE)
    (in_tmp / "home").mkdir()
    mount = f'mount -t tmpfs -o ro none {in_tmp / "home"} && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    if subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces here")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    environment["HOME"] = str(in_tmp / "home")

    def surgeon(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*words, sys.executable, "-m", "surgeon", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=in_tmp, timeout=120)

    assert surgeon("jobs").stdout == "no jobs\n"
    found = surgeon("assemble", "r.yaml", "out", "--detach")
    assert (found.returncode, found.stderr.count("\n")) == (1, 1)
    assert "Read-only file system" in found.stderr
    found = surgeon("demo", "--no-tui")
    assert (found.returncode, found.stderr.count("\n")) == (1, 1)
