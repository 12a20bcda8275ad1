"""Faults that are really injected, a few of each; `python -m tests.faults` tries many more."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from surgeon.assemble.io import byte_copy as copying
from surgeon.assemble.io import system_calls
from surgeon.assemble.resume.journal import Journal, JournalLine
from surgeon.assemble.resume.workspace import hidden
from surgeon.assemble.write import sink
from surgeon.errors import InputError, SurgeonError
from tests.faults import run as faults
from tests.support.assembling import assemble, donor, passthrough, plan_of, snapshot
from tests.support.paths import ROOT, child_environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def copies(folder: Path) -> faults.Case:
    return faults.case(folder)


@pytest.fixture(scope="module")
def converted(folder: Path) -> faults.Case:
    return faults.case(folder, "dtype: float32\nparameters: {scale: 0.5}")


class TestKilled:
    """kill -9 before a call that writes, or half way through it, in a process of its own."""

    @pytest.mark.parametrize("kind", ["", "fsync=False", "workers=3"])
    def test_at_many_moments(self, tmp_path: Path, kind: str) -> None:
        code = (
            "import sys; from pathlib import Path\nfrom tests.faults import run as faults\n"
            f"one = faults.case(Path(sys.argv[1]), {kind})\n"
            "print(faults.kill_everywhere(one, Path(sys.argv[1]), step=11, start=3))\n"
        )
        environment = child_environment()
        found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True)
        assert found.returncode == 0, found.stderr.decode()
        assert int(found.stdout) > 10

    def test_again_and_again(self, tmp_path: Path) -> None:
        code = (
            "import random, sys; from pathlib import Path\nfrom tests.faults import run as faults\n"
            "one = faults.case(Path(sys.argv[1]))\n"
            "print(faults.kill_chain(one, Path(sys.argv[1]), random.Random(3), 120))\n"
        )
        environment = child_environment()
        found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True)
        assert found.returncode == 0, found.stderr.decode()
        assert int(found.stdout) > 2

    def test_after_its_last_rename_it_is_done_and_says_so(self, copies: faults.Case, tmp_path: Path) -> None:
        out = tmp_path / "out" / "model"
        copies.run(out)
        (hidden(out) / "model").mkdir(parents=True)
        (hidden(out) / "begun.json").write_text("{}")
        events: list[dict[str, Any]] = []
        copies.run(out, on_event=events.append)
        assert [event["event"] for event in events] == ["done"]
        copies.check(out)
        with pytest.raises(InputError, match="not empty"):
            copies.run(out, recipe="# another\n")
        with pytest.raises(InputError, match="not empty"):
            copies.run(out, shard_size=700)
        (out / "surgeon.json").write_text("[]")
        with pytest.raises(InputError, match="not empty"):
            copies.run(out)


@pytest.mark.parametrize("kind", ["copies", "converted"])
@pytest.mark.parametrize("seed", range(6))
def test_power_is_lost(kind: str, seed: int, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """What was synced stays; of the rest any part is there, zeros in its place, or a file is gone altogether."""
    one, dice = request.getfixturevalue(kind), random.Random(seed)
    losses = [faults.power_loss(one, tmp_path / "out" / "model", dice, after) for after in range(11 + seed, 160, 37)]
    assert any(lost > 0 for lost in losses)


@pytest.mark.parametrize("times", [1, 10**9])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(("call", "numbers"), [("pwrite", (0, 9, 50, 90)), ("preadv", (0, 20)), ("fdatasync", (0, 4))])
def test_calls_that_fail(
    copies: faults.Case, tmp_path: Path, call: str, numbers: tuple[int, ...], code: int, times: int
) -> None:
    for number in numbers:
        assert faults.failing(copies, tmp_path / "out" / "model", call, number, code, times), number


def test_data_that_a_failed_sync_has_dropped_is_written_again(
    copies: faults.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux tells of a failed write once, and holds the page for clean afterwards."""
    out, real = tmp_path / "out" / "model", os.fdatasync
    calls: list[str] = []

    def fail(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        calls.append(path.suffix)
        if path.suffix == ".safetensors" and calls.count(".safetensors") == 1:
            path.write_bytes(path.read_bytes()[:2500] + bytes(max(0, path.stat().st_size - 2500)))
            raise OSError(errno.EIO, "Input/output error")
        real(fd)

    with faults.small_steps(), monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(SurgeonError, match=r"Input/output error.*--resume"):
            copies.run(out, workers=1)
    copies.run(out)
    copies.check(out)


class TestDisks:
    def mounted(self, folder: Path, size: int) -> None:
        folder.mkdir()
        found = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
        )
        if found.returncode:
            pytest.skip("mounting needs root")

    @pytest.fixture
    def tmpfs(self, tmp_path: Path) -> Iterator[Path]:
        self.mounted(tmp_path / "mnt", 60_000)
        yield tmp_path / "mnt"
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)

    @pytest.fixture
    def blind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The check of free space, which would refuse it at once, sees plenty."""
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=0, used=0, free=10**15))

    @pytest.mark.parametrize("reserving", [True, False])
    def test_a_full_one_made_larger(
        self, tmpfs: Path, tmp_path: Path, blind: None, monkeypatch: pytest.MonkeyPatch, reserving: bool
    ) -> None:
        if not reserving:
            monkeypatch.setattr(sink, "reserve", lambda fd, nbytes: None)
        plan = plan_of(passthrough((donor(tmp_path / "a", 40), 0, 40)))
        assemble(plan, tmp_path / "whole" / "model", shard_size=9000)
        out = tmpfs / "model"
        with pytest.raises(
            SurgeonError, match=r"the disk is full\. Free some space.*are written: resume with --resume"
        ):
            assemble(plan, out, shard_size=9000, workers=1)
        assert not out.exists()
        # Full still: it fails again, and loses nothing.
        with pytest.raises(SurgeonError, match=r"the disk is full\. Free some space.*--resume"):
            assemble(plan, out, resume=True, workers=1)
        subprocess.run(["mount", "-o", "remount,size=2M", str(tmpfs)], check=True)
        events: list[dict[str, Any]] = []
        assemble(plan, out, resume=True, on_event=events.append)
        assert events[-1]["earlier"] > 0
        assert snapshot(out) == snapshot(tmp_path / "whole" / "model")

    def test_a_read_only_one(self, tmpfs: Path, copies: faults.Case) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
        with pytest.raises(SurgeonError, match=r"cannot create the folder, because Read-only file system"):
            copies.run(tmpfs / "model")

    def test_one_that_becomes_read_only(self, tmpfs: Path, copies: faults.Case, blind: None) -> None:
        subprocess.run(["mount", "-o", "remount,size=2M", str(tmpfs)], check=True)
        out = tmpfs / "out" / "model"

        def turn(event: dict[str, Any]) -> None:
            if event["event"] == "layer" and event["index"] == 2:
                subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=False)

        # A file that is open for writing keeps the kernel from it: then all is written, and nothing is asked here.
        try:
            copies.run(out, on_event=turn)
        except SurgeonError as error:
            assert "Read-only file system" in str(error)
        subprocess.run(["mount", "-o", "remount,rw", str(tmpfs)], check=True)
        copies.run(out)
        copies.check(out)

    def test_one_whose_files_vanish(self, copies: faults.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out, real = tmp_path / "out" / "model", Journal.add

        def add(journal: Journal, line: JournalLine) -> None:
            real(journal, line)
            if len(journal.lines) == 10:
                shutil.rmtree(hidden(out))

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "add", add)
            with pytest.raises(SurgeonError, match=r"No such file or directory.*[Nn]othing was written"):
                copies.run(out)
        copies.run(out)
        copies.check(out)

    def test_a_limit_on_the_length_of_files(self, copies: faults.Case, tmp_path: Path) -> None:
        code = (
            "import resource, signal, sys; from pathlib import Path\nfrom tests.faults import run as faults\n"
            "one = faults.case(Path(sys.argv[1]), shard_size=10**9)\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))\n"
            "out = Path(sys.argv[1]) / 'out' / 'model'\n"
            "try:\n    one.run(out)\nexcept faults.SurgeonError as error:\n    print(error)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
            "one.run(out)\none.check(out)\n"
        )
        environment = child_environment()
        found = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        assert "writing failed: File too large" in found.stdout


class TestDonors:
    """Donors that change while they are read: an error that names the file, never a crash and never a wrong model."""

    def spoil(self, how: str, path: Path) -> None:
        if how == "truncated":
            os.truncate(path, 3000)
        elif how == "emptied":
            path.write_bytes(b"")
        elif how == "removed":
            path.unlink()
        elif how == "replaced":
            donor(path.parent, 4, seed=9, dtype="F32")
        else:
            with path.open("r+b") as file:
                file.seek(-3, 2)
                file.write(b"xyz")

    @pytest.mark.parametrize("more", ["", "dtype: float32"])
    @pytest.mark.parametrize("when", [0, 5, 30])
    @pytest.mark.parametrize("how", ["truncated", "emptied", "removed", "replaced", "written to"])
    def test_midway(self, tmp_path: Path, how: str, when: int, more: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """`when`: after so many tensors; the donor has the twenty-first to the fiftieth."""
        a, b = donor(tmp_path / "a", 3, seed=1), donor(tmp_path / "b", 4, seed=2)
        plan = plan_of(passthrough((a, 0, 3), (b, 1, 4), (a, 1, 2), more=more))
        real, lines = Journal.add, 0

        def add(journal: Journal, line: JournalLine) -> None:
            nonlocal lines
            real(journal, line)
            lines += 1
            if lines == when:
                self.spoil(how, b / "model.safetensors")

        def act(event: dict[str, Any]) -> None:
            if event["event"] == "start" and not when:
                self.spoil(how, b / "model.safetensors")

        monkeypatch.setattr(Journal, "add", add)
        out = tmp_path / "out" / "model"
        with pytest.raises(SurgeonError) as error:
            assemble(plan, out, shard_size=900, workers=1, on_event=act)
        assert str(b / "model.safetensors") in str(error.value)
        assert not out.exists()
        if how != "removed" and hidden(out).exists():
            with pytest.raises(SurgeonError, match=r"b/model\.safetensors"):
                assemble(plan, out, shard_size=900, resume=True)

    def test_one_that_is_read_through_a_memory_map_by_nobody(self) -> None:
        """Reading a mapped file that has become shorter is a SIGBUS: nothing here maps one, but memory (-1)."""
        for path in (ROOT / "surgeon" / "assemble").rglob("*.py"):
            text = path.read_text()
            assert text.count("mmap(") == text.count("mmap(-1"), path


class TestFallbacks:
    """Calls that other systems, or file systems, lack."""

    @pytest.fixture
    def whole(self, tmp_path: Path) -> Callable[..., dict[str, bytes]]:
        plan = plan_of(passthrough((donor(tmp_path / "a", 3), 0, 3), (donor(tmp_path / "b", 4, seed=1), 1, 4)))

        def write(name: str, **options: Any) -> dict[str, bytes]:
            with faults.small_steps():
                assemble(plan, tmp_path / name / "model", shard_size=2000, **options)
            return snapshot(tmp_path / name / "model")

        return write

    def test_no_system_call_but_those_of_every_system(self, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = whole("with")
        system_calls._function.cache_clear()
        monkeypatch.setattr(system_calls, "sys", SimpleNamespace(platform="darwin"))
        monkeypatch.delattr(os, "copy_file_range")
        monkeypatch.delattr(os, "fdatasync")
        assert whole("without") == expected
        assert whole("unsynced", fsync=False) == expected
        system_calls._function.cache_clear()

    def test_a_library_without_them(self, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(system_calls, "_function", lambda *_: None)
        assert whole("without") == whole("again")

    @pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM])
    def test_a_file_system_that_reserves_nothing(
        self, whole: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
    ) -> None:
        import ctypes

        def refuse(*_: Any) -> int:
            ctypes.set_errno(code)
            return -1

        monkeypatch.setattr(system_calls, "_function", lambda *_: refuse)
        assert whole("without")

    def test_an_interrupted_reservation_is_made_again_and_a_full_disk_is_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import ctypes

        codes = [errno.EINTR, errno.EINTR, errno.ENOSPC]

        def refuse(*_: Any) -> int:
            ctypes.set_errno(codes.pop(0))
            return -1

        monkeypatch.setattr(system_calls, "_function", lambda *_: refuse)
        with pytest.raises(OSError, match="No space left"):
            system_calls.reserve(0, 10)
        assert codes == []

    def test_a_reserved_file_is_as_long_as_it_will_be(self, tmp_path: Path) -> None:
        with (tmp_path / "x").open("wb") as file:
            system_calls.reserve(file.fileno(), 10_000)
            assert os.fstat(file.fileno()).st_size == 10_000
            system_calls.reserve(file.fileno(), 0)
            system_calls.start_writeback(file.fileno(), 0, 10_000)

    @pytest.mark.parametrize("shared", [True, False])
    def test_blocks_that_the_kernel_shares_are_hashed_too(
        self, whole: Any, monkeypatch: pytest.MonkeyPatch, shared: bool
    ) -> None:
        from surgeon.assemble import run as engine

        calls: list[int] = []
        real = os.copy_file_range
        monkeypatch.setattr(engine, "shares_blocks", lambda folder: shared)
        monkeypatch.setattr(os, "copy_file_range", lambda *args: calls.append(1) or real(*args))
        found = whole("shared")
        assert bool(calls) == shared
        monkeypatch.undo()
        assert found == whole("copied")

    def test_a_folder_that_cannot_be_flushed(self, whole: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.fsync

        def fsync(fd: int) -> None:
            if Path(f"/proc/self/fd/{fd}").readlink().is_dir():
                raise OSError(errno.EINVAL, "Invalid argument")
            real(fd)

        expected = whole("with")
        monkeypatch.setattr(os, "fsync", fsync)
        assert whole("without") == expected


def test_two_at_once_one_of_them_writes(copies: faults.Case, tmp_path: Path) -> None:
    """Started at the same moment, again and again: one gets it, the others are told whose it is."""
    out = tmp_path / "out" / "model"
    code = (
        "import sys; from pathlib import Path\nfrom tests.faults import run as faults\n"
        "folder, out = map(Path, sys.argv[1:])\n"
        "recipe = faults.passthrough((folder / 'donors' / 'a', 0, 3), (folder / 'donors' / 'b', 1, 4))\n"
        "plan = faults.plan_of(recipe)\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.readline()\n"
        "try:\n    faults.assemble(plan, out, shard_size=2000)\n    print('wrote')\n"
        "except faults.SurgeonError as error:\n    print(error)\n"
    )
    environment = child_environment()
    for number in range(3):
        faults.case(tmp_path / str(number))
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(tmp_path / str(number)), str(out)],
                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for _ in range(3)
        ]  # fmt: skip
        for run in runs:
            assert run.stdout is not None and run.stdout.readline() == "ready\n"
        for run in runs:
            assert run.stdin is not None
            run.stdin.write("\n")
            run.stdin.flush()
        said = [run.communicate()[0].strip() for run in runs]
        assert said.count("wrote") == 1, said
        pids = {str(run.pid) for run in runs}
        for text in said:
            if text != "wrote":
                assert "not empty" in text or any(f"process {pid} is writing this model" in text for pid in pids), text
        shutil.rmtree(out.parent)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_second_signal_ends_it_at_once_and_it_can_be_gone_on_with(tmp_path: Path, number: int) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(passthrough((donor(tmp_path / "a"), 0, 3)))
    slow = (
        "import os, time\nfrom surgeon.assemble.io import byte_copy as copy\nreal, copy.BUFFER = os.preadv, 8\n"
        "def slow(*args):\n    time.sleep(0.02)\n    return real(*args)\nos.preadv = slow\n"
    )
    words = faults.command(recipe, tmp_path / "out" / "model", "--events")
    environment = child_environment()
    process = subprocess.Popen(
        [*words[:2], slow + words[2], *words[3:]], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "end":
            break
    process.send_signal(number)
    process.send_signal(number)
    process.communicate()
    assert process.returncode != 0
    subprocess.run([*words, "--resume"], env=environment, check=True, capture_output=True)
    from tests.support.assembling import contents

    assert contents(tmp_path / "out" / "model") == contents(tmp_path / "a")


def test_a_clock_that_jumps(copies: faults.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import itertools
    import time

    jumps = itertools.cycle([4e9, 0.0, -1e9, 1e12])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(jumps)))
    out = tmp_path / "out" / "model"
    events: list[dict[str, Any]] = []

    def stop(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "layer" and event["index"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copies.run(out, on_event=stop)
    copies.run(out, on_event=events.append)
    copies.check(out)
    told = [event for event in events if event["event"] == "progress"]
    assert told and all(event["rate"] >= 0 and (event["eta"] or 0) >= 0 for event in told)


def test_small_pieces_are_put_back() -> None:
    with faults.small_steps():
        assert copying.BUFFER == 256
    assert copying.BUFFER > 100_000 and sink.SYNC > 10**8
    assert threading.active_count() < 20
