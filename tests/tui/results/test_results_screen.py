"""The history of what was tried: kept at once, listed, and the way back from a row to its recipe."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from surgeon.evaluate.results import NAME, read_results
from surgeon.recipe import document as documents
from surgeon.tui.dialogs import TextDialog
from surgeon.tui.results.result_rows import age, outcome
from surgeon.tui.results.results_screen import ResultsScreen
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.paths import ROOT
from tests.support.trying import Requests, answer, opened, until
from tests.support.tui import app, cells, command, donors, keys, line

DONE: dict[str, Any] = {"event": "done", "text": "an answer", "tokens": 2, "stop": "length", "chat": False}


def rows() -> list[dict[str, Any]]:
    return [dict(row.values) for row in read_results(Path(NAME))[0]]


async def tried(application: Any, pilot: Any, requests: Requests, prompt: str = "H i") -> None:
    """Ask a prompt and answer it."""
    before = len(requests.prompts)
    await keys(pilot, f"T {prompt} enter")
    await until(pilot, lambda: len(requests.prompts) > before)
    requests.sinks[-1]({"event": "token", "text": "an answer"})
    requests.sinks[-1](DONE)
    application.try_state.history.flush()


async def test_answers_and_scores_are_kept_when_they_are_complete(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_tokenizer(tiny_model(tmp_path / "a", layers=3))
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "prose.txt").write_text("It was a bright cold day in April. " * 9)
    async with opened(["./a"]) as (application, pilot, screen):
        application.try_state.settings.tokens = 3
        await keys(pilot, "H i enter")
        await until(pilot, lambda: answer(screen).ended)
        await keys(pilot, "escape x")
        await until(pilot, lambda: not screen.table.measuring and not screen.conversation.busy)
        application.try_state.history_of(application.session).flush()
        said, second, first = rows()
        assert said["prompt"] == "Hi" and said["answer"] == answer(screen).text and said["settings"]["n"] == 3
        assert said["name"] == "this recipe" and "model: ./a" in said["recipe"] and str(tmp_path) not in said["recipe"]
        assert said["first_token_seconds"] > 0
        assert first["measures"]["prose loss"]["value"] == second["measures"]["prose loss"]["value"]
        assert len(first["items"]["prose loss"]["value"]) == first["measures"]["prose loss"]["items"] > 1
        assert second["path"] == "a" and "recipe" not in second
        assert stat.S_IMODE(Path(NAME).stat().st_mode) == 0o600


async def test_history_off_keeps_nothing(in_tmp: Path, requests: Requests) -> None:
    application = app(donors(in_tmp, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-2")
        await keys(pilot, "T")
        assert application.try_state.command("history off") == ("what you try is not kept", "")
        await keys(pilot, "escape escape")
        await tried(application, pilot, requests)
        assert not Path(NAME).exists()
        application.try_state.command("history on")
        await keys(pilot, "escape escape")
        await tried(application, pilot, requests)
        assert len(rows()) == 1


async def test_a_folder_that_cannot_be_written_is_said_once(in_tmp: Path, requests: Requests) -> None:
    Path(NAME).mkdir()
    application = app(donors(in_tmp, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-2")
        await tried(application, pilot, requests)
        await until(pilot, lambda: "is not kept" in line(pilot, "status"))
        assert sum("is not kept" in text for _, text, _ in application.messages) == 1


async def test_from_a_row_back_to_its_recipe(in_tmp: Path, requests: Requests) -> None:
    application = app(donors(in_tmp, "ab"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        await tried(application, pilot, requests)
        await keys(pilot, "escape escape")
        await command(pilot, "replace 0-1 B:0-1")
        await tried(application, pilot, requests, "n e w")
        await keys(pilot, "escape H")
        screen: Any = application.screen
        assert isinstance(screen, ResultsScreen)
        await until(pilot, lambda: len(screen.rows) == 2)
        shown: list[str] = screen.query_one("#rows").text.split("\n")
        assert "> new -> an answer" in shown[0] and "> Hi -> an answer" in shown[1], "the newest first"
        assert max(map(cell_len, shown)) <= 79 and "this recipe" in shown[0]
        assert [row[12] for row in shown] == ["*", " "], "the recipe that is edited is marked"
        assert shown[0][13:18] != shown[1][13:18], "another recipe has another digest"
        await keys(pilot, "enter")
        assert isinstance(application.screen, TextDialog)
        text = application.screen.query_one("#body").text  # type: ignore[attr-defined]
        assert "new" in text and "an answer" in text and "model: ./b" in text
        await keys(pilot, "escape j d")
        assert "+      - model: ./b" in application.screen.query_one("#body").text  # type: ignore[attr-defined]
        await keys(pilot, "escape y")
        assert "copied" in line(pilot, "status") and "model: ./a" in application.clipboard
        await keys(pilot, "e")
        assert application.screen is application.surgery
        assert cells(application) == ["A00", "A01", "A02", "A03"] and "u undoes that" in line(pilot, "status")
        await keys(pilot, "u")
        assert cells(application) == ["B00", "B01", "A02", "A03"], "one step"


async def test_the_command_and_a_file_that_is_not_there(in_tmp: Path) -> None:
    application = app(donors(in_tmp, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "results")
        assert isinstance(application.screen, ResultsScreen)
        await until(pilot, lambda: "nothing was tried yet" in line(pilot, "status"))
        for key in ("enter", "e", "d", "y", "j", "k"):
            await keys(pilot, key)
        await keys(pilot, "escape")
        assert application.screen is application.surgery


async def test_rows_that_are_odd_do_no_harm(in_tmp: Path) -> None:
    odd: list[Any] = [
        {"version": 1},
        {"version": 1, "name": "\x1b[31m", "time": "yesterday", "prompt": 3, "answer": ["x"], "measures": [1]},
        {"version": 1, "name": "bad", "recipe": "slices: [", "measures": {"m": {"value": "x"}, "n": 3}, "settings": 9},
        {"version": 1, "name": "checkpoint", "measures": {"m loss": {"value": 0.0, "kind": "loss"}}},
    ]
    Path(NAME).write_text("".join(json.dumps(one) + "\n" for one in odd) + "no json\n" + '{"version": 1, "torn')
    application = app(donors(in_tmp, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-2")
        await keys(pilot, "H")
        screen: Any = application.screen
        await until(pilot, lambda: len(screen.rows) == 4)
        assert "1 line of the file cannot be read" in line(pilot, "status")
        assert "m perplexity 1" in screen.query_one("#rows").text and "\x1b" not in screen.query_one("#rows").text
        for _ in odd:
            await keys(pilot, "enter escape y j")
            assert application.screen is screen
        await keys(pilot, "k k k k j")
        assert screen.row.values["name"] == "bad"
        await keys(pilot, "d escape e")
        assert application.screen is application.surgery and "not valid YAML" in line(pilot, "status")
        assert cells(application) == ["A00", "A01", "A02"]


def test_ages_and_outcomes(in_tmp: Path) -> None:
    Path(NAME).write_text(json.dumps({"version": 1, "time": "2025-01-01T00:00:00Z", "what": "evaluated"}) + "\n")
    (row,), _ = read_results(Path(NAME))
    assert age(row, 1735689600.0) == "0.0s" and age(row, 1735689600.0 + 3 * 86400) == "3d"
    assert age(row, 1735689600.0 + 7200) == "2h" and outcome(row) == "evaluated"


KILLED = """
import asyncio, os, signal, sys
from tests.support.trying import answer, opened, until
async def main():
    async with opened(["./a"]) as (application, pilot, screen):
        application.try_state.settings.tokens = 3
        for number in (1, 2, 3):
            await pilot.press("H", "enter")
            await until(pilot, lambda: len(screen.conversation.turns) == number and answer(screen).ended)
        application.try_state.history.flush()
        print(screen.conversation.process.process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def test_a_crash_loses_no_row(in_tmp: Path) -> None:
    tiny_tokenizer(tiny_model(in_tmp / "a", layers=3))
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(rows()) == 3 and all(row["prompt"] == "H" for row in rows())


def test_a_recipe_of_a_row_is_valid_beside_the_results(in_tmp: Path) -> None:
    """What `surgeon results --recipe` prints can be saved there and planned."""
    from surgeon.plan import Donors, resolve
    from surgeon.tui.session import Session
    from surgeon.tui.try_model.column_models import ColumnModels

    session = Session(donors(in_tmp, "ab"))
    session.command("insert A:0-3")
    session.save(in_tmp / "mine.yaml")
    session.command("replace 0-1 B:0-1")
    for spec in ("recipe", "undo:1", "saved"):
        text = ColumnModels(session).find(spec).document
        (in_tmp / "again.yaml").write_text(text)
        document = documents.load(in_tmp / "again.yaml")
        assert resolve(document, Donors(document.roots)).ok
