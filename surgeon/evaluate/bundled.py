"""Probe sets that come with surgeon: generated, always the same, two wordings of each item, no prompt twice.

Answers to choices are scored by log-probability: of one token where the tokenizer has one, else summed over tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..errors import InputError
from ..probe.probe_set import Probe, ProbeSet
from ..text import nearest
from .bundled_facts import FACTS, WORDS

LEAST_ITEMS = 64
_TWO_DIGIT_ITEMS = 96
_COPIES = 80
_CHOICES = 4


def bundled(names: Iterable[str]) -> list[ProbeSet]:
    """The bundled sets of these names; `all` for every one.

    Raises:
        InputError: a name is not that of a bundled set.
    """
    wanted: list[str] = []
    for name in names:
        if name != "all" and name not in SETS:
            meant = nearest(name, SETS)
            raise InputError(
                f"{name!r} is not a bundled probe set",
                remedy=f"did you mean {meant}?" if meant else f"use all, or some of {', '.join(SETS)}",
            )
        wanted += [one for one in (SETS if name == "all" else [name]) if one not in wanted]
    return [ProbeSet(Path(name), tuple(SETS[name]())) for name in wanted]


def _dice(seed: int) -> random.Random:
    """The same draws every time."""
    return random.Random(seed)  # noqa: S311


def _item(
    probes: list[Probe],
    prompts: Sequence[str],
    expected: str,
    choices: Sequence[str],
    group: str,
    *,
    chat: bool = False,
) -> None:
    """Add all wordings of an item, of kind `choice`, or `exact` without choices."""
    for prompt in prompts:
        probes.append(
            Probe(
                prompt,
                expected,
                len(probes) + 1,
                chat,
                kind="choice" if choices else "exact",
                choices=tuple(choices),
                group=group,
            )
        )


def one_digit() -> list[Probe]:
    """Sums and differences of two digits with a result of one digit: all but the two examples."""
    items = [(a, "+", b) for a in range(10) for b in range(10 - a)]
    items += [(a, "-", b) for a in range(10) for b in range(a + 1)]
    examples = [(3, "+", 5), (9, "-", 2)]
    _dice(1).shuffle(items)
    digits = [str(digit) for digit in range(10)]
    return _sums([item for item in items if item not in examples], examples, lambda _: digits)


def two_digits() -> list[Probe]:
    """Sums and differences of numbers of two digits with a result of two digits, against near results."""
    items = [(a, "+", b) for a in range(11, 89) for b in range(11, 100 - a)]
    items += [(a, "-", b) for a in range(21, 100) for b in range(11, a - 10)]
    examples = [(31, "+", 25), (79, "-", 42)]
    dice = _dice(2)

    def choices(result: int) -> list[str]:
        near = [result + step for step in (-10, -2, -1, 1, 2, 10) if 10 <= result + step <= 99]
        return [str(choice) for choice in sorted([result, *dice.sample(near, _CHOICES - 1)])]

    chosen = dice.sample([item for item in items if item not in examples], _TWO_DIGIT_ITEMS)
    return _sums(chosen, examples, choices)


_Sum = tuple[int, str, int]


def _sums(items: Sequence[_Sum], examples: Sequence[_Sum], choices: Callable[[int], list[str]]) -> list[Probe]:
    """Each sum as a term and in words, after the examples: without them, few models answer with a number."""
    probes: list[Probe] = []
    shown = [_wordings(*example) for example in examples]
    results = [str(_result(*example)) for example in examples]
    terms = "".join(f"{term} {result}\n" for (term, _), result in zip(shown, results, strict=True))
    words = "".join(f"{text} {result}\n\n" for (_, text), result in zip(shown, results, strict=True))
    for item in items:
        term, text = _wordings(*item)
        result = _result(*item)
        prompts = (terms + term, words + text)
        _item(probes, prompts, str(result), choices(result), "".join(map(str, item)))
    return probes


def _wordings(a: int, sign: str, b: int) -> tuple[str, str]:
    word = "plus" if sign == "+" else "minus"
    return f"{a} {sign} {b} =", f"Question: What is {a} {word} {b}?\nAnswer:"


def _result(a: int, sign: str, b: int) -> int:
    return a + b if sign == "+" else a - b


def copying() -> list[Probe]:
    """Three words to repeat."""
    dice = _dice(3)
    probes: list[Probe] = []
    seen: set[tuple[str, ...]] = set()
    while len(seen) < _COPIES:
        words = tuple(dice.sample(WORDS, 3))
        if words in seen:
            continue
        seen.add(words)
        text = " ".join(words)
        prompts = (
            f"Input: sun moon star\nOutput: sun moon star\n\nInput: {text}\nOutput:",
            f"Repeat the words.\nWords: one two three\nRepeated: one two three\nWords: {text}\nRepeated:",
        )
        _item(probes, prompts, text, (), text)
    return probes


def _facts() -> list[tuple[str, str, str, str, list[str]]]:
    """(group, question, unfinished sentence, answer, choices) of every fact."""
    dice = _dice(4)
    found = []
    for topic, (question, sentence, pairs) in FACTS.items():
        for subject, answer in pairs.items():
            others = sorted({other for other in pairs.values() if other != answer})
            choices = sorted([answer, *dice.sample(others, _CHOICES - 1)])
            found.append((f"{topic}/{subject}", question.format(subject), sentence.format(subject), answer, choices))
    dice.shuffle(found)
    return found


def knowledge() -> list[Probe]:
    """Simple facts, as a question and as an unfinished sentence."""
    probes: list[Probe] = []
    for group, question, sentence, answer, choices in _facts():
        _item(probes, (f"Question: {question}\nAnswer:", sentence), answer, choices, group)
    return probes


def chat() -> list[Probe]:
    """The facts of `knowledge` as messages in the tokenizer's chat template."""
    probes: list[Probe] = []
    for group, question, sentence, answer, choices in _facts():
        prompts = (f"{question} Answer with one word.", f"Complete the sentence with one word: {sentence} ...")
        _item(probes, prompts, answer, choices, group, chat=True)
    return probes


SETS: dict[str, Callable[[], list[Probe]]] = {
    "arithmetic-1": one_digit,
    "arithmetic-2": two_digits,
    "copying": copying,
    "knowledge": knowledge,
    "chat": chat,
}
"""Name -> its probes."""
