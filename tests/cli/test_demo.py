"""The demo: copied, opened with its example, run without the interface; its models do what they were trained for."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.checkpoint import open_checkpoint
from surgeon.cli import demo
from surgeon.cli.app import run
from surgeon.plan.load import load_plan


def few_probes(folder: Path, count: int) -> None:
    """Shorten the probe sets: each prompt costs a tenth of a second on a busy machine."""
    for path in demo.probe_files(folder):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:count]))


def test_the_demo_is_complete_and_small(tmp_path: Path) -> None:
    demo.place(tmp_path)
    names = [path.name for path in demo.checkpoints(tmp_path)]
    assert names[0] == "base" and len(names) >= 4
    for path in demo.checkpoints(tmp_path):
        checkpoint = open_checkpoint(str(path))
        assert not checkpoint.problems and 6 <= checkpoint.depth <= 8
        assert 200_000 <= checkpoint.numel <= 1_000_000
        assert checkpoint.tokenizer.digest and checkpoint.config is not None
        assert checkpoint.config.architecture == "LlamaForCausalLM"
    assert {path.stem for path in demo.probe_files(tmp_path)} == set(names) - {"base"}
    for recipe in sorted(tmp_path.glob("demo*.yml")):
        assert load_plan(recipe)[1].ok, recipe
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 6_000_000


def test_what_a_user_changed_stays(tmp_path: Path) -> None:
    demo.place(tmp_path)
    (tmp_path / demo.EXAMPLE).write_text("# mine\n")
    demo.place(tmp_path)
    assert (tmp_path / demo.EXAMPLE).read_text() == "# mine\n"


@pytest.mark.slow
def test_without_the_interface(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo.place(tmp_path)
    few_probes(tmp_path, 12)
    assert run(["demo", str(tmp_path), "--no-tui"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    head = next(line for line in lines if line[:1] == ["add3"] and "reverse" in line)
    table = lines[lines.index(head) + 1 :]
    rows = {line[0]: dict(zip(head, map(float, line[1:]), strict=True)) for line in table}
    for skill in head:
        assert rows[skill][skill] >= 0.9, "a fine-tune does its skill"
        assert 0 < rows["base"][skill] < 0.9, "the base does each a little"
    assert rows["demo-splice"]["reverse"] >= 0.8 and rows["demo-splice"]["add3"] >= 0.8
    assert run(["demo", str(tmp_path), "--no-tui"]) == 0, "a second run replaces its own output"


def test_a_file_in_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("")
    assert run(["demo", str(tmp_path / "x"), "--no-tui"]) == 2
    assert "needs a folder" in capsys.readouterr().err
