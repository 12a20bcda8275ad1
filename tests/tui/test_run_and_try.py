"""Running and trying from the interface: child processes, progress, cancelling."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from surgeon.checkpoint import open_checkpoint
from surgeon.jobs import job_list as jobs
from surgeon.jobs.job import Job
from surgeon.tui.dialogs import Ask
from surgeon.tui.run.run_screen import RunScreen
from surgeon.tui.try_model.try_screen import TryScreen
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.trying import answer
from tests.support.tui import SIZES, app, command, donors, keys, line


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

    def quick(verb: str, arguments: Sequence[str], text: str, **more: Any) -> Job:
        return start(verb, [*arguments, "--no-check"] if verb == "assemble" else arguments, text, **more)

    monkeypatch.setattr(jobs, "start", quick)


@pytest.mark.parametrize("size", SIZES)
async def test_run_writes_the_model(in_tmp: Path, size: tuple[int, int]) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=size) as pilot:
        await command(pilot, "interleave A B")
        await command(pilot, "run out/model")
        screen = application.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.progress.finished is not None)
        assert screen.progress.finished is not None and screen.progress.finished["event"] == "done", (
            screen.progress.finished
        )
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
        assert application.jobs.current is None
        await command(pilot, "run out")
        await keys(pilot, "y")
        screen = application.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.progress.finished is not None)
    assert not (in_tmp / "out" / "mine.txt").exists()
    assert open_checkpoint(str(in_tmp / "out")).depth == 4


async def test_what_is_refused_starts_no_job(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    (in_tmp / "blocked").write_text("a file")
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "run blocked")
        assert "is a file" in line(pilot, "status")
        await command(pilot, "run a")
        await keys(pilot, "y")
        assert "donor" in line(pilot, "status")
        assert application.jobs.current is None and not jobs.every()
    assert open_checkpoint(str(in_tmp / "a")).depth == 8


async def test_a_failed_job_says_why(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        next((in_tmp / "a").glob("*.safetensors")).unlink()
        await command(pilot, "run out")
        screen = application.screen
        assert isinstance(screen, RunScreen)
        await until(pilot, lambda: screen.progress.finished is not None)
        assert screen.progress.finished is not None and screen.progress.finished["event"] == "error"
        await until(pilot, lambda: "failed" in line(pilot, "header"))
        assert "safetensors" in screen.query_one("#body").text


class TestLater:
    """A job is there again when the interface is left and opened anew."""

    @staticmethod
    def begun(folder: Path, *, alive: bool = False, events: Sequence[dict[str, Any]] = ()) -> Job:
        """A job of an unsaved recipe in this folder, its output half written, as a killed one leaves it."""
        from surgeon.assemble.resume import journal
        from surgeon.process import birth, boot
        from tests.support.assembling import assemble, plan_of

        text = f"slices: [{{sources: [{{model: {folder / 'a'}, layer_range: [0, 4]}}]}}]\n"
        real = journal.Journal.add

        def add(self: journal.Journal, line: journal.JournalLine) -> None:
            if len(self.lines) == 10:
                raise RuntimeError("killed")
            real(self, line)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(journal.Journal, "add", add)
            assemble(plan_of(text), folder / "out", workers=1)
        job = jobs._number(jobs.state_folder("jobs"))
        pid = os.getppid()
        about = {"verb": "assemble", "out": str(folder / "out"), "recipe": None, "cwd": str(folder)}
        about |= {"arguments": [str(folder / "out")], "layers": 4, "letters": ["A"] * 4}  # type: ignore[dict-item]
        (job / "recipe.yaml").write_text(text)
        (job / "about.json").write_text(json.dumps(about))
        (job / "process.json").write_text(json.dumps({"pid": pid, "birth": birth(pid) if alive else f"{boot()}:0"}))
        (job / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        return Job(job)

    @pytest.mark.parametrize("size", SIZES)
    async def test_what_is_unfinished_is_gone_on_with(self, in_tmp: Path, size: tuple[int, int]) -> None:
        application = app(donors(in_tmp))
        self.begun(in_tmp)
        async with application.run_test(size=size) as pilot:
            await until(pilot, lambda: isinstance(application.screen, Ask))
            assert "when 10 of 39 tensors" in application.screen.question
            assert "killed" in application.screen.question
            await keys(pilot, "g")
            screen = application.screen
            assert isinstance(screen, RunScreen)
            await until(pilot, lambda: screen.progress.finished is not None)
            assert screen.progress.finished is not None and screen.progress.finished["event"] == "done", (
                screen.progress.finished
            )
            assert screen.progress.finished["earlier"] > 0
            assert "AAAA" in screen.query_one("#body").text
        assert open_checkpoint(str(in_tmp / "out")).depth == 4

    async def test_not_now_and_asked_by_run(self, in_tmp: Path) -> None:
        application = app(donors(in_tmp))
        self.begun(in_tmp)
        async with application.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: isinstance(application.screen, Ask))
            await keys(pilot, "n")
            await command(pilot, "insert A:0-3")
            await command(pilot, "run out")
            assert isinstance(application.screen, Ask)
            assert "has written 10 of the 39 tensors" in application.screen.question
            await keys(pilot, "n")
            assert application.jobs.current is None
            await command(pilot, "run out")
            await keys(pilot, "a")
            screen = application.screen
            assert isinstance(screen, RunScreen)
            await until(pilot, lambda: screen.progress.finished is not None)
            assert screen.progress.finished is not None and screen.progress.finished["earlier"] == 0, (
                screen.progress.finished
            )

    async def test_what_runs_is_shown_and_shown_again(self, in_tmp: Path) -> None:
        application = app(donors(in_tmp))
        progress = {"event": "progress", "bytes": 50, "total": 200, "rate": 10, "eta": 15.0, "layer": 1}
        progress |= {"memory": 40_000_000, "files": {"model-00002-of-00003.safetensors": [5, 20]}, "files_done": 1}
        start = {"event": "start", "bytes": 200, "shards": 3}
        self.begun(in_tmp, alive=True, events=[start, {"event": "layer", "index": 0}, progress])
        async with application.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: isinstance(application.screen, Ask))
            assert "is writing" in application.screen.question
            await keys(pilot, "y")
            await until(pilot, lambda: "25%" in line(pilot, "bar"))
            numbers = line(pilot, "numbers")
            for word in ("50 B of 200 B", "10 B/s", "15s left", "now 1", "40.0 MB memory"):
                assert word in numbers
            body = application.screen.query_one("#body").text
            for word in ("A...", "1 of 3 files written", "model-00002-of-00003.safetensors  25%"):
                assert word in body
            await keys(pilot, "escape")
            await keys(pilot, "R")
            assert isinstance(application.screen, RunScreen)
            await keys(pilot, "escape")
            await command(pilot, "jobs")
            assert isinstance(application.screen, Ask)
            await keys(pilot, "1")
            assert isinstance(application.screen, RunScreen)

    async def test_another_recipes_jobs_are_not_offered(self, in_tmp: Path) -> None:
        application = app(donors(in_tmp))
        job = self.begun(in_tmp)
        (job.folder / "about.json").write_text(json.dumps(job.about | {"cwd": "/elsewhere"}))
        async with application.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert application.screen is application.surgery


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
        talk = screen.conversation
        assert screen.query_one("#box").text == "hello"
        await keys(pilot, "enter")
        await until(pilot, lambda: "tok/s" in answer(screen).state)
        assert answer(screen).text
        await keys(pilot, "escape s")
        await until(pilot, lambda: not talk.busy and not screen.table.measuring)
        assert "odd accuracy\t0.000\t\t0.000\tequal" in screen.table.transcript
        await keys(pilot, "b down enter i enter")
        await until(pilot, lambda: answer(screen, 1).ended)
        beside = answer(screen, 1)
        assert beside.text and (not beside.bad or "DEGENERATE" in beside.state)
        await until(pilot, lambda: "2 models" in line(pilot, "header"))
        await keys(pilot, "escape escape")
        assert application.screen is application.surgery


class TestKeysThatCannotDoWhatTheySay:
    """They answer with a sentence."""

    async def shown(self, pilot: Pilot[None], application: Any, folder: Path, *events: dict[str, Any]) -> Job:
        start = {"event": "start", "bytes": 200, "shards": 1, "layers": 4}
        job = TestLater.begun(folder, alive=not events or events[-1]["event"] == "check", events=[start, *events])
        application.offer_earlier_work()
        await until(pilot, lambda: isinstance(application.screen, Ask))
        await keys(pilot, "n")
        application.jobs.current = job
        application.open_run()
        await pilot.pause()
        return job

    async def test_try_while_it_is_checked(self, in_tmp: Path) -> None:
        application = app(donors(in_tmp))
        async with application.run_test(size=(80, 24)) as pilot:
            await self.shown(pilot, application, in_tmp, {"event": "check"})
            assert "checking that it loads" in line(pilot, "header")
            await keys(pilot, "T")
            assert isinstance(application.screen, RunScreen)
            assert "when it is complete" in line(pilot, "space")

    async def test_try_and_cancel_when_it_is_over(self, in_tmp: Path) -> None:
        application = app(donors(in_tmp))
        async with application.run_test(size=(80, 24)) as pilot:
            await self.shown(pilot, application, in_tmp, {"event": "cancelled", "message": "cancelled."})
            await keys(pilot, "T")
            assert "nothing to try: the job was cancelled" in line(pilot, "space")
            await keys(pilot, "c")
            assert "nothing to cancel" in line(pilot, "space")

    async def test_an_empty_stack(self, in_tmp: Path) -> None:
        application = app([])
        async with application.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            for key in ("y", "V"):
                await keys(pilot, "escape")
                assert line(pilot, "status") == ""
                await keys(pilot, key)
                assert line(pilot, "status") != "", key

    async def test_stopping_a_model_that_is_silent(self, in_tmp: Path) -> None:
        application = app(donors(in_tmp))
        async with application.run_test(size=(80, 24)) as pilot:
            await keys(pilot, "T")
            await keys(pilot, "escape c")
            assert "nothing is being generated" in line(pilot, "status")


async def test_cancelled_before_it_could_answer(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is ended by the signal itself when it has not got as far as to take it."""
    monkeypatch.setattr(jobs, "_MAIN", "import time; time.sleep(60)")
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "run out")
        screen = application.screen
        assert isinstance(screen, RunScreen)
        await keys(pilot, "c y")
        await until(pilot, lambda: screen.progress.finished is not None)
        await until(pilot, lambda: "cancelled" in line(pilot, "header"))
        assert "crashed" not in line(pilot, "header") and "SIGTERM" not in screen.query_one("#body").text
    (job,) = jobs.every()
    assert job.state().kind == Job(job.folder).state().kind == "cancelled"


async def test_what_was_asked_to_stop_says_so(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print('{}', flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(jobs, "_MAIN", code)
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await command(pilot, "run out")
        (job,) = jobs.every()
        await until(pilot, lambda: (job.folder / "events.jsonl").stat().st_size > 0)
        await keys(pilot, "c y")
        await until(pilot, lambda: "cancelling" in line(pilot, "header"))
        assert job.state().word == "cancelling"
        await keys(pilot, "c")
        assert "was asked to stop" in line(pilot, "space")
        assert application.jobs.current is not None and application.jobs.current._process is not None
        application.jobs.current._process.kill()
        await until(pilot, lambda: "cancelled" in line(pilot, "header"))
