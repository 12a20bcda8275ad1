"""Chat templates: applied as transformers does, once, within limits, and only where they are asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from surgeon.checkpoint import open_checkpoint
from surgeon.errors import InputError
from surgeon.plan import Donors, resolve
from surgeon.probe import chat_template, limited_process
from surgeon.probe.probe_set import Probe, read_probes
from surgeon.probe.requests import Request, run
from surgeon.probe.score import score
from surgeon.probe.score_batches import Outcome
from surgeon.probe.subject import Subject, from_checkpoint, from_plan
from surgeon.recipe.document import parse
from tests.support.chats import TEMPLATE, chat_model
from tests.support.models import one_thread, tiny_model, tiny_tokenizer

BOS = 1


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with one_thread():
        yield


def subject_of(folder: Path) -> Subject:
    return from_checkpoint(open_checkpoint(str(folder)), "cpu")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject_of(chat_model(tmp_path_factory.mktemp("chat") / "a"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return subject_of(tiny_tokenizer(tiny_model(tmp_path_factory.mktemp("plain") / "a")))


def last(subject: Subject, **request: Any) -> dict[str, Any]:
    return list(run(subject, Request(**request)))[-1]


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_chat_is_encoded_as_transformers_does_with_one_beginning(chat: Subject, system: str | None) -> None:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": "Hi\nthere"})
    theirs = chat.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    (ours,) = chat.encode_chats([("Hi\nthere", system)])
    assert ours == theirs and ours.count(BOS) == 1 and ours[0] == BOS


def test_a_rendered_text_with_a_lone_surrogate_is_named_in_a_sentence(chat: Subject) -> None:
    with pytest.raises(InputError, match="half of a surrogate pair"):
        chat.encode_chats([("a\ud800", None)])


def test_a_request_uses_the_template_only_if_it_says_so(chat: Subject, plain: Subject) -> None:
    asked, raw = last(chat, prompt="Hi", n=8, chat=True), last(chat, prompt="Hi", n=8)
    assert asked["chat"] is True and raw["chat"] is False and asked["text"] != raw["text"]
    by_hand = last(chat, prompt="user: Hi|assistant: ", n=8)
    assert by_hand["text"] == asked["text"]
    assert last(plain, prompt="Hi", n=8, chat=True)["chat"] is False
    assert last(chat, n=8, chat=True)["chat"] is None


def test_a_system_message_that_nobody_reads_is_noted(chat: Subject, plain: Subject) -> None:
    assert last(chat, prompt="Hi", n=1, chat=True, system="Be brief.")["notes"] == []
    assert "raw text" in last(chat, prompt="Hi", n=1, system="Be brief.")["notes"][0]
    assert "no chat template" in last(plain, prompt="Hi", n=1, chat=True, system="Be brief.")["notes"][0]


def test_perplexity_reads_raw_text_whatever_the_template(chat: Subject, plain: Subject) -> None:
    from surgeon.probe.requests import Text

    tokens = [last(subject, texts=(Text("t", "some text"),))["perplexity"][0]["tokens"] for subject in (chat, plain)]
    assert tokens == [10, 10]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[7]['content'] }}", "cannot be applied"),
        ("{% for message in messages %}", "cannot be applied"),
        ("{{ ''.__class__.__mro__ }}", "cannot be applied"),
        ("{{ 'a' * 3000000 }}", "3,000,000 characters"),
        ("{{ 9 ** (9 ** 9) }}", "more than 1 seconds"),
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more than 1 seconds"),
        ("{{ ('a' * 9999999999)[:1] }}", "memory"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "cannot be applied"),
    ],
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the limits are those of a forked process")
def test_a_template_that_fails_or_runs_away_is_an_answered_error(
    chat: Subject, template: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (limited_process, chat_template):
        monkeypatch.setattr(module, "SECONDS", 1)
    monkeypatch.setattr(chat.tokenizer, "chat_template", template)
    with pytest.raises(InputError) as caught:
        last(chat, prompt="Hi", chat=True)
    assert "the chat template cannot be applied" in caught.value.sentence() and message in caught.value.sentence()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # No process is left.


def test_what_a_template_does_stays_in_its_process(chat: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def apply_chat_template(*_: Any, **__: Any) -> str:
        calls.append("here")
        return "text"

    fake = SimpleNamespace(chat_template="{{ 1 }}", apply_chat_template=apply_chat_template)
    assert chat_template.render(fake, [("a", None), ("b", None)]) == ["text", "text"]
    assert calls == [] or not hasattr(os, "fork")


def test_a_file_that_is_too_large_to_be_a_template_is_not_read(tmp_path: Path) -> None:
    folder = chat_model(tmp_path / "a", "{{ 1 }}" + " " * chat_template.LARGEST)
    subject = subject_of(folder)
    assert subject.tokenizer is None and "too large to be a chat template" in subject.why_no_tokenizer


def test_named_templates_need_a_default(chat: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat.tokenizer, "chat_template", {"tool_use": TEMPLATE})
    assert not chat.chat and last(chat, prompt="Hi", n=1, chat=True)["chat"] is False
    monkeypatch.setattr(chat.tokenizer, "chat_template", {"tool_use": "x", "default": TEMPLATE})
    assert chat.chat and last(chat, prompt="Hi", n=1, chat=True)["chat"] is True


def test_an_unwritten_recipe_has_the_template_of_its_output(tmp_path: Path) -> None:
    chat_model(tmp_path / "a")
    slices = f"slices:\n- sources: [{{model: {tmp_path / 'a'}, layer_range: [0, 3]}}]\n"
    own = "{% for message in messages %}{{ '[' + message['content'] + ']' }}{% endfor %}"
    texts = []
    for more in ("", f'chat_template: "{own}"\n'):
        subject = from_plan(resolve(parse(slices + more), Donors()), "cpu")
        texts.append(chat_template.render(subject.tokenizer, [("Hi", None)])[0])
    assert texts == ["<s>user: Hi|assistant: ", "[Hi]"]


class TestProbeSets:
    """Probes are raw text unless the probe or its file says `chat: true`."""

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.jsonl", '{"prompt": "p", "expected": "e", "chat": true, "system": "s"}\n'),
            ("a.jsonl", '{"chat": true, "system": "s"}\n{"prompt": "p", "expected": "e"}\n'),
            ("a.yml", "- {prompt: p, expected: e, chat: true, system: s}\n"),
            ("a.yml", "chat: true\nsystem: s\nprobes:\n- {prompt: p, expected: e}\n"),
        ],
    )
    def test_both_places_in_both_formats(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        (probe,) = read_probes(tmp_path / name).probes
        assert (probe.prompt, probe.expected, probe.chat, probe.system) == ("p", "e", True, "s")

    def test_a_probe_may_differ_from_its_file(self, tmp_path: Path) -> None:
        lines = [{"chat": True}, {"prompt": "a", "expected": "e"}, {"prompt": "b", "expected": "e", "chat": False}]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert [(probe.chat, probe.line) for probe in read_probes(tmp_path / "a.jsonl").probes] == [
            (True, 2),
            (False, 3),
        ]

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.jsonl", '{"prompt": "p", "expected": "e", "chat": 1}\n', "line 1: chat is not true or false"),
            ("a.jsonl", '{"prompt": "p", "expected": "e", "system": "s"}\n', "line 1: system has no meaning"),
            ("a.jsonl", '{"chat": true, "system": 1}\n', "line 1: system is not text"),
            ("a.jsonl", '{"chat": true}\n', "the probe set is empty"),
            ("a.yml", "chatt: true\nprobes: []\n", "'chatt' is not a key of a probe set.*mean chat"),
            ("a.yml", "chat: true\n", "a probe set in YAML is a list"),
            ("a.yml", "chat: maybe\nprobes:\n- {prompt: p, expected: e}\n", "chat is not true or false"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            read_probes(tmp_path / name)

    def test_they_are_scored_as_they_say(self, chat: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[list[int]] = []

        def answer(_: Subject, probe: Probe, prompt: list[int]) -> Outcome:
            asked.append(prompt)
            return Outcome(probe, "yes", True)

        monkeypatch.setattr("surgeon.probe.score.exact_answers", lambda _, items, *__: [(None, 0.0)] * len(items))
        monkeypatch.setattr("surgeon.probe.score.one_by_one", answer)
        probes = [{"prompt": "Hi", "expected": "yes", "chat": chats} for chats in (True, False, True)]
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(probe) + "\n" for probe in probes))
        assert [outcome.right for outcome in score(chat, read_probes(tmp_path / "a.jsonl"))] == [True] * 3
        (as_chat,) = chat.encode_chats([("Hi", None)])
        assert asked == [as_chat, chat.encode("Hi"), as_chat]

    def test_a_model_without_a_template_refuses_them(self, plain: Subject, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"prompt": "p", "expected": "e", "chat": true}\n')
        assert read_probes(tmp_path / "a.jsonl").probes == (Probe("p", "e", 1, True),)
        with pytest.raises(InputError, match="its tokenizer has no chat template"):
            list(score(plain, read_probes(tmp_path / "a.jsonl")))
