"""Worker processes: the same bytes as threads', the same errors, and an answer to whatever ends one of them."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from surgeon.assemble import layout
from surgeon.assemble.progress_tracker import Cancelled
from surgeon.assemble.resume import journal
from surgeon.assemble.resume.workspace import hidden
from surgeon.assemble.write import workers
from surgeon.errors import InputError, SurgeonError
from surgeon.plan import Plan
from tests.support.assembling import assemble, snapshot
from tests.support.blending import donors, plan_of
from tests.support.paths import ROOT

RECIPE = "merge_method: slerp\nmodels:\n- model: base\n- model: a\nbase_model: base\nparameters: {t: 0.3}\n"

ALONE = workers._alone

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the workers are threads")
pytestmark = linux


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(donors(tmp_path / "donors", ("base", "a"), depth=4, dtype="bfloat16"), RECIPE)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """However small, it is worth a process each; gives how many were begun."""
    begun: list[int] = []
    real = workers.ProcessPoolExecutor

    def pool(count: int, *arguments: Any, **options: Any) -> Any:
        begun.append(count)
        return real(count, *arguments, **options)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", pool)
    monkeypatch.setattr(workers, "WORTH", 1)
    # Other tests leave threads behind that hold no locks.
    monkeypatch.setattr(workers, "_alone", lambda: True)
    monkeypatch.setattr(layout, "SMALLEST", 1000)
    return begun


@contextlib.contextmanager
def slowly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every piece takes its time: something can happen meanwhile."""
    real = workers.FarCounts.advance

    def advance(self: workers.FarCounts, count: int, file: str = "") -> None:
        time.sleep(0.05)
        real(self, count, file)

    with monkeypatch.context() as patch:
        patch.setattr(workers.FarCounts, "advance", advance)
        yield


def when_begun(act: Callable[[], object]) -> Callable[[dict[str, Any]], None]:
    """Acts once, at the first word of progress."""
    done: list[bool] = []

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and not done:
            done.append(True)
            act()

    return on_event


def whole(plan: Plan, folder: Path) -> dict[str, bytes]:
    assemble(plan, folder, workers=1, shard_size=4000)
    return snapshot(folder)


@pytest.mark.parametrize("count", [2, 3])
def test_the_bytes_of_threads(plan: Plan, out: Path, tmp_path: Path, forked: list[int], count: int) -> None:
    events: list[dict[str, Any]] = []
    assemble(plan, out, workers=count, shard_size=4000, on_event=events.append)
    assert forked == [count]
    expected = whole(plan, tmp_path / "whole" / "out")
    assert forked == [count], "one worker needs no process"
    assert snapshot(out) == expected
    last = [event for event in events if event["event"] == "progress"][-1]
    assert last["bytes"] == last["total"] and last["files"] == {}
    assert sorted(event["index"] for event in events if event["event"] == "layer") == [0, 1, 2, 3]
    assert not multiprocessing.active_children()


def test_a_file_in_parts(plan: Plan, out: Path, tmp_path: Path, forked: list[int]) -> None:
    assemble(plan, out, workers=3)
    assemble(plan, tmp_path / "one" / "out", workers=1)
    assert forked == [3]
    assert snapshot(out) == snapshot(tmp_path / "one" / "out")


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_other_processes_with_other_hash_seeds(plan: Plan, out: Path, tmp_path: Path, seed: str) -> None:
    (tmp_path / "r.yml").write_text(
        RECIPE.replace(": base", f": {tmp_path}/donors/base").replace(": a", f": {tmp_path}/donors/a")
    )
    command = [sys.executable, "-m", "surgeon", "assemble", str(tmp_path / "r.yml"), str(out), "--no-check"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True)
    assemble(plan, tmp_path / "here")
    tensors = {name: data for name, data in snapshot(tmp_path / "here").items() if name.endswith(".safetensors")}
    assert tensors.items() <= snapshot(out).items()


