"""What a recipe may say of tokenizer and chat template, and what the plan answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint.tokenizer.tokenizer_identity import read_tokenizer
from surgeon.errors import InputError
from surgeon.plan.findings import Finding
from surgeon.plan.model import Donor
from surgeon.plan.new_tokenizer import NewTokenizer
from surgeon.plan.tokenizer.chat_template import choose, template_of
from surgeon.plan.tokenizer.known_templates import BUILTIN
from surgeon.plan.tokenizer.output_vocabulary import Built, build
from surgeon.recipe.document import as_data, parse
from tests.support.vocabularies import added, donor, put_files, recipe, tables, tokenizer_json, write


@pytest.fixture
def pair(tmp_path: Path) -> list[Donor]:
    one = tokenizer_json({"a": 0, "b": 1, "ab": 2}, merges=["a b"])
    two = tokenizer_json({"b": 0, "c": 1, "a": 2}, added=[added(3, "<s>")])
    return [donor("A", write(tmp_path / "A", one), 3), donor("B", write(tmp_path / "B", two), 4)]


def planned(text: str, donors: list[Donor], base: Donor | None = None, **options: Any) -> Built:
    document = parse(f"merge_method: linear\nmodels: []\n{text}\n")
    built = build(document.recipe, donors, base or donors[0], line=document.line, **options)
    assert built is not None
    return built


def only(built: Built, severity: str = "error") -> Finding:
    (finding,) = [finding for finding in built.findings if finding.severity == severity]
    return finding


def test_a_recipe_that_says_nothing_asks_for_nothing(pair: list[Donor]) -> None:
    assert build(recipe("chat_template: auto"), pair, pair[0]) is None


OVERRIDE = """tokenizer:
  source: union
  tokens:
    c:
      source: {override}
