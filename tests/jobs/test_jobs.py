"""Jobs: they outlive who started them, are told apart from strangers, and can be gone on with when they are stopped."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from surgeon import process
from surgeon.assemble.resume.unfinished import look
from surgeon.assemble.resume.workspace import hidden
from surgeon.cli.app import run
from surgeon.cli.progress import words
from surgeon.errors import SurgeonError
from surgeon.jobs import job_list
from surgeon.jobs.job import Job
from tests.support.assembling import contents, donor, passthrough, snapshot
from tests.support.paths import ROOT, child_environment

SLOW = (
    "import os, time\n"
    "from surgeon.assemble.io import byte_copy as copy\n"
    "real, copy.BUFFER = os.preadv, 8\n"
    "def slow(*args):\n"
    "    time.sleep(0.02)\n"
    "    return real(*args)\n"
    "os.preadv = slow\n"
)
"""Makes a job take half a minute; jobs that are not stopped before are a failure."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    donor(tmp_path / "a")
    donor(tmp_path / "b", 3, seed=1)
    path = tmp_path / "recipe.yaml"
    path.write_text("# kept\n" + passthrough((Path("a"), 0, 3), (Path("b"), 1, 3)))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "model"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs started here are slow, and ended with the test whatever it has proved."""
    monkeypatch.setattr(job_list, "_MAIN", SLOW + job_list._MAIN)
    yield
    for job in job_list.every():
        if job.running and job.pid:
            os.kill(job.pid, signal.SIGKILL)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in args])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call


def until(ready: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
    return found


def writing(job: Job) -> None:
    """Wait until some tensors are written."""
    until(lambda: job.out and len((look(job.out) or FEW).tensors) and (look(job.out) or FEW).tensors[0] > 3)


class FEW:
    tensors = (0, 0)


def detach(said: Any, recipe: Path, out: Path, *flags: str) -> Job:
    code, text, _ = said("assemble", recipe, out, "--detach", "--no-check", "--quiet", "--json", *flags)
    assert code == 0
    value = json.loads(text)
    job = job_list.find(str(value["job"]))
    assert (value["pid"], value["folder"], value["out"]) == (job.pid, str(job.folder), str(out))
    return job


def test_it_writes_the_model(said: Any, recipe: Path, out: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, text, error = said("assemble", "recipe.yaml", out, "--detach", "--no-check", "--shard-size", "1kB")
    assert (code, text) == (0, f"job 1 writes {out}: `surgeon attach 1` shows it\n")
    code, text, error = said("attach")
    assert code == 0, error
    assert re.search(rf"^{out}: 5 layers, 3\.\d kB|^{out}: 5 layers", text, re.MULTILINE)
    run(["assemble", "recipe.yaml", str(tmp_path / "whole" / "model"), "--no-check", "--shard-size", "1kB"])
    assert contents(out) == contents(tmp_path / "whole" / "model")
    job = job_list.find(None)
    assert job.state().kind == "done" and not job.running
    assert "# kept" in (out / "surgeon_recipe.yaml").read_text()
    assert job.about["recipe"] == str(recipe)
    assert (job.about["layers"], job.about["letters"]) == (5, list("AAABB"))
    assert [event["event"] for event in job.events] == [] and job.poll()[-1]["event"] == "done"
    # Attached to what is over, it tells the outcome again.
    assert said("attach", "1")[0] == said("attach", out)[0] == 0


def test_what_is_refused_is_refused_at_once(said: Any, recipe: Path, out: Path, tmp_path: Path) -> None:
    out.mkdir(parents=True)
    (out / "mine").write_text("mine")
    assert said("assemble", recipe, out, "--detach")[::2] == (2, f"{said('assemble', recipe, out)[2]}")
    assert said("assemble", recipe, tmp_path / "a", "--detach")[0] == 2
    recipe.write_text(passthrough((Path("a"), 0, 9)))
    assert said("assemble", recipe, tmp_path / "new", "--detach")[0] == 2
    assert not job_list.every()


def test_a_job_of_its_own_session_that_ignores_hang_ups(said: Any, recipe: Path, out: Path, slow: None) -> None:
    job = detach(said, recipe, out)
    assert job.pid is not None
    assert os.getsid(job.pid) == job.pid != os.getsid(0)
    writing(job)
    os.kill(job.pid, signal.SIGHUP)
    before = (look(out) or FEW).tensors[0]
    until(lambda: (look(out) or FEW).tensors[0] > before + 2)
    assert job.running


def test_it_outlives_its_terminal(recipe: Path, out: Path, tmp_path: Path) -> None:
    """Started on a terminal that is closed right afterwards, by a process that is killed."""
    main, side = pty.openpty()
    code = f"from surgeon.jobs import job_list\njob_list._MAIN = {SLOW!r} + job_list._MAIN\n"
    code += "import sys\nfrom surgeon.__main__ import main\nmain()\nimport time\ntime.sleep(60)\n"
    starter = subprocess.Popen(
        [sys.executable, "-c", code, "assemble", str(recipe), str(out), "--detach", "--no-check"],
        stdin=side, stdout=side, stderr=side, start_new_session=True, cwd=tmp_path,
        env=child_environment(),
    )  # fmt: skip
    os.close(side)
    job = until(lambda: next((job for job in job_list.every() if job.pid), None))
    writing(job)
    starter.kill()
    starter.wait()
    os.close(main)
    assert job.running and job.state().kind == "running"
    before = (look(out) or FEW).tensors[0]
    until(lambda: (look(out) or FEW).tensors[0] > before + 2)
    job.cancel()
    assert job.wait(60)
    assert job.state().kind == "cancelled"


def test_cancelled_and_gone_on_with(said: Any, recipe: Path, out: Path, slow: None, monkeypatch, tmp_path) -> None:
    job = detach(said, recipe, out, "--shard-size", "1kB")
    writing(job)
    code, text, _ = said("jobs")
    assert re.search(rf"^   1  running    {out}, started \d", text)
    assert re.search(r"\n +(\d+% of 3\.\d kB|\d+% of|starting)", text)
    code, text, _ = said("cancel")
    assert code == 0
    assert re.search(rf"^   1  cancelled  {out}", text)
    assert re.search(r"\n +\d+ of 48 tensors are written; --resume continues\n", text), text
    assert not job.running and job.state().reason.startswith("cancelled. ")
    assert said("attach")[0] == 130
    assert said("cancel")[0] == 2
    values = json.loads(said("jobs", "--json")[1])
    assert (values[0]["state"], values[0]["resumable"], values[0]["pid"]) == ("cancelled", True, None)
    monkeypatch.undo()
    second = job_list.again(job)
    assert second.wait(60)
    assert second.state().kind == "done", second.log()
    assert second.poll()[-1]["earlier"] > 0
    assert job_list.find(str(out)).number == second.number
    run(
        [
            "assemble",
            str(recipe),
            str(tmp_path / "x" / "model"),
            "--no-check",
            "--shard-size",
            "1kB",
        ]
    )
    assert snapshot(out) == snapshot(tmp_path / "x" / "model")


def test_a_killed_one_is_crashed_and_gone_on_with(said: Any, recipe: Path, out: Path, slow: None, monkeypatch) -> None:
    job = detach(said, recipe, out)
    writing(job)
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)
    assert job.wait(60)
    # As this process started it, and as any other sees it.
    started_here = Job(job.folder, _process=subprocess.Popen(["sh", "-c", "kill -9 $$"]))
    started_here._process.wait()  # type: ignore[union-attr]
    assert started_here.state().reason == "its process was ended by SIGKILL"
    state = job.state()
    assert (state.kind, state.reason[:22]) == ("crashed", "its process was killed")
    code, text, _ = said("jobs")
    assert "   1  crashed  " in text and "was killed" in text and "--resume continues" in text
    code, _, error = said("attach")
    assert (code, error.splitlines()[-1][:23]) == (1, "surgeon: job 1 crashed:")
    monkeypatch.undo()
    assert said("assemble", recipe, out, "--detach", "--no-check", "--resume")[0] == 0
    assert said("attach", "2")[0] == 0
    assert job_list.find("2").poll()[-1]["earlier"] > 0


def test_the_second_on_one_output_is_told_of_the_first(said: Any, recipe: Path, out: Path, slow: None) -> None:
    job = detach(said, recipe, out)
    writing(job)
    for flags in ((), ("--detach",), ("--resume",), ("--restart",), ("--resume", "--detach")):
        code, _, error = said("assemble", recipe, out, "--no-check", *flags)
        assert (code, f"process {job.pid} is writing this model" in error) == (1, True), error
    assert job.running
    assert len(job_list.every()) == 1


def fake(about: dict[str, Any], process_record: dict[str, Any] | None, events: list[Any], log: str = "") -> Job:
    folder = job_list._number(job_list.state_folder("jobs"))
    (folder / "about.json").write_text(json.dumps({"verb": "assemble", "out": "/nowhere/model", **about}))
    if process_record is not None:
        (folder / "process.json").write_text(json.dumps(process_record))
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    (folder / "events.jsonl").write_bytes("".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass"))
    (folder / "log.txt").write_text(log)
    return Job(folder)


def test_what_a_job_says_names_the_recipe_and_not_its_copy(tmp_path: Path) -> None:
    job = fake({"recipe": str(tmp_path / "mine.yaml")}, None, [])
    copy = job.folder / "recipe.yaml"
    events = [{"event": "error", "message": f"{copy}: no"}]
    (job.folder / "events.jsonl").write_text(json.dumps(events[0]) + "\n")
    (job.folder / "log.txt").write_text(f"{copy}, line 3: a warning")
    assert job.state().reason == "mine.yaml: no"
    assert job.log() == "mine.yaml, line 3: a warning"
    assert job.poll()[0]["message"] == "mine.yaml: no"
    assert fake({}, None, []).recipe_name == "the recipe"


class TestState:
    def me(self, **changes: Any) -> dict[str, Any]:
        return {"pid": os.getppid(), "birth": process.birth(os.getppid()), **changes}

    def test_a_number_that_was_given_to_another_process(self) -> None:
        assert fake({}, self.me(), []).state().kind == "running"
        stranger = fake({}, self.me(birth=f"{process.boot()}:1"), [])
        assert stranger.state().kind == "crashed"
        stranger.cancel()  # Does not stop a stranger, or these tests would end here.
        assert process.alive(os.getppid())

    def test_another_boot(self) -> None:
        state = fake({}, self.me(birth="other:1"), []).state()
        assert (state.kind, state.reason) == ("crashed", "the machine was restarted")

    def test_a_process_that_was_never_started(self) -> None:
        state = fake({}, None, []).state()
        assert (state.kind, state.reason) == ("crashed", "its process was never started")

    @pytest.mark.parametrize(
        ("event", "kind"),
        [
            ({"event": "done"}, "done"),
            ({"event": "error", "message": "the disk is full."}, "failed"),
            ({"event": "cancelled", "message": "cancelled."}, "cancelled"),
        ],
    )
    def test_what_it_told(self, event: dict[str, Any], kind: str) -> None:
        progress = {"event": "progress", "bytes": 1, "total": 2, "rate": 3, "eta": None, "layer": 1}
        state = fake({}, {"pid": 2**22, "birth": ""}, [{"event": "start"}, progress, "{half a li", event]).state()
        assert (state.kind, state.reason) == (kind, event.get("message", ""))
        assert state.progress == progress

    def test_what_its_log_ends_with(self) -> None:
        dead = {"pid": 2**22, "birth": f"{process.boot()}:1"}
        log = "note: x\nTraceback (most recent call last):\n  File ...\nMemoryError\n"
        assert fake({}, dead, [], log).state().reason == "MemoryError"
        log = "Fatal Python error: Bus error\n\nCurrent thread 0x1:\n  File x\n"
        assert fake({}, dead, [], log).state().reason == "Fatal Python error: Bus error"
        assert "was killed" in fake({}, dead, [], "note: r.yaml: this is a note.\n").state().reason

    def test_a_zombie_is_dead(self) -> None:
        child = subprocess.Popen(["true"])
        until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        assert not process.alive(child.pid)
        child.wait()
        assert process.alive(os.getpid())

    def test_births_are_told_apart_whatever_the_clock_says(self, monkeypatch) -> None:
        one, other = process.birth(os.getpid()), process.birth(1)
        assert one and other and one != other
        monkeypatch.setattr(time, "time", lambda: 1.0)
        assert process.birth(os.getpid()) == one
        assert process.is_same(os.getpid(), one) and not process.is_same(os.getpid(), other)
        assert process.birth(2**22) == ""

    def test_memory(self) -> None:
        assert 5_000_000 < (process.resident() or 0) < 50_000_000_000

    def test_only_the_end_of_long_events_is_read(self, monkeypatch) -> None:
        from surgeon.jobs import job as jobs

        monkeypatch.setattr(jobs, "_TAIL", 300)
        many = [{"event": "progress", "bytes": number, "total": 1000} for number in range(500)]
        assert fake({}, self.me(), many).state().progress["bytes"] == 499

    def test_broken_files_are_no_crash(self, said: Any) -> None:
        job = fake({}, self.me(), ["[]", "null", "\x00", '{"event": 3}'])
        assert job.state().kind == "running"
        for name in ("about.json", "process.json"):
            (job.folder / name).write_text('["no"')
        assert job.state().kind == "crashed"
        assert said("jobs")[0] == 0


def test_found_by_number_output_or_alone(said: Any) -> None:
    assert said("attach")[2] == (
        "surgeon: there are no jobs. Start one with `surgeon assemble --detach`, or from the interface.\n"
    )
    assert said("jobs")[1] == "no jobs\n"
    me = {"pid": os.getppid(), "birth": process.birth(os.getppid())}
    over, running = fake({"out": "/x/one"}, None, [{"event": "done"}]), fake({"out": "/x/two"}, me, [])
    last = fake({"out": "/x/one"}, None, [{"event": "done"}])
    assert [job.number for job in job_list.every()] == [1, 2, 3]
    assert job_list.find(None).number == running.number
    assert job_list.find("1").number == over.number
    assert job_list.find("/x/one").number == last.number
    assert said("attach", "9")[0] == said("cancel", "elsewhere")[0] == 2
    fake({"out": "/x/four"}, me, [])
    assert "several jobs are running: 2, 4. Give the number of one" in said("cancel")[2]


def test_cleaned_up(said: Any, out: Path) -> None:
    me = {"pid": os.getppid(), "birth": process.birth(os.getppid())}
    fake({}, None, [{"event": "done"}])
    running = fake({}, me, [])
    fake({}, {"pid": 2**22, "birth": ""}, [])
    assert said("jobs", "--clean")[1] == "2 jobs forgotten\n"
    assert [job.number for job in job_list.every()] == [running.number]
    assert fake({}, None, []).number == 3


def test_attached_events_are_lines_and_a_gathered_past_is_short(said: Any) -> None:
    progress = [{"event": "progress", "bytes": number, "total": 100} for number in range(100)]
    fake({}, None, [{"event": "start", "shards": 1}, *progress, {"event": "done", "bytes": 100, "seconds": 1.0}])
    events = [json.loads(line) for line in said("attach", "--events")[1].splitlines()]
    assert [event["event"] for event in events] == ["start", "progress", "done"]
    assert events[1]["bytes"] == 99


def test_ctrl_c_leaves_it_running(recipe: Path, out: Path, said: Any, slow: None) -> None:
    job = detach(said, recipe, out)
    writing(job)
    watcher = subprocess.Popen(
        [sys.executable, "-m", "surgeon", "attach"], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert watcher.stderr is not None
    assert b"writing 5 layers" in watcher.stderr.readline()
    watcher.send_signal(signal.SIGINT)
    _, error = watcher.communicate(timeout=60)
    assert watcher.returncode == 0
    assert f"job {job.number} is still running".encode() in error
    assert job.running


def test_no_file_of_the_users_poses_as_a_module(
    said: Any, recipe: Path, out: Path, tmp_path: Path, monkeypatch
) -> None:
    for name in ("yaml.py", "xxhash.py", "json.py"):
        (tmp_path / name).write_text("raise SystemExit('taken for a module')\n")
    monkeypatch.chdir(tmp_path)
    job = detach(said, recipe, out)
    assert job.wait(60)
    assert job.state().kind == "done", job.log()


def test_donors_of_a_job_are_written_in_full(tmp_path: Path) -> None:
    from surgeon.plan.donors.open_donors import absolute
    from surgeon.recipe.document import parse

    for name in ("a", "lora", "deep/b"):
        (tmp_path / name).mkdir(parents=True)
    text = "# mine\nmerge_method: linear\nmodels:\n- model: ./a+lora\n- model: deep/../deep/b\n- model: org/name\n"
    document = absolute(parse(text, tmp_path / "recipe.yaml"), (tmp_path,))
    assert document.model_refs == [f"{tmp_path}/a+{tmp_path}/lora", f"{tmp_path}/deep/b", "org/name"]
    assert document.text.startswith("# mine\n")


def test_the_hidden_folder_tells_who_writes(said: Any, recipe: Path, out: Path, slow: None) -> None:
    job = detach(said, recipe, out)
    writing(job)
    left = look(out)
    assert left is not None and left.holder == f"process {job.pid}"
    assert (hidden(out) / "model").is_dir() and not out.exists()


HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**64, 10**400, 1.5, float("nan"), float("inf"), "7", "", "\0", "\ud800", "\x1b[2J", [],
    [7], {"a": 1}, "x" * 5_000,
)  # fmt: skip


class TestUntrusted:
    """A job's files are read back from a folder that others may write to."""

    @pytest.mark.parametrize("pid", [-1, 0, 1, True, 2**31, 2**64, 1.0, "1", None])
    @pytest.mark.parametrize("birth", ["", None, "x", 0])
    def test_nobody_is_signalled(self, said: Any, monkeypatch, pid: Any, birth: Any) -> None:
        sent: list[Any] = []
        real = os.kill
        monkeypatch.setattr(os, "kill", lambda who, number: sent.append(who) if number else real(who, 0))
        job = fake({}, {"pid": pid, "birth": birth}, [])
        job.cancel()
        code, _, error = said("cancel", "1")
        assert (code, sent) == (2, []), error
        assert "Traceback" not in error and not job.running

    def test_a_process_whose_birth_is_not_known_is_not_signalled(self, said: Any, monkeypatch) -> None:
        # As on a system that does not tell.
        monkeypatch.setattr(process, "birth", lambda _pid: "")
        monkeypatch.setattr(process, "_LINUX", False)
        child = subprocess.Popen(["sleep", "60"])
        try:
            job = fake({}, {"pid": child.pid, "birth": ""}, [])
            assert job.running and not job.cancel()
            code, _, error = said("cancel")
            assert (code, "was not stopped" in error) == (1, True)
            assert child.poll() is None
        finally:
            child.kill()
            child.wait()

    def test_its_very_process_is(self) -> None:
        child = subprocess.Popen(["sleep", "60"])
        job = fake({}, process.recorded(child.pid).record(), [])
        assert job.cancel()
        assert child.wait(60) == -signal.SIGTERM

    @pytest.mark.parametrize("name", ["about.json", "process.json", "events.jsonl", "log.txt", "recipe.yaml"])
    @pytest.mark.parametrize("how", ["pipe", "link", "folder", "deep", "latin", "large", "missing"])
    def test_one_that_is_broken_hides_no_other(self, said: Any, name: str, how: str, tmp_path: Path) -> None:
        whole = fake({}, None, [{"event": "done"}])
        file = fake({}, None, [{"event": "done"}]).folder / name
        file.unlink(missing_ok=True)
        (tmp_path / "elsewhere").write_text('{"out": "/secret/x", "event": "done"}\n')
        make: dict[str, Callable[[], Any]] = {
            "pipe": lambda: os.mkfifo(file),
            "link": lambda: file.symlink_to(tmp_path / "elsewhere"),
            "folder": lambda: file.mkdir(),
            "deep": lambda: file.write_text('{"pid":' + "[" * 100_000 + "\n"),
            "latin": lambda: file.write_bytes(b'{"event": "\xff"}\n'),
            "large": lambda: (file.touch(), os.truncate(file, 10**11)),
            "missing": lambda: None,
        }
        make[how]()
        code, text, _ = said("jobs")
        assert code == 0 and f"   {whole.number}  done" in text and "/secret" not in text
        assert said("jobs", "--json")[0] == 0
        assert said("attach", whole.number)[0] == 0
        said("attach", "2")
        with pytest.raises(SurgeonError):
            job_list.again(job_list.find("2"))

    @pytest.mark.parametrize("value", HOSTILE, ids=repr)
    def test_values_of_any_type(self, said: Any, value: Any) -> None:
        keys = ("verb", "out", "recipe", "cwd", "started", "arguments", "layers", "letters", "bytes", "tensors")
        start = {"event": "start", "bytes": 1, "shards": 1, "layers": 1}
        progress = {"event": "progress", "bytes": 1, "total": 2, "rate": 3, "eta": 1.0, "layer": 1, "memory": 3}
        progress |= {"files": {"a": [1, 2]}, "files_done": 0}
        done = {"event": "done", "seconds": 1.0, "bytes": 1, "warnings": []}
        for key in keys:
            fake({key: value}, None, [start, done])
        for event in (start, progress, done):
            for key in event:
                fake({}, TestState().me() if event is progress else None, [start, {**event, key: value}])
        fake({}, {"pid": value, "birth": value, "host": value, "space": value}, [value, start])
        count = len(job_list.every())
        assert [job.number for job in job_list.every()] == list(range(1, count + 1))
        job_list.of_recipe(None, Path.cwd())
        code, text, _ = said("jobs")
        assert code == 0 and "\x1b" not in text
        code, text, _ = said("jobs", "--json")
        assert code == 0
        assert len(json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))) == count
        for job in job_list.every():
            for event in job.poll():
                if event["event"] == "progress":
                    assert words(event, 3, 2)
            if not job.running:
                assert said("attach", job.number)[0] in (0, 1, 130)

    @pytest.mark.parametrize("name", ["²", "٣", "0", "07", "9" * 200, "x"])
    def test_folders_that_are_no_jobs(self, said: Any, name: str) -> None:
        (job_list.state_folder("jobs") / name).mkdir()
        (job_list.state_folder("jobs") / "5").symlink_to("/")
        job = fake({}, None, [{"event": "done"}])
        assert [found.number for found in job_list.every()] == [job.number]
        assert said("jobs")[0] == 0

    def test_only_what_surgeon_starts_is_resumed(self) -> None:
        for about in ({"verb": "demo"}, {"arguments": ["/elsewhere"]}, {"arguments": [3]}, {"out": "relative"}):
            job = fake({"arguments": ["/nowhere/model"], **about}, None, [])
            (job.folder / "recipe.yaml").write_text("slices: []\n")
            with pytest.raises(SurgeonError, match="cannot be resumed"):
                job_list.again(job)


