"""Losses and divergences of blocks against a direct computation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from surgeon.checkpoint import open_checkpoint
from surgeon.evaluate import losses
from surgeon.evaluate.intervals import mean
from surgeon.evaluate.losses import BLOCK, Reference, score_text
from surgeon.evaluate.measures import text_measures
from surgeon.probe.subject import Subject, from_checkpoint
from surgeon.probe.text_measures import perplexity
from tests.support.models import one_thread, tiny_model, tiny_tokenizer

TEXT = "".join(f"{number}, a line to be read\n" for number in range(14))


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Subject, Subject]:
    made = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("model")
        tiny_model(folder, seed=seed)
        tiny_tokenizer(folder)
        made.append(from_checkpoint(open_checkpoint(str(folder)), "cpu"))
    return made[0], made[1]


def test_the_mean_of_the_blocks_is_the_perplexity(pair: tuple[Subject, Subject]) -> None:
    ids = pair[0].encode(TEXT)
    assert len(ids) > 2 * 128, "the text takes several windows of the context"
    found = score_text(pair[0], [TEXT], "t")
    assert math.exp(mean(found.losses)) == pytest.approx(perplexity(pair[0], ids), rel=1e-12)
    assert sum(unit.weight for unit in found.losses) == len(ids) - 1
    assert max(unit.weight for unit in found.losses) == BLOCK
    assert len(found.losses) == math.ceil((len(ids) - 1) / BLOCK)
    (loss,) = text_measures("t", found)
    assert loss.perplexity == pytest.approx(perplexity(pair[0], ids)) and loss.better == "lower"


def test_the_divergence_is_the_mean_over_positions(pair: tuple[Subject, Subject]) -> None:
    text = TEXT[:100]
    reference = Reference()
    score_text(pair[0], [text], "t", keep=reference)
    found = score_text(pair[1], [text], "t", reference=reference)
    ids = torch.tensor([pair[0].encode(text)])
    with torch.inference_mode():
        before, after = (one.model(input_ids=ids).logits[0].double().log_softmax(-1) for one in pair)
    expected = (before.exp() * (before - after)).sum(-1)[:-1]
    assert mean(found.divergence) == pytest.approx(float(expected.mean()), rel=1e-5)
    assert mean(score_text(pair[0], [text], "t", reference=reference).divergence) == pytest.approx(0, abs=1e-9)


def test_the_reference_takes_limited_memory(pair: tuple[Subject, Subject], monkeypatch: pytest.MonkeyPatch) -> None:
    row = 320 * 4
    monkeypatch.setattr(losses, "REFERENCE_BYTES", 150 * row + 7)
    reference = Reference()
    score_text(pair[0], [TEXT, TEXT + "more"], "t", keep=reference)
    assert reference.nbytes == {"t": 150 * row} and len(reference.passages["t#0"][1]) == 150
    found = score_text(pair[1], [TEXT, TEXT + "more"], "t", reference=reference)
    assert sum(unit.weight for unit in found.divergence) == 150


def test_texts_share_the_memory_of_the_reference(
    pair: tuple[Subject, Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "REFERENCE_BYTES", 200 * 320 * 4)
    reference = Reference(texts=2)
    for name in "tu":
        score_text(pair[0], [TEXT], name, keep=reference)
    assert {key: len(kept) for key, (_, kept) in reference.passages.items()} == {"t#0": 100, "u#0": 100}


def test_scores_of_other_tokens_are_never_paired(pair: tuple[Subject, Subject]) -> None:
    reference = Reference()
    first = score_text(pair[0], [TEXT], "t", keep=reference)
    other = score_text(pair[0], [TEXT.replace("line", "lane")], "t", reference=reference)
    assert other.divergence == []
    assert not {unit.name for unit in first.losses} & {unit.name for unit in other.losses}
