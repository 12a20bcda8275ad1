"""The walks in docs/architecture.md lead through functions that exist, in the order in which they are called."""

from __future__ import annotations

import importlib
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from surgeon.cli.app import run
from tests.support.paths import ROOT
from tests.support.sparse import sparse_llama
from tests.support.tui import app, command, donors, keys

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STEP = re.compile(r"^\d+\. `(\S+\.py):(\S+)`$")


def walk(beginning: str) -> list[tuple[str, str]]:
    """(file, function) of each step under the line that begins so."""
    lines = TEXT[TEXT.index(beginning) :].splitlines()[2:]
    steps = itertools.takewhile(bool, (STEP.match(line) for line in lines))
    return [(step[1], step[2]) for step in steps if step]


TRY, PASTE, PLAN = walk("`T` (try"), walk("`p` (paste"), walk("`surgeon plan RECIPE`, up")


class Calls:
    """Records which functions of surgeon are called."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _arg: object) -> None:
        if event == "call":
            self.made.append((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    def follow(self, steps: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The steps that were called one after the other, up to the first that was not."""
        calls: Iterator[tuple[str, int]] = iter(self.made)
        return list(itertools.takewhile(lambda step: place(step) in calls, steps))


def place(step: tuple[str, str]) -> tuple[str, int]:
    """File and first line of a function."""
    path, name = step
    module = importlib.import_module(".".join(["surgeon", *Path(path).with_suffix("").parts]))
    found: Any = module
    for part in name.split("."):
        found = found.__dict__[part]
    found = getattr(found, "func", found)
    return found.__code__.co_filename, found.__code__.co_firstlineno


def test_the_walks_are_short() -> None:
    assert len(TRY) > 5 and len(PASTE) > 5 and 5 < len(PLAN) <= 25
    files = [path for path, _ in itertools.groupby(TRY, lambda step: step[0])]
    assert len(files) == len(set(files)), "a module is left and visited again"


async def test_t_is_followed_by_what_the_walk_says(in_tmp: Path) -> None:
    application = app(donors(in_tmp, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await command(pilot, "insert A:0-3")
        with Calls() as calls:
            await keys(pilot, "T")
    assert calls.follow(TRY[:-1]) == TRY[:-1]
    assert callable(getattr(importlib.import_module("surgeon.probe.resident_child"), TRY[-1][1])), "another process"


async def test_p_is_followed_by_what_the_walk_says(in_tmp: Path) -> None:
    application = app(donors(in_tmp, "a"))
    async with application.run_test(size=(80, 24)) as pilot:
        await keys(pilot, "apostrophe a v 2 j y apostrophe apostrophe")
        with Calls() as calls:
            await keys(pilot, "p")
    assert calls.follow(PASTE) == PASTE


def test_plan_goes_as_the_walk_says(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse_llama(in_tmp / "a")
    (in_tmp / "r.yaml").write_text("slices:\n- sources: [{model: ./a, layer_range: [0, 2]}]\n")
    with Calls() as calls:
        assert run(["plan", "r.yaml"]) == 0
    # `main` only calls `run`.
    assert calls.follow(PLAN[1:]) == PLAN[1:]
