"""Scores in batches: the same verdicts as one by one, and log-probabilities as computed directly."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from surgeon import data
from surgeon.checkpoint import open_checkpoint
from surgeon.errors import InputError
from surgeon.plan.load import load_plan
from surgeon.probe import limited_process, score_batches
from surgeon.probe.environment import fitting_threads
from surgeon.probe.generate import Generation, pieces
from surgeon.probe.probe_set import Probe, ProbeSet, first_number, read_probes
from surgeon.probe.score import answer_limit, one_by_one, score
from surgeon.probe.score_batches import exact_answers, last_logits, likeliest_choices
from surgeon.probe.subject import Subject, from_checkpoint, from_plan
from tests.support.models import one_thread, tiny_model, tiny_tokenizer
from tests.support.paths import ROOT

DEMO = data.folder("demo")


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("llama")
    tiny_model(folder)
    tiny_tokenizer(folder)
    return from_checkpoint(open_checkpoint(str(folder)), "cpu")


def probe_set(*probes: Probe) -> ProbeSet:
    return ProbeSet(Path("set.jsonl"), probes)


def written(folder: Path, *probes: dict[str, Any]) -> ProbeSet:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(probe) + "\n" for probe in probes))
    return read_probes(path)


def demo_models() -> dict[str, Callable[[], Subject]]:
    names = ("base", "add3", "reverse", "sort")
    found: dict[str, Callable[[], Subject]] = {
        name: lambda name=name: from_checkpoint(open_checkpoint(str(DEMO / name)), "cpu")  # type: ignore[misc]
        for name in names
    }
    return found | {
        "splice": lambda: from_plan(load_plan(ROOT / "recipes" / "demo-splice.yml", roots=[DEMO])[1], "cpu")
    }


def both(subject: Subject, probes: ProbeSet) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    with fitting_threads(subject.parameters, subject.device):
        batched = [(one.answer, one.right) for one in score(subject, probes)]
        alone = [one_by_one(subject, one, subject.encode(one.prompt)) for one in probes.probes]
    return batched, [(one.answer, one.right) for one in alone]


def test_verdicts_of_a_batch_are_those_of_one_by_one() -> None:
    subject = demo_models()["sort"]()
    probes = read_probes(DEMO / "probes" / "reverse.jsonl")
    batched, alone = both(subject, ProbeSet(probes.path, probes.probes[:24]))
    assert batched == alone and {right for _, right in alone} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("name", demo_models())
def test_verdicts_on_all_prompts_of_the_demo_are_those_of_one_by_one(name: str) -> None:
    subject = demo_models()[name]()
    for path in sorted((DEMO / "probes").glob("*.jsonl")):
        batched, alone = both(subject, read_probes(path))
        assert batched == alone and len(alone) == 64


def test_most_answers_are_decided_by_the_batch() -> None:
    subject = demo_models()["sort"]()
    probes = read_probes(DEMO / "probes" / "sort.jsonl").probes
    items = [(one, subject.encode(one.prompt), answer_limit(subject, one)) for one in probes]
    assert sum(outcome is None for outcome, _ in exact_answers(subject, items)) < 16


def test_answers_of_other_tokens_than_the_draft_are_followed(llama: Subject) -> None:
    """The expected answer is the beginning of what the model says, which is rarely what the draft has."""
    dice = random.Random(1)
    probes = []
    for line in range(40):
        prompt = "".join(dice.choice("abcdefgh 0123456789") for _ in range(dice.randrange(4, 9))) + "="
        text = "".join(pieces(llama, llama.encode(prompt), dice.randrange(1, 6), Generation()))
        probes.append(Probe(prompt, text if text.strip() and line % 3 else "no", line))
    batched, alone = both(llama, probe_set(*probes))
    assert batched == alone


def test_a_decision_that_rounding_could_change_is_left_to_one_by_one(
    llama: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for letter in string.ascii_letters:
        said = "".join(pieces(llama, llama.encode(letter), 1, Generation()))
        probe = Probe(letter, said, 1)
        item = (probe, llama.encode(letter), 9)
        if said.isascii() and said.strip() and exact_answers(llama, [item])[0][0] is not None:
            found.append(item)
    assert found, "the case needs a visible first character and a decided answer"
    monkeypatch.setattr(score_batches, "_LEAST_ROUNDING", 10.0)
    assert all(one is None for one, _ in exact_answers(llama, found)), (
        "some candidates begin the expected answer, some do not"
    )


def test_the_log_probability_of_an_answer_is_that_of_its_tokens(llama: Subject) -> None:
    (outcome,) = score(llama, probe_set(Probe("abc =", "dog", 1)))
    prompt, whole = llama.encode("abc ="), llama.encode("abc = dog")
    with torch.inference_mode():
        chances = llama.model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
    expected = sum(float(chances[place - 1, whole[place]]) for place in range(len(prompt), len(whole)))
    assert outcome.log_probability == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("choices", [("d", "e", "f"), ("dog", "cow", "gnat")])
def test_choices_are_scored_by_log_probability(llama: Subject, choices: tuple[str, ...]) -> None:
    """Direct computation; a choice has two tokens (a space and a letter) or more."""
    prompts = ["abc =", "xyz =", "pq ="]
    probes = [Probe(prompt, choices[1], line, kind="choice", choices=choices) for line, prompt in enumerate(prompts)]
    for probe, outcome in zip(probes, score(llama, probe_set(*probes)), strict=True):
        values = []
        for choice in choices:
            prompt, whole = llama.encode(probe.prompt), llama.encode(f"{probe.prompt} {choice}")
            with torch.inference_mode():
                chances = llama.model(input_ids=torch.tensor([whole])).logits[0].double().log_softmax(-1)
            values.append(sum(float(chances[at - 1, whole[at]]) for at in range(len(prompt), len(whole))))
        log = torch.tensor(values, dtype=torch.float64)
        assert outcome.log_odds == pytest.approx(float(log[1] - log[[0, 2]].logsumexp(0)), abs=1e-4)
        assert outcome.coverage == pytest.approx(float(log.exp().sum()), rel=1e-4)
        assert outcome.answer == choices[int(log.argmax())]
        assert outcome.right == (int(log.argmax()) == 1)


def test_choices_of_one_token_take_one_pass(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(subject: Subject, sequences: Any, *rest: Any) -> Iterator[tuple[int, torch.Tensor]]:
        asked.append(len(sequences))
        return last_logits(subject, sequences, *rest)

    monkeypatch.setattr(score_batches, "last_logits", counted)
    probe = Probe("abc =\n", "d", 1, kind="choice", choices=("c", "d", "e"))
    (outcome,) = likeliest_choices(llama, [(probe, llama.encode(probe.prompt))])
    assert asked == [1] and outcome.coverage is not None and 0 < outcome.coverage < 1


def test_a_tie_is_not_right() -> None:
    probe = Probe("p", "a", 1, kind="choice", choices=("a", "b"))
    assert not score_batches._chosen(probe, [-1.0, -1.0]).right
    assert score_batches._chosen(probe, [-1.0, -1.1]).right


def test_generated_answers_are_judged_by_their_kind(llama: Subject, tmp_path: Path) -> None:
    text = "".join(pieces(llama, llama.encode("abc ="), 12, Generation())).lstrip().partition("\n")[0].rstrip()
    assert len(text) > 3
    part = text[1:4]
    ask = {"prompt": "abc =", "tokens": 12}
    probes = written(
        tmp_path,
        {**ask, "kind": "contains", "expected": part},
        {**ask, "kind": "contains", "expected": "no such answer"},
        {**ask, "kind": "regex", "pattern": r"^.{3}"},
        {**ask, "kind": "regex", "pattern": r"^$"},
        {**ask, "kind": "numeric", "expected": "123456789"},
    )
    outcomes = list(score(llama, probes))
    assert [one.right for one in outcomes] == [True, False, True, False, False]
    assert outcomes[1].answer == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("the answer is 12.", 12), ("-3.5 apples", -3.5), ("1,234,567", 1234567), ("1,2", 1), (".5", 0.5),
        ("2e3", 2000), ("none", None), ("", None),
    ],
)  # fmt: skip
def test_the_first_number_of_a_text(text: str, number: float | None) -> None:
    assert first_number(text) == number


def test_a_number_may_differ_by_the_tolerance(llama: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("surgeon.probe.score._generated", lambda *_: "about 3.1")
    ask = {"prompt": "p", "kind": "numeric", "expected": "3"}
    probes = written(tmp_path, ask, {**ask, "tolerance": 0.2}, {**ask, "tolerance": 0.01})
    assert [one.right for one in score(llama, probes)] == [False, True, False]


def test_a_regular_expression_without_end_is_stopped(
    llama: Subject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("surgeon.probe.score._generated", lambda *_: "a" * 60 + "b")
    monkeypatch.setattr(limited_process, "SECONDS", 1)
    probes = written(tmp_path, {"prompt": "p", "kind": "regex", "pattern": "^(a+)+$"})
    with pytest.raises(InputError, match=r"line 1 .*simpler"):
        list(score(llama, probes))


def test_a_prompt_that_fills_the_context_is_refused(llama: Subject) -> None:
    with pytest.raises(InputError, match="has 201 tokens"):
        list(score(llama, probe_set(Probe("a" * 200, "b", 1))))
    with pytest.raises(InputError, match="context is 128"):
        list(score(llama, probe_set(Probe("a" * 130, "b", 1, kind="choice", choices=("b", "c")))))


def test_an_answer_ends_at_the_end_of_the_context(llama: Subject) -> None:
    probe = Probe("a" * 122, "bcdefghi", 1)
    batched, alone = both(llama, probe_set(probe))
    assert batched == alone


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"kind": "exakt", "expected": "e"}, "'exakt' is not a kind of probe.*exact, choice"),
        ({"kind": "choice", "expected": "e"}, "choices is not a list"),
        ({"kind": "choice", "expected": "e", "choices": ["a", "b"]}, "expected is not one of the choices"),
        ({"kind": "choice", "expected": "a", "choices": ["a", " a"]}, "a choice occurs twice"),
        ({"kind": "choice", "expected": "a", "choices": ["a", 1]}, "a choice is not text"),
        ({"kind": "choice", "expected": "a", "choices": ["a", "b"], "prompt": "p "}, "ends in a space.*Leave the"),
        ({"expected": "e", "choices": ["e", "f"]}, "choices has no meaning for a probe of kind exact"),
        ({"kind": "regex", "expected": "e"}, "the probe has no pattern"),
        ({"kind": "regex", "pattern": "("}, "pattern is not a regular expression"),
        ({"kind": "regex", "pattern": "a", "expected": "a"}, "expected has no meaning"),
        ({"kind": "numeric", "expected": "none"}, "expected is not a number"),
        ({"kind": "numeric", "expected": "1", "tolerance": -1}, "tolerance is not a number of 0 or more"),
        ({"kind": "contains", "expected": "e", "tolerance": 1}, "tolerance has no meaning"),
        ({"kind": "contains", "expected": "e", "tokens": 0}, "tokens is not a whole number"),
        ({"expected": "e", "tokens": 4}, "tokens has no meaning"),
        ({"expected": "e", "group": 4}, "group is not text"),
    ],
)
def test_probes_of_each_kind_are_checked(probe: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        written(tmp_path, {"prompt": "p", **probe})
    assert "line 1" in error.value.where


def test_a_file_may_give_the_kind_of_all_its_probes(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text('kind: numeric\nprobes:\n- {prompt: p, expected: "1", group: g}\n')
    (probe,) = read_probes(tmp_path / "a.yml").probes
    assert (probe.kind, probe.group) == ("numeric", "g")
