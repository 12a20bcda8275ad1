"""`surgeon bench` at sizes that take no time: what it makes, measures, refuses and leaves behind. Nothing is timed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from surgeon.bench import comparison, contest, memory_state, recipes
from surgeon.bench.contest import Settings
from surgeon.bench.figures import COPY, OWN, TimedCell, ratio, slopes
from surgeon.bench.made_donors import NAMES, MadeDonors, Shape
from surgeon.bench.process_measure import Sample, measure
from surgeon.checkpoint import open_checkpoint
from surgeon.cli import bench as verb
from surgeon.cli.app import run
from surgeon.errors import InputError, SurgeonError
from surgeon.methods.catalogue import every
from surgeon.plan import Donors as PlanDonors
from surgeon.plan import resolve
from surgeon.recipe import document as documents

SMALL = 300_000


@pytest.fixture(scope="module")
def donors(tmp_path_factory: pytest.TempPathFactory) -> MadeDonors:
    made = MadeDonors(tmp_path_factory.mktemp("bench"), Shape.near(SMALL))
    made.make(lambda event: None)
    return made


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No gigabyte of memory is used and freed before each run."""
    monkeypatch.setattr(contest, "SPARE", 1_000_000)


def test_sizes_are_met() -> None:
    assert Shape.near(2_200_000_000) == Shape()
    assert Shape().nbytes == 2 * 1_100_048_384  # TinyLlama-1.1B's parameters
    for wanted in (1_000_000_000, 4_000_000_000, 8_000_000_000):
        assert abs(Shape.near(wanted).nbytes - wanted) < 50_000_000
    assert Shape.near(3_000_000).nbytes < 4_000_000
    assert Shape.near(1).layers == 2


def test_donors_are_checkpoints_of_random_weights(donors: MadeDonors) -> None:
    import torch
    from safetensors.torch import load_file

    base, tune = (load_file(donors.files(name)[0]) for name in NAMES[:2])
    assert {name: tuple(tensor.shape) for name, tensor in base.items()} == donors.shape.tensors()
    whole = torch.cat([tensor.float().flatten() for tensor in base.values()])
    apart = torch.cat([(tune[name].float() - tensor.float()).flatten() for name, tensor in base.items()])
    assert float(whole.std()) == pytest.approx(0.02, rel=0.05)
    assert float(apart.std()) == pytest.approx(0.001, rel=0.05)
    assert open_checkpoint(str(donors.path("base"))).nbytes == donors.shape.nbytes


def test_donors_have_several_files_and_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgeon.bench.made_donors.SHARD", 100_000)
    donors, told = MadeDonors(tmp_path, Shape.near(SMALL)), []  # type: ignore[var-annotated]
    assert donors.missing == 3 * donors.shape.nbytes
    donors.make(told.append)
    donors.make(told.append)
    assert [event["name"] for event in told] == list(NAMES)
    assert donors.missing == 0
    assert len(donors.files("tune-2")) > 1
    opened = open_checkpoint(str(donors.path("tune-2")))
    assert not opened.problems and opened.nbytes == donors.shape.nbytes
    donors.files("tune-2")[0].unlink()
    assert donors.missing == donors.shape.nbytes


@pytest.mark.parametrize("name", sorted(every()))
def test_every_method_has_a_recipe(name: str, donors: MadeDonors, tmp_path: Path) -> None:
    method = every()[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(recipes.recipe(method, donors))
    document = documents.load(path)
    plan = resolve(document, PlanDonors(document.roots))
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    assert {tensor.name: tensor.shape for tensor in plan.tensors} == donors.shape.tensors()
    read = {entry.file for tensor in plan.tensors for entry in tensor.source.entries()}
    assert read == set(recipes.files_read(method, donors))
    assert recipes.bytes_read(method, donors) >= donors.shape.nbytes


def test_a_process_is_measured() -> None:
    code = "import time; data = bytearray(50_000_000); time.sleep(0.3)"
    found = measure([sys.executable, "-I", "-c", code])
    assert found.wall >= 0.3
    assert found.user + found.system > 0
    assert 50_000_000 < found.anonymous < found.peak < 200_000_000


def test_the_memory_of_children_counts() -> None:
    child = "import time; data = bytearray(50_000_000); time.sleep(0.4)"
    code = f"import subprocess, sys; data = bytearray(50_000_000); subprocess.run([sys.executable, '-c', {child!r}])"
    assert measure([sys.executable, "-I", "-c", code]).anonymous > 100_000_000


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([sys.executable, "-c", "raise SystemExit('out of luck')"], ["failed with code 1", "out of luck"]),
        ([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], ["failed with signal SIGKILL."]),
        (["/nowhere/at-all"], ["cannot start"]),
    ],
)
def test_a_process_that_fails_is_an_error(command: list[str], words: list[str]) -> None:
    with pytest.raises(SurgeonError) as error:
        measure(command)
    assert all(word in error.value.sentence() for word in words), error.value.sentence()


