"""Score probes in batches: exact answers teacher-forced, choices by log-probability.

A batch has sequences of equal length, because padding changes more than rounding in some models. Rounding does differ
between a batch, a whole sequence, and a sequence that is continued with a cache: `_tolerance` bounds it, and decisions
that are closer are made again without a batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import InputError
from .environment import failure
from .generate import CONTEXT_TOKENS, Pieces, forward_options
from .probe_set import Probe
from .subject import Subject

if TYPE_CHECKING:
    import torch

_LOGITS = 2**25
"""Most logits of a batch: 134 MB in float32."""
_TOKENS = 4096
"""Most tokens of a batch."""
_ROUNDING = 4
"""Largest difference of logits by rounding, in units of the dtype's epsilon times the largest logit.

Measured in bfloat16 between a batch and generation with a cache: 1.4 on the demo, 1.9 on SmolLM2-135M.
"""
_LEAST_ROUNDING = 1e-4
"""The same for dtypes in which errors of many layers exceed the epsilon."""
_ROUNDS = 3
"""Drafts that are tried for an answer before it is generated token by token."""


@dataclass(frozen=True)
class Outcome:
    """The result of one probe.

    Attributes:
        answer: the answer, up to the token that decides it; for `choice` the likeliest choice.
        right: whether it is right. A `choice` is right if it is likelier than every other one.
        log_odds: of a `choice`: log p(right) - log p(any other choice), in nats.
        coverage: of a `choice`: probability of all choices together.
        log_probability: of an `exact` answer: of the expected one, summed over its tokens, in nats.
    """

    probe: Probe
    answer: str
    right: bool
    log_odds: float | None = None
    coverage: float | None = None
    log_probability: float | None = None


class Judgement:
    """Compares an answer with the expected one while its text comes.

    An answer ends with the text, or with its first line if one line is expected.
    """

    def __init__(self, expected: str) -> None:
        self.expected = expected.strip()
        self.text = ""

    def take(self, piece: str) -> bool:
        """Whether the answer is decided after this piece of text."""
        self.text = (self.text + piece).lstrip()
        if "\n" in self.text and "\n" not in self.expected:
            self.text = self.text.partition("\n")[0]
            return True
        return not self.expected.startswith(self.text) and self.text.rstrip() != self.expected

    @property
    def answer(self) -> str:
        """The answer so far."""
        return self.text.rstrip()

    @property
    def right(self) -> bool:
        """Whether it is the expected one."""
        return self.answer == self.expected


@dataclass
class _Attempt:
    """An answer that is being decided."""

    probe: Probe
    prompt: list[int]
    room: int
    judgement: Judgement
    decoder: Pieces
    given: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    log_probability: float = -math.inf
    decided: bool = False
    failed: bool = False

    def push(self, token: int, stops: frozenset[int]) -> None:
        """Add a token to the answer, as `generate.pieces` does."""
        if token in stops:
            self._end()
            return
        self.given.append(token)
        self.decided = self.judgement.take(self.decoder.push(token))
        if not self.decided and len(self.given) >= self.room:
            self._end()

    def _end(self) -> None:
        if last := self.decoder.rest():
            self.judgement.take(last)
        self.decided = True

    def after(self, token: int, stops: frozenset[int]) -> _Attempt:
        """A copy with one more token."""
        other = copy.copy(self)
        other.judgement, other.decoder = copy.copy(self.judgement), self.decoder.copy()
        other.given = list(self.given)
        other.push(token, stops)
        return other


def exact_answers(
    subject: Subject, items: Sequence[tuple[Probe, list[int], int]], check: Callable[[], None] = lambda: None
) -> list[tuple[Outcome | None, float]]:
    """Decide `exact` probes by teacher forcing: the expected tokens are a draft that one forward pass checks.

    Greedy generation gives the draft's tokens as long as each is the likeliest one. The first other token is known
    too, and usually decides the answer; if not (another split into tokens, a space), the rest is the next draft.

    Args:
        subject: the model.
        items: a probe, the tokens of its prompt, and the most tokens of its answer.
        check: called before each batch; may raise to stop.

    Returns:
        For each item the outcome, None where a decision is closer than rounding or takes too many drafts; and the
        log-probability of the expected answer.
    """
    attempts = []
    for probe, prompt, limit in items:
        room = limit if subject.context is None else min(limit, subject.context - len(prompt))
        decoder = Pieces(subject.decode, prompt[-CONTEXT_TOKENS:])
        attempt = _Attempt(probe, prompt, room, Judgement(probe.expected), decoder, failed=room < 1)
        attempt.draft = continuation(subject, probe, prompt, probe.expected.strip())
        attempts.append(attempt)
    for number in range(_ROUNDS):
        active = [attempt for attempt in attempts if not attempt.decided and not attempt.failed]
        for attempt in active:
            attempt.draft = attempt.draft[: attempt.room - len(attempt.given) - 1]
        sequences = [[*attempt.prompt, *attempt.given, *attempt.draft] for attempt in active]
        ends = [len(attempt.draft) + 1 for attempt in active]
        for index, rows in last_logits(subject, sequences, ends, check):
            attempt = active[index]
            if number == 0:
                attempt.log_probability = _drafted(rows, attempt.draft)
            _follow(attempt, rows, subject)
            if not attempt.decided:
                rest = attempt.judgement.expected[len(attempt.judgement.text) :]
                attempt.draft = subject.plain_ids(rest) if rest else []
    found: list[tuple[Outcome | None, float]] = []
    for attempt in attempts:
        outcome = Outcome(attempt.probe, attempt.judgement.answer, attempt.judgement.right)
        found.append((outcome if attempt.decided and not attempt.failed else None, attempt.log_probability))
    return found


def _follow(attempt: _Attempt, rows: torch.Tensor, subject: Subject) -> None:
    """Add the tokens that greedy generation takes, as far as the logits of the draft (rows, vocabulary) say."""
    import torch

    if not bool(torch.isfinite(rows).all()):
        attempt.failed = True
        return
    highest = rows.amax(dim=1)
    near = rows >= (highest - _tolerance(rows, subject.dtype))[:, None]
    best, counts = rows.argmax(dim=1).tolist(), near.sum(dim=1).tolist()
    for place, token in enumerate(best):
        if counts[place] > 1:
            candidates = near[place].nonzero()[:, 0].tolist()
            results = [attempt.after(candidate, subject.stops) for candidate in candidates]
            if not all(one.decided for one in results) or len({one.judgement.right for one in results}) > 1:
                attempt.failed = True
                return
        attempt.push(token, subject.stops)
        if attempt.decided or place == len(attempt.draft) or token != attempt.draft[place]:
            return


def _tolerance(rows: torch.Tensor, dtype: str) -> torch.Tensor:
    """By how much rounding may change the difference of two logits of each row."""
    import torch

    share = max(_ROUNDING * torch.finfo(getattr(torch, dtype)).eps, _LEAST_ROUNDING)
    return share * rows.abs().amax(dim=1)


def _drafted(rows: torch.Tensor, draft: Sequence[int]) -> float:
    """Sum of the log-probabilities of a draft's tokens."""
    import torch

    if not draft:
        return 0.0
    chances = rows[: len(draft)].log_softmax(dim=1)
    return float(chances.gather(1, torch.tensor(draft, device=rows.device)[:, None]).double().sum())


