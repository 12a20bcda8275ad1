"""The child that scores: items of texts and sets, differences, and requests that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint import open_checkpoint
from surgeon.errors import InputError
from surgeon.evaluate.bundled import bundled
from surgeon.evaluate.intervals import Unit, paired_difference
from surgeon.evaluate.measure_data import (
    difference_from_data,
    difference_to_data,
    measure_from_data,
    units_from_data,
    units_to_data,
)
from surgeon.evaluate.scoring_child import ScoringChild
from surgeon.evaluate.split import split_sets
from surgeon.probe.probe_set import read_probes
from surgeon.probe.score import score
from surgeon.probe.subject import from_checkpoint
from tests.support.models import tiny_model, tiny_tokenizer

Event = dict[str, Any]


def events(**request: Any) -> list[Event]:
    """What the child answers, through JSON as in the pipe."""
    import io

    child = ScoringChild(io.StringIO(), io.StringIO())
    return [json.loads(json.dumps(event)) for event in child.events({"id": 1, **request})]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_tokenizer(tiny_model(tmp_path / "a", seed=0))
    (tmp_path / "p.jsonl").write_text("".join(f'{{"prompt": "{n} =", "expected": "{n}"}}\n' for n in range(20)))
    (tmp_path / "t.txt").write_text("It was a bright cold day in April. " * 9)
    return tmp_path


def test_every_item_is_sent(folder: Path) -> None:
    wanted = {"texts": [str(folder / "t.txt")], "probes": [str(folder / "p.jsonl")]}
    found = events(target=str(folder / "a"), kind="path", score=wanted, device="cpu")
    assert [event["event"] for event in found[:2]] == ["loading", "loaded"] and found[-1]["event"] == "done"
    measures = {
        event["name"]: (event["source"], measure_from_data(event)) for event in found if event["event"] == "measure"
    }
    subject = from_checkpoint(open_checkpoint(str(folder / "a")), "cpu")
    outcomes = list(score(subject, read_probes(folder / "p.jsonl")))
    source, accuracy = measures["p accuracy"]
    assert source == f"probe:{folder / 'p.jsonl'}"
    assert [unit.value for unit in accuracy.units] == [float(one.right) for one in outcomes]
    chances = [unit.value for unit in measures["p log-probability"][1].units]
    assert chances == [one.log_probability for one in outcomes]
    assert measures["t loss"][0] == f"text:{folder / 't.txt'}"
    assert (
        sum(unit.weight for unit in measures["t loss"][1].units)
        == len(subject.encode((folder / "t.txt").read_text())) - 1
    )
    assert next(event for event in found if event["event"] == "speed")["tokens_per_second"] >= 0


@pytest.mark.slow
def test_of_a_bundled_set_the_working_half_is_scored_and_chats_need_a_template(folder: Path) -> None:
    wanted = {"bundled": ["copying", "chat"]}
    found = events(target=str(folder / "a"), kind="path", score=wanted, device="cpu")
    (half,) = split_sets(bundled(["copying"]), "working")
    units = next(measure_from_data(event) for event in found if event["event"] == "measure").units
    assert [unit.name for unit in units] == [f"line {probe.line}" for probe in half.probes]
    assert {"event": "left out", "source": "bundled:chat"} in found
    assert any("no chat template" in event["text"] for event in found if event["event"] == "note")


def test_differences_are_those_of_the_intervals() -> None:
    base = [Unit(str(n), n % 3, str(n // 2), 2.0) for n in range(30)]
    other = [Unit(str(n), n % 2, str(n // 2), 2.0) for n in range(30)]
    one = {"better": "lower", "base": units_to_data(base), "other": units_to_data(other)}
    found, done = events(compare=[one, {**one, "other": units_to_data(other[1:])}])
    first, second = (difference_from_data(data) for data in found["differences"])
    assert first == paired_difference(base, other, "lower") and second.verdict == "not comparable"
    assert done["event"] == "done"


def test_what_is_not_finite_passes_through_json() -> None:
    units = [Unit("a", float("nan"), "a"), Unit("b", 1.0, "b")]
    again = units_from_data(json.loads(json.dumps(units_to_data(units), allow_nan=False)))
    assert again[0].value != again[0].value and again[1] == units[1]
    one = paired_difference(units, units, "lower")
    data = json.loads(json.dumps(difference_to_data(one), allow_nan=False))
    assert difference_from_data(data).verdict == one.verdict == "not comparable"


@pytest.mark.parametrize(
    "request_",
    [
        {"compare": 3},
        {"compare": [3]},
        {"compare": [{"better": "up"}]},
        {"compare": [{"better": "lower", "base": {"name": ["a"], "value": [], "cluster": [], "weight": []}}]},
        {"compare": [{"better": "lower", "base": {"name": [1], "value": [1], "cluster": ["a"], "weight": [1]}}]},
        {"score": 3},
        {"score": {"bundled": [3]}},
        {"score": {"bundled": ["nothing"]}},
        {"score": {"texts": ["/nowhere.txt"]}},
    ],
)
def test_wrong_requests_are_errors_of_input(request_: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        events(target="/nowhere", kind="path", **request_)