def sample(wall: float) -> Sample:
    return Sample(wall, wall / 2, wall / 4, 10_000_000, 5_000_000, 0.5)


def test_ratios_and_slopes() -> None:
    cells = [
        TimedCell(1_000_000_000, "linear", COPY, [sample(1.0), sample(2.0), sample(6.0)]),
        TimedCell(1_000_000_000, "linear", OWN, [sample(5.0), sample(3.0), sample(4.0)]),
        TimedCell(3_000_000_000, "linear", COPY, [sample(3.0)]),
        TimedCell(3_000_000_000, "linear", OWN, [sample(7.0)]),
        TimedCell(3_000_000_000, "linear", "peer", failure="it broke"),
    ]
    found = ratio(cells[1], cells)
    assert found is not None and (found.best, found.median) == (3.0, 2.0)
    assert ratio(cells[4], cells) is None
    lines = {slope.tool: slope for slope in slopes(cells)}
    assert lines.keys() == {COPY, OWN}
    assert (lines[COPY].per_gb, lines[COPY].fixed) == (pytest.approx(1.0), pytest.approx(0.0))
    assert (lines[OWN].per_gb, lines[OWN].fixed) == (pytest.approx(2.0), pytest.approx(1.0))


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
    path.chmod(0o755)
    return path


def peer(path: Path, base: Path) -> Path:
    """A command that answers like mergekit's, and writes down how it was called."""
    return script(
        path,
        f"""\
        import json, pathlib, shutil, sys
        pathlib.Path({str(path)!r} + ".log").write_text(json.dumps(sys.argv[1:]))
        shutil.copytree({str(base)!r}, sys.argv[2])
        """,
    )


def test_a_whole_comparison(
    tmp_path: Path, untouched: None, donors: MadeDonors, capsys: pytest.CaptureFixture[str]
) -> None:
    other = peer(tmp_path / "other-merge", donors.path("base"))
    keep = tmp_path / "kept"
    words = ["--size", "0.3MB,0.8MB", "--methods", "passthrough", "--runs", "2", "--shard-size", "100kB"]
    assert run(["bench", *words, "--peer", str(other), "--keep", str(keep), "--workers", "1", "--json"]) == 0
    shown = capsys.readouterr()
    found: dict[str, Any] = json.loads(shown.out)
    assert found["settings"]["runs"] == 2 and found["machine"]["cores"] >= 1
    assert [(cell["tool"], len(cell["runs"])) for cell in found["cells"][:2]] == [(COPY, 2), (OWN, 2)]
    # The other tool copies the small donor, which is right for the first size only.
    assert [bool(cell["failure"]) for cell in found["cells"] if cell["tool"] == other.name] == [False, True]
    assert all(value > 0 for cell in found["cells"] if cell["ratio"] for value in cell["ratio"].values())
    assert {slope["tool"] for slope in found["slopes"]} == {COPY, OWN}
    called = json.loads((tmp_path / "other-merge.log").read_text())
    assert called[2:] == ["--quiet", "--async-write", "--write-threads", "1", "--out-shard-size", "1M"]
    assert "passthrough: surgeon, run 2 of 2" in shown.err and "making base" in shown.err
    assert sorted(path.name for path in keep.glob("*/*")) == sorted(2 * NAMES)  # no output, no recipe