"""


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("./aa", "no model of this merge. Did you mean `./a`?"),
        ("{kind: model_token, model: ./z, token: a}", "no model of this merge"),
        ("./a", "cannot be taken from A: A has no such token"),
        ("{kind: model_token, model: ./b, token: <s}", "from B ('<s'): B has no such token. Did you mean `<s>`?"),
        ("{kind: model_token, model: ./a, token_id: 3}", "its id there is 3, but A's embedding has only 3 rows"),
    ],
)  # fmt: skip
def test_an_override_that_cannot_be_carried_out(override: str, says: str, pair: list[Donor]) -> None:
    built = planned(OVERRIDE.format(override=override), pair)
    finding = only(built)
    assert says in finding.sentence() and finding.line == 6
    assert built.rows == 0 and built.files is None and built.operand("A", tables(pair)) == tables(pair)["A"]


@pytest.mark.parametrize(
    ("text", "says", "line"),
    [
        ("tokenizer_source: ./aa", "There is no tokenizer at ./aa", 3),
        ("tokenizer: {source: unoin}", "Did you mean `union`?", 3),
        ("tokenizer_source: base\ntokenizer: {source: base}", "each sets the vocabulary", 3),
        ("tokenizer:\n  source: base\n  pad_to_multiple_of: 100000000", "would have 100,000,000 rows", 5),
    ],
)
def test_a_source_that_cannot_be_had(text: str, says: str, line: int, pair: list[Donor]) -> None:
    finding = only(planned(text, pair))
    assert says in finding.sentence() and finding.line == line


def test_other_kinds_than_bpe_are_not_united_but_taken_whole(tmp_path: Path) -> None:
    unigram = tokenizer_json([["<unk>", 0.0], ["a", -1.0]], kind="Unigram")
    words = tokenizer_json({"<unk>": 0, "b": 1}, kind="WordLevel", added=[added(2, "<s>")])
    donors = [donor("A", write(tmp_path / "A", unigram), 2), donor("B", write(tmp_path / "B", words), 3)]
    finding = only(planned("tokenizer_source: union", donors))
    assert "cannot be united: only BPE" in finding.sentence() and "A's is Unigram, B's WordLevel" in finding.sentence()
    for source, tokens in (("base", ("<unk>", "a")), ("./b", ("<unk>", "b", "<s>"))):
        built = planned(f"tokenizer_source: {source}", donors)
        assert built.tokens == tokens and built.files is not None and not built.files.grown


def test_added_tokens_alone_join_any_kind(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    bodies: list[tuple[Any, str]] = [([["<unk>", 0.0], ["a", -1.0]], "Unigram"), ({"<unk>": 0, "a": 1}, "WordLevel")]
    for vocab, kind in bodies:
        one = tokenizer_json(vocab, kind=kind, added=[added(2, "<p>")])
        two = tokenizer_json(vocab, kind=kind, added=[added(2, "<s>"), added(3, "<p>")])
        donors = [
            donor(letter, write(tmp_path / kind / letter, document), 4) for letter, document in (("A", one), ("B", two))
        ]
        built = planned("tokenizer_source: union", donors)
        assert built.tokens == ("<unk>", "a", "<p>", "<s>") and built.files is not None
        folder = put_files(built.files, tmp_path / f"{kind}-out")
        loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
        assert loaded.get_vocab() == {token: index for index, token in enumerate(built.tokens)}


def test_a_special_token_that_is_ordinary_in_the_base_becomes_an_added_one(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    one = tokenizer_json({"<": 0, "s": 1, ">": 2, "<s>": 3, "t": 4, "<t>": 5})
    two = tokenizer_json({"<": 0}, added=[added(1, "<s>"), added(2, "<t>", special=False)])
    donors = [donor("A", write(tmp_path / "A", one), 6), donor("B", write(tmp_path / "B", two), 3)]
    built = planned("tokenizer_source: union", donors)
    assert built.files is not None and [token.text for token in built.files.added] == ["<s>"]
    loaded = Tokenizer.from_file(str(put_files(built.files, tmp_path / "out") / "tokenizer.json"))
    assert loaded.encode("s<s>s<t>").ids == [1, 3, 1, 0, 4, 2]


def test_what_is_told_of_rows_and_tokens(tmp_path: Path) -> None:
    one = tokenizer_json({"a": 0, "b": 1}, added=[added(2, "<pad>")])
    two = tokenizer_json({"a": 0, "c": 1, "d": 2})
    donors = [donor("A", write(tmp_path / "A", one), 2), donor("B", write(tmp_path / "B", two), 2)]
    told = " ".join(finding.sentence() for finding in planned("tokenizer_source: base", donors).findings)
    assert "The output has 3 rows of tokens" in told and "3 tokens of A" in told
    assert "No donor has a row for 1 token of the output: '<pad>'" in told
    assert "A's tokenizer has '<pad>', but its embedding of 2 rows has no row for that" in told
    assert "B does not have 2 tokens of the output: 'b' and 1 more" in told
    assert "2 tokens of B are not in the output: 'c' and 1 more" in told
    united = planned("tokenizer_source: union", donors)
    assert united.tokens == ("a", "b", "<pad>", "c")
    assert "1 token of B are left out: 'd'" in " ".join(finding.sentence() for finding in united.findings)


def test_tokenizers_that_cut_differently_are_warned_of(tmp_path: Path, pair: list[Donor]) -> None:
    other = {**tokenizer_json({"z": 0}), "pre_tokenizer": None}
    odd = donor("C", write(tmp_path / "C", other), 1)
    assert "split a text differently" in only(planned("tokenizer_source: union", [pair[0], odd]), "warning").what
    assert all(finding.severity == "note" for finding in planned("tokenizer_source: union", pair).findings)


def test_a_donor_without_a_tokenizer_is_taken_to_have_the_bases(tmp_path: Path, pair: list[Donor]) -> None:
    (tmp_path / "C").mkdir()
    bare = donor("C", tmp_path / "C", 3)
    built = planned("tokenizer_source: ./b", [*pair, bare])
    assert "assumed to mean the same as in A" in only(built, "warning").sentence()
    assert built.tokens == ("b", "c", "a", "<s>")
    take = built.operand("C", tables([*pair, bare])).take  # type: ignore[union-attr]
    assert memoryview(take[0]).cast("i").tolist() == [1, -1, 0, -1]
    assert "C has no tokenizer files" in only(planned("tokenizer_source: ./c", [*pair, bare])).what


def test_without_a_tokenizer_json_equal_tokenizers_are_enough(tmp_path: Path, pair: list[Donor]) -> None:
    for letter in "CD":
        (tmp_path / letter).mkdir()
        (tmp_path / letter / "tokenizer.model").write_bytes(b"pieces")
    donors = [donor("C", tmp_path / "C", 7), donor("D", tmp_path / "D", 5)]
    built = planned("tokenizer_source: union", donors)
    assert built.rows == 7 and built.files is not None and set(built.files.copied) == {"tokenizer.model"}
    assert planned("tokenizer: {source: base, pad_to_multiple_of: 4}", donors).rows == 8
    for text in ("tokenizer_source: union", "tokenizer: {source: base, tokens: {x: {source: {kind: zero}}}}"):
        finding = only(planned(text, [donors[0], pair[0]] if "union" in text else donors))
        assert "The vocabulary of C cannot be read: there is no tokenizer.json" in finding.sentence()


def test_a_tokenizer_that_is_no_donors(tmp_path: Path, pair: list[Donor]) -> None:
    write(tmp_path / "other", tokenizer_json({"c": 0, "b": 1, "new": 3}))
    built = planned("tokenizer_source: ./other", pair, roots=[tmp_path])
    assert built.tokens == ("c", "b", None, "new") and built.files is not None
    assert built.files.copied["tokenizer.json"] == tmp_path / "other" / "tokenizer.json"
    assert only(built, "warning").what == "No donor has a row for 1 token of the output: 'new'"


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    folder = write(tmp_path / "A", tokenizer_json({"a": 0}))
    assert planned("tokenizer_source: base", [donor("A", folder, 1)]).tokens == ("a",)
    write(folder, tokenizer_json({"bb": 0}))
    assert planned("tokenizer_source: base", [donor("A", folder, 1)]).tokens == ("bb",)


def test_the_recipe_is_written_as_it_was_read() -> None:
    text = """merge_method: linear
