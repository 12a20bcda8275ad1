"""Evaluations of several models: order, base, donors, verdicts, one model in memory."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from surgeon.errors import InputError
from surgeon.evaluate import evaluation as runs
from surgeon.evaluate.evaluation import Target, evaluate, targets_of
from surgeon.evaluate.report import markdown, model_row, to_dict
from surgeon.evaluate.suite import Suite
from surgeon.probe.score import score
from surgeon.probe.subject import Subject
from tests.support.models import one_thread, tiny_model, tiny_tokenizer

RECIPE = """merge_method: linear
models:
- {model: ./a, parameters: {weight: 0.5}}
- {model: ./b, parameters: {weight: 0.5}}
dtype: float32
"""


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("abc"):
        tiny_model(made / name, seed=seed)
        tiny_tokenizer(made / name)
    (made / "r.yml").write_text(RECIPE)
    (made / "based.yml").write_text(RECIPE.replace("linear\n", "task_arithmetic\nbase_model: ./c\n"))
    probes: list[dict[str, Any]] = [
        {"prompt": f"{number} =", "expected": str(number % 3), "kind": "choice", "choices": ["0", "1", "2"]}
        for number in range(20)
    ]
    (made / "c.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes))
    (made / "t.txt").write_text("".join(f"line {number} of a text\n" for number in range(400)))
    return made


def names(targets: list[Target]) -> list[str]:
    return [target.name for target in targets]


def test_the_base_is_the_first_model_and_donors_come_last(folder: Path) -> None:
    recipe, c = str(folder / "r.yml"), str(folder / "c")
    assert names(targets_of([c, recipe])) == ["c", "r", "a", "b"]
    assert names(targets_of([recipe, c])) == ["r", "c", "a", "b"]
    assert names(targets_of([recipe, c], donors=False)) == ["r", "c"]
    assert names(targets_of([recipe], base=c)) == ["c", "r", "a", "b"]
    assert [target.donor for target in targets_of([recipe, str(folder / "b")])] == [False, False, True]


def test_a_recipe_alone_is_compared_with_its_base_model_or_first_donor(folder: Path) -> None:
    assert names(targets_of([str(folder / "r.yml")])) == ["a", "r", "b"]
    assert names(targets_of([str(folder / "based.yml")])) == ["c", "based", "a", "b"]
    assert names(targets_of([str(folder / "based.yml")], donors=False)) == ["based"]


def test_models_of_one_name_are_told_apart(folder: Path) -> None:
    (folder / "x").mkdir(exist_ok=True)
    if not (folder / "x" / "a").exists():
        (folder / "x" / "a").mkdir()
        for path in (folder / "a").iterdir():
            (folder / "x" / "a" / path.name).write_bytes(path.read_bytes())
    found = names(targets_of([str(folder / "a"), str(folder / "x" / "a"), str(folder / "a")]))
    assert found == ["a", str(folder / "x" / "a")]


def test_a_recipe_with_errors_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(RECIPE)
    with pytest.raises(InputError, match=r"cannot be carried out.*surgeon plan"):
        targets_of([str(tmp_path / "r.yml")])


def test_scores_are_those_of_each_model_alone(folder: Path) -> None:
    suite = Suite(texts=(folder / "t.txt",), probes=(folder / "c.jsonl",), split="all").load()
    done = evaluate(targets_of([str(folder / "r.yml")]), suite, device="cpu")
    assert names([model.target for model in done.models]) == ["a", "r", "b"]
    for model in done.models:
        outcomes = list(score(model.target.load("cpu"), suite.sets["c"]))
        assert model.measures["c accuracy"].value == sum(one.right for one in outcomes) / 20
        assert [unit.value for unit in model.measures["c log-odds"].units] == [one.log_odds for one in outcomes]
    base, other = done.models[0].measures["c log-odds"], done.models[1].measures["c log-odds"]
    assert done.models[0].differences == {}
    assert done.models[1].differences["c log-odds"].mean == pytest.approx(other.value - base.value)
    assert "t KL(base || model)" in done.models[1].measures and "t KL(base || model)" not in done.models[0].measures
    best, _ = done.retained[1]["t loss"]
    assert best == min(("a", "b"), key=lambda name: next(
        model.measures["t loss"].value for model in done.models if model.target.name == name
    ))  # fmt: skip
    assert not done.retained[0] and not done.retained[2]


def test_a_copy_is_equal_and_the_base_is_warned_about(folder: Path) -> None:
    suite = Suite(probes=(folder / "c.jsonl",), split="all").load()
    pair = [Target(str(folder / "a"), name, folder / "a") for name in ("a", "copy")]
    done = evaluate(pair, suite, device="cpu")
    assert {one.verdict for one in done.models[1].differences.values()} == {"equal"}
    assert any("not above chance" in note for note in done.notes)
    assert any("only" in note and "of the probability" in note for note in done.notes)


def test_chats_are_left_out_for_a_model_without_a_template(folder: Path) -> None:
    suite = Suite(bundled=("chat",), limit=2).load()
    done = evaluate(targets_of([str(folder / "a")]), suite, device="cpu")
    assert done.models[0].measures == {} and "no chat template" in done.models[0].notes[0]


def test_an_error_names_its_model(folder: Path, tmp_path: Path) -> None:
    tiny_model(tmp_path / "mute")
    suite = Suite(probes=(folder / "c.jsonl",)).load()
    with pytest.raises(InputError, match=r"mute: the model cannot read text, because it has no tokenizer"):
        evaluate(targets_of([str(folder / "a"), str(tmp_path / "mute")]), suite, device="cpu")


def test_one_model_is_in_memory_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    load = Target.load

    def counted(target: Target, device: str) -> Subject:
        gc.collect()
        assert all(reference() is None for reference in alive)
        subject = load(target, device)
        alive.append(weakref.ref(subject.model))
        return subject

    monkeypatch.setattr(runs.Target, "load", counted)
    suite = Suite(texts=(folder / "t.txt",), probes=(folder / "c.jsonl",)).load()
    evaluate(targets_of([str(folder / "a"), str(folder / "b"), str(folder / "c")]), suite, device="cpu")
    assert len(alive) == 3


def test_reports_have_every_measure(folder: Path, tmp_path: Path) -> None:
    suite = Suite(texts=(folder / "t.txt",), probes=(folder / "c.jsonl",)).load()
    done = evaluate(targets_of([str(folder / "r.yml")]), suite, device="cpu")
    made = json.loads(json.dumps(to_dict(done), allow_nan=False))
    assert made["base"] == "a" and set(made["models"][1]["measures"]) == set(done.measures)
    assert set(made["models"][1]["against_best_checkpoint"]) == {"c accuracy", "c log-odds", "t loss"}
    text = "\n".join(markdown(done))
    assert "| measure | a (base) | r | b (donor) |" in text and "Against the best checkpoint" in text
    rows = [model_row(model, "a", "held-out", tmp_path / "r.jsonl") for model in done.models]
    assert [one["name"] for one in rows] == ["a", "r", "b"] and rows[1]["recipe"] == RECIPE
    assert len(rows[1]["items"]["c log-odds"]["value"]) == 10 == rows[1]["measures"]["c log-odds"]["items"]