class TestElsewhere:
    """A home that two hosts share: what runs on the other cannot be seen from here."""

    def test_the_lock_of_its_output_tells(self, said: Any, out: Path) -> None:
        there = {"pid": os.getpid(), "birth": "b:1", "host": "elsewhere"}
        job = fake({"out": str(out)}, there, [])
        assert job.state().kind == "crashed"
        hidden(out).mkdir(parents=True)
        (hidden(out) / "lock").write_text(json.dumps(there))
        with (hidden(out) / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert job.state().kind == "running"
            assert said("jobs", "--clean")[1] == "0 jobs forgotten\n"
            code, _, error = said("cancel", "1")
            assert (code, "on elsewhere" in error) == (1, True), error
        assert not job.running

    def test_a_lock_that_nobody_holds_stops_nobody(self, said: Any, recipe: Path, out: Path) -> None:
        """As a killed container leaves it: the next has another name, and cannot ask for the process."""
        hidden(out).mkdir(parents=True)
        (hidden(out) / "lock").write_text(json.dumps({"pid": 7, "birth": "b:1", "host": "elsewhere"}))
        assert said("assemble", recipe, out, "--no-check", "--quiet")[0] == 0


def test_a_cancelled_job_whose_output_is_there_says_nothing_of_resuming(
    said: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own"))
    events = (
        {"event": "cancelled", "message": "cancelled. 1 GB of 2 GB are written: go on with --resume."},
        {"event": "done"},
    )
    for number, event in enumerate(events, start=1):
        folder = job_list.state_folder("jobs") / str(number)
        folder.mkdir()
        (folder / "about.json").write_text(json.dumps({"verb": "assemble", "out": str(tmp_path / "m"), "cwd": "/"}))
        (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    text = said("jobs")[1]
    assert "job 2 has written the output since" in text
    assert "--resume" not in text
    (job_list.state_folder("jobs") / "2" / "events.jsonl").write_text("")
    assert "--resume" in said("jobs")[1]