tokenizer:
  source: ./a
  tokens:
    <x>:
      source: {kind: model_token, model: ./b, token: y}  # here
      force: true
    <z>: {source: ./b}
  pad_to_multiple_of: 64
"""
    document = parse(text)
    assert document.key_problems == ()
    moved = document.with_recipe(document.recipe.with_models({"./b": "../b", "./a": "/a"}))
    assert moved.text == text.replace("./b", "../b").replace("./a", "/a")
    assert parse("tokenizer_source: ./a").recipe.with_models({"./a": "b"}).tokenizer_source == "b"
    assert as_data(document.recipe)["tokenizer"]["tokens"]["<z>"] == {"source": "./b"}


def test_unknown_keys_are_found_at_every_depth() -> None:
    document = parse("tokenizer:\n  sourc: a\n  tokens:\n    x: {source: {kind: zero, modl: b}, forced: true}\n")
    assert [(problem.key, problem.suggestion) for problem in document.key_problems] == [
        ("sourc", "source"), ("modl", "model"), ("forced", "force"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "tokenizer: 3", "tokenizer: {tokens: [a]}", "tokenizer: {tokens: {x: {}}}", "tokenizer: {tokens: {x: 3}}",
        "tokenizer: {pad_to_multiple_of: 0}", "tokenizer: {pad_to_multiple_of: 1.5}",
        "tokenizer: {tokens: {x: {source: {kind: other}}}}", "tokenizer: {tokens: {x: {source: [a]}}}",
        "tokenizer: {tokens: {x: {source: {kind: model_token, model: a}}}}",
        "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token: b, token_id: 1}}}}",
        "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token_id: -1}}}}",
    ],
)  # fmt: skip
def test_what_is_no_tokenizer_table_is_refused_at_its_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(f"merge_method: linear\n{text}")
    assert "line 2" in caught.value.where and "function" not in str(caught.value)


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]


def test_the_known_formats(tmp_path: Path) -> None:
    """As the projects that the formats come from show them."""
    from transformers import AutoTokenizer

    wanted = {
        "alpaca": "Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello</s>\n\n### Instruction:\nBye\n\n"
        "### Response:\n",
        "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n",
        "exaone": "[|system|]Be brief.[|endofturn|]\n[|user|]Hi\n[|assistant|]Hello[|endofturn|]\n"
        "[|user|]Bye\n[|assistant|]",
        "llama3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "Hello<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "mistral": "<s>[INST] Be brief.\n\nHi [/INST] Hello</s>[INST] Bye [/INST]",
    }
    assert set(wanted) == set(BUILTIN)
    document = tokenizer_json({"<unk>": 0}, kind="WordLevel", added=[added(1, "<s>"), added(2, "</s>")])
    settings = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": "old",
    }
    source = read_tokenizer(write(tmp_path / "A", document, settings), {})
    (tmp_path / "A" / "chat_template.jinja").write_text("older")
    for name, text in wanted.items():
        template, findings = choose(name, [], None)
        assert findings == [] and template is not None
        files = NewTokenizer(source, template=template)
        assert files.made == ("tokenizer_config.json", "chat_template.jinja") and set(files.copied) == {
            "tokenizer.json"
        }
        folder = put_files(files, tmp_path / name)
        loaded = AutoTokenizer.from_pretrained(folder)
        assert loaded.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True) == text
        assert "chat_template" not in json.loads((folder / "tokenizer_config.json").read_text())


def test_a_format_whose_tokens_are_not_there_is_warned_of() -> None:
    _, findings = choose("chatml", [], ("a", "<|im_end|>"), line=lambda *place: 7)
    assert findings[0].severity == "warning" and "<|im_start|>, which is not a token" in findings[0].what
    assert findings[0].line == 7
    assert choose("chatml", [], ("<|im_start|>", "<|im_end|>"))[1] == []


def test_auto_is_the_most_common_template(tmp_path: Path) -> None:
    document = tokenizer_json({"a": 0})
    settings: list[dict[str, Any]] = [
        {"chat_template": "{{ one }}"},
        {"chat_template": [{"name": "tool", "template": "{{ x }}"}, {"name": "default", "template": "{{ two }}\n"}]},
        {"chat_template": "{{ three }}"},
        {},
    ]
    donors = [donor("ABCD"[n], write(tmp_path / "ABCD"[n], document, said), 1) for n, said in enumerate(settings)]
    assert choose("auto", donors, None)[0] == "{{ one }}"
    (tmp_path / "C" / "chat_template.jinja").write_text("{{ two }}")
    donors[2] = donor("C", tmp_path / "C", 1)
    assert template_of(donors[2].checkpoint.tokenizer) == "{{ two }}"
    text, (finding,) = choose("auto", donors, None)
    assert text == "{{ two }}\n" and finding.what == "The chat template is that of B, C"
    text, (finding,) = choose("auto", donors[3:], None)
    assert text is None and finding.severity == "warning"
    assert choose(None, donors, None) == (None, [])


def test_a_template_may_have_two_million_bytes(tmp_path: Path) -> None:
    checkpoint = donor("A", write(tmp_path / "A", tokenizer_json({"a": 0}), {}), 1).checkpoint
    (tmp_path / "A" / "chat_template.jinja").write_text("x" * 2_000_000)
    found = donor("A", tmp_path / "A", 1).checkpoint.tokenizer
    assert len(template_of(found) or "") == 2_000_000
    (tmp_path / "A" / "chat_template.jinja").write_text("x" * 2_000_001)
    with pytest.raises(InputError, match="too large to be a chat template"):
        template_of(found)
    assert template_of(checkpoint.tokenizer) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("chatlm", "Did you mean `chatml`?"),
        ("a short one {}", "neither a known format nor a template"),
        ("no braces in all of this text", "neither a known format nor a template"),
        ("{% for message in messages %}\n{{ message }", "(line 2 of the template)"),
        ("{{ messages | nothing_like_it }}", "No filter named"),
        ("{% if messages %}" * 3000, "Unexpected end|recursion"),
        ("{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}", "recursion"),
        ("some text and then {% break %}", "outside loop"),
    ],
)
def test_what_is_no_template_is_an_error(text: str, says: str) -> None:
    template, (finding,) = choose(text, [], None, line=lambda *place: 5 if place == ("chat_template",) else None)
    assert template is None and finding.severity == "error" and finding.line == 5
    assert any(part in finding.sentence() for part in says.split("|"))


@pytest.mark.parametrize(
    "text",
    [
        "{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}{% break %}{% endfor %}",
        "{{ 9 ** 9 ** 9 ** 9 }}{{ 'a' * 10 ** 12 }}",
        "{{ strftime_now('%d') }}{{ tools | tojson(indent=4) }}{{ raise_exception('no') }}",
    ],
)
def test_templates_are_compiled_and_not_run(text: str) -> None:
    assert choose(text, [], None) == (text, [])
