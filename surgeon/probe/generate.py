"""Generate text token by token with a key-value cache, and yield it in pieces of whole characters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .environment import failure
from .subject import REPLACEMENT, Subject
from .text_measures import degenerate

if TYPE_CHECKING:
    import torch

_PATIENCE = 16
"""Most tokens to hold back for the rest of a character; more means that the bytes form no character."""

CONTEXT_TOKENS = 6
"""Tokens of the prompt that are decoded too, so that a leading space is kept."""


@dataclass
class Generation:
    """The result of one generation, filled while it runs.

    Attributes:
        ids: the generated tokens, without the one that ended it.
        finite: whether every logit was finite.
        stop: `length`, `eos`, `context` or `not finite`; empty while it runs or if it was abandoned.
        first: seconds until the first token, including the forward pass of the prompt.
        seconds: seconds until the last token.
    """

    ids: list[int] = field(default_factory=list)
    finite: bool = True
    stop: str = ""
    first: float = 0.0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Speed after the first token; for a single token, including the prompt."""
        count, seconds = len(self.ids) - 1, self.seconds - self.first
        if count < 1 or seconds <= 0:
            count, seconds = len(self.ids), self.seconds
        return count / seconds if seconds > 0 else 0.0

    @property
    def degenerate(self) -> bool:
        """Whether the text repeats itself."""
        return degenerate(self.ids)


def tokens(
    subject: Subject,
    prompt: Sequence[int],
    n: int,
    run: Generation,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """Yield up to `n` tokens that follow `prompt`; greedy, or sampled if `temperature` > 0.

    Sampling draws from the likeliest tokens whose probabilities sum up to `top_p` (arXiv:1904.09751).

    Ends at an end-of-text token, at the end of the context, or at logits that are not finite.

    Raises:
        InputError: the prompt fills the context.
        SurgeonError: the model fails, for instance out of memory.
    """
    import torch

    room = n if subject.context is None else min(n, subject.context - len(prompt))
    if subject.context is not None and len(prompt) >= subject.context:
        raise InputError(f"the prompt has {len(prompt)} tokens, but the model's context is {subject.context}")
    choose = _chooser(temperature, top_p, seed)
    step = _stepper(subject, prompt)
    start = time.perf_counter()
    token: int | None = None
    while len(run.ids) < room:
        with torch.inference_mode():
            logits = step(token)
            run.finite = bool(torch.isfinite(logits).all())
            token = choose(logits) if run.finite else None
        run.seconds = time.perf_counter() - start
        if token is None or token in subject.stops:
            run.stop = "not finite" if token is None else "eos"
            return
        run.ids.append(token)
        run.first = run.first or run.seconds
        yield token
    run.stop = "length" if room == n else "context"


def pieces(
    subject: Subject,
    prompt: Sequence[int],
    n: int,
    run: Generation,
    *,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """Yield the text of `tokens` in pieces as it is generated; joined, they are exactly the text."""
    decoder = Pieces(subject.decode, prompt[-CONTEXT_TOKENS:])
    for token in tokens(subject, prompt, n, run, temperature=temperature, top_p=top_p, seed=seed):
        yield decoder.push(token)
    if last := decoder.rest():
        yield last


class Pieces:
    """Turns tokens into text one at a time, and holds back the bytes of an incomplete character.

    Args:
        decode: returns the text of a list of token ids.
        before: preceding tokens, whose text is not returned.
    """

    def __init__(self, decode: Callable[[list[int]], str], before: Sequence[int] = ()) -> None:
        self._decode = decode
        # These are decoded again with every token: those whose text was returned last, then those held back.
        self._window = list(before)
        self._given = len(self._window)

    def copy(self) -> Pieces:
        """A copy that continues on its own."""
        other = Pieces(self._decode, self._window)
        other._given = self._given
        return other

    def push(self, token: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        self._window.append(token)
        return self._take(final=len(self._window) - self._given >= _PATIENCE)

    def rest(self) -> str:
        """The text that is still held back, at the end."""
        return self._take(final=True) if len(self._window) > self._given else ""

    def _take(self, *, final: bool) -> str:
        before = self._decode(self._window[: self._given])
        text = self._decode(self._window)
        if text.endswith(REPLACEMENT) and not final:
            return ""
        if len(text) > len(before):
            self._window = self._window[self._given :]
        self._given = len(self._window)
        return text[len(before) :]


def forward_options(model: Any, rows: int) -> dict[str, Any]:
    """The arguments with which a model computes logits of the last `rows` positions only, if it can."""
    import inspect

    return {"logits_to_keep": rows} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


def _stepper(subject: Subject, prompt: Sequence[int]) -> Callable[[int | None], torch.Tensor]:
    """A function from the last token (None at first) to the logits of the next: (vocabulary,) float32."""
    import torch

    model = subject.model
    options: dict[str, Any] = {"use_cache": True, **forward_options(model, 1)}
    seen = list(prompt)
    cache: Any = None

    def step(token: int | None) -> torch.Tensor:
        nonlocal cache
        if token is not None:
            seen.append(token)
        # A model without a cache gets all tokens again.
        ids = torch.tensor([seen if cache is None else seen[-1:]], device=subject.device)
        try:
            out = model(input_ids=ids, past_key_values=cache, **options)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise failure(error) from error
        cache = getattr(out, "past_key_values", None)
        logits: torch.Tensor = out.logits[0, -1].float()
        return logits

    return step


def _chooser(temperature: float, top_p: float, seed: int) -> Callable[[torch.Tensor], int]:
    import torch

    if temperature <= 0:
        return lambda logits: int(logits.argmax())
    generator = torch.Generator().manual_seed(seed)

    def sample(logits: torch.Tensor) -> int:
        chances = torch.softmax(logits.cpu() / temperature, dim=-1)
        if top_p < 1:
            ordered, order = chances.sort(descending=True, stable=True)
            outside = ordered.cumsum(0) - ordered >= top_p
            outside[0] = False  # The likeliest token stays, however small `top_p` is.
            chances[order[outside]] = 0.0
        return int(torch.multinomial(chances, 1, generator=generator))

    return sample
