"""Donors whose tokenizers differ in ids that cannot conflict, and the remedy where they do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.planning import codes, found, plan_of, stack_of
from tests.support.sparse import sparse_llama, write_tokenizer

WORDS = ["<unk>", *(f"w{index}" for index in range(40))]
BLEND = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: b}]\nbase_model: a\n"
SPLICE = stack_of(("a", 0, 3), ("b", 1, 4), base_model="a")


def pair(folder: Path, a: list[str], b: list[str], rows: int = 64) -> Path:
    for name, words in (("a", a), ("b", b)):
        sparse_llama(folder / name, vocab=rows, tokenizer=words)
    return folder


@pytest.mark.parametrize("text", [BLEND, SPLICE])
def test_ids_beyond_the_rows_conflict_with_nothing(tmp_path: Path, text: str) -> None:
    """Llama 2 fine-tunes with a `[PAD]` whose row was never made."""
    pair(tmp_path, WORDS, [*WORDS, "[PAD]"], rows=len(WORDS))
    plan = plan_of(tmp_path, text)
    assert plan.ok
    assert not [code for code in codes(plan) if "tokenizer" in code]


@pytest.mark.parametrize("text", [BLEND, SPLICE])
def test_rows_that_are_padding_in_one_donor_are_a_warning(tmp_path: Path, text: str) -> None:
    """`<think>` in rows that the other donor never named."""
    pair(tmp_path, WORDS, [*WORDS, "<think>", "</think>"])
    plan = plan_of(tmp_path, text)
    assert plan.ok
    finding = found(plan, "tokenizer-padding")
    assert finding.severity == "warning"
    assert "'<think>' (id 41) and 1 more are tokens in B, but padding in A" in finding.what
    assert "tokenizer_source" in finding.remedy
    assert not [c for c in codes(plan_of(tmp_path, text + "tokenizer_source: base\n")) if c.startswith("error")]


@pytest.mark.parametrize("text", [BLEND, SPLICE])
def test_an_id_that_is_another_token_in_each_is_an_error_with_its_remedy(tmp_path: Path, text: str) -> None:
    pair(tmp_path, WORDS, [*WORDS[:-1], "other"])
    finding = found(plan_of(tmp_path, text), "tokenizer")
    assert finding.severity == "error"
    assert "id 40 is 'w39' in A and 'other' in B" in finding.what
    assert "tokenizer_source: base" in finding.remedy
    assert plan_of(tmp_path, text + "tokenizer_source: base\n").ok
    # Only BPE tokenizers are united, and that is said once.
    assert [code for code in codes(plan_of(tmp_path, text + "tokenizer_source: union\n")) if "error" in code] == [
        "error:tokenizer"
    ]


def test_other_heights_still_need_one_tokenizer(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", vocab=64, tokenizer=WORDS)
    sparse_llama(tmp_path / "b", vocab=80, tokenizer=[*WORDS, "<think>"])
    assert found(plan_of(tmp_path, BLEND), "tokenizer").severity == "error"


@pytest.mark.parametrize("same", [True, False])
def test_one_tokenizer_model_is_one_tokenizer(tmp_path: Path, same: bool) -> None:
    """A has tokenizer.json beside it, B has not."""
    pair(tmp_path, WORDS, WORDS)
    (tmp_path / "b" / "tokenizer.json").unlink()
    for name in "ab":
        (tmp_path / name / "tokenizer.model").write_bytes(b"sentencepiece" + (b"" if same else name.encode()))
    plan = plan_of(tmp_path, BLEND)
    assert plan.ok == same
    if not same:
        # Without a tokenizer.json rows cannot follow their tokens: the key would not help.
        assert "tokenizer_source" not in found(plan, "tokenizer").remedy


def test_merges_that_differ_are_another_tokenizer(tmp_path: Path) -> None:
    import json

    pair(tmp_path, WORDS, WORDS)
    for name, merges in (("a", [["w1", "w2"]]), ("b", [["w2", "w1"]])):
        path = tmp_path / name / "tokenizer.json"
        document = json.loads(path.read_text())
        document["model"] |= {"type": "BPE", "merges": merges}
        path.write_text(json.dumps(document))
    finding = found(plan_of(tmp_path, BLEND), "tokenizer")
    assert "every id has the same text, but texts are split differently" in finding.what


def test_what_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    pair(tmp_path, WORDS, WORDS)
    assert plan_of(tmp_path, BLEND).ok
    write_tokenizer(tmp_path / "b", [*WORDS[:-1], "another word"])
    assert not plan_of(tmp_path, BLEND).ok
