"""Running and trying from the interface: child processes, progress, cancelling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from models import tiny_model, tiny_tokenizer
from textual.pilot import Pilot
from tui import SIZES, app, command, donors, keys, line

from surgeon.checkpoint import open_checkpoint
from surgeon.jobs import job as jobs
from surgeon.tui.screens.dialogs import Ask
from surgeon.tui.screens.run import RunScreen
from surgeon.tui.screens.try_it import TryScreen


async def until(pilot: Pilot[None], ready: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a child process to get somewhere."""
    for _ in range(int(seconds / 0.1)):
        await pilot.pause()
        if ready():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never happened")


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs leave out the load-back check, which takes seconds and is tested elsewhere."""
    start = jobs.start

    def quick(verb: str, arguments: Sequence[str], recipe: str) -> jobs.Job:
        return start(verb, [*arguments, "--no-check"] if verb == "assemble" else arguments, recipe)

    monkeypatch.setattr(jobs, "start", quick)


@pytest.mark.parametrize("size", SIZES)
async def test_run_writes_the_model(in_tmp: Path, size: tuple[int, int]) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=size) as pilot:
        await command(pilot, "interleave A B")
        await command(pilot, "run out/model")
        screen = application.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.finished is not None)
        assert screen.finished is not None and screen.finished["event"] == "done", screen.finished
        await until(pilot, lambda: "done" in line(pilot, "header"))
        assert "100%" in line(pilot, "bar")
        assert "ABABABAB" in screen.query_one("#body").text
        await keys(pilot, "escape")
    written = open_checkpoint(str(in_tmp / "out" / "model"))
    assert written.depth == 8 and not written.problems


async def test_a_folder_that_is_not_empty_is_asked_about(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    (in_tmp / "out").mkdir()
    (in_tmp / "out" / "mine.txt").write_text("keep")
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "run out")
        assert isinstance(application.screen, Ask)
        await keys(pilot, "n")
        assert application.job is None
        await command(pilot, "run out")
        await keys(pilot, "y")
        screen = application.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.finished is not None)
    assert not (in_tmp / "out" / "mine.txt").exists()
    assert open_checkpoint(str(in_tmp / "out")).depth == 4


async def test_a_failed_job_says_why(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    (in_tmp / "blocked").write_text("a file")
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "run blocked")
        assert "is a file" in line(pilot, "status")
        await command(pilot, "run a")
        await keys(pilot, "y")
        screen = application.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.finished is not None)
        assert screen.finished is not None and screen.finished["event"] == "error"
        await until(pilot, lambda: "failed" in line(pilot, "header"))
        assert "donor" in screen.query_one("#body").text
    assert open_checkpoint(str(in_tmp / "a")).depth == 8


async def test_try_generates_scores_and_compares(in_tmp: Path) -> None:
    for seed, name in enumerate("ab"):
        tiny_model(in_tmp / name, layers=3, seed=seed)
        tiny_tokenizer(in_tmp / name)
    (in_tmp / "probes").mkdir()
    probe = {"prompt": "hello", "expected": "nothing a random model says"}
    (in_tmp / "probes" / "odd.jsonl").write_text(json.dumps(probe) + "\n")
    application = app(["./a", "./b"])
    async with application.run_test(size=(120, 40)) as pilot:
        await command(pilot, "insert A:0-2 B:1-2")
        await keys(pilot, "T")
        screen = application.screen
        assert isinstance(screen, TryScreen)
        assert screen.query_one("#box").value == "hello"
        await keys(pilot, "enter")
        await until(pilot, lambda: not screen.prober.busy and len(screen.left.answers) == 2)
        answer = list(screen.left.answers.values())[1]
        assert "tok/s" in answer.state and answer.text
        await keys(pilot, "escape s")
        await until(pilot, lambda: not screen.prober.busy and len(screen.left.answers) == 3)
        assert "odd 0/1" in list(screen.left.answers.values())[2].state
        await keys(pilot, "b i enter")
        await until(pilot, lambda: not screen.prober.busy and screen.right is not None and bool(screen.right.answers))
        assert screen.right is not None
        beside = list(screen.right.answers.values())[-1]
        assert beside.text and (not beside.bad or "DEGENERATE" in beside.state)
        await until(pilot, lambda: "beside" in line(pilot, "header"))
        await keys(pilot, "escape escape")
        assert application.screen is application.surgery
        process = screen.prober.process
        assert process is not None
        await until(pilot, lambda: process.returncode is not None)
