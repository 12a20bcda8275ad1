"""`surgeon assemble` as a user meets it: what is on stdout, what on stderr, and the exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from surgeon.cli.assemble import assemble as verb
from tests.support.assembling import contents, donor, passthrough, snapshot
from tests.support.paths import child_environment

RUN = (
    "import sys, typer\n"
    "from surgeon.cli.assemble import assemble\n"
    "from surgeon.cli.common import fail\n"
    "from surgeon.errors import SurgeonError\n"
    "app = typer.Typer()\n"
    "app.command()(assemble)\n"
    "try:\n"
    "    code = app(standalone_mode=False)\n"
    "except SurgeonError as error:\n"
    "    code = fail(error)\n"
    "sys.exit(code)\n"
)
SLOW = (
    "import os, time\n"
    "from surgeon.assemble.io import byte_copy as copy\n"
    "real, copy.BUFFER = os.preadv, 8\n"
    "def slow(*args):\n"
    "    time.sleep(0.01)\n"
    "    return real(*args)\n"
    "os.preadv = slow\n"
)
"""Makes copying take about ten seconds, so that a signal meets it in the middle whatever the machine does."""


def command(*args: object, before: str = "") -> list[str]:
    # The load-back check has tests of its own, and takes seconds.
    return [sys.executable, "-c", before + RUN, *map(str, args), "--no-check"]


def environment() -> dict[str, str]:
    return child_environment(COLUMNS="100")


def run(*args: object) -> Any:
    return subprocess.run(command(*args), env=environment(), capture_output=True, text=True)


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return donor(tmp_path / "a")


@pytest.fixture
def recipe(tmp_path: Path, a: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    donor(tmp_path / "b", 3, seed=1)
    path.write_text("# kept\n" + passthrough((Path("a"), 0, 3), (Path("b"), 1, 3)))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "model"


def test_the_summary(recipe: Path, out: Path) -> None:
    found = run(recipe, out)
    assert found.returncode == 0
    assert re.fullmatch(rf"{out}: 5 layers, 3\.\dk parameters, \d\.\d kB in \d\.\ds\n", found.stdout), found.stdout
    assert f"note: {recipe}" in found.stderr
    assert "writing 5 layers" in found.stderr
    assert "\x1b" not in found.stderr
    assert (out / "surgeon_recipe.yaml").read_text() == recipe.read_text()


def test_quiet_is_silent(recipe: Path, out: Path) -> None:
    found = run(recipe, out, "--quiet", "--no-fsync", "--workers", "1")
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    assert len(contents(out)) == 3 + 5 * 9


def test_json_is_one_object_and_nothing_else(recipe: Path, out: Path) -> None:
    found = run(recipe, out, "--json", "--shard-size", "2kB")
    value = json.loads(found.stdout)
    assert value.keys() == {"out", "layers", "parameters", "bytes", "seconds", "files", "findings"}
    assert value["layers"] == 5
    assert value["out"] == str(out)
    assert value["bytes"] == sum(len(data) for *_, data in contents(out).values())
    assert set(value["files"]) == {path.name for path in out.iterdir()}
    assert "model.safetensors.index.json" in value["files"]
    assert {"severity", "code", "what"} <= value["findings"][0].keys()


def test_events_are_lines_of_json(recipe: Path, out: Path) -> None:
    found = run(recipe, out, "--events")
    events = [json.loads(line) for line in found.stdout.splitlines()]
    assert events[0]["event"] == "start"
    assert events[-1]["event"] == "done"
    assert [event["index"] for event in events if event["event"] == "layer"] == [0, 1, 2, 3, 4]


def test_another_donor_with_set(recipe: Path, out: Path, tmp_path: Path) -> None:
    donor(tmp_path / "other", seed=7)
    assert run(recipe, out, "--quiet", "--set", f"A={tmp_path / 'other'}").returncode == 0
    name = "model.layers.1.mlp.up_proj.weight"
    assert contents(out)[name] == contents(tmp_path / "other")[name]
    assert 'model: "other"' in (out / "surgeon_recipe.yaml").read_text()


@pytest.mark.parametrize("flags", [(), ("--json",), ("--quiet",)])
def test_a_wrong_recipe_is_refused_with_every_error(tmp_path: Path, a: Path, out: Path, flags: tuple[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(passthrough((Path("a"), 0, 9), (Path("none"), 0, 1)))
    found = run(recipe, out, *flags)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.count("error: ") >= 2
    assert "Traceback" not in found.stderr
    assert not out.parent.exists()


def test_a_wrong_recipe_is_an_event_too(tmp_path: Path, out: Path) -> None:
    found = run(tmp_path / "none.yaml", out, "--events")
    assert found.returncode == 2
    assert [json.loads(line)["event"] for line in found.stdout.splitlines()] == ["error"]


def test_a_folder_that_is_not_empty(recipe: Path, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "note").write_text("mine")
    found = run(recipe, out)
    assert (found.returncode, found.stdout) == (2, "")
    assert "not empty" in found.stderr
    assert run(recipe, out, "--force").returncode == 0
    assert not (out / "note").exists()


def test_the_recipes_own_folder_is_not_replaced(recipe: Path, tmp_path: Path, a: Path) -> None:
    (tmp_path / "work").mkdir()
    moved = tmp_path / "work" / "recipe.yaml"
    moved.write_text(passthrough((a, 0, 3)))
    found = run(moved, tmp_path / "work", "--force")
    assert found.returncode == 2
    assert "would be lost" in found.stderr
    assert moved.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_after_a_signal_it_can_be_gone_on_with(recipe: Path, out: Path, number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(recipe, out, "--events", before=SLOW),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "end":
            break
    process.send_signal(number)
    stdout, stderr = process.communicate()
    assert process.returncode == 130
    assert re.search(
        r"^surgeon: cancelled\. .* of .* are written: resume with --resume, or restart", stderr, re.MULTILINE
    )
    assert "Traceback" not in stderr
    assert json.loads(stdout.splitlines()[-1])["event"] == "cancelled"
    assert [path.name for path in out.parent.iterdir()] == [".model.surgeon"]
    refused = run(recipe, out)
    assert refused.returncode == 2
    assert "an earlier run has written" in refused.stderr and "--resume" in refused.stderr
    assert run(recipe, out, "--resume").returncode == 0
    assert run(recipe, tmp_path / "whole" / "model").returncode == 0
    assert snapshot(out.parent) == snapshot(tmp_path / "whole")


def test_begun_anew(recipe: Path, out: Path) -> None:
    process = subprocess.Popen(command(recipe, out, "--events", before=SLOW), env=environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "end":
            process.kill()
    process.wait()
    assert (out.parent / ".model.surgeon").is_dir()
    both = run(recipe, out, "--resume", "--restart")
    assert (both.returncode, both.stdout) == (2, "")
    assert run(recipe, out, "--restart").returncode == 0
    assert [path.name for path in out.parent.iterdir()] == ["model"]


def test_when_nobody_reads_the_events_any_more_it_stops(recipe: Path, out: Path) -> None:
    process = subprocess.Popen(
        command(recipe, out, "--events", before=SLOW), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.stderr.read()
    assert process.wait() != 0
    assert not out.exists()


def test_a_bar_on_a_terminal(recipe: Path, out: Path) -> None:
    main, side = pty.openpty()
    process = subprocess.Popen(command(recipe, out), env=environment(), stdout=subprocess.PIPE, stderr=side)
    os.close(side)
    shown = b""
    while True:
        try:
            shown += (piece := os.read(main, 4096))
        except OSError:
            break
        if not piece:
            break
    os.close(main)
    assert process.stdout is not None
    with process.stdout as stdout:
        assert b"5 layers" in stdout.read()
    assert process.wait() == 0
    assert b"100%" in shown
    assert b"6.1 kB of 6.1 kB" in shown
    assert b" 0 B/s" not in shown


def test_the_verb_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'rich.progress', 'pydantic'}"
    script = f"import sys; import surgeon.cli.assemble; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
    assert verb.__doc__
