"""Halves of sets and texts: no prompt, item or passage is in both."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.errors import InputError
from surgeon.evaluate.bundled import SETS, bundled
from surgeon.evaluate.split import PASSAGE, split_sets, split_text
from surgeon.probe.probe_set import Probe, ProbeSet


def probes(*rows: tuple[str, str | None], name: str = "a.jsonl") -> ProbeSet:
    made = (Probe(prompt, "e", line, group=group) for line, (prompt, group) in enumerate(rows, start=1))
    return ProbeSet(Path(name), tuple(made))


def prompts(sets: list[ProbeSet]) -> list[list[str]]:
    return [[probe.prompt for probe in one.probes] for one in sets]


def test_items_alternate_and_the_halves_are_the_whole() -> None:
    one = probes(*((str(number), None) for number in range(7)))
    working, held_out = split_sets([one], "working"), split_sets([one], "held-out")
    assert prompts(working) == [["1", "3", "5"]] and prompts(held_out) == [["0", "2", "4", "6"]]
    assert prompts(split_sets([one], "all")) == [list("0123456")]


def test_wordings_of_an_item_stay_together() -> None:
    one = probes(("a", "x"), ("b", "y"), ("c", "z"), ("d", "x"), ("e", "y"))
    assert prompts(split_sets([one], "held-out")) == [["a", "d", "c"]]
    assert prompts(split_sets([one], "working")) == [["b", "e"]]


def test_equal_prompts_of_one_set_or_two_are_on_one_side() -> None:
    first = probes(("p", None), ("q", None), ("p", None), ("r", None))
    second = probes(("s", None), ("t", None), ("q", None), ("p", None), name="b.jsonl")
    halves = [split_sets([first, second], half) for half in ("working", "held-out")]
    working, held_out = ({text for texts in prompts(half) for text in texts} for half in halves)
    assert not working & held_out and working | held_out == set("pqrst")


def test_a_group_of_two_sets_is_on_one_side() -> None:
    first = probes(("a", "x"), ("b", "y"))
    second = probes(("c", "y"), ("d", "x"), name="b.jsonl")
    assert prompts(split_sets([first, second], "held-out")) == [["a"], ["d"]]


def test_a_limit_counts_items() -> None:
    one = probes(("a", "x"), ("b", "x"), ("c", "y"), ("d", "z"), ("e", "z"))
    assert prompts(split_sets([one], "all", 2)) == [["a", "b", "c"]]
    assert prompts(split_sets([one], "held-out", 1)) == [["a", "b"]]


def test_an_empty_half_is_refused() -> None:
    with pytest.raises(InputError, match="the working half of the set is empty"):
        split_sets([probes(("a", None))], "working")


def test_the_halves_of_the_bundled_sets_share_nothing() -> None:
    sets = bundled(["all"])
    working, held_out = split_sets(sets, "working"), split_sets(sets, "held-out")
    for field in ("prompt", "group"):
        sides = [{getattr(probe, field) for one in half for probe in one.probes} for half in (working, held_out)]
        assert not sides[0] & sides[1]
    for one, low, high in zip(sets, working, held_out, strict=True):
        assert len(low.probes) + len(high.probes) == len(one.probes)
        assert min(len(low.probes), len(high.probes)) > 0.4 * len(one.probes), one.name


class TestBundled:
    def test_each_set_has_64_items_in_two_wordings_and_no_prompt_twice(self) -> None:
        for one in bundled(["all"]):
            groups = [probe.group for probe in one.probes]
            assert len(set(groups)) >= 64 and all(groups.count(group) == 2 for group in groups)
            assert len({probe.prompt for probe in one.probes}) == len(one.probes)

    def test_prompts_end_without_a_space_and_answers_are_choices(self) -> None:
        for one in bundled(["all"]):
            for probe in one.probes:
                assert probe.prompt == probe.prompt.rstrip() and probe.expected == probe.expected.strip()
                if probe.kind == "choice":
                    assert probe.expected in probe.choices and len(set(probe.choices)) == len(probe.choices) >= 4
                    assert not any(a != b and b.startswith(a) for a in probe.choices for b in probe.choices)

    def test_they_are_always_the_same(self) -> None:
        assert bundled(["all"]) == bundled(["all"])

    def test_sums_are_right(self) -> None:
        for name in ("arithmetic-1", "arithmetic-2"):
            for probe in SETS[name]()[::2]:
                *examples, asked = probe.prompt.splitlines()
                a, sign, b, _ = asked.split()
                assert len(examples) == 2 and not any(line.startswith(asked) for line in examples)
                assert int(probe.expected) == (int(a) + int(b) if sign == "+" else int(a) - int(b))

    def test_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"'knowlege' is not a bundled probe set.*mean knowledge"):
            bundled(["knowlege"])
        names = [one.name for one in bundled(["chat", "all"])]
        assert names[0] == "chat" and sorted(names) == sorted(SETS)


class TestTexts:
    def test_passages_alternate_and_keep_every_character(self) -> None:
        text = "".join(f"line {number} of the text, {'x' * (number % 60)}\n" for number in range(400))
        working, held_out = split_text(text, "working"), split_text(text, "held-out")
        assert len(working) > 2
        joined = [passage for pair in zip(held_out, working, strict=False) for passage in pair]
        assert text.startswith("".join(joined)) and sum(map(len, working + held_out)) == len(text)
        assert all(len(passage) >= PASSAGE for passage in joined[:-1])
        assert split_text(text, "all") == [text]

    def test_a_passage_of_both_halves_is_left_out_of_the_held_out_half(self) -> None:
        same = "y" * 4000 + "\n"
        assert split_text(same + same + "z" * 4000 + "\n", "held-out") == ["z" * 4000 + "\n"]

    def test_a_short_text_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"too short to be split.*--all"):
            split_text("short\n", "held-out")
