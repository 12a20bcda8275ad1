"""Generation, text in pieces, degeneracy, perplexity, probe sets."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from surgeon.checkpoint import open_checkpoint
from surgeon.errors import InputError, SurgeonError
from surgeon.probe.generate import _PATIENCE, Generation, Pieces, pieces, tokens
from surgeon.probe.probe_set import read_probes
from surgeon.probe.requests import Request, Text, run
from surgeon.probe.score import one_by_one, score
from surgeon.probe.subject import Subject, from_checkpoint, from_plan
from surgeon.probe.text_measures import degenerate, finite_on_ids, perplexity
from tests.support.models import FAMILIES, one_thread, tiny_model, tiny_tokenizer

PROMPT = "reverse 123 ="


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def subject_of(folder: Path, **config: object) -> Subject:
    if not (folder / "config.json").exists():
        tiny_model(folder, **config)  # type: ignore[arg-type]
        tiny_tokenizer(folder)
    return from_checkpoint(open_checkpoint(str(folder)), "cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject_of(tmp_path_factory.mktemp("llama") / "a")


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    tiny_model(tmp_path, family)
    subject = from_checkpoint(open_checkpoint(str(tmp_path)), "cpu")
    prompt = [1, 40, 77, 12, 200]
    made = Generation()
    ours = list(tokens(subject, prompt, 24, made))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).generate(
        torch.tensor([prompt]), max_new_tokens=24, do_sample=False
    )
    expected = theirs[0, len(prompt) :].tolist()
    assert ours == expected[: len(ours)] and expected[len(ours) :] in ([], [2])
    assert made.ids == ours and made.finite and made.stop in {"length", "eos"}


def test_a_list_of_end_tokens_in_the_generation_config_ends_the_text(tmp_path: Path) -> None:
    tiny_model(tmp_path)
    free = list(tokens(from_checkpoint(open_checkpoint(str(tmp_path)), "cpu"), [1, 40], 12, Generation()))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, free[5]]}))
    made = Generation()
    short = list(tokens(from_checkpoint(open_checkpoint(str(tmp_path)), "cpu"), [1, 40], 12, made))
    assert short == free[: free.index(free[5])] and made.stop == "eos"


def test_a_request_that_says_nothing_of_chance_takes_the_likeliest_tokens(llama: Subject) -> None:
    greedy = "".join(pieces(llama, llama.encode(PROMPT), 24, Generation()))
    for seed in (0, 5):
        done = list(run(llama, Request(prompt=PROMPT, n=24, seed=seed)))[-1]
        assert done["text"] == greedy


def test_sampling_depends_on_the_seed_alone(llama: Subject) -> None:
    draws = [list(tokens(llama, [1, 40], 12, Generation(), temperature=1.5, seed=seed)) for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_top_p_draws_from_the_likeliest_tokens_alone(llama: Subject) -> None:
    def draws(top_p: float) -> list[list[int]]:
        made = [Generation() for _ in range(20)]
        options = {"temperature": 3.0, "top_p": top_p}
        return [list(tokens(llama, [1, 40], 6, run, seed=seed, **options)) for seed, run in enumerate(made)]  # type: ignore[arg-type]

    greedy = list(tokens(llama, [1, 40], 6, Generation()))
    for smallest in (0.0, 1e-9):
        assert draws(smallest) == [greedy] * 20
    with torch.inference_mode():
        chances = torch.softmax(llama.model(input_ids=torch.tensor([[1, 40]])).logits[0, -1] / 3.0, dim=-1)
    ordered, order = chances.sort(descending=True)
    nucleus = set(order[: int((ordered.cumsum(0) < 0.2).sum()) + 1].tolist())
    assert 1 < len(nucleus) < 100
    firsts = {draw[0] for draw in draws(0.2) if draw}
    assert len(firsts) > 1 and firsts <= nucleus
    assert not {draw[0] for draw in draws(1.0) if draw} <= nucleus


def test_the_context_ends_the_text_and_a_prompt_may_not_fill_it(llama: Subject) -> None:
    made = Generation()
    assert len(list(tokens(llama, [1] + [40] * 119, 50, made))) == 8 and made.stop == "context"
    with pytest.raises(InputError, match="128 tokens"):
        next(tokens(llama, [40] * 128, 1, Generation()))


def test_logits_that_are_not_finite_end_the_text(tmp_path: Path) -> None:
    subject = subject_of(tmp_path)
    with torch.no_grad():
        subject.model.lm_head.weight[7] = math.nan
    made = Generation()
    assert list(tokens(subject, [1, 40], 5, made)) == [] and not made.finite and made.stop == "not finite"
    assert not finite_on_ids(subject)


def test_pieces_are_the_whole_text_and_never_half_a_character(llama: Subject) -> None:
    text = "naïve 日本語 – 🙂🙃 ça\tva\n¡ñ!"
    ids = llama.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == len(text.encode())
    decoder = Pieces(llama.decode, [1])
    found = [decoder.push(token) for token in ids]
    assert decoder.rest() == "" and "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)
    assert max(len(piece) for piece in found) == 1


def test_pieces_decode_no_more_than_the_last_tokens_with_every_token() -> None:
    asked = []

    def decode(ids: list[int]) -> str:
        asked.append(len(ids))
        return "".join(map(chr, ids))

    decoder = Pieces(decode, [65, 66, 67])
    assert "".join(decoder.push(token) for token in range(97, 123)) == "abcdefghijklmnopqrstuvwxyz"
    assert max(asked) == 4 and set(asked[4:]) <= {1, 2}


def test_pieces_of_bytes_that_are_no_text_add_up_too(llama: Subject) -> None:
    dice = random.Random(0)
    for _ in range(50):
        ids = [dice.randrange(3, 259) for _ in range(40)]
        decoder = Pieces(llama.decode)
        found = "".join(decoder.push(token) for token in ids) + decoder.rest()
        assert found.replace("\ufffd", "") == llama.decode(ids).replace("\ufffd", "")


def test_bytes_that_become_no_character_wait_for_no_longer_than_a_character_has() -> None:
    decoder = Pieces(lambda ids: "\ufffd" * len(ids))
    found = [decoder.push(token) for token in range(2 * _PATIENCE)]
    waiting = [""] * (_PATIENCE - 1)
    assert found == [*waiting, "\ufffd" * _PATIENCE, *waiting, "\ufffd" * _PATIENCE]
    assert decoder.rest() == ""


def test_pieces_keep_the_space_that_a_word_begins_with() -> None:
    words = {1: "▁The", 2: "▁cat", 3: "▁sat", 4: "s"}

    def decode(ids: list[int]) -> str:
        # As sentencepiece does: the space in front of a text is not part of it.
        return "".join(words[token] for token in ids).replace("▁", " ").removeprefix(" ")

    decoder = Pieces(decode, [1])
    assert [decoder.push(token) for token in (2, 4, 3)] == [" cat", "s", " sat"]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([], False),
        ([5] * 8, False),
        ([5] * 9, True),
        ([4, 4, *range(20, 50), *[5] * 9, *range(50, 90)], True),
        ([4, 4, *range(20, 50), *[5] * 8, *range(50, 90)], False),
        (list(range(40)) + [5] * 9 + list(range(50, 90)), True),
        (list(range(48)), False),
        ([1, 2] * 4, False),
        ([1, 2] * 6, True),
        (list(range(20)) + [1, 2, 3] * 10, True),
        (list(range(24)) + [1, 2, 3] * 8, False),
        ([1, 2, 3, 4, 5, 6, 7, 8] * 4, True),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9] * 6, False),
        ([1, 2, 3, 4, 5, 6, 7, 8] * 2, False),
        ([1, 2, 3] * 10 + list(range(10, 58)), False),
    ],
)
def test_degenerate(ids: list[int], expected: bool) -> None:
    assert degenerate(ids) is expected


def test_perplexity_is_the_mean_surprise_of_every_token_but_the_first(llama: Subject) -> None:
    ids = llama.encode("a text to be surprised by")
    with torch.inference_mode():
        logits = llama.model(input_ids=torch.tensor([ids])).logits[0].double()
    total = 0.0
    for position in range(1, len(ids)):
        row = logits[position - 1].tolist()
        total += math.log(sum(math.exp(value) for value in row)) - row[ids[position]]
    assert perplexity(llama, ids) == pytest.approx(math.exp(total / (len(ids) - 1)), rel=1e-12)


def test_perplexity_of_a_long_text_counts_each_token_once(llama: Subject) -> None:
    ids = [1] + [(7 * index) % 250 + 3 for index in range(37)]
    total, done = 0.0, 1
    # Windows of 8 that overlap by 4, by hand.
    for start in range(0, len(ids), 4):
        stop = min(start + 8, len(ids))
        with torch.inference_mode():
            chances = llama.model(input_ids=torch.tensor([ids[start:stop]])).logits[0].double().log_softmax(-1)
        for position in range(done, stop):
            total -= float(chances[position - 1 - start, ids[position]])
        done = max(done, stop)
    assert perplexity(llama, ids, window=8) == pytest.approx(math.exp(total / 37), rel=1e-9)
    with pytest.raises(InputError, match="two tokens"):
        perplexity(llama, [1])


def test_a_probe_is_right_when_the_answer_is_the_expected_one(llama: Subject, tmp_path: Path) -> None:
    said = "".join(pieces(llama, llama.encode(PROMPT), 4, Generation()))
    longer = "".join(pieces(llama, llama.encode(PROMPT), 12, Generation()))
    path = tmp_path / "set.jsonl"
    cases = [(said, False), (longer + "x", False), ("no such answer", False)]
    path.write_text("".join(json.dumps({"prompt": PROMPT, "expected": text}) + "\n" for text, _ in cases))
    assert [outcome.right for outcome in score(llama, read_probes(path))] == [right for _, right in cases]


def test_an_answer_ends_with_its_line_or_with_the_text(llama: Subject, tmp_path: Path) -> None:
    script: list[int] = []
    path = tmp_path / "set.yaml"
    path.write_text('- {prompt: "1 =", expected: "321"}\n')

    class Scripted:
        """A model that says what the script holds."""

        def __init__(self) -> None:
            self.at = -1

        def forward(self) -> None: ...

        def __call__(self, input_ids: torch.Tensor, past_key_values: object, **_: object) -> object:
            self.at = 0 if past_key_values is None else self.at + 1
            logits = torch.zeros(1, 1, 320)
            logits[0, 0, script[self.at]] = 1.0
            return type("Out", (), {"logits": logits, "past_key_values": self})()

    from dataclasses import replace

    class Listed(Subject):
        vocabulary = 320  # type: ignore[assignment]

    fake = Listed(**vars(replace(llama, model=Scripted())))
    for text, end, right in (
        (" 321", 2, True),
        ("321 ", 2, True),
        ("\n 321\n1 = ", 2, True),
        ("321\nand more", 2, True),
        ("3211", 2, False),
        ("321 1", 2, False),
        ("32", 2, False),
        (" 4", 2, False),
    ):
        script[:] = [*llama.tokenizer(text, add_special_tokens=False)["input_ids"], end]
        outcome = one_by_one(fake, read_probes(path).probes[0], fake.encode("1 ="))
        assert outcome.right is right, (text, outcome.answer)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"prompt": "a", "expected": "b"}\n{"prompt": "a", ', r"a\.jsonl, line 2: this is not JSON"),
        ("a.jsonl", '\n{"prompt": "a"}\n', r"line 2: the probe has no expected"),
        ("a.jsonl", '{"prompt": "a", "expectd": "b"}\n', r"line 1: 'expectd' is not a key .*mean expected"),
        ("a.jsonl", '{"prompt": "a", "expected": 12}\n', r"line 1: expected is not text.* quotes"),
        ("a.jsonl", "[1]\n", r"line 1: a probe is"),
        ("a.jsonl", "\n\n", r"the probe set is empty"),
        ("a.jsonl", '{"prompt": "", "expected": "b"}\n', r"line 1: .*empty"),
        ("a.yml", "prompt: a\nexpected: b\n", r"a\.yml: a probe set in YAML is a list"),
        ("a.yml", "- {prompt: a, expected: b}\n\n- prompt: a\n", r"line 3: the probe has no expected"),
        ("a.yml", "- {prompt: a, expected: 12}\n", r"line 1: expected is not text"),
        ("a.yml", "- [unclosed\n", r"line \d: this is not valid YAML"),
    ],
)
def test_probe_sets_that_are_wrong_are_refused_at_their_line(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_probes(tmp_path / name)


def test_probe_sets_are_read_from_both_formats(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "é\\u2028", "expected": " b "}\n')
    (tmp_path / "b.yaml").write_text('- prompt: "é\\L"\n  expected: " b "\n')
    sets = [read_probes(tmp_path / name) for name in ("a.jsonl", "b.yaml")]
    assert sets[0].probes == sets[1].probes and [item.name for item in sets] == ["a", "b"]
    with pytest.raises(InputError, match="cannot read"):
        read_probes(tmp_path / "none.jsonl")


def test_a_model_without_a_tokenizer_is_checked_on_ids_and_cannot_be_prompted(tmp_path: Path) -> None:
    subject = from_checkpoint(open_checkpoint(str(tiny_model(tmp_path))), "cpu")
    done = list(run(subject, Request()))[-1]
    assert done["finite"] and done["text"] is None and "no tokenizer" in done["notes"][0]
    with pytest.raises(InputError, match="no tokenizer files"):
        list(run(subject, Request(prompt="The")))


def test_a_small_model_runs_on_one_thread_and_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    subject, seen, before = subject_of(tmp_path), set(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(
            run(subject, Request(prompt="The", texts=(Text("a", "a text"),)), lambda: seen.add(torch.get_num_threads()))
        )
        assert seen == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_model_that_fails_says_so_in_a_sentence(llama: Subject) -> None:
    from dataclasses import replace

    class Broken:
        device = torch.device("cpu")

        def forward(self) -> None: ...

        def __call__(self, **_: object) -> object:
            raise IndexError("no such row.\nAnd much more.")

    with pytest.raises(SurgeonError, match=r"the model failed, because IndexError: no such row\.$"):
        next(tokens(replace(llama, model=Broken()), [1, 2], 3, Generation()))


def test_the_speed_is_that_after_the_first_token() -> None:
    assert Generation(ids=[5, 6, 7], first=1.0, seconds=3.0).tokens_per_second == 1.0
    assert Generation(ids=[5], first=1.0, seconds=4.0).tokens_per_second == 0.25
    assert Generation(ids=[5], first=4.0, seconds=4.0).tokens_per_second == 0.25
    assert Generation().tokens_per_second == 0.0


def test_a_tokenizer_that_does_not_fit_the_embedding_is_named(tmp_path: Path) -> None:
    subject = subject_of(tmp_path, vocab_size=100)
    with pytest.raises(InputError, match="100 rows"):
        subject.encode("ÿÿÿ")


def test_a_donor_without_a_generation_config_can_be_tried(tmp_path: Path) -> None:
    from surgeon.plan import Donors, resolve
    from surgeon.recipe.document import parse

    tiny_tokenizer(tiny_model(tmp_path / "a"))
    (tmp_path / "a" / "generation_config.json").unlink()
    plan = resolve(parse(f"slices:\n  - sources: [{{model: {tmp_path / 'a'}, layer_range: [1, 4]}}]\n"), Donors())
    subject = from_plan(plan, "cpu")
    assert subject.stops == frozenset({2}) and len(list(tokens(subject, [1, 40], 3, Generation()))) == 3


def test_a_recipe_speaks_like_its_assembled_model(tmp_path: Path) -> None:
    from surgeon.plan import Donors, resolve
    from surgeon.recipe.document import parse
    from tests.support.assembling import assemble

    tiny_tokenizer(tiny_model(tmp_path / "a"))
    text = f"slices:\n  - sources: [{{model: {tmp_path / 'a'}, layer_range: [1, 4]}}]\n"
    plan = resolve(parse(text), Donors())
    assemble(plan, tmp_path / "out", recipe=text)
    virtual, written = from_plan(plan, "cpu"), subject_of(tmp_path / "out")
    ids = virtual.encode(PROMPT)
    assert ids == written.encode(PROMPT) == AutoTokenizer.from_pretrained(tmp_path / "out")(PROMPT)["input_ids"]
    made = [list(tokens(subject, ids, 20, Generation())) for subject in (virtual, written)]
    assert made[0] == made[1]
    assert virtual.parameters == written.parameters == plan.estimates.parameters
    assert (virtual.layers, virtual.stops) == (3, written.stops) == (written.layers, frozenset({2}))
