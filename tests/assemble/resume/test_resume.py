"""Going on with an output that was left unfinished: the same bytes, nothing twice, nothing from something else."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import surgeon.assemble.resume.fingerprint as fingerprints
from surgeon.assemble.compute.arithmetic import PLAIN
from surgeon.assemble.resume import journal
from surgeon.assemble.resume.fingerprint import Fingerprint, fingerprint
from surgeon.assemble.resume.unfinished import look
from surgeon.assemble.resume.workspace import InUse, Workspace, hidden
from surgeon.assemble.write import sink
from surgeon.errors import InputError, SurgeonError
from surgeon.plan import Plan
from tests.support.assembling import assemble, donor, passthrough, plan_of, ready, snapshot
from tests.support.paths import child_environment


class Halt(Exception):
    """The end of a run, as sudden as one inside this process can be."""


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return donor(tmp_path / "donors" / "a", 3, seed=1)


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return donor(tmp_path / "donors" / "b", 4, seed=2)


@pytest.fixture(params=["copied", "converted"])
def plan(a: Path, b: Path, request: pytest.FixtureRequest) -> Plan:
    more = "" if request.param == "copied" else "dtype: float32\nparameters: {scale: 0.5}"
    return plan_of(passthrough((a, 0, 3), (b, 1, 4), more=more))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "model"


@contextlib.contextmanager
def stopped_after(count: int) -> Iterator[list[str]]:
    """Ends a run after `count` tensors; gives the names of those that are written, in order."""
    real, names = journal.Journal.add, []  # type: ignore[var-annotated]

    def add(self: journal.Journal, line: journal.JournalLine) -> None:
        if len(names) == count:
            raise Halt
        names.append(line.tensor)
        real(self, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal.Journal, "add", add)
        yield names


def stop(plan: Plan, out: Path, count: int, **options: Any) -> list[str]:
    with stopped_after(count) as names, pytest.raises(Halt):
        assemble(plan, out, workers=1, **options)
    return names


def whole(plan: Plan, folder: Path, **options: Any) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    assemble(plan, folder / "model", **options)
    return snapshot(folder / "model")


@pytest.mark.parametrize("fsync", [True, False])
@pytest.mark.parametrize("shard_size", [900, 10**9])
@pytest.mark.parametrize("count", [1, 7, 40])
def test_the_bytes_are_those_of_one_run_and_nothing_is_written_twice(
    plan: Plan, out: Path, tmp_path: Path, count: int, shard_size: int, fsync: bool
) -> None:
    first = stop(plan, out, count, shard_size=shard_size, fsync=fsync)
    events: list[dict[str, Any]] = []
    with stopped_after(10**9) as second:
        assemble(plan, out, shard_size=shard_size, fsync=fsync, resume=True, on_event=events.append)
    assert len(first) == count
    assert sorted(first + second) == sorted(tensor.name for tensor in plan.tensors)
    assert snapshot(out) == whole(plan, tmp_path / "whole", shard_size=shard_size)
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    nbytes = {tensor.name: tensor.nbytes for tensor in plan.tensors}
    assert events[-1]["earlier"] == sum(nbytes[name] for name in first)
    assert {event["index"] for event in events if event["event"] == "layer"} == set(range(6))
    last = [event for event in events if event["event"] == "progress"][-1]
    assert last["bytes"] == last["total"] == plan.estimates.nbytes


def test_stopped_again_and_again(plan: Plan, out: Path, tmp_path: Path) -> None:
    done: list[str] = []
    for _ in range(4):
        done += stop(plan, out, 12, shard_size=900, resume=True)
    assert len(set(done)) == 48
    assemble(plan, out, shard_size=900, resume=True, workers=3)
    assert snapshot(out) == whole(plan, tmp_path / "whole", shard_size=900)


def test_the_other_number_of_workers_and_no_fsync(plan: Plan, out: Path, tmp_path: Path) -> None:
    stop(plan, out, 20, shard_size=900)
    assemble(plan, out, shard_size=900, workers=4, fsync=False, resume=True)
    assert snapshot(out) == whole(plan, tmp_path / "whole", shard_size=900)


def test_with_nothing_to_go_on_with_it_begins(plan: Plan, out: Path, tmp_path: Path) -> None:
    assemble(plan, out, resume=True)
    assert snapshot(out) == whole(plan, tmp_path / "whole")


def test_neither_thrown_away_nor_gone_on_with_unasked(plan: Plan, out: Path, tmp_path: Path) -> None:
    stop(plan, out, 20)
    before = snapshot(out.parent)
    for refuse in (assemble, ready):
        with pytest.raises(InputError, match=r"has written 20 of 57 tensors .* --resume, or .* --restart\.$"):
            refuse(plan, out)
    assert snapshot(out.parent) == before
    ready(plan, out, resume=True)
    ready(plan, out, restart=True)
    assert snapshot(out.parent) == before
    with stopped_after(10**9) as names:
        assemble(plan, out, restart=True)
    assert len(names) == 57
    assert snapshot(out) == whole(plan, tmp_path / "whole")


def test_the_shard_size_need_not_be_said_again(plan: Plan, out: Path, tmp_path: Path) -> None:
    stop(plan, out, 20, shard_size=900)
    assemble(plan, out, resume=True)
    assert snapshot(out) == whole(plan, tmp_path / "whole", shard_size=900)


class TestWhatChanged:
    """A run is gone on with as what it was begun as, or not at all."""

    @pytest.fixture
    def begun(self, a: Path, b: Path, out: Path) -> dict[str, bytes]:
        stop(self.plan(a, b), out, 20)
        return snapshot(out.parent)

    @staticmethod
    def plan(a: Path, b: Path, start: int = 1, more: str = "") -> Plan:
        return plan_of(passthrough((a, 0, 3), (b, start, start + 3), more=more))

    def refused(self, plan: Plan, out: Path, why: str, **options: Any) -> None:
        before = snapshot(out.parent)
        for refuse in (assemble, ready):
            with pytest.raises(InputError, match=why) as error:
                refuse(plan, out, resume=True, **options)
            assert "--restart" in str(error.value)
        with pytest.raises(InputError, match="inputs were different"):
            ready(plan, out, **options)
        assert snapshot(out.parent) == before

    def test_the_recipe(self, a: Path, b: Path, out: Path, begun: object) -> None:
        why = r"the recipe makes model\.layers\.3\.\S+ from something else \(and 26 other tensors\)"
        self.refused(self.plan(a, b, start=0), out, why)

    def test_its_dtype(self, a: Path, b: Path, out: Path, begun: object) -> None:
        self.refused(self.plan(a, b, more="dtype: float32"), out, "from something else")

    def test_a_factor(self, a: Path, b: Path, out: Path, begun: object) -> None:
        self.refused(self.plan(a, b, more="parameters: {scale: 0.25}"), out, "from something else")

    def test_layers_more_and_fewer(self, a: Path, b: Path, out: Path, begun: object) -> None:
        self.refused(plan_of(passthrough((a, 0, 3))), out, r"no longer makes model\.layers\.3\S+ \(and 26 other")
        self.refused(plan_of(passthrough((a, 0, 3), (b, 1, 4), (a, 0, 1))), out, r"now makes model\.layers\.6\S+ too")

    def test_a_donors_bytes_header_and_length(self, a: Path, b: Path, out: Path, begun: object) -> None:
        weights = b / "model.safetensors"
        data, state = weights.read_bytes(), weights.stat()
        with weights.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"x")
        self.refused(self.plan(a, b), out, r"the donor \S+/b/model\.safetensors changed \(it was written to since\)")
        # A header of the same length with two tensors in each other's place, and even the file's time put back.
        weights.write_bytes(
            data.replace(b"k_proj", b"x_proj").replace(b"q_proj", b"k_proj").replace(b"x_proj", b"q_proj")
        )
        os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
        self.refused(self.plan(a, b), out, r"\(its header changed\)")
        donor(b, 4, seed=2, dtype="F32")
        self.refused(self.plan(a, b), out, r"\(it had [\d,]+ bytes and has [\d,]+\)")

    def test_the_program(self, a: Path, b: Path, out: Path, begun: object, monkeypatch) -> None:
        monkeypatch.setattr(fingerprints, "__version__", "9.9")
        self.refused(self.plan(a, b), out, r"surgeon was \d\S+ and is 9\.9")

    def test_the_shard_size(self, a: Path, b: Path, out: Path, begun: object) -> None:
        self.refused(self.plan(a, b), out, r"shard size was 5\.0 GB and is 1\.0 kB", shard_size=1000)

    def test_the_config(self, a: Path, b: Path, out: Path, begun: object) -> None:
        plan = self.plan(a, b)
        self.refused(replace(plan, config=plan.config | {"rope_theta": 5.0}), out, "the config or a tokenizer file")  # type: ignore[operator]

    def test_a_tokenizer_file(self, a: Path, b: Path, out: Path, begun: object) -> None:
        (a / "tokenizer.json").write_text((a / "tokenizer.json").read_text() + "\n")
        self.refused(self.plan(a, b), out, "the config or a tokenizer file")

    def test_where_blends_are_computed_and_what_with(
        self, a: Path, b: Path, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from tests.support.gpu_stand_in import StandIn

        plan = self.plan(a, b, more="dtype: float32")
        stop(plan, out, 5, allow_nonfinite=True)
        monkeypatch.setattr("surgeon.assemble.run.blending_gpus", lambda name: (StandIn(),))  # there is no GPU
        self.refused(plan, out, r"was cpu and is cuda \(stand-in\)", device="cuda:1", allow_nonfinite=True)
        self.refused(plan, out, "started with --allow-nonfinite")
        folder = hidden(out) / "begun.json"
        folder.write_text(folder.read_text().replace('"torch":"', '"torch":"0.'))
        self.refused(plan, out, r"torch was 0\.\d\S+ and is \d", allow_nonfinite=True)

    def test_what_is_more_lenient_may_go_on(self, a: Path, b: Path, out: Path, tmp_path: Path) -> None:
        plan = self.plan(a, b, more="dtype: float32")
        stop(plan, out, 5)
        stop(plan, out, 5, allow_nonfinite=True, resume=True)
        self.refused(plan, out, "started with --allow-nonfinite")

    def test_a_comment_is_no_change(self, a: Path, b: Path, out: Path, tmp_path: Path, begun: object) -> None:
        assemble(self.plan(a, b), out, recipe="# other\n", resume=True)
        assert snapshot(out) == whole(self.plan(a, b), tmp_path / "whole", recipe="# other\n")

    def test_a_broken_fingerprint_is_none(self, a: Path, b: Path, out: Path, begun: object) -> None:
        for text in ("", "{", "[]", "null", '{"programs": {}}', json.dumps({"sources": {"x": 1}})):
            (hidden(out) / "begun.json").write_text(text)
            assert look(out) is None
        assemble(self.plan(a, b), out)

    @pytest.mark.parametrize("value", [None, True, -1, 0, 1.5, 2**70, "x", [], {"x": 1}, float("nan")], ids=repr)
    def test_one_with_values_of_other_types_is_none(
        self, a: Path, b: Path, out: Path, begun: object, value: object
    ) -> None:
        file = hidden(out) / "begun.json"
        found = json.loads(file.read_text())
        name, mark = next(iter(found["sources"].items()))
        wrong = [{**found, key: value} for key in ("shard_size", "programs", "sources")]
        wrong += [{**found, "tensors": {"x": value}}] if value != "x" else []
        wrong += [{**found, "sources": {name: {**mark, key: value}}} for key in ("size", "modified") if value != 0]
        for values in wrong:
            file.write_text(json.dumps(values))
            left = look(out)
            assert left is None, values
        assemble(self.plan(a, b), out, restart=True)

    @pytest.mark.parametrize("name", ["lock", "journal", "begun.json"])
    def test_a_pipe_is_not_waited_for(self, a: Path, b: Path, out: Path, begun: object, name: str) -> None:
        (hidden(out) / name).unlink(missing_ok=True)
        os.mkfifo(hidden(out) / name)
        look(out)
        assemble(self.plan(a, b), out, restart=True)

    def test_the_clock_is_no_part_of_it(self, a: Path, b: Path, out: Path, tmp_path: Path, begun: object) -> None:
        """Files written in the future, or in 1970: nothing asks when."""
        for path in hidden(out).rglob("*"):
            os.utime(path, (4e9, 4e9))
        stop(self.plan(a, b), out, 5, resume=True)
        for path in hidden(out).rglob("*"):
            os.utime(path, (1, 1))
        assemble(self.plan(a, b), out, resume=True)
        assert snapshot(out) == whole(self.plan(a, b), tmp_path / "whole")


def test_a_fingerprint_is_the_same_in_every_process(plan: Plan, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.support.assembling import plan_of\n"
        "from surgeon.assemble.compute.arithmetic import PLAIN\n"
        "from surgeon.assemble.resume.fingerprint import fingerprint\n"
        "print(fingerprint(plan_of(Path(sys.argv[1]).read_text()), 900, PLAIN).dumps())\n"
    )
    from surgeon.recipe.document import fresh

    (tmp_path / "recipe.yaml").write_text(fresh(plan.recipe).text)
    mine = fingerprint(plan, 900, PLAIN)
    assert Fingerprint.loads(mine.dumps()) == mine
    for seed in ("1", "2"):
        environment = child_environment(PYTHONHASHSEED=seed)
        command = [sys.executable, "-c", code, str(tmp_path / "recipe.yaml")]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert Fingerprint.loads(found.stdout) == mine


class TestPowerLoss:
    """What was not synced is not there any more; what was is read back by nobody."""

    @pytest.fixture(autouse=True)
    def often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sink, "SYNC", 1000)

    @staticmethod
    def lose(out: Path, names: list[str], how: str) -> None:
        """Bytes of tensors that are not marked as being on the disk."""
        from surgeon.checkpoint import read_header

        lines = journal.Journal(hidden(out) / "journal", flush=True)
        lines.close()
        for path in (hidden(out) / "model").glob("*.safetensors"):
            entries = {entry.name: entry for entry in read_header(path)[0]}
            lost = [entries[name] for name in names if name in entries and name not in lines.marked]
            with path.open("r+b") as file:
                for entry in lost:
                    file.seek(entry.offset)
                    file.write(bytes(entry.nbytes))
                if how == "cut" and lost:
                    file.truncate(lost[0].offset + 1)

    @pytest.mark.parametrize("how", ["zeros", "cut"])
    @pytest.mark.parametrize("fsync", [True, False])
    def test_lost_data_is_written_again(self, plan: Plan, out: Path, tmp_path: Path, fsync: bool, how: str) -> None:
        names = stop(plan, out, 30, fsync=fsync)
        marked = journal.Journal(hidden(out) / "journal", flush=True)
        marked.close()
        assert bool(marked.marked) == fsync
        assert len(marked.marked) < 30
        self.lose(out, names, how)
        with stopped_after(10**9) as again:
            assemble(plan, out, resume=True)
        assert set(again) == {tensor.name for tensor in plan.tensors} - marked.marked
        assert snapshot(out) == whole(plan, tmp_path / "whole")

    def test_lost_lines_are_written_again(self, plan: Plan, out: Path, tmp_path: Path) -> None:
        stop(plan, out, 30)
        path = hidden(out) / "journal"
        path.write_bytes(path.read_bytes()[:-200])
        assemble(plan, out, resume=True)
        assert snapshot(out) == whole(plan, tmp_path / "whole")

    @pytest.mark.parametrize("lost", ["journal", "begun.json", "model"])
    def test_a_lost_file_costs_no_more_than_time(self, plan: Plan, out: Path, tmp_path: Path, lost: str) -> None:
        import shutil

        stop(plan, out, 30)
        path = hidden(out) / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assemble(plan, out)
        assert snapshot(out) == whole(plan, tmp_path / "whole")

    def test_a_lost_weight_file_with_marks_is_seen(self, plan: Plan, out: Path, tmp_path: Path) -> None:
        """No power loss does that to what was synced; a person may."""
        stop(plan, out, 30)
        next((hidden(out) / "model").glob("*.safetensors")).unlink()
        assemble(plan, out, resume=True)
        assert snapshot(out) == whole(plan, tmp_path / "whole")

    def test_what_is_marked_is_not_read_again(self, a: Path, out: Path, monkeypatch) -> None:
        plan = plan_of(passthrough((a, 0, 3)))
        stop(plan, out, 25, shard_size=900)
        read: list[str] = []
        real = os.preadv
        monkeypatch.setattr(
            os, "preadv", lambda fd, *rest: read.append(str(Path(f"/proc/self/fd/{fd}").readlink())) or real(fd, *rest)
        )
        marked = journal.Journal(hidden(out) / "journal", flush=True)
        marked.close()
        assemble(plan, out, resume=True)
        unmarked = {line.shard for line in marked.lines.values() if line.tensor not in marked.marked}
        assert {Path(name).name for name in read if ".surgeon" in name} <= unmarked
        assert marked.marked and len({line.shard for line in marked.lines.values()} - unmarked) > 2


class TestTwoAtOnce:
    def test_the_second_is_told_the_firsts_number(self, plan: Plan, out: Path) -> None:
        with Workspace(out), pytest.raises(InUse, match=rf"process {os.getpid()} is writing this model"):
            assemble(plan, out)
        assert not out.parent.exists()
        assemble(plan, out)

    def test_whatever_flags_it_has(self, plan: Plan, out: Path) -> None:
        stop(plan, out, 20)
        before = snapshot(hidden(out) / "model")
        with Workspace(out):
            for options in ({"resume": True}, {"restart": True}, {"force": True}):
                with pytest.raises(InUse):
                    assemble(plan, out, **options)  # type: ignore[arg-type]
        assert snapshot(hidden(out) / "model") == before

    def test_who_holds_it_may_not_have_said_who_it_is(self, plan: Plan, out: Path, monkeypatch) -> None:
        """On a full disk it cannot."""
        import fcntl

        from surgeon.assemble.resume import workspace

        monkeypatch.setattr(workspace, "_PATIENCE", 0.0)
        hidden(out).mkdir(parents=True)
        with (hidden(out) / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(InUse, match="another process is writing this model"):
                assemble(plan, out)

    def test_of_a_dead_ones_lock_nothing_is_left(self, plan: Plan, out: Path) -> None:
        """Its number may have been given to another process since."""
        hidden(out).mkdir(parents=True)
        (hidden(out) / "lock").write_text(json.dumps({"pid": os.getppid(), "birth": "another", "host": "here"}))
        assemble(plan, out)
        assert [path.name for path in out.parent.iterdir()] == ["model"]

    def test_where_no_file_can_be_locked_the_number_does(self, plan: Plan, out: Path, monkeypatch) -> None:
        import errno
        import fcntl
        import socket

        from surgeon.process import birth

        def refuse(fd: int, how: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refuse)
        hidden(out).mkdir(parents=True)
        live = {"pid": os.getppid(), "birth": birth(os.getppid()), "host": socket.gethostname()}
        for holder, held in [(live, True), (live | {"birth": "another"}, False), (live | {"host": "elsewhere"}, True)]:
            hidden(out).mkdir(parents=True, exist_ok=True)
            (hidden(out) / "lock").write_text(json.dumps(holder))
            if held:
                with pytest.raises(InUse, match=r"if that process no longer exists, remove \S+/lock"):
                    assemble(plan, out, force=True)
            else:
                assemble(plan, out, force=True)

    def test_a_lock_removed_with_its_folder_is_taken_anew(self, plan: Plan, out: Path, monkeypatch) -> None:
        """Its holder ended between this process's opening the file and its locking it."""
        import fcntl

        real, calls = fcntl.flock, []

        def late(fd: int, how: int) -> None:
            calls.append(fd)
            if len(calls) == 1:
                (hidden(out) / "lock").unlink()
                hidden(out).rmdir()
            real(fd, how)

        monkeypatch.setattr(fcntl, "flock", late)
        assemble(plan, out)
        assert len(calls) == 2
        assert [path.name for path in out.parent.iterdir()] == ["model"]


