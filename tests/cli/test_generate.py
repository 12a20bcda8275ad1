"""`surgeon generate`: what it prints where, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from surgeon.cli.generate import DEFAULT_MESSAGE, DEFAULT_PROMPT, KEYS, _show_text, generate
from surgeon.errors import InputError, SurgeonError
from tests.support.chats import chat_model
from tests.support.models import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    tiny_tokenizer(tiny_model(folder / "a"))
    chat_model(folder / "chat")
    tiny_model(folder / "bare")
    (folder / "r.yml").write_text("slices:\n  - sources: [{model: ./a, layer_range: [1, 4]}]\n")
    (folder / "p.jsonl").write_text('{"prompt": "1 =", "expected": "1"}\n' * 3)
    return folder


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, **options: Any) -> dict[str, Any]:
    generate(*arguments, as_json=True, device="cpu", **options)  # type: ignore[arg-type, misc]
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_json_is_one_object_with_every_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(
        capsys, str(folder / "r.yml"), prompt="Hi", n=5, probe=[folder / "p.jsonl"], perplexity_text=["a text"], seed=1
    )
    assert tuple(found) == KEYS
    assert found["tokens"] == 5 and found["layers"] == 3 and found["device"] == "cpu" and found["dtype"] == "float32"
    assert found["finite"] is True and found["degenerate"] is False and found["perplexity"][0]["value"] > 1
    assert found["tokens_per_second"] > 0 and found["load_seconds"] > 0 and found["peak_memory_bytes"] > 10**6
    assert [set(item) for item in found["probes"]] == [{"file", "name", "right", "total", "score"}]


def test_text_goes_to_stdout_and_statistics_to_stderr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = as_json(capsys, str(folder / "a"), prompt="Hi", n=6)["text"]
    generate(str(folder / "a"), prompt="Hi", n=6, probe=[folder / "p.jsonl"], device="cpu")
    captured = capsys.readouterr()
    _show_text(text)
    assert captured.out.startswith(capsys.readouterr().out + "\np: 0/3 (0.000)\n")
    for part in ("6 tokens", "tok/s", "loaded in", "peak memory", "logits finite", "text not degenerate"):
        assert part in captured.err


def test_perplexity_is_of_files_and_of_texts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "text.txt"
    path.write_text("some words")
    found = as_json(capsys, str(folder / "a"), perplexity=[path, path], perplexity_text=["some words", "other words"])[
        "perplexity"
    ]
    values = [text["value"] for text in found]
    assert values[0] == values[1] == values[2] != values[3]
    assert [text["name"] for text in found] == [str(path), str(path), "'some words'", "'other words'"]
    assert {(text["tokens"], text["window"], text["stride"], text["context"]) for text in found} == {
        (11, 128, 64, 128),
        (12, 128, 64, 128),
    }
    with pytest.raises(InputError, match="no text"):
        generate(str(folder / "a"), perplexity_text=[" "])


def test_how_a_text_was_read_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(str(folder / "a"), perplexity_text=["short", "long " * 60], device="cpu")
    short, long = capsys.readouterr().out.splitlines()
    assert short.startswith("'short': perplexity ") and short.endswith("(6 tokens in one window)")
    assert long.endswith("(301 tokens, window 128, stride 64)")


def test_a_misspelt_file_is_no_text(folder: Path) -> None:
    with pytest.raises(InputError, match="cannot read the text: No such file"):
        generate(str(folder / "a"), perplexity=[folder / "txet.txt"])


def test_without_a_request_a_short_prompt_is_used_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(str(folder / "a"), n=2, device="cpu")
    assert repr(DEFAULT_PROMPT) in capsys.readouterr().err
    generate(str(folder / "bare"), device="cpu")
    assert "no tokenizer files" in capsys.readouterr().err


class TestChat:
    """A prompt is a message where the tokenizer has a chat template."""

    def test_the_template_is_used_unless_raw(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        chat = as_json(capsys, str(folder / "chat"), prompt="Hi", n=8)
        raw = as_json(capsys, str(folder / "chat"), prompt="Hi", n=8, raw=True)
        by_hand = as_json(capsys, str(folder / "chat"), prompt="user: Hi|assistant: ", n=8, raw=True)
        assert (chat["chat"], raw["chat"]) == (True, False) and chat["text"] == by_hand["text"] != raw["text"]
        system = as_json(capsys, str(folder / "chat"), prompt="Hi", n=8, system="Be brief.")
        asked = "system: Be brief.|user: Hi|assistant: "
        assert system["text"] == as_json(capsys, str(folder / "chat"), prompt=asked, n=8, raw=True)["text"]
        assert as_json(capsys, str(folder / "a"), prompt="Hi", n=8)["chat"] is False
        assert as_json(capsys, str(folder / "chat"), perplexity_text=["a text"])["chat"] is None

    def test_the_default_prompt_is_a_message(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        generate(str(folder / "chat"), n=2, device="cpu")
        err = capsys.readouterr().err
        assert repr(DEFAULT_MESSAGE) in err and "chat template" in err
        generate(str(folder / "chat"), n=2, device="cpu", raw=True)
        err = capsys.readouterr().err
        assert repr(DEFAULT_PROMPT) in err and "raw text" in err

    def test_an_answer_without_a_token_says_so(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        from surgeon.checkpoint import open_checkpoint
        from surgeon.probe.generate import Generation, tokens
        from surgeon.probe.subject import from_checkpoint

        silent = folder / "silent"
        subject = from_checkpoint(open_checkpoint(str(chat_model(silent))), "cpu")
        (first,) = tokens(subject, subject.encode_chats([("Hi", None)])[0], 1, Generation())
        (silent / "generation_config.json").write_text(json.dumps({"eos_token_id": first}))
        generate(str(silent), prompt="Hi", device="cpu")
        err = capsys.readouterr().err
        assert "ended at once: end of text" in err and "tok/s" not in err and "degenerate" not in err
        found = as_json(capsys, str(silent), prompt="Hi")
        assert (found["text"], found["tokens"], found["stop"]) == ("", 0, "eos")

    @pytest.mark.parametrize(
        ("target", "options", "message"),
        [
            ("chat", {"raw": True, "system": "s"}, "--system has no meaning with --raw"),
            ("a", {"system": "s", "prompt": "Hi"}, "--system needs a chat template"),
            ("chat", {"top_p": 0.5}, "--top-p has no meaning at temperature 0"),
        ],
    )
    def test_what_has_no_effect_is_refused(
        self, target: str, options: dict[str, Any], message: str, folder: Path
    ) -> None:
        with pytest.raises(InputError, match=message):
            generate(str(folder / target), device="cpu", **options)


def test_a_text_that_is_too_large_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from surgeon.probe import requests

    monkeypatch.setattr(requests, "MAX_TEXT", 10)
    (folder / "long.txt").write_text("more than ten bytes")
    with pytest.raises(InputError, match="larger than 10 B"):
        generate(str(folder / "a"), perplexity=[folder / "long.txt"])


def test_events_are_lines_of_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(str(folder / "a"), prompt="Hi", n=3, probe=[folder / "p.jsonl"], device="cpu", events=True)
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events[:3] == ["loading", "loaded", "token"] and events[-2:] == ["probe", "done"]
    with pytest.raises(InputError):
        generate(str(folder / "bare"), prompt="Hi", events=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "error"


def test_control_characters_are_made_visible_but_tabs_and_newlines_kept(capsys: pytest.CaptureFixture[str]) -> None:
    _show_text("a\tb\n\x1b[31mc\u202e")
    assert capsys.readouterr().out == "a\tb\n\\x1b[31mc\\u202e"


def test_logits_that_are_not_finite_are_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = load_file(folder / "a" / "model.safetensors")
    state["model.norm.weight"] = torch.full_like(state["model.norm.weight"], torch.inf)
    broken = tiny_tokenizer(tiny_model(folder / "broken"))
    save_file(state, broken / "model.safetensors", {"format": "pt"})
    for options in ({"prompt": "Hi"}, {"perplexity_text": ["Hi there"]}):
        with pytest.raises(SurgeonError, match="not finite") as caught:
            as_json(capsys, str(broken), **options)
        assert caught.value.exit_code == 1
        assert json.loads(capsys.readouterr().out)["finite"] is False


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("bare", {"prompt": "Hi"}, "no tokenizer files"),
        ("a", {"device": "tpu"}, "'tpu' is not a device"),
        ("nowhere", {}, "no checkpoint"),
        ("a", {"probe": [Path("none.jsonl")]}, "cannot read the probe set"),
        ("a", {"sets": ["a=b"]}, "--set belongs to a recipe"),
        ("bad.yml", {}, "1 error"),
    ],
)
def test_bad_input_is_named(
    target: str, options: dict[str, Any], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.yml").write_text("slices:\n  - sources: [{model: ./a, layer_range: [0, 9]}]\n")
    with pytest.raises(InputError, match=message):
        generate(str(folder / target), **options)
    assert target != "bad.yml" or "error: " in capsys.readouterr().err


def test_importing_the_verb_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, surgeon.cli.generate, surgeon.probe.requests\n"
        "import surgeon.probe.resident_child, surgeon.probe.subject\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
