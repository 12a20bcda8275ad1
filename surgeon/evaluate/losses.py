"""Loss per token of texts, and the divergence from a reference model, as units of blocks of text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..probe.subject import Subject
from ..probe.text_measures import default_window, losses, text_logits, widened
from .intervals import Unit

if TYPE_CHECKING:
    import torch

BLOCK = 64
"""Tokens of a block. Losses of neighbouring tokens depend on each other, so blocks are resampled and not tokens."""
REFERENCE_BYTES = 256_000_000
"""Most bytes of the logits of the reference model that are kept for the divergence, over all texts."""
_ROWS = 64


@dataclass
class Reference:
    """Logits of the reference model, in its own dtype on the CPU, which is exact: (tokens, logits) of each passage.

    Attributes:
        texts: number of texts that share the memory equally.
    """

    texts: int = 1
    passages: dict[str, tuple[str, torch.Tensor]] = field(default_factory=dict)
    nbytes: dict[str, int] = field(default_factory=dict)

    def keep(self, text: str, key: str, ids: str, logits: torch.Tensor) -> None:
        """Keep the first rows of logits, as far as memory is left.

        Args:
            text: the text's name.
            key: names the passage.
            ids: digest of its tokens.
            logits: (rows, vocabulary).
        """
        import torch

        row = logits.shape[1] * logits.element_size()
        left = REFERENCE_BYTES // max(1, self.texts) - self.nbytes.get(text, 0)
        rows = min(len(logits), max(0, left) // row)
        if rows:
            kept = logits[:rows].cpu().clone()
            if key in self.passages:
                kept = torch.cat([self.passages[key][1], kept])
            self.passages[key] = (ids, kept)
            self.nbytes[text] = self.nbytes.get(text, 0) + rows * row


@dataclass(frozen=True)
class TextScores:
    """Sums of losses in nats, and of KL(reference || model) (empty without a reference), of blocks of 64 tokens.

    The name of a unit has a digest of the text's tokens, so that scores under other tokenizers are never paired.
    """

    losses: list[Unit]
    divergence: list[Unit]
    tokens: int


def score_text(
    subject: Subject,
    passages: Sequence[str],
    name: str,
    *,
    reference: Reference | None = None,
    keep: Reference | None = None,
    check: Callable[[], None] = lambda: None,
) -> TextScores:
    """Score every token of each passage but its first, as `text_measures.perplexity_steps` does.

    Args:
        name: the text's name.
        reference: logits to compare with; None for none.
        keep: where this model's logits are kept as the reference.
    """
    found, divergence, count = [], [], 0
    for number, passage in enumerate(passages):
        ids = subject.encode(passage)
        digest = hashlib.sha256(repr(ids).encode()).hexdigest()[:12]
        key = f"{name}#{number}"
        count += len(ids)
        for low, high, logits in text_logits(subject, ids, window=default_window(subject), check=check):
            values = [value for part in losses(logits, ids[low:high]) for value in part.tolist()]
            found += _blocks(f"{key}@{digest}", low, values)
            if keep is not None and (low == 1 or _kept(keep, key) == low - 1):
                keep.keep(name, key, digest, logits)
            if reference is not None:
                divergence += _blocks(f"{key}@{digest}", low, _divergence(reference, key, digest, low, logits))
            del logits
    return TextScores(_merged(found), _merged(divergence), count)


def _kept(reference: Reference, key: str) -> int:
    return len(reference.passages[key][1]) if key in reference.passages else 0


def _divergence(reference: Reference, key: str, digest: str, low: int, logits: torch.Tensor) -> list[float]:
    """KL(reference || model) in nats at each position that the reference has, in float64."""
    ids, kept = reference.passages.get(key, ("", None))
    if kept is None or ids != digest or kept.shape[1] != logits.shape[1]:
        return []
    values: list[float] = []
    own = kept[low - 1 : low - 1 + len(logits)]
    for start in range(0, len(own), _ROWS):
        before = widened(own[start : start + _ROWS]).log_softmax(dim=1)
        after = widened(logits[start : start + len(before)]).cpu().log_softmax(dim=1)
        values += (before.exp() * (before - after)).sum(dim=1).tolist()
    return values


def _blocks(key: str, low: int, values: Sequence[float]) -> list[Unit]:
    """Units of the tokens low, low + 1, ... of a passage, by block."""
    found: list[Unit] = []
    for offset, value in enumerate(values):
        name = f"{key}:{(low + offset - 1) // BLOCK}"
        if found and found[-1].name == name:
            found[-1] = Unit(name, found[-1].value + value, name, found[-1].weight + 1)
        else:
            found.append(Unit(name, value, name))
    return found


def _merged(units: Sequence[Unit]) -> list[Unit]:
    """Units of the same block, which lies in two windows, as one."""
    found: dict[str, Unit] = {}
    for unit in units:
        old = found.get(unit.name)
        found[unit.name] = (
            unit if old is None else Unit(unit.name, old.value + unit.value, unit.name, old.weight + unit.weight)
        )
    return list(found.values())