def test_the_table_fits_and_has_every_figure(
    tmp_path: Path, untouched: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--size", "0.3MB,0.8MB", "--methods", "passthrough", "--runs", "1", "--peer", "", "--fsync"]
    assert run(["bench", *words, "--keep", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "with fsync, no load-back check" in "\n".join(lines)
    rows = [line.split() for line in lines if line.startswith("  surgeon")]
    assert [len(row) for row in rows[:2]] == [9] * 2
    assert len(rows) == 3  # two sizes, and what a gigabyte costs


def test_a_temporary_folder_is_gone_afterwards(
    tmp_path: Path, untouched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(["bench", "--size", "0.3MB", "--methods", "passthrough", "--runs", "1", "--peer", ""]) == 0
    assert list(tmp_path.iterdir()) == []


def test_cold_donors_are_not_in_memory(donors: MadeDonors, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1_000_000))
    with path.open("rb") as file:
        os.fsync(file.fileno())
    forgotten: list[Path] = []
    original = memory_state._forget
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_state, "_forget", lambda path: (forgotten.append(path), original(path)))
        memory_state.prepare(donors.path("base"), tmp_path / "out", [path], 0, cold=True)
    assert forgotten == [path]
    assert not (tmp_path / "out").exists()
    assert path.read_bytes() == bytes(1_000_000)


def settings(**values: Any) -> Settings:
    return Settings(**{"sizes": (SMALL,), "methods": (every()["linear"],), **values})


def test_too_little_room_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vast = settings(sizes=(10**17,), folder=tmp_path)
    with pytest.raises(InputError, match="of disk is free"):
        comparison.run(vast, lambda event: None)
    monkeypatch.setattr(comparison, "memory", lambda: (4 * 10**9, 10**9))
    with pytest.raises(InputError, match=r"of memory, but only 1\.0 GB is available"):
        comparison.run(settings(folder=tmp_path), lambda event: None)
    assert list(tmp_path.iterdir()) == []


def test_an_output_of_the_wrong_size_is_an_error(
    tmp_path: Path, donors: MadeDonors, untouched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = MadeDonors(tmp_path, Shape.near(800_000))
    larger.make(lambda event: None)
    copy = ["cp", "-r", str(larger.path("base"))]
    monkeypatch.setattr(contest, "_own", lambda settings, recipe, out: [*copy, str(out)])
    with pytest.raises(SurgeonError, match="the output has"):
        list(contest.contest(settings(runs=1), donors, every()["linear"], lambda event: None))
    assert {path.name for path in donors.folder.iterdir()} == set(NAMES)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--methods", "linaer"], "try linear"),
        (["--size", "big"], "is not a size"),
        (["--peer", "no-such-command"], "there is no command"),
    ],
)
def test_wrong_words_are_answered(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *words]) == 2
    assert sentence in capsys.readouterr().err.lower()


def test_the_peer_is_looked_for_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert verb._peer(None) is None
    script(tmp_path / verb.PEER, "")
    assert verb._peer(None) == str(tmp_path / verb.PEER)
    assert verb._peer("") is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_nothing_behind(tmp_path: Path, number: int, donors: MadeDonors) -> None:
    slow = script(tmp_path / "slow", "import time, pathlib, sys; pathlib.Path(sys.argv[2]).mkdir(); time.sleep(60)")
    words = ["bench", "--size", "0.3MB", "--methods", "passthrough", "--peer", str(slow)]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    code = (
        "import sys; from surgeon.bench import contest; from surgeon.cli.app import run; "
        f"contest.SPARE = 10**6; sys.exit(run({words!r}))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if "slow, run 1" in line:
            break
    until = time.monotonic() + 60
    while not list(temporary.glob("*/*/out")) and time.monotonic() < until:
        time.sleep(0.01)
    child.send_signal(number)
    assert child.wait(60) == 130
    assert list(temporary.iterdir()) == []
    mine = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(slow) in path.read_bytes().decode("utf-8", "replace")
    ]
    assert mine == []
