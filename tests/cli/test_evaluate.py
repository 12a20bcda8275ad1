"""`surgeon evaluate` and `surgeon results`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgeon import data
from surgeon.cli import table as tables
from surgeon.cli.app import run
from surgeon.evaluate import bundled, results
from surgeon.evaluate.evaluation import Target
from tests.support.models import one_thread, tiny_model, tiny_tokenizer

RECIPE = "slices:\n- sources: [{model: ./a, layer_range: [0, 3]}]\n- sources: [{model: ./b, layer_range: [3, 4]}]\n"


@pytest.fixture
def models(in_tmp: Path) -> Path:
    for seed, name in enumerate("ab"):
        tiny_model(in_tmp / name, seed=seed)
        tiny_tokenizer(in_tmp / name)
    (in_tmp / "r.yml").write_text(RECIPE)
    rows = [{"prompt": f"{number} =", "expected": "1"} for number in range(8)]
    (in_tmp / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (in_tmp / "t.txt").write_text("".join(f"line {number} of a text\n" for number in range(300)))
    return in_tmp


def evaluate(*args: str) -> int:
    with one_thread():
        return run(["evaluate", *args])


def test_a_table_a_row_per_model_and_its_recipe(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("r.yml", "--probe", "p.jsonl", "--text", "t.txt") == 0
    shown = capsys.readouterr()
    assert all(len(line) <= 80 or line.startswith(("warning", "Differences")) for line in shown.out.splitlines())
    for text in (
        "base: a; the held-out half",
        "p accuracy",
        "t perplexity",
        "a (base)",
        "b (donor)",
        "best checkpoint",
    ):
        assert text in shown.out
    assert "[2/3] r: loading" in shown.err and "peak memory" in shown.err
    assert run(["results", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["a", "r", "b"] and [row["row"] for row in rows] == [1, 2, 3]
    assert run(["results", "--recipe", "2"]) == 0
    assert capsys.readouterr().out == RECIPE
    assert run(["results", "--last", "1"]) == 0
    assert "3 b" in (text := capsys.readouterr().out) and "p accuracy" in text and "2 r" not in text
    assert run(["results", ".", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| row | time | model | p accuracy |")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a", "--json", "--markdown"], "exclude each other"),
        (["a", "--all", "--working"], "exclude each other"),
        (["a", "--results", "x", "--no-results"], "no meaning with --no-results"),
        (["a", "--bundled", "none"], "'none' is not a bundled probe set"),
        (["none", "--probe", "p.jsonl"], "none"),
        (["a", "--suite", "s.yml"], "cannot read the suite"),
        (["a", "--text", "p.jsonl"], "too short to be split"),
    ],
)
def test_wrong_input(models: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(*args) == 2
    assert message in capsys.readouterr().err and not (models / results.NAME).exists()


def test_a_suite_and_options_add_up(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "s.yml").write_text("texts: [t.txt]\nsplit: working\nlimit: 2\n")
    assert evaluate("a", "--suite", "s.yml", "--probe", "p.jsonl", "--json", "--no-results") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["split"] == "working" and made["limit"] == 2 and not (models / results.NAME).exists()
    assert made["models"][0]["measures"]["p accuracy"]["items"] == 2
    assert "perplexity" in made["models"][0]["measures"]["t loss"]


def test_the_default_suite(models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "SETS", {"knowledge": bundled.knowledge})
    (models / "texts").mkdir()
    (models / "t.txt").rename(models / "texts" / "t.txt")
    assert evaluate("r.yml", "--no-donors", "-n", "2", "--markdown", "--base", "b") == 0
    text = capsys.readouterr().out
    assert "| measure | b (base) | r |" in text and "t perplexity" in text and "knowledge coverage" in text


def test_results_that_cannot_be_kept_are_still_printed(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("a", "--probe", "p.jsonl", "--results", "none/r.jsonl") == 1
    shown = capsys.readouterr()
    assert "p accuracy" in shown.out and "cannot write the results" in shown.err


def test_an_interrupted_evaluation_keeps_the_models_that_were_done(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = Target.load

    def interrupted(target: Target, device: str) -> object:
        if target.name == "b":
            raise KeyboardInterrupt
        return load(target, device)

    monkeypatch.setattr(Target, "load", interrupted)
    assert evaluate("r.yml", "--probe", "p.jsonl") == 130
    capsys.readouterr()
    assert run(["results", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == ["a", "r"] and rows[1]["verdicts"]["p accuracy"]["verdict"]


def test_rows_without_a_recipe_and_bad_lines(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["results"]) == 2 and "cannot read the results" in capsys.readouterr().err
    (in_tmp / results.NAME).write_text('{"version": 1, "name": "a\\u001b[2J", "answer": "x\\ny"}\nbroken\n')
    assert run(["results"]) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out and "x\\ny" in shown.out and "1 line cannot be read" in shown.err
    for number, message in (("1", "row 1 has no recipe"), ("2", "there is no row 2")):
        assert run(["results", "--recipe", number]) == 2 and message in capsys.readouterr().err


def test_numbers_in_cells_are_not_broken() -> None:
    assert tables.wrap("0.875 +0.312 [+0.156, -0.469] better", 22) == ["0.875 +0.312 [+0.156,", "-0.469] better"]


@pytest.mark.slow
def test_the_demo_is_scored_as_the_readme_says(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    probes = data.folder("demo") / "probes" / "sort.jsonl"
    assert evaluate(str(data.folder("demo") / "sort"), "--probe", str(probes), "--all", "--json", "--no-results") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["models"][0]["measures"]["sort accuracy"]["value"] == 1.0
