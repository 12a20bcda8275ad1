"""Measures of a model: degenerate text, perplexity, finite logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import InputError
from .environment import failure
from .subject import Subject

if TYPE_CHECKING:
    import torch

LONGEST_RUN = 8
WINDOW = 48
LONGEST_PERIOD = 8
FILLED = 0.6
_SHORTEST = 12

_PERPLEXITY_WINDOW = 2048
"""Window in tokens for a model without a stated context, or with a large vocabulary."""

_LOGITS = 2**28
"""Most logits of a window that is longer than `_PERPLEXITY_WINDOW`: a gigabyte in float32."""
_ROWS = 256
"""Rows of logits that are converted to float64 at a time."""

FIXED_IDS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233)
"""Token ids on which a model without a tokenizer is run."""


def degenerate(ids: Sequence[int]) -> bool:
    """Whether generated tokens repeat themselves.

    True if one token occurs more than 8 times in a row, or if an n-gram of 1 to 8 tokens, repeated at least three times
    in a row, fills at least 60 % of the last 48 tokens (of all tokens, if there are 12 to 48).
    """
    if any(run > LONGEST_RUN for run in _runs(ids, 1)):
        return True
    last = ids[-WINDOW:]
    if len(last) < _SHORTEST:
        return False
    for period in range(1, LONGEST_PERIOD + 1):
        longest = max(_runs(last, period))
        if longest >= max(3 * period, FILLED * len(last)):
            return True
    return False


def _runs(ids: Sequence[int], period: int) -> list[int]:
    """Lengths of the runs in which every token equals the one `period` positions before it."""
    runs = [0]
    for index in range(period, len(ids)):
        if ids[index] == ids[index - period]:
            runs[-1] = runs[-1] + 1 if runs[-1] else period + 1
        elif runs[-1]:
            runs.append(0)
    return runs


def perplexity(
    subject: Subject, ids: Sequence[int], *, window: int | None = None, check: Callable[[], None] = lambda: None
) -> float:
    """The result of `perplexity_steps`."""
    steps = perplexity_steps(subject, ids, window=window, check=check)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return float(end.value)


def perplexity_steps(
    subject: Subject, ids: Sequence[int], *, window: int | None = None, check: Callable[[], None] = lambda: None
) -> Generator[int, None, float]:
    """exp of the mean negative log-likelihood of ids[1:], each given the tokens before it, in float64.

    Yields the number of tokens read so far after each window but the last, and returns the perplexity.

    A text longer than the window is read in windows that overlap by half. Each token counts once, with at least half a
    window before it, except in the first window. The result is infinite or NaN if the model's logits are.

    Args:
        subject: the model.
        ids: token ids of the text.
        window: tokens per window; None for `default_window`.
        check: called before each window; may raise to stop.

    Raises:
        InputError: there are fewer than two tokens.
        SurgeonError: the model fails.
    """
    if len(ids) < 2:
        raise InputError("perplexity needs a text of two tokens or more")
    total = 0.0
    for low, high, logits in text_logits(subject, ids, window=window, check=check):
        total += sum(float(part.sum()) for part in losses(logits, ids[low:high]))
        if high < len(ids):
            yield high
    mean = total / (len(ids) - 1)
    return math.exp(mean) if mean < 709 else math.inf if mean == mean else math.nan


def text_logits(
    subject: Subject, ids: Sequence[int], *, window: int | None = None, check: Callable[[], None] = lambda: None
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Yield (low, high, logits: (high - low, vocabulary)) for the tokens ids[low:high] of each window.

    Row i has the logits from which token ids[low + i] is predicted. See `perplexity_steps` for windows, arguments and
    errors.
    """
    import torch

    window = max(2, window or default_window(subject))
    done, start = 1, 0
    while done < len(ids):
        check()
        stop = min(start + window, len(ids))
        try:
            with torch.inference_mode():
                logits = subject.model(
                    input_ids=torch.tensor([ids[start:stop]], device=subject.device), use_cache=False
                ).logits[0]
        except RuntimeError as error:
            raise failure(error) from error
        yield done, stop, logits[done - 1 - start : stop - 1 - start]
        done, start = stop, stop - window // 2


def default_window(subject: Subject) -> int:
    """Tokens per window: the model's context, or fewer if the logits would need too much memory."""
    longest = max(_PERPLEXITY_WINDOW, _LOGITS // max(1, subject.vocabulary))
    return max(2, min(subject.context or _PERPLEXITY_WINDOW, longest))


def losses(logits: torch.Tensor, targets: Sequence[int]) -> Iterator[torch.Tensor]:
    """Yield -log p of the targets in parts, each (rows,) float64, with p from the rows of logits."""
    import torch

    for low in range(0, len(targets), _ROWS):
        try:
            part = widened(logits[low : low + _ROWS])
            wanted = part.gather(1, torch.tensor(targets[low : low + _ROWS], device=part.device)[:, None])[:, 0]
            found = part.logsumexp(dim=1) - wanted
        except RuntimeError as error:
            raise failure(error) from error
        yield found


def widened(logits: torch.Tensor) -> torch.Tensor:
    """Logits in float64; on the CPU if the device has no float64."""
    return logits.cpu().double() if logits.device.type == "mps" else logits.double()


def finite_on_ids(subject: Subject) -> bool:
    """Whether logits, or hidden states where there is no head, are finite on a fixed sequence of token ids."""
    import torch

    ids = [token % subject.vocabulary for token in FIXED_IDS[: subject.context]]
    try:
        with torch.inference_mode():
            output = subject.model(input_ids=torch.tensor([ids], device=subject.device))
            values = output.logits if "logits" in output else output[0]
            return bool(torch.isfinite(values).all())
    except (RuntimeError, ValueError, IndexError) as error:
        raise failure(error) from error
