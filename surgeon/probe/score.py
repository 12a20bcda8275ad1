"""A model's score on a probe set. docs/evaluation.md explains the measures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..errors import InputError
from .generate import Generation, pieces
from .limited_process import SECONDS, limited
from .probe_set import Probe, ProbeSet, first_number
from .score_batches import Judgement, Outcome, exact_answers, likeliest_choices
from .subject import Subject

_SPARE_TOKENS = 4
"""Tokens that an answer may have in addition to the expected one's, for spaces and the end of the line."""
_CHUNK = 64
"""Probes that are batched together; outcomes come in the order of the file, so none is later than its chunk."""


def score(subject: Subject, probes: ProbeSet, check: Callable[[], None] = lambda: None) -> Iterator[Outcome]:
    """The outcome of each probe, in the order of the file.

    `exact` and `choice` are scored in batches of sequences of equal length. Where rounding, which differs between a
    batch and a single sequence, could change a decision, the probe is run again on its own; so the verdicts are those
    of `answer_one_by_one`. The other kinds are generated one at a time.

    Raises:
        InputError: the model has no tokenizer, a probe is a chat and the model has no usable chat template, a prompt
            fills the context, or a regular expression takes too long.
    """
    asked = [(probe.prompt, probe.system) for probe in probes.probes if probe.chat]
    chats = iter(subject.encode_chats(asked) if asked else ())
    items = [(probe, next(chats) if probe.chat else subject.encode(probe.prompt)) for probe in probes.probes]
    for start in range(0, len(items), _CHUNK):
        yield from _chunk(subject, items[start : start + _CHUNK], check)


def _chunk(subject: Subject, items: Sequence[tuple[Probe, list[int]]], check: Callable[[], None]) -> Iterator[Outcome]:
    found: dict[int, Outcome] = {}
    exact = [index for index, (probe, _) in enumerate(items) if probe.kind == "exact"]
    asked = [(*items[index], answer_limit(subject, items[index][0])) for index in exact]
    for index, (outcome, chance) in zip(exact, exact_answers(subject, asked, check), strict=True):
        found[index] = replace(outcome or one_by_one(subject, *items[index]), log_probability=chance)
    choices = [index for index, (probe, _) in enumerate(items) if probe.kind == "choice"]
    found.update(zip(choices, likeliest_choices(subject, [items[index] for index in choices], check), strict=True))
    answers = []
    for index, (probe, prompt) in enumerate(items):
        if index not in found:
            check()
            answers.append((index, probe, _generated(subject, probe, prompt)))
    for (index, probe, answer), right in zip(answers, _judged([(one, text) for _, one, text in answers]), strict=True):
        found[index] = Outcome(probe, answer, right)
    yield from (found[index] for index in range(len(items)))


def answer_limit(subject: Subject, probe: Probe) -> int:
    """Most tokens of the answer to an `exact` probe."""
    return len(subject.encode(" " + probe.expected.strip())) + _SPARE_TOKENS


def one_by_one(subject: Subject, probe: Probe, prompt: list[int]) -> Outcome:
    """The outcome of an `exact` probe by greedy generation, token by token.

    An answer ends with the text, or with its first line if one line is expected. It is right if it equals the expected
    answer without surrounding whitespace.
    """
    judgement = Judgement(probe.expected)
    for piece in pieces(subject, prompt, answer_limit(subject, probe), Generation()):
        if judgement.take(piece):
            break
    return Outcome(probe, judgement.answer, judgement.right)


def _generated(subject: Subject, probe: Probe, prompt: list[int]) -> str:
    """The greedy answer of limited length: its first line, or all of it in a chat or if line breaks are expected."""
    text = ""
    whole = probe.chat or "\n" in probe.expected
    for piece in pieces(subject, prompt, probe.tokens, Generation()):
        text = (text + piece).lstrip()
        if not whole and "\n" in text:
            return text.partition("\n")[0].rstrip()
        if probe.kind == "contains" and probe.expected.strip() in text:
            break
    return text.rstrip()


def _judged(answers: Sequence[tuple[Probe, str]]) -> list[bool]:
    """Whether each answer of kind `contains`, `regex` or `numeric` is right."""
    patterns = [index for index, (probe, _) in enumerate(answers) if probe.kind == "regex"]
    matched: dict[int, bool] = {}
    if patterns:
        # A pattern may take exponential time.
        made = limited(lambda: {"right": [bool(re.search(answers[i][0].expected, answers[i][1])) for i in patterns]})
        if made is None:
            line = answers[patterns[0]][0].line
            raise InputError(
                f"the regular expressions from line {line} on take more than {SECONDS} seconds",
                remedy="use simpler patterns",
            )
        matched = dict(zip(patterns, made["right"], strict=True))
    return [
        matched[index] if probe.kind == "regex" else _holds(probe, answer)
        for index, (probe, answer) in enumerate(answers)
    ]


def _holds(probe: Probe, answer: str) -> bool:
    if probe.kind == "contains":
        return probe.expected.strip() in answer
    wanted, found = first_number(probe.expected), first_number(answer)
    return wanted is not None and found is not None and abs(found - wanted) <= probe.tolerance