def continuation(subject: Subject, probe: Probe, prompt: Sequence[int], answer: str) -> list[int]:
    """Tokens of an answer after its prompt, which a space separates unless it ends in whitespace or is a chat."""
    if probe.chat or probe.prompt[-1:].isspace():
        return subject.plain_ids(answer)
    whole = subject.encode(f"{probe.prompt} {answer}")
    if whole[: len(prompt)] == list(prompt) and len(whole) > len(prompt):
        return whole[len(prompt) :]
    return subject.plain_ids(" " + answer)


def likeliest_choices(
    subject: Subject, items: Sequence[tuple[Probe, list[int]]], check: Callable[[], None] = lambda: None
) -> list[Outcome]:
    """Score `choice` probes by the summed log-probability of the tokens of each choice.

    Choices that differ in their last token only, such as those of one token, are read from one forward pass.

    Raises:
        InputError: a prompt and a choice do not fit into the context.
    """
    passes: list[_Pass] = []
    for index, (probe, prompt) in enumerate(items):
        own: dict[tuple[int, ...], _Pass] = {}
        for number, choice in enumerate(probe.choices):
            *head, last = continuation(subject, probe, prompt, choice)
            one = own.setdefault(tuple(head), _Pass(index, [*prompt, *head], head))
            one.last[number] = last
        passes += own.values()
    found = [[0.0] * len(probe.choices) for probe, _ in items]
    errors = _sum(subject, passes, found, check)
    outcomes = []
    for index, (probe, _) in enumerate(items):
        first, second = sorted(found[index], reverse=True)[:2]
        if first - second <= errors[index]:
            for one in passes:
                if one.item == index:
                    _sum(subject, [one], found, check)
        outcomes.append(_chosen(probe, found[index]))
    return outcomes


