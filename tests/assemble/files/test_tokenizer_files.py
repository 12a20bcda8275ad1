"""Tokenizer files of the output, as the tokenizers library and transformers load them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon.assemble.files.tokenizer_files import written
from surgeon.checkpoint.tokenizer.tokenizer_identity import read_tokenizer
from surgeon.checkpoint.tokenizer.vocabulary import declared, read_vocabulary
from surgeon.plan.model import Donor
from surgeon.plan.tokenizer.output_vocabulary import Built, build
from tests.support.vocabularies import FLAGS, added, donor, put_files, recipe, tokenizer_json, write

HERE = "the cat sat on the mat and the rat sat on the cat that had sat there"
THERE = "der Hund und die Katze und der Hund sind da und die Katze hat den Hund"


def trained(folder: Path, text: str, special: Sequence[str] = (), size: int = 60, **settings: Any) -> Path:
    """A byte-level BPE tokenizer of that text, as transformers saves it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = [*sorted("abcdefghijklmnopqrstuvwxyzDHK"), "Ġ"]
    core.train_from_iterator(
        [text], trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    core.add_special_tokens(list(special))
    PreTrainedTokenizerFast(tokenizer_object=core, **settings).save_pretrained(folder)
    return folder


def put(built: Built | None, folder: Path) -> Path:
    """The output's tokenizer files in a folder."""
    assert built is not None and built.files is not None, built
    return put_files(built.files, folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Donor]:
    folder = tmp_path_factory.mktemp("pair")
    trained(folder / "A", HERE, ["<s>", "</s>"], bos_token="<s>", eos_token="</s>", model_max_length=77)
    trained(folder / "B", THERE, ["</s>", "<|im_start|>"], size=70, eos_token="</s>")
    return [donor("A", folder / "A", 100), donor("B", folder / "B", 100)]


@pytest.fixture(scope="module")
def union(pair: list[Donor], tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, Path]:
    built = build(recipe("tokenizer_source: union"), pair, pair[0])
    assert built is not None
    return built, put(built, tmp_path_factory.mktemp("union"))


def test_a_union_knows_every_token_of_every_donor(pair: list[Donor], union: tuple[Built, Path]) -> None:
    from tokenizers import Tokenizer

    built, folder = union
    new = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    assert new == {token: index for index, token in enumerate(built.tokens) if token is not None}
    old = [Tokenizer.from_file(str(one.checkpoint.folder / "tokenizer.json")).get_vocab() for one in pair]
    assert set(new) == set(old[0]) | set(old[1])
    assert len(new) > len(old[0]) and old[0].items() <= new.items()


def test_a_union_loads_with_transformers(pair: list[Donor], union: tuple[Built, Path]) -> None:
    from transformers import AutoTokenizer

    new = AutoTokenizer.from_pretrained(union[1])
    old, other = (AutoTokenizer.from_pretrained(one.checkpoint.folder) for one in pair)
    assert new.get_vocab() == {token: index for index, token in enumerate(union[0].tokens) if token is not None}
    assert (new.bos_token, new.eos_token, new.model_max_length) == ("<s>", "</s>", 77)
    assert new.eos_token_id == old.eos_token_id
    assert new.encode(HERE) == old.encode(HERE)
    assert new.decode(new.encode(THERE)) == THERE
    assert len(new.encode(THERE)) < len(old.encode(THERE))
    mark = new.encode("<|im_start|>cat")
    assert mark[0] == new.convert_tokens_to_ids("<|im_start|>") and "<|im_start|>" in other.get_vocab()
    assert new.decode(mark, skip_special_tokens=True) == "cat"


@given(text=st.text(alphabet="abcdehinorstuDHK ", max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_text_without_new_tokens_is_encoded_as_before(
    text: str, pair: list[Donor], union: tuple[Built, Path]
) -> None:
    from tokenizers import Tokenizer

    new = Tokenizer.from_file(str(union[1] / "tokenizer.json"))
    old = Tokenizer.from_file(str(pair[0].checkpoint.folder / "tokenizer.json"))
    before, after = old.encode(text).ids, new.encode(text).ids
    assert before == after or max(after) >= old.get_vocab_size()
    assert new.decode(after) == old.decode(before)


def test_a_class_that_builds_itself_anew_gets_the_same_ids(tmp_path: Path) -> None:
    """transformers' LlamaTokenizer takes vocabulary and merges out of the file and adds the added tokens again."""
    from transformers import AutoTokenizer

    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "b": 5, "ab": 6}
    base = tokenizer_json(vocab, merges=["a b"], added=[added(7, "<x>"), added(8, "<y>")])
    other = tokenizer_json({**vocab, "c": 7, "abc": 8}, merges=["a b", "ab c"], added=[added(9, "<z>")])
    donors = [
        donor("A", write(tmp_path / "A", base, settings), 9),
        donor("B", write(tmp_path / "B", other, settings), 10),
    ]
    built = build(recipe("tokenizer_source: union"), donors, donors[0])
    new = AutoTokenizer.from_pretrained(put(built, tmp_path / "out"))
    assert built is not None
    assert new.get_vocab() == {token: index for index, token in enumerate(built.tokens)}
    assert built.tokens[7:] == ("<x>", "<y>", "c", "abc", "<z>")
    assert new.convert_ids_to_tokens(new.encode("abc<z>", add_special_tokens=False))[-1] == "<z>"


def test_a_donors_files_are_copied_as_they_are(pair: list[Donor], tmp_path: Path) -> None:
    for source, one in (("base", pair[0]), ("./b", pair[1])):
        built = build(recipe(f"tokenizer_source: {source}"), pair, pair[0])
        assert built is not None and built.files is not None
        assert built.files.made == ()
        assert built.files.copied == {path.name: path for path in one.checkpoint.tokenizer.files}


def test_tokens_of_the_recipe_become_added_ones(pair: list[Donor], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    text = """
tokenizer:
  source: base
  tokens:
    <|im_start|>: {source: ./b}
    <|new|>: {source: {kind: zero}}
    cat: {source: {kind: model_token, model: ./a, token: cat}}"""
    built = build(recipe(text.replace("cat", "at")), pair, pair[0])
    new = AutoTokenizer.from_pretrained(put(built, tmp_path / "out"))
    assert built is not None
    assert [new.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|new|>")] == [len(new) - 2, len(new) - 1]
    ids = new.encode("cat<|im_start|><|new|>")
    assert ids[-2:] == [len(new) - 2, len(new) - 1]
    assert new.decode(ids, skip_special_tokens=True) == "cat<|new|>"


def test_files_that_would_contradict_are_left_out(tmp_path: Path) -> None:
    base = tokenizer_json({"a": 0, "b": 1}, merges=[])
    settings = {
        "added_tokens_decoder": {"2": {"content": "<p>", **FLAGS}}, "chat_template": "old", "tokenizer_class": "X",
    }  # fmt: skip
    write(tmp_path / "A", base, settings)
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json", "chat_template.jinja"):
        (tmp_path / "A" / name).write_text("{}")
    write(tmp_path / "B", tokenizer_json({"a": 0, "c": 1}, merges=[]), {})
    donors = [donor("A", tmp_path / "A", 3), donor("B", tmp_path / "B", 2)]
    built = build(recipe("tokenizer_source: union"), donors, donors[0])
    assert built is not None and built.files is not None
    assert built.tokens == ("a", "b", "<p>", "c")
    assert set(built.files.copied) == {"special_tokens_map.json", "chat_template.jinja"}
    made = written(built.files)
    assert json.loads(made["tokenizer_config.json"]) == settings
    document = json.loads(made["tokenizer.json"])
    assert document["model"]["vocab"] == {"a": 0, "b": 1, "<p>": 2, "c": 3}
    assert document["added_tokens"] == [added(2, "<p>")]


def test_settings_list_the_added_tokens_with_the_ids_that_hold_now(tmp_path: Path) -> None:
    said = {letter: {"added_tokens_decoder": {"2": {"content": f"<{letter}>", **FLAGS}}} for letter in "AB"}
    write(tmp_path / "A", tokenizer_json({"a": 0, "b": 1}, merges=[]), said["A"])
    write(tmp_path / "B", tokenizer_json({"a": 0, "c": 1}, merges=[]), said["B"])
    donors = [donor(letter, tmp_path / letter, 3) for letter in "AB"]
    built = build(recipe("tokenizer_source: union"), donors, donors[0])
    assert built is not None and built.files is not None
    made = written(built.files)
    listed = json.loads(made["tokenizer_config.json"])["added_tokens_decoder"]
    assert {int(index): entry["content"] for index, entry in listed.items()} == {
        built.tokens.index(token): token for token in ("<A>", "<B>")
    }
    added_tokens = json.loads(made["tokenizer.json"])["added_tokens"]
    assert {entry["id"]: entry["content"] for entry in added_tokens} == {
        int(k): v["content"] for k, v in listed.items()
    }


def test_merges_in_either_form(tmp_path: Path) -> None:
    """Strings stay strings, but for tokens that hold a space."""
    from tokenizers import Tokenizer

    base = tokenizer_json({"a": 0, "b": 1, "ab": 2}, merges=["a b"])
    for new, pair, form in ((["c", "bc"], ["b", "c"], "b c"), ([" c", "b c"], ["b", " c"], ["b", " c"])):
        vocab = {token: index for index, token in enumerate(["a", "b", *new])}
        other = tokenizer_json(vocab, merges=[pair, ["a", "b"] if "ab" in vocab else pair])
        folders = [write(tmp_path / new[0] / letter, document) for letter, document in (("A", base), ("B", other))]
        donors = [donor(letter, folder, 9) for letter, folder in zip("AB", folders, strict=True)]
        folder = put(build(recipe("tokenizer_source: union"), donors, donors[0]), tmp_path / f"{new[0]}out")
        merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
        assert merges == (["a b", form] if isinstance(form, str) else [["a", "b"], form])
        assert Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(new[1]) == 4


def test_merges_that_form_the_bases_tokens_in_another_way_are_left_out(tmp_path: Path) -> None:
    """The base has `ab` and never forms it of `a` and `b`; with the other's merge it would."""
    from tokenizers import Tokenizer

    base = tokenizer_json({"a": 0, "b": 1, "c": 2, "ab": 3})
    other = tokenizer_json({"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}, merges=["a b", "b c"])
    donors = [donor(letter, write(tmp_path / letter, doc), 5) for letter, doc in (("A", base), ("B", other))]
    folder = put(build(recipe("tokenizer_source: union"), donors, donors[0]), tmp_path / "out")
    new = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert new.encode("ab").ids == [0, 1] and new.encode("bc").ids == [4]


def test_special_ids_follow_their_tokens(tmp_path: Path) -> None:
    one = tokenizer_json({"a": 0, "b": 1}, added=[added(2, "<s>"), added(3, "</s>"), added(4, "<only>")])
    two = tokenizer_json({"b": 0, "a": 1, "c": 2}, added=[added(3, "</s>"), added(4, "<s>")])
    donors = [donor("A", write(tmp_path / "A", one), 5), donor("B", write(tmp_path / "B", two), 5)]
    built = build(recipe("tokenizer_source: ./b"), donors, donors[0])
    assert built is not None
    config = {
        "bos_token_id": 2, "eos_token_id": [3, 4], "pad_token_id": 4, "unk_token_id": None, "mask_token_id": -1,
        "vocab_size": 3, "image_token_index": 4, "sep_token_id": True,
    }  # fmt: skip
    other = {"pad_token_id": 3}
    wanted = {"bos_token_id": 4, "eos_token_id": [3], "pad_token_id": 3, "image_token_index": None}
    assert built.renumbered("A", config, other) == wanted
    assert built.renumbered("B", config, other) == {}
    assert built.renumbered("Z", config, other) == {}


words = st.text(alphabet="abc<é ", min_size=1, max_size=3)


@given(
    kind=st.sampled_from(["BPE", "WordLevel", "WordPiece", "Unigram"]),
    tokens=st.lists(words, min_size=1, max_size=8, unique=True),
    ids=st.lists(st.integers(0, 20), min_size=8, max_size=8, unique=True),
    extra=st.lists(st.tuples(st.integers(0, 25), words), max_size=4),
    indent=st.sampled_from([None, 2]),
    stated=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_vocabularies_are_read_as_the_library_loads_them(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    tokens: list[str],
    ids: list[int],
    extra: list[tuple[int, str]],
    indent: int | None,
    stated: bool,
) -> None:
    from tokenizers import Tokenizer

    vocab: Any = dict(zip(["<unk>", *tokens], [*ids, 21], strict=False))
    if kind == "Unigram":
        vocab = [["<unk>", 0.0], *([token, -1.0] for token in tokens)]
    document = tokenizer_json(vocab, kind=kind, added=[added(index, text) for index, text in extra])
    if not stated:
        del document["model"]["type"]
    folder = tmp_path_factory.mktemp("vocab")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=False))
    read = read_vocabulary(read_tokenizer(folder, {}))
    assert read.ids == Tokenizer.from_file(str(path)).get_vocab()
    assert read.kind == kind and list(read.ids.values()) == sorted(read.ids.values())


def test_tokens_that_only_the_settings_name_count(tmp_path: Path) -> None:
    """Ids as transformers gives them to such tokens."""
    from transformers import AutoTokenizer

    document = tokenizer_json({"<unk>": 0, "a": 1}, kind="WordLevel", added=[added(2, "<s>")])
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"added_tokens_decoder": {"9": {"content": "<p>", **FLAGS}, "3": {"content": "<q>", **FLAGS}}}, {}),
        ({"pad_token": "<pad>", "eos_token": {"content": "<e>", "special": True, "__type": "AddedToken"}}, {}),
        ({"bos_token": "<s>"}, {"added_tokens.json": {"<n>": 7, "<m>": 3}}),
        ({}, {"special_tokens_map.json": {"pad_token": "<pad>"}}),
    ]
    for number, (said, files) in enumerate(cases):
        folder = write(
            tmp_path / str(number),
            document,
            {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"} | said,
        )
        for name, value in files.items():
            (folder / name).write_text(json.dumps(value))
        loaded = AutoTokenizer.from_pretrained(folder)
        assert read_vocabulary(read_tokenizer(folder, {})).ids == loaded.get_vocab(), said


HOSTILE: list[Any] = [
    [], {}, {"model": []}, {"model": {}}, {"model": {"vocab": 3}}, {"model": {"vocab": {"a": -1}}},
    {"model": {"vocab": {"a": 1.5}}}, {"model": {"vocab": {"a": True}}}, {"model": {"vocab": {"a": 2**22}}},
    {"model": {"vocab": {"a": 10**30}}}, {"model": {"vocab": ["a"]}}, {"model": {"vocab": [["a"]]}},
    {"model": {"type": "Unigram", "vocab": {"a": 0}}}, {"model": {"type": "BPE", "vocab": [["a", 1]]}},
    {"model": {"vocab": {"a": 0}}, "added_tokens": 3}, {"model": {"vocab": {"a": 0}}, "added_tokens": [3]},
    {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 3}]},
]  # fmt: skip


@pytest.mark.parametrize("document", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_vocabulary_is_a_finding(document: Any, tmp_path: Path) -> None:
    good = donor("A", write(tmp_path / "A", tokenizer_json({"a": 0})), 1)
    (tmp_path / "B").mkdir()
    (tmp_path / "B" / "tokenizer.json").write_text(json.dumps(document))
    bare = donor("B", tmp_path / "A", 1)
    bad = Donor("B", "./b", type(bare.checkpoint)(**{**vars(bare.checkpoint), "tokenizer": loose(tmp_path / "B")}))
    built = build(recipe("tokenizer_source: union"), [good, bad], None)
    assert built is not None and built.rows == 0
    (finding,) = built.findings
    assert finding.severity == "error" and finding.what.startswith("The vocabulary of B cannot be read")


def loose(folder: Path) -> Any:
    """A tokenizer whose identity could not be read."""
    from surgeon.checkpoint.tokenizer.tokenizer_identity import Tokenizer

    return Tokenizer("0123", None, {}, (folder / "tokenizer.json",))


@pytest.mark.parametrize(
    "settings",
    [
        {"added_tokens_decoder": {"x": {}, "1" * 5000: {"content": "a"}, "3": 4, "5": {"content": 7}}},
        {"added_tokens_decoder": [1], "extra_special_tokens": 3, "pad_token": 9},
        {"extra_special_tokens": {"a": "<q>", "b": 3}, "bos_token": {"content": 3}},
        {"additional_special_tokens": ["", None, {"content": "<q>"}]},
    ],
    ids=range(4),
)
def test_strange_settings_are_passed_over(settings: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = read_tokenizer(write(tmp_path, tokenizer_json({"a": 0}), settings), {})
    assert set(read_vocabulary(tokenizer).ids) <= {"a", "<q>", "7"}
    assert {text for text, _ in declared(tokenizer)} <= {"<q>", "7"}
