"""The short form of `python -m tests.fuzz`: some inputs of every kind, and that nothing bad goes unseen."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from surgeon.errors import InputError
from tests.fuzz import run as fuzz
from tests.fuzz import watch as fuzz_watch
from tests.fuzz.cases import KINDS, World

SEED = 20
COUNTS = {
    "header": 250, "index": 120, "config": 60, "tokenizer": 60, "adapter": 60, "recipe": 60, "edit": 40, "state": 150,
}  # fmt: skip

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the bounds are Linux's")


@pytest.mark.parametrize("kind", COUNTS)
def test_inputs_are_accepted_or_refused_in_a_sentence(kind: str, tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    runner = fuzz.Runner(SEED, tmp_path / "sandbox", kind)
    summary = fuzz.Summary(tmp_path / "kept")
    for found in fuzz.outcomes(runner, range(COUNTS[kind])):
        summary.add(found, runner)
    assert not summary.failures, "\n".join(summary.lines())
    assert summary.counts[kind, "accepted"] and summary.counts[kind, "refused"]
    assert sum(summary.counts.values()) == COUNTS[kind]


def _crashes(_world: World) -> bool:
    raise KeyError("layers")


def _loops(_world: World) -> bool:
    while True:
        pass


def _sticks_in_c(_world: World) -> bool:
    return sum(iter(int, 1)) == 0


def _grows(_world: World) -> bool:
    return len(b"x" * (2 * fuzz_watch.MEMORY)) > 0


def _asks_for_all(_world: World) -> bool:
    return bool(bytearray(3 * fuzz_watch.ADDRESSES // 2))


def _dies(_world: World) -> bool:
    os.kill(os.getpid(), signal.SIGKILL)
    return True


def _writes_beside(world: World) -> bool:
    (world.case / "outer").write_text("")
    return True


def _writes_unseen(world: World) -> bool:
    """As a library that is not written in Python does."""
    return bool(ctypes.CDLL(None).creat(str(world.folder / "unseen").encode(), 0o600) >= 0)


def _removes_a_donor(world: World) -> bool:
    (world.donors / "a" / "config.json").unlink()
    return True


def _reads_what_it_is_led_to(world: World) -> bool:
    return bool((world.case / ".." / "secret" / "x.json").read_text())


def _starts_a_process(_world: World) -> bool:
    return subprocess.run([sys.executable, "--version"], check=True).returncode == 0


def _says_two_lines(_world: World) -> bool:
    raise type("Loud", (InputError,), {"sentence": lambda _self: "one\ntwo"})("x")


@pytest.mark.parametrize(
    ("check", "kind"),
    [
        (_crashes, "KeyError"),
        (_loops, "TooSlow"),
        (_sticks_in_c, "died"),
        (_grows, "memory"),
        (_asks_for_all, "MemoryError"),
        (_dies, "died"),
        (_writes_beside, "outside OUT"),
        (_writes_unseen, "outside OUT"),
        (_removes_a_donor, "outside OUT"),
        (_reads_what_it_is_led_to, "outside OUT"),
        (_starts_a_process, "outside OUT"),
        (_says_two_lines, "AssertionError"),
    ],
)
def test_what_is_wrong_is_found_saved_and_found_again(
    check: Callable[[World], bool],
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fuzz_watch, "SECONDS", 0.2)
    monkeypatch.setattr(fuzz_watch, "GRACE", 0.8)
    # Little enough to be taken within those seconds on a busy machine.
    monkeypatch.setattr(fuzz_watch, "MEMORY", 50_000_000)
    monkeypatch.setitem(KINDS, "header", replace(KINDS["header"], check=check))
    assert fuzz.main(["--count=2", "--target=header", f"--keep={tmp_path}"]) == 1
    said = capsys.readouterr().out
    assert f"FAILED header 0: {kind}" in said
    (saved,) = tmp_path.iterdir()
    assert f"--replay {saved}" in said
    assert json.loads((saved / "input.json").read_text())["target"] == "header"
    assert (saved / "case" / "model.safetensors").is_file()
    if check is _sticks_in_c:
        return  # once is long enough
    assert fuzz.main([f"--replay={saved}"]) == 1
    assert kind in capsys.readouterr().out


def test_a_saved_input_is_the_same_in_another_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = 7
    assert fuzz.main(["--seed=3", "--target=adapter", f"--only={number}", f"--keep={tmp_path}"]) == 0
    first = capsys.readouterr().out.split("seconds")[0]
    assert fuzz.main([f"--replay={tmp_path / f'adapter-3-{number}'}"]) == 0
    assert capsys.readouterr().out.split("seconds")[0] == first
