"""Vocabularies padded to different numbers of rows, and tokens that have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgeon.plan import Convert, Copy
from tests.support.assembling import assemble, contents, donor
from tests.support.planning import codes, found, plan_of, stack_of
from tests.support.sparse import sparse_llama, write_tokenizer

WORDS = ["<unk>", *(f"w{index}" for index in range(59))]
AB = stack_of(("a", 0, 2), ("b", 2, 4), base_model="a")


def pair(folder: Path, a: int = 64, b: int = 80, words: list[str] = WORDS, **more: bool) -> Path:
    sparse_llama(folder / "a", vocab=a, tokenizer=WORDS, tied=more.get("a_tied", False))
    sparse_llama(folder / "b", vocab=b, tokenizer=words, tied=more.get("b_tied", False))
    return folder


@pytest.mark.parametrize(
    ("a", "b", "keys", "what"),
    [
        (64, 80, "", "the last 16 of the head are left out"),
        (80, 64, "", "the last 16 of the embedding are left out"),
        (80, 64, "embeddings: {model: b}\nlm_head: {model: a}\n", "the last 16 of the head are left out"),
    ],
)
def test_the_smaller_number_of_rows_is_written(tmp_path: Path, a: int, b: int, keys: str, what: str) -> None:
    plan = plan_of(pair(tmp_path, a, b), AB + keys)
    assert plan.ok
    finding = found(plan, "rows")
    assert finding.severity == "note" and what in finding.what and "above id 59" in finding.why
    tables = [tensor for tensor in plan.tensors if tensor.place.role in {"embeddings", "lm_head"}]
    assert [(tensor.shape, tensor.nbytes) for tensor in tables] == [((64, 16), 64 * 16 * 2)] * 2
    assert all(isinstance(tensor.source, Copy) for tensor in tables)
    assert plan.config is not None and plan.config["vocab_size"] == 64


def test_a_materialised_head_and_a_cast_one_are_cropped_too(tmp_path: Path) -> None:
    plan = plan_of(pair(tmp_path, 64, 80, a_tied=True, b_tied=True), AB + "dtype: float32\n")
    (head,) = plan.ends["lm_head"].tensors
    assert isinstance(head.source, Convert)
    assert (plan.ends["lm_head"].how, head.shape, head.nbytes) == ("materialised", (64, 16), 64 * 16 * 4)


def test_the_configs_donor_may_pad_to_another_number(tmp_path: Path) -> None:
    plan = plan_of(pair(tmp_path, 64, 80), stack_of(("b", 0, 4), base_model="a"))
    assert plan.ok and plan.config is not None and plan.config["vocab_size"] == 80
    assert "to 64 rows" in found(plan, "rows").why


def test_rows_that_hold_tokens_are_not_left_out(tmp_path: Path) -> None:
    finding = found(plan_of(pair(tmp_path, 48, 64), AB), "rows")
    assert finding.severity == "error"
    assert "A's embedding of 48 rows does not fit B's head of 64" in finding.what
    assert "no row for 'w58', id 59" in finding.why


def test_tokenizers_that_differ_are_named_by_their_first_token(tmp_path: Path) -> None:
    folder = pair(tmp_path, words=[*WORDS[:40], "\x1b[31mred", *WORDS[41:]])
    finding = found(plan_of(folder, AB), "tokenizer")
    assert finding.severity == "error"
    assert "(64 and 80 rows): id 40 is 'w39' in A and '\\x1b[31mred' in B" in finding.sentence()
    assert "error:rows" not in codes(plan_of(folder, AB))


def test_a_token_that_only_one_has_is_named(tmp_path: Path) -> None:
    finding = found(plan_of(pair(tmp_path, words=[*WORDS, "more"]), AB), "tokenizer")
    assert "id 60 is no token in A and 'more' in B" in finding.what


def test_the_same_tokens_split_otherwise(tmp_path: Path) -> None:
    folder = pair(tmp_path, 64, 64)
    for name, merges in (("a", ["w 1", "w 2"]), ("b", ["w 2", "w 1"])):
        path = folder / name / "tokenizer.json"
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, "model": {**document["model"], "merges": merges}}))
    assert "every id has the same text" in found(plan_of(folder, AB), "tokenizer").what


def test_without_tokenizer_json_nothing_is_left_out(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", vocab=64)
    sparse_llama(tmp_path / "b", vocab=80)
    for name in "ab":
        (tmp_path / name / "tokenizer.model").write_bytes(b"the same")
    finding = found(plan_of(tmp_path, AB), "rows")
    assert finding.severity == "error" and "without a tokenizer.json" in finding.why


def test_assembled_rows_are_the_donors_first_bytes(tmp_path: Path) -> None:
    """In the files and in memory alike, whole copies and casts."""
    import torch

    from surgeon.probe.weights import Weights

    a = donor(tmp_path / "a")
    sparse_llama(tmp_path / "wide", layers=3, hidden=8, heads=2, kv_heads=2, intermediate=12, vocab=24)
    (tmp_path / "wide" / "tokenizer.json").write_bytes((a / "tokenizer.json").read_bytes())
    file = tmp_path / "wide" / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as handle:  # Any numbers, but none that is not one.
        start = int.from_bytes(file.read_bytes()[:8], "little") + 8
        handle.seek(start)
        handle.write(bytes((index * 7) % 120 for index in range(size - start)))
    wide = contents(tmp_path / "wide")
    for dtype in ("", "dtype: float32\n"):
        plan = plan_of(tmp_path, stack_of(("a", 0, 2), ("wide", 1, 3), base_model="a") + dtype)
        assert plan.ok, [finding.sentence() for finding in plan.errors]
        out = tmp_path / f"out{len(dtype)}"
        assemble(plan, out)
        written = contents(out)
        head, theirs = written["lm_head.weight"], wide["lm_head.weight"]
        assert head[1] == (16, 8)
        if not dtype:
            assert head[2] == theirs[2][: 16 * 8 * 2]
        assert json.loads((out / "config.json").read_text())["vocab_size"] == 16
        weights = Weights()
        for tensor in plan.tensors:
            if tensor.place.role in {"embeddings", "lm_head"}:
                here = weights.planned(tensor)
                assert here.shape == tensor.shape
                assert here.contiguous().view(torch.uint8).numpy().tobytes() == written[tensor.name][2]


def test_a_donor_that_was_padded_anew_is_noticed(tmp_path: Path) -> None:
    from surgeon.errors import SurgeonError

    folder = pair(tmp_path)
    plan = plan_of(folder, AB)
    sparse_llama(folder / "b", vocab=60, tokenizer=WORDS)
    with pytest.raises(SurgeonError, match="is not where it was"):
        assemble(plan, tmp_path / "out")


# Tokens and special ids without a row.


def test_added_tokens_beyond_the_rows(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", vocab=64)
    write_tokenizer(tmp_path / "a", WORDS, added={"<pad>": 64, "\x1b<end>": 70})
    plan = plan_of(tmp_path, stack_of(("a", 0, 4)))
    finding = found(plan, "token-rows")
    assert finding.severity == "warning"
    assert "The token '<pad>' (id 64) and 1 more has no row in the embedding, which has 64" in finding.what


def test_tokens_that_only_the_output_lacks_are_an_error(tmp_path: Path) -> None:
    for name, vocab in (("a", 80), ("b", 64)):
        sparse_llama(tmp_path / name, vocab=vocab, extra_config={"pad_token_id": 70})
        write_tokenizer(tmp_path / name, WORDS, added={"<pad>": 70})
    plan = plan_of(tmp_path, stack_of(("b", 0, 4), base_model="a"))
    assert found(plan, "token-rows").severity == "error"
    special = found(plan, "special-id")
    assert special.severity == "error"
    assert "pad_token_id ('<pad>', id 70) has no row" in special.what


def test_special_ids_of_the_generation_config(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", vocab=64, extra_config={"pad_token_id": -1})
    (tmp_path / "a" / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 64], "bos_token_id": 1}))
    finding = found(plan_of(tmp_path, stack_of(("a", 0, 4))), "special-id")
    assert finding.severity == "warning" and "eos_token_id (id 64)" in finding.what
    (tmp_path / "a" / "generation_config.json").write_text("not JSON")
    assert codes(plan_of(tmp_path, stack_of(("a", 0, 4)))) == []