@dataclass
class _Pass:
    """A sequence that decides the choices whose tokens differ in the last one only.

    Attributes:
        item: index of the probe.
        sequence: tokens of the prompt and all but the last of the choices.
        head: tokens of the choices but the last.
        last: number of a choice -> its last token.
    """

    item: int
    sequence: list[int]
    head: list[int]
    last: dict[int, int] = field(default_factory=dict)


def _sum(
    subject: Subject, passes: Sequence[_Pass], found: list[list[float]], check: Callable[[], None]
) -> dict[int, float]:
    """Put the log-probability of each choice into `found`; by item, how far rounding may move their differences."""
    errors: dict[int, float] = {}
    ends = [len(one.head) + 1 for one in passes]
    for place, rows in last_logits(subject, [one.sequence for one in passes], ends, check):
        one = passes[place]
        chances = rows.log_softmax(dim=1)
        before = math.fsum(float(chances[number, token]) for number, token in enumerate(one.head))
        for number, token in one.last.items():
            found[one.item][number] = before + float(chances[-1, token])
        errors[one.item] = max(errors.get(one.item, 0.0), float(_tolerance(rows, subject.dtype).sum()))
    return errors


def _chosen(probe: Probe, values: Sequence[float]) -> Outcome:
    import torch

    right = probe.choices.index(probe.expected.strip())
    others = [value for index, value in enumerate(values) if index != right]
    odds = values[right] - float(torch.tensor(others, dtype=torch.float64).logsumexp(0))
    coverage = float(torch.tensor(values, dtype=torch.float64).exp().sum())
    answer = probe.choices[max(range(len(values)), key=values.__getitem__)]
    return Outcome(probe, answer, all(values[right] > other for other in others), odds, coverage)


def last_logits(
    subject: Subject, sequences: Sequence[Sequence[int]], ends: Sequence[int], check: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (index, logits of the last `ends[index]` positions: (ends, vocabulary) float32) in any order.

    Raises:
        InputError: a sequence is longer than the model's context.
        SurgeonError: the model fails.
    """
    import torch

    longest = max(map(len, sequences), default=0)
    if subject.context is not None and longest > subject.context:
        raise InputError(f"a prompt has {longest} tokens, but the model's context is {subject.context}")
    lengths: dict[int, list[int]] = {}
    for index, sequence in enumerate(sequences):
        lengths.setdefault(len(sequence), []).append(index)
    for length, indices in sorted(lengths.items()):
        most = max(ends[index] for index in indices)
        options = forward_options(subject.model, most)
        rows = most if len(options) > 0 else length
        count = max(1, min(_TOKENS // length, _LOGITS // (rows * subject.vocabulary)))
        for start in range(0, len(indices), count):
            batch = indices[start : start + count]
            check()
            ids = torch.tensor([list(sequences[index]) for index in batch], device=subject.device)
            try:
                with torch.inference_mode():
                    logits = subject.model(input_ids=ids, use_cache=False, **options).logits
                    found = [logits[number, -ends[index] :].float() for number, index in enumerate(batch)]
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise failure(error) from error
            yield from zip(batch, found, strict=True)
