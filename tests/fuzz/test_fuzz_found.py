"""What fuzzing has found (see `tests/fuzz/run.py`), each by a small example: a sentence, and exit code 1 or 2."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from surgeon.checkpoint import open_checkpoint
from surgeon.cli.app import run
from surgeon.errors import InputError
from tests.support.sparse import TINY, sparse_llama
from tests.support.tui import SIZES, app, command, line

ODD = {
    "long": "a" * 300,
    "deep": "./" + "a/" * 3_000,
    "no such user": "~nobody-here/x",
    "loop": "loop",
    "below a loop": "loop/x",
    "below a file": "r.yaml/x",
    "hub id": "org/" + "a" * 250,
}
COMMANDS = (
    "{}",
    "--recipe {}",
    "inspect {}",
    "inspect {} --download",
    "plan {}",
    "plan r.yaml --set A={}",
    "export {} --mergekit",
    "export r.yaml --mergekit -o {}",
    "edit {} --op delete_0",
    "edit r.yaml --op delete_0 -o {}",
    "edit r.yaml --op insert_{}:0 -o -",
    "edit r.yaml --op insert_A:0 --donor {} -o -",
    "assemble {} out",
    "verify {}",
    "demo {} --no-tui",
)


@pytest.fixture
def here(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sparse_llama(in_tmp / "m", **TINY)
    (in_tmp / "r.yaml").write_text("slices:\n- sources: [{model: ./m, layer_range: [0, 2]}]\n")
    (in_tmp / "loop").symlink_to("loop")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # A cache that is there: a name is only too long where there is something to look in.
    (in_tmp / "hub").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(in_tmp / "hub"))
    return in_tmp


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ODD)
def test_a_name_that_cannot_be_looked_up_is_answered_in_a_sentence(
    name: str, command: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in ("no such user", "deep", "hub id") and command.startswith("demo"):
        pytest.skip("such a folder is made, and the demo run")
    code = run([word.format(ODD[name]).replace("_", " ") for word in command.split()])
    said = capsys.readouterr()
    if code:
        assert code in (1, 2)
        assert said.err.startswith(("surgeon: ", "error: ", "Usage: ")) or "error" in said.out
    else:
        # The name of a file that can be made, or of a donor that no layer is taken from.
        assert name in ("no such user", "hub id", "deep", "long") or "--donor" in command


def test_a_shard_with_too_long_a_name_is_missing(tmp_path: Path) -> None:
    sparse_llama(tmp_path, **TINY, shards=2)
    index = tmp_path / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["lm_head.weight"] = "a" * 300 + ".safetensors"
    index.write_text(json.dumps(table))
    with pytest.raises(InputError, match="the folder does not hold"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize("name", ["pipe", "link"])
def test_what_is_no_file_is_written_into_and_not_replaced(name: str, here: Path) -> None:
    os.mkfifo(here / "pipe")
    (here / "link").symlink_to("pipe")
    reader = os.open(here / "pipe", os.O_RDWR | os.O_NONBLOCK)
    try:
        assert run(["edit", "r.yaml", "--op", "delete 0", "-o", name]) == 0
        assert b"layer_range: [1, 2]" in os.read(reader, 4_096)
    finally:
        os.close(reader)
    assert (here / "pipe").is_fifo() and (here / "link").is_symlink()
    assert sorted(path.name for path in here.iterdir()) == ["hub", "link", "loop", "m", "pipe", "r.yaml"]


@pytest.mark.parametrize("name", [ODD["no such user"], ODD["long"], ODD["below a loop"]])
async def test_the_interface_says_so_where_such_a_name_cannot_be_written(name: str, here: Path) -> None:
    application = app(["./m"])
    async with application.run_test(size=SIZES[1]) as pilot:
        await command(pilot, f"write {name}")
        assert "cannot write the file" in line(pilot, "status")


def _findings(recipe: str, here: Path, capsys: pytest.CaptureFixture[str]) -> str:
    (here / "r.yaml").write_text(recipe)
    assert run(["plan", "r.yaml"]) == 2
    return " ".join(capsys.readouterr().out.split())


def test_a_recipe_that_needs_itself_under_its_own_name_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = "name: one\nslices: [{sources: [{model: one, layer_range: [0, 2]}]}]\n"
    assert "Stage one needs itself" in _findings(one, here, capsys)


def test_a_method_of_two_donors_with_one_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse_llama(here / "other", **TINY)
    source = "{model: ./other, layer_range: [0, 2], parameters: {weight: 1}}"
    recipe = f"merge_method: nuslerp\nbase_model: ./m\nslices: [{{sources: [{source}]}}]\n"
    assert "nuslerp takes" in _findings(recipe, here, capsys)


@pytest.mark.parametrize("edit", ["end lm_head t=1e400", "end final_norm t=nan", "edges first 1 t=nan,1"])
def test_a_parameter_that_is_not_finite_is_refused(edit: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["edit", "r.yaml", "--op", edit]) == 2
    assert "a value of t is not a finite number" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 5000, "loop"])
def test_a_job_of_a_folder_that_cannot_be_looked_up(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from surgeon.errors import InputError
    from surgeon.jobs import job_list

    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(InputError, match="there is no job"):
        job_list.find(name)
