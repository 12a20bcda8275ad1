"""What is published with a model is the same however it was written, and tells nothing of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from surgeon.assemble.files.published_texts import public_names, published
from surgeon.cli.app import run
from surgeon.jobs import job_list
from surgeon.plan.donors.open_donors import absolute, rebased
from surgeon.recipe.document import parse
from surgeon.tui.jobs_controller import JobsController
from tests.support.assembling import assemble, donor, passthrough
from tests.support.assembling import plan_of as planned
from tests.support.planning import found, plan_of

RECIPE = """\
# made on my machine, from {top}/models/a and https://example.com/models
slices:
- sources: [{{model: {a}, layer_range: [0, 2]}}]   # not ~/secret/b
- sources: [{{model: {b}, layer_range: [1, 3]}}]
tokenizer_source: {tokenizer}
"""
FILES = ("README.md", "surgeon_recipe.yaml", "surgeon.json")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a", "b", "t")):
        donor(tmp_path / "models" / name, 3, seed=number)
    for name in ("recipes", "one", "two", "three"):
        (tmp_path / name).mkdir()
    return tmp_path


def recipe(here: Path, a: str, b: str, tokenizer: str = "../models/t") -> Path:
    path = here / "recipes" / "r.yml"
    path.write_text(RECIPE.format(top=here, a=a, b=b, tokenizer=tokenizer))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def detached(*words: str) -> None:
    assert run(["assemble", *words, "--no-check", "--no-fsync", "--detach"]) == 0
    job = job_list.every()[-1]
    assert job.wait(60)
    assert job.state().kind == "done", job.state()


def foreground(*words: str) -> None:
    assert run(["assemble", *words, "--no-check", "--no-fsync", "--quiet"]) == 0


def test_every_way_of_running_publishes_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe(here, "../models/a", "../models/b")
    foreground(str(path), "one/out")
    detached(str(path), "two/out")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    foreground(str(path), "../three/out")
    wanted = contents(here / "one" / "out")
    assert contents(here / "two" / "out") == wanted
    assert contents(here / "three" / "out") == wanted
    for data in wanted.values():
        assert str(here).encode() not in data
        assert b"~/secret" not in data


@pytest.mark.slow
def test_the_interface_publishes_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from surgeon.recipe.document import load
    from surgeon.tui.session import Session

    path = recipe(here, "../models/a", "../models/b")
    foreground(str(path), "one/out")
    jobs = JobsController(Session((), load(path)), SimpleNamespace(open_run=lambda: None))  # type: ignore[arg-type]
    jobs.start_process(here / "two" / "out", force=False)
    job = job_list.every()[-1]
    assert job.wait(60)
    assert job.state().kind == "done", job.state()
    assert contents(here / "two" / "out") == contents(here / "one" / "out")


def test_absolute_paths_are_published_by_their_last_part(here: Path) -> None:
    path = recipe(here, f"{here}/models/a", "../models/b", f"{here}/models/t")
    foreground(str(path), "one/out", "--set", "B=models/b")
    for data in contents(here / "one" / "out").values():
        assert str(here).encode() not in data
    text = (here / "one" / "out" / "surgeon_recipe.yaml").read_text()
    assert "# made on my machine, from a and https://example.com/models\n" in text
    assert "# not b\n" in text
    assert "tokenizer_source: t\n" in text
    assert "model: a," in text
    assert json.loads((here / "one" / "out" / "surgeon.json").read_text())["donors"] == {"A": "a", "B": "b"}


@pytest.mark.parametrize("first", [foreground, detached])
@pytest.mark.parametrize("then", [foreground, detached])
def test_a_finished_run_is_complete_to_the_other_way_of_running(
    first: object, then: object, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe(here, "../models/a", f"{here}/models/b")
    first(str(path), "out")  # type: ignore[operator]
    before = (here / "out" / "README.md").stat().st_ino
    then(str(path), "out", "--resume")  # type: ignore[operator]
    assert (here / "out" / "README.md").stat().st_ino == before


@pytest.mark.slow
def test_a_published_recipe_still_finds_its_donors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe(here, "models/a", f"{here}/models/b", "models/t")
    foreground(str(path), "out")
    assert run(["verify", "out", "--set", "B=models/b"]) == 0
    assert "their donors' to the bit" in capsys.readouterr().out


def test_public_names() -> None:
    home = str(Path.home())
    refs = ["../a", "/x/m", "/y/m/", "~/m", "m", "org/m", "/x/base+/y/lora", "../q+/y/lora"]
    snapshot = f"{home}/.cache/huggingface/hub/models--org--name/snapshots/abc1"
    names = public_names([*refs, snapshot])
    assert names == {
        "/x/m": "m-2", "/y/m/": "m-3", "~/m": "m-4", "/x/base+/y/lora": "base+lora", "../q+/y/lora": "../q+lora",
        snapshot: "org/name@abc1",
    }  # fmt: skip


def test_the_way_to_a_home_folder_is_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "jane")
    assert public_names(["../../home/jane/models/a", "jane/model"]) == {"../../home/jane/models/a": "a"}


def test_a_plan_tells_that_comments_are_published(here: Path) -> None:
    text = 'slices: [{sources: [{model: models/a, layer_range: [0, 3]}]}]\nname: "a # b"\n'
    (here / "recipe.yml").write_text(text)
    assert not any(finding.code == "comments" for finding in plan_of(here, text).findings)
    assert found(plan_of(here, text + "seed: 1 # mine\n"), "comments").severity == "note"


def test_comments_alone_lose_their_paths(here: Path) -> None:
    text = "name: x # /home/jane/x, ~jane/y/ and a/b\nseed: 1\nchat_template: '/not # /a/comment'\n"
    text += "slices: [{sources: [{model: models/a, layer_range: [0, 3]}]}]\n"
    shown = published(plan_of(here, text), text).recipe
    assert shown.startswith("name: x # x, y and a/b\nseed: 1\nchat_template: '/not # /a/comment'\n")


def test_tokenizers_are_donors_to_whoever_moves_a_recipe(here: Path) -> None:
    path = recipe(here, "../models/a", "../models/b")
    document = parse(path.read_text(), path)
    assert f"tokenizer_source: {here}/models/t" in absolute(document, document.roots).text
    (here / "deep" / "er").mkdir(parents=True)
    moved = rebased(document, document.roots, here / "deep" / "er" / "r.yml")
    assert "tokenizer_source: ../../models/t" in moved.text


def test_nothing_of_the_machine_is_in_a_detached_run(here: Path) -> None:
    path = recipe(here, "../models/a", "../models/b")
    code = "import sys; from surgeon.__main__ import main; sys.exit(main())"
    words = ["assemble", str(path), "out", "--no-check", "--no-fsync", "--detach", "--quiet"]
    subprocess.run([sys.executable, "-c", code, *words], check=True, env=os.environ, timeout=120)
    assert job_list.every()[-1].wait(60)
    assert all(str(here).encode() not in data for data in contents(here / "out").values())


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_where_a_donor_was_read_from_stays_unsaid(tmp_path: Path, name: str) -> None:
    donor(tmp_path / "a")
    said = {"name_or_path": "/home/jdoe/secret", "tokenizer_file": "/home/jdoe/.cache/t.json", "_name_or_path": "~/x"}
    path = tmp_path / "a" / name
    table = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**table, **said, "kept": "/not/a/known/key"}))
    text = passthrough((tmp_path / "a", 0, 3))
    out = tmp_path / "published"
    assemble(planned(text), out, recipe=text, fsync=False)
    made = json.loads((out / name).read_text())
    assert not said.keys() & made.keys()
    assert made["kept"] == "/not/a/known/key"
    path.write_text(json.dumps({**table, "name_or_path": "org/model"}))
    assemble(planned(text), out, recipe=text, fsync=False, force=True)
    assert json.loads((out / name).read_text())["name_or_path"] == "org/model"


@pytest.mark.parametrize(
    ("said", "public"),
    [
        ("# vm:/tmp/brk/lk", "# vm:lk"),
        ("# file:///home/jdoe/x", "# x"),
        ("# C:\\Users\\jdoe", "# jdoe"),
        ("# see https://example.org/a/b", "# see https://example.org/a/b"),
        ("# half and 1/2 of it", "# half and 1/2 of it"),
    ],
)
def test_paths_in_comments_of_many_spellings(tmp_path: Path, said: str, public: str) -> None:
    donor(tmp_path / "a")
    text = said + "\n" + passthrough((tmp_path / "a", 0, 3))
    assemble(planned(text), tmp_path / "spelt", recipe=text, fsync=False)
    assert (tmp_path / "spelt" / "surgeon_recipe.yaml").read_text().split("\n")[0] == public
