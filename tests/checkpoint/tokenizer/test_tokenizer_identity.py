"""Who a tokenizer is: one digest for every spelling of the same vocabulary and merges, another for any other."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon.checkpoint import open_checkpoint
from surgeon.checkpoint.tokenizer.tokenizer_identity import (
    Tokenizer,
    first_difference,
    read_tokenizer,
    tokens_beyond,
    vocabulary_of,
)
from surgeon.checkpoint.tokenizer.vocabulary_digest import (
    by_lines,
    by_parsing,
    last_token,
    merged_vocabulary,
    vocabulary_digest,
)
from surgeon.errors import InputError
from tests.support.models import tiny_tokenizer
from tests.support.sparse import sparse_llama, write_tokenizer

TOKENS = ["<unk>", "a", "b", "é", "\\u", '"', "ab", '","', "a\n", "/", "Ġx", "\x7f", "\\", 'a": 3,']
BASE: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [{"id": 0, "content": "<unk>", "special": True}, {"id": 14, "content": "<|im end|>"}],
    "normalizer": None,
    "model": {
        "type": "BPE",
        "unk_token": "<unk>",
        "vocab": {token: index for index, token in enumerate(TOKENS)},
        "merges": ["a b", '" ,"', "\\ u"],
    },
}


def write(path: Path, document: Any, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, **{"indent": 2, "ensure_ascii": False, **options}))
    return path


def changed(**model: Any) -> dict[str, Any]:
    document = copy.deepcopy(BASE)
    document["model"].update(model)
    return document


def digest(path: Path, document: Any, **options: Any) -> str:
    return vocabulary_digest(write(path, document, **options))[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokenizer.json"


@pytest.mark.parametrize(
    "options",
    [
        {"indent": None},
        {"indent": 4},
        {"indent": 1},
        {"ensure_ascii": True},
        {"indent": None, "separators": (",", ":")},
    ],
)
def test_layout_and_escapes_do_not_matter(file: Path, options: dict[str, Any]) -> None:
    assert digest(file, BASE, **options) == digest(file, BASE)


def test_the_form_of_merges_does_not_matter(file: Path) -> None:
    pairs = changed(merges=[merge.split(" ") for merge in BASE["model"]["merges"]])
    assert digest(file, pairs) == digest(file, pairs, indent=None) == digest(file, BASE)


def test_repeating_added_tokens_in_the_vocabulary_does_not_matter(file: Path) -> None:
    repeated = changed(vocab={**BASE["model"]["vocab"], "<|im end|>": 14})
    assert digest(file, repeated) == digest(file, BASE)
    assert digest(file, {**BASE, "added_tokens": BASE["added_tokens"][1:]}) == digest(file, BASE)


def test_the_order_of_the_vocabulary_in_the_file_does_not_matter(file: Path) -> None:
    backwards = changed(vocab=dict(reversed(BASE["model"]["vocab"].items())))
    assert digest(file, backwards) == digest(file, BASE)


@pytest.mark.parametrize(
    "other",
    [
        changed(vocab={**BASE["model"]["vocab"], "a": 2, "b": 1}),
        changed(vocab={**BASE["model"]["vocab"], "new": 15}),
        changed(merges=["a b", "\\ u"]),
        changed(merges=["\\ u", "a b", '" ,"']),
        changed(merges=["a b", '" ,"', "\\u "]),
        changed(merges=[]),
        {**BASE, "added_tokens": BASE["added_tokens"][:1]},
        {**BASE, "added_tokens": [{"id": 1, "content": "<|im end|>"}]},
        {**BASE, "added_tokens": [{"id": 15, "content": "a"}]},
    ],
    ids=range(9),
)
def test_what_is_different_has_another_digest(file: Path, other: dict[str, Any]) -> None:
    for options in ({}, {"indent": None}):
        assert digest(file, other, **options) != digest(file, BASE)


def test_tokens_are_counted_with_added_ones(file: Path) -> None:
    assert vocabulary_digest(write(file, BASE))[1] == 15
    assert vocabulary_digest(write(file, BASE, indent=None))[1] == 15
    assert vocabulary_of(file)["<|im end|>"] == 14


def test_a_unigram_list_is_numbered(file: Path) -> None:
    unigram = {"added_tokens": [], "model": {"type": "Unigram", "vocab": [["<pad>", 0.0], ["a", -1.5], ["b", -2.0]]}}
    assert vocabulary_of(write(file, unigram)) == {"<pad>": 0, "a": 1, "b": 2}
    assert vocabulary_digest(file)[1] == 3


texts = st.text(alphabet='ab"\\/,:[]{} \n\té\x1f\x7f\u2028😀0u', min_size=1, max_size=5)


@given(
    tokens=st.lists(texts, unique=True, min_size=1, max_size=12),
    added=st.lists(st.tuples(st.integers(0, 16), texts), max_size=4),
    merges=st.lists(st.tuples(texts, texts), max_size=5),
    paired=st.booleans(),
    ascii_only=st.booleans(),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reading_by_lines_gives_what_parsing_gives(
    tokens: list[str],
    added: list[tuple[int, str]],
    merges: list[tuple[str, str]],
    paired: bool,
    ascii_only: bool,
) -> None:
    whole = [pair if paired else " ".join(half.replace(" ", "_") for half in pair) for pair in merges]
    document = {
        "added_tokens": [{"id": index, "content": text} for index, text in added],
        "model": {"vocab": {token: index for index, token in enumerate(tokens)}, "merges": whole},
    }
    raw = json.dumps(document, indent=2, ensure_ascii=ascii_only).encode()
    fast = by_lines(raw)
    if fast is not None:
        assert fast == by_parsing(json.loads(raw))
    elif not added and not ascii_only and "\x1f" not in str(tokens) + str(merges):
        assert "\\x1f" in repr(document) or "\\u" in raw.decode() or "\\/" in raw.decode()


def test_the_files_that_the_tokenizers_library_writes_are_read_by_lines(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(["der Wal \u00fcber dem Meer", 'a "b" \\ue'], trainers.BpeTrainer(vocab_size=60))
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    raw = (tmp_path / "tokenizer.json").read_bytes()
    fast = by_lines(raw)
    assert fast is not None and fast == by_parsing(json.loads(raw))
    assert fast[2] == tokenizer.get_vocab_size()
    assert merged_vocabulary(json.loads(raw)) == tokenizer.get_vocab(with_added_tokens=True)


def test_a_checkpoint_knows_its_tokenizer(tmp_path: Path) -> None:
    folder = tiny_tokenizer(sparse_llama(tmp_path, vocab=320, extra_config={"eos_token_id": [2, 3]}))
    tokenizer = open_checkpoint(str(folder)).tokenizer
    assert tokenizer.tokens == 259 and len(tokenizer.digest) == 12
    assert tokenizer.special == {"bos_token_id": 1, "eos_token_id": [2, 3]}
    assert {path.name for path in tokenizer.files} >= {"tokenizer.json", "tokenizer_config.json"}


def test_a_tokenizer_is_read_only_when_asked_for(tmp_path: Path) -> None:
    sparse_llama(tmp_path)
    (tmp_path / "tokenizer.json").write_text("no JSON")
    found = open_checkpoint(str(tmp_path))
    with pytest.raises(InputError, match="not valid JSON"):
        found.tokenizer  # noqa: B018


def test_a_changed_file_has_a_new_digest(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, ["<unk>", "a"])
    first = read_tokenizer(tmp_path, {}).digest
    write_tokenizer(tmp_path, ["<unk>", "b", "c"])
    assert read_tokenizer(tmp_path, {}).digest != first


def test_a_binary_model_is_identified_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x01")
    one = read_tokenizer(tmp_path, {})
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x01\x00")
    assert one.digest != read_tokenizer(tmp_path, {}).digest and one.tokens is None


@pytest.mark.parametrize(
    "document",
    [
        [], {}, {"model": 3}, {"model": {"vocab": 3, "merges": 4}}, {"model": {"vocab": {"a": "x"}, "merges": [1, []]}},
        {"added_tokens": {"id": 1}, "model": {"vocab": [[], 3, [None]]}}, {"added_tokens": [3, {"id": "x"}]},
        {"added_tokens": [{"id": -1, "content": "z"}], "model": {"vocab": {"a": 0}}},
        {"added_tokens": [{"id": 1}], "model": {"vocab": {"a": 0}}},
        {"model": {"vocab": {"\ud800": 0}, "merges": ["\ud800 a"]}},
    ],
    ids=range(10),
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, 2])
def test_strange_files_have_a_digest_or_a_sentence(file: Path, document: Any, indent: int | None) -> None:
    file.write_text(json.dumps(document, indent=indent))
    try:
        found, count = vocabulary_digest(file)
    except InputError as error:
        assert str(file) in error.sentence()
    else:
        assert len(found) == 12 and count >= 0


def test_the_last_token_is_known_from_either_reading(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    model = {"type": "BPE", "vocab": {"a": 0, "é": 1}, "merges": []}
    added = [{"id": 7, "content": '",\n"x": 9', "special": True}]
    for options in ({}, {"indent": None}):
        assert last_token(write(file, {"added_tokens": [], "model": model}, **options)) == ("é", 1)
        assert last_token(write(file, {"added_tokens": added, "model": model}, **options)) == ('",\n"x": 9', 7)
    assert last_token(write(file, {"model": {"vocab": {}}})) is None
    assert last_token(write(file, {"model": {"vocab": {"\ud800": 3}}}, ensure_ascii=True)) == ("\ud800", 3)


def test_the_first_id_that_differs(tmp_path: Path) -> None:
    def tokenizer(name: str, vocab: dict[str, int]) -> Tokenizer:
        (tmp_path / name).mkdir()
        write(tmp_path / name / "tokenizer.json", {"model": {"type": "BPE", "vocab": vocab, "merges": []}})
        return read_tokenizer(tmp_path / name, {})

    one = tokenizer("one", {"a": 0, "b": 1, "c": 2})
    assert first_difference(one, one) is None
    assert first_difference(one, tokenizer("swapped", {"a": 0, "c": 1, "b": 2})) == (1, "b", "c")
    assert first_difference(one, tokenizer("more", {"a": 0, "b": 1, "c": 2, "d": 9})) == (9, None, "d")
    assert tokens_beyond(one, 1) == (("b", 1), ("c", 2))
    assert tokens_beyond(one, 3) == ()
