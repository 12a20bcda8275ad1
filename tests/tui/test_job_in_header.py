"""A running job is seen from every screen, and how it ended until that was looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from surgeon.jobs.job import Job
from surgeon.tui.app import SurgeonApp
from surgeon.tui.dialogs import Ask
from surgeon.tui.run.run_screen import RunScreen
from surgeon.tui.widgets.line import Line
from tests.support.tui import app, command, donors, keys, line, rows
from tests.tui import test_run_and_try as running

START: list[dict[str, Any]] = [
    {"event": "start", "bytes": 200, "shards": 1},
    {"event": "progress", "bytes": 84, "total": 200, "rate": 10, "eta": 70.0},
]


def add(job: Job, event: dict[str, Any]) -> None:
    with (job.folder / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


async def later(application: SurgeonApp, pilot: Pilot[None]) -> None:
    """The running job is not shown when that is offered."""
    await running.until(pilot, lambda: isinstance(application.screen, Ask))
    await keys(pilot, "n")


async def header_has(application: SurgeonApp, pilot: Pilot[None], words: str) -> None:
    await running.until(pilot, lambda: rows(application)[0].rstrip().endswith(words))


async def test_it_is_on_every_screen(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    job = running.TestLater.begun(in_tmp, alive=True, events=START)
    async with application.run_test(size=(80, 24)) as pilot:
        await later(application, pilot)
        await header_has(application, pilot, "writing 42 %, 1m 10s left")
        assert rows(application)[0].startswith(" unnamed")
        await command(pilot, "insert A:0-7")
        await keys(pilot, "apostrophe apostrophe V b")
        await header_has(application, pilot, "writing 42 %, 1m 10s left")
        await keys(pilot, "enter")
        await header_has(application, pilot, "writing 42 %, 1m 10s left")
        await keys(pilot, "escape f")
        await header_has(application, pilot, "writing 42 %, 1m 10s left")
        add(job, {"event": "check"})
        await header_has(application, pilot, "checking that it loads")
        add(job, {"event": "done", "seconds": 3.0})
        await header_has(application, pilot, "written: :jobs shows it")
        await keys(pilot, "escape")
        await header_has(application, pilot, "written: :jobs shows it")


@pytest.mark.parametrize(
    ("last", "words"),
    [
        ({"event": "done", "seconds": 3.0}, "written: :jobs shows it"),
        ({"event": "error", "message": "no room"}, "writing failed: :jobs shows it"),
        ({"event": "cancelled", "message": "as asked"}, "writing was cancelled: :jobs shows it"),
    ],
)
async def test_its_end_is_shown_until_it_was_looked_at(in_tmp: Path, last: dict[str, Any], words: str) -> None:
    application = app(donors(in_tmp))
    job = running.TestLater.begun(in_tmp, alive=True, events=START)
    async with application.run_test(size=(80, 24)) as pilot:
        await later(application, pilot)
        add(job, last)
        await header_has(application, pilot, words)
        await command(pilot, "jobs")
        await keys(pilot, "1")
        assert isinstance(application.screen, RunScreen)
        assert words not in rows(application)[0]
        await running.until(pilot, lambda: application._job_watch.words(application.jobs.current) == ("", ""))
        await keys(pilot, "escape")
        await running.until(pilot, lambda: "shows it" not in rows(application)[0])
        assert "unnamed" in line(pilot, "header")


async def test_without_a_job_nothing_is_shown(in_tmp: Path) -> None:
    application = app(donors(in_tmp))
    async with application.run_test(size=(80, 24)) as pilot:
        application._show_job()
        await pilot.pause()
        assert application.surgery.query_one("#header", Line).right is None