def test_a_program_with_threads_of_its_own_is_not_forked(
    plan: Plan, out: Path, forked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_alone", ALONE)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assemble(plan, out, workers=2)
    finally:
        end.set()
        thread.join()
    assert forked == []


def test_a_system_without_semaphores(plan: Plan, out: Path, forked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(context: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(workers, "Relay", none)
    assemble(plan, out, workers=2)
    assert forked == []


def test_an_error_is_the_same_sentence(tmp_path: Path, out: Path, forked: list[int]) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = donors(tmp_path / "donors", ("base", "a"), depth=4, dtype="bfloat16")
    path = next((folder / "a").glob("*.safetensors"))
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].flatten()[3] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    plan, said = plan_of(folder, RECIPE), []
    for count in (1, 2):
        with pytest.raises(SurgeonError) as caught:
            assemble(plan, out, workers=count, restart=True)
        said.append((type(caught.value), caught.value.what, caught.value.where, caught.value.why))
    assert forked == [2]
    assert said[0] == said[1]
    assert f"tensor {name} holds NaN (element 3)" in said[0][1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_one_that_is_killed(
    plan: Plan, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def kill() -> None:
        victim = multiprocessing.active_children()[0].pid
        assert victim
        os.kill(victim, number)

    with slowly(monkeypatch), pytest.raises(SurgeonError, match=f"a worker process was ended by {number.name}"):
        assemble(plan, out, workers=2, shard_size=4000, on_event=when_begun(kill))
    assert not multiprocessing.active_children()
    assert not out.exists()
    earlier = len(journal.read(hidden(out) / "journal"))
    assert 0 < earlier < len(plan.tensors)
    assemble(plan, out, resume=True)
    assert snapshot(out) == whole(plan, tmp_path / "whole" / "out")


def test_one_that_is_killed_before_another_has_begun(
    plan: Plan, out: Path, tmp_path: Path, forked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command takes SIGTERM for a wish to stop soon; a process just forked must not, or nobody ends it."""
    real = workers._begin

    def begin(*arguments: Any) -> None:
        try:
            os.close(os.open(tmp_path / "first", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            until = time.monotonic() + 1
            while time.monotonic() < until:
                time.sleep(0.05)
            real(*arguments)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def too_late(*_: Any) -> None:
        for process in multiprocessing.active_children():
            process.kill()
        raise TimeoutError

    monkeypatch.setattr(workers, "_begin", begin)
    before = [signal.signal(signal.SIGTERM, lambda *_: None), signal.signal(signal.SIGALRM, too_late)]
    signal.alarm(20)
    try:
        with pytest.raises(SurgeonError, match="a worker process was ended by SIGKILL"):
            assemble(plan, out, workers=2, shard_size=4000)
    finally:
        signal.alarm(0)
        for number, handler in zip((signal.SIGTERM, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)
    assert not multiprocessing.active_children()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGTERM, signal.SIGINT} == set()


@pytest.mark.parametrize("told", [0, 7])
def test_one_that_is_killed_while_it_tells_something(
    plan: Plan, out: Path, monkeypatch: pytest.MonkeyPatch, told: int
) -> None:
    """Nobody waits for its turn to end, or for the other half of what it was telling."""

    def die(_: layout.FilePart, work: Any) -> None:
        relay = work.tracker._relay
        relay._turn.acquire()
        os.write(relay._writer.fileno(), (1000).to_bytes(4, "big") + bytes(told))
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(workers, "write_part", die)
    begun = time.monotonic()
    with pytest.raises(SurgeonError, match="a worker process was ended by SIGKILL"):
        assemble(plan, out, workers=2, shard_size=4000)
    assert time.monotonic() - begun < workers._PATIENCE
    assert not multiprocessing.active_children()


def test_a_cancel_keeps_what_is_there(plan: Plan, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    with slowly(monkeypatch), pytest.raises(Cancelled, match="resume with --resume"):
        assemble(plan, out, workers=2, shard_size=4000, on_event=when_begun(stop.set), cancelled=stop)
    assert not multiprocessing.active_children()
    assert 0 < len(journal.read(hidden(out) / "journal")) < len(plan.tensors)
    assemble(plan, out, resume=True, workers=2)
    assert snapshot(out) == whole(plan, tmp_path / "whole" / "out")


def test_a_journal_that_cannot_be_written(plan: Plan, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal.Journal, "add", full)
    with pytest.raises(SurgeonError, match=r"No space left|full"):
        assemble(plan, out, workers=2)
    assert not multiprocessing.active_children()
    assert not out.exists()


def test_none_outlives_who_began_it(plan: Plan, out: Path, tmp_path: Path) -> None:
    """Killed with -9, the first process says nothing to anybody; its workers are gone all the same."""
    code = f"""
import os, sys, time
sys.path[:0] = [{str(ROOT)!r}]
from pathlib import Path
from tests.support.blending import plan_of
from tests.support.assembling import assemble
from surgeon.assemble.write import workers
workers.WORTH = 1
workers.FarCounts.advance = lambda *_: (os.write(1, b"%d\\n" % os.getpid()), time.sleep(60))
assemble(plan_of(Path({str(tmp_path / "donors")!r}), {RECIPE!r}), Path({str(out)!r}), workers=2, shard_size=4000)
"""
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert first.stdout
    numbers = {int(first.stdout.readline()) for _ in range(2)}
    assert len(numbers) == 2 and first.pid not in numbers
    first.kill()
    first.wait()
    # The pipe ends when the last process that could write to it has.
    assert first.stdout.read() == ""
    assemble(plan, out)


def test_errors_travel() -> None:
    from surgeon.assemble.disk_checks import NotAsPlanned
    from surgeon.assemble.resume.workspace import InUse

    for error in (
        SurgeonError("what", where="where", why="why", remedy="remedy"),
        InputError("what"),
        NotAsPlanned("what", why="why"),
        InUse(Path("x"), "process 3"),
        Cancelled("kept"),
    ):
        found = pickle.loads(pickle.dumps(error))
        assert (type(found), found.sentence(), str(found)) == (type(error), error.sentence(), str(error))
        assert (found.what, found.where, found.why, found.remedy) == (error.what, error.where, error.why, error.remedy)


def test_parts_hold_every_tensor_once(plan: Plan) -> None:
    for count in (1, 2, 3, 7):
        for size in (900, 4000, 10**9):
            found = layout.lay_out(plan.tensors, size)
            cut = layout.parts(found, count)
            for shard in found.shards:
                mine = sorted((part for part in cut if part.shard is shard), key=lambda part: part.number)
                assert [part.number for part in mine] == list(range(mine[0].count))
                assert [placed for part in mine for placed in part.tensors] == list(shard.tensors)
                assert [part.start for part in mine] == [0, *(part.tensors[0].offset for part in mine[1:])]