class TestLook:
    def test_what_is_there(self, plan: Plan, out: Path) -> None:
        assert look(out) is None
        stop(plan, out, 20, shard_size=900)
        found = look(out)
        assert found is not None
        assert (found.tensors, found.shard_size, found.holder) == ((20, 57), 900, "")
        with Workspace(out) as workspace:
            workspace.keep(True)
            # A process does not take itself for another.
            lock = hidden(out) / "lock"
            record = json.loads(lock.read_text())
            from surgeon.process import birth

            lock.write_text(json.dumps(record | {"pid": os.getppid(), "birth": birth(os.getppid())}))
            held = look(out)
            assert held is not None and held.holder == f"process {os.getppid()}"
        assemble(plan, out, resume=True)
        assert look(out) is None


def test_overflows_of_an_earlier_run_are_told_of_too(a: Path, out: Path) -> None:
    import struct

    weights = donor(a, 3, seed=1, dtype="F32") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + struct.pack("<f", 1e9))
    plan = plan_of(passthrough((a, 0, 3), more="dtype: float16"))
    names = stop(plan, out, 29)
    whole_run = assemble(plan, out.with_name("other")).warnings
    assert assemble(plan, out, resume=True).warnings == whole_run
    assert names and whole_run


def test_the_disk_need_only_have_room_for_the_rest(plan: Plan, out: Path, monkeypatch) -> None:
    import shutil
    from types import SimpleNamespace

    def needed() -> float:
        with pytest.raises(SurgeonError, match=r"needs [\d.]+ kB, but the disk has only 0 B free") as error:
            assemble(plan, out, resume=True)
        return float(str(error.value).split("needs ")[1].split()[0]) * 1000

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**6, used=0, free=0))
        before = needed()
    stop(plan, out, 50)
    there = sum(path.stat().st_blocks * 512 for path in (hidden(out) / "model").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10**6, used=0, free=0))
        assert there and needed() == pytest.approx(before - there, abs=200)
    assemble(plan, out, resume=True)


@pytest.mark.parametrize("name", ["", "model", "old", "begun.json", "journal", "lock"])
def test_a_planted_link_is_not_followed(a: Path, b: Path, out: Path, tmp_path: Path, name: str) -> None:
    """Whoever may write beside an output does not say what else is written, or removed."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("theirs")
    link = hidden(out) / name if name else hidden(out)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(secret if name in ("", "model", "old") else secret / "file")
    look(out)
    with contextlib.suppress(SurgeonError):
        assemble(plan_of(passthrough((a, 0, 3))), out, restart=True)
    assert [path.name for path in secret.iterdir()] == ["file"]
    assert (secret / "file").read_text() == "theirs"
    assert not out.is_symlink()
