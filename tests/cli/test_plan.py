"""`surgeon plan`: what it prints, as text and as JSON, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from surgeon.cli.app import run
from tests.support.planning import stack_of
from tests.support.sparse import sparse_llama

GOOD = stack_of(("a", 0, 3), ("b", 1, 2), ("a", 2, 4))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sparse_llama(tmp_path / "a")
    sparse_llama(tmp_path / "b")
    (tmp_path / "good.yml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = run(["plan", *args])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, captured.out


def test_the_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = plan(capsys, "good.yml")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "good.yml"
    assert "     LlamaForCausalLM  4 layers  BF16  11.4k" in lines
    assert "stack: 6 layers (ranges with both ends, as on screen)" in lines
    assert "        0-2  A 0-2           3 layers     7.0k" in lines
    assert "          3  B 1              1 layer     2.3k" in lines
    assert "        4-5  A 2-3           2 layers     4.7k" in lines
    assert "  lm_head     A       1.0k" in lines
    assert "  config and tokenizer from A" in lines
    assert "  parameters   16.1k (16,080)" in lines
    assert "  KV cache     192 B per token" in lines
    assert "findings: 1 note" in lines


def test_every_layer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scaled.yml").write_text(GOOD + "  parameters: {scale: [{filter: o_proj, value: 0.5}]}\n")
    code, out = plan(capsys, "scaled.yml", "--layers")
    assert code == 0
    rows = [line.split() for line in out.splitlines() if len(line) > 7 and line[6].isdigit()]
    assert [row[:2] for row in rows] == [
        ["0", "A00"], ["1", "A01"], ["2", "A02"], ["3", "B01"], ["4", "A02"], ["5", "A03"],
    ]  # fmt: skip
    assert " ".join(rows[5]) == "5 A03 2.3k 4.7 kB x0.5 on o_proj"


def test_attributes_are_shown_where_layers_differ(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse_llama(folder / "g", model_type="gemma2", tied=True, extra_config={"sliding_window": 4096})
    (folder / "g.yml").write_text(stack_of(("g", 0, 4)))
    _, out = plan(capsys, "g.yml", "--layers")
    assert "sliding 4,096" in out
    assert "lm_head A tied: the embedding" in [" ".join(line.split()) for line in out.splitlines()]


def test_errors_end_with_2_and_everything_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = stack_of(("a", 0, 3), ("gone", 1, 2), ("a", 2, 9)) + "dtpye: float16\n"
    (folder / "bad.yml").write_text(text)
    code, out = plan(capsys, "bad.yml")
    assert code == 2
    assert max(map(len, out.splitlines())) <= 80
    assert "findings: 3 errors" in out
    flat = " ".join(out.split())
    assert "error line 6 The key `dtpye` is not known: it would have no effect. Did you mean `dtype`?" in flat
    assert "error line 4 Donor B cannot be opened: there is no checkpoint at gone" in flat
    assert "End it at 4. (layer 6-10)" in flat
    assert "missing" in out


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "scaled.yml").write_text(GOOD + "  parameters: {scale: [{filter: o_proj, value: 0.5}]}\n")
    code, out = plan(capsys, "scaled.yml", "--json", "--shard-size", "4kB")
    assert code == 0
    document: dict[str, Any] = json.loads(out)
    assert document["ok"] is True
    assert [(d["letter"], d["ref"], d["layers"]) for d in document["donors"]] == [("A", "a", 4), ("B", "b", 4)]
    assert [layer["label"] for layer in document["layers"]] == ["A00", "A01", "A02", "B01", "A02", "A03"]
    last = document["layers"][5]
    assert last["sources"] == [{"donor": "A", "layer": 3}]
    assert last["scaled"] == {"self_attn.o_proj.weight": 0.5}
    assert last["attributes"]["attention"] == "full"
    assert last["bytes"] == 2 * last["parameters"]
    assert document["ends"]["lm_head"] == {
        "donor": "A",
        "how": "copied",
        "donors": ["A"],
        "parameters": 1024,
        "bytes": 2048,
    }
    assert document["config"]["num_hidden_layers"] == 6
    assert document["config_donor"] == "A"
    assert document["estimates"]["parameters"] == sum(x["parameters"] for x in document["layers"]) + 2 * 1024 + 16
    assert document["estimates"]["shards"] > 3
    assert document["needs_arithmetic"] is True
    (finding,) = document["findings"]
    assert set(finding) == {"severity", "code", "what", "why", "remedy", "layers", "line"}


def test_a_blend_of_more_donors_than_fit_on_a_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = "{model: a, layer_range: [0, 2], parameters: {weight: 1}}"
    (folder / "wide.yml").write_text(f"merge_method: linear\nslices: [{{sources: [{', '.join([source] * 30)}]}}]\n")
    for words in ([], ["--layers"]):
        code, out = plan(capsys, "wide.yml", *words)
        assert code == 0
        assert sum(line.strip() == "linear" for line in out.splitlines()) == (2 if words else 1)


def test_json_stays_json_when_a_config_holds_numbers_that_json_does_not_have(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse_llama(folder / "a", extra_config={"initializer_range": float("inf"), "other": [float("nan")]})
    _, out = plan(capsys, "good.yml", "--json")

    def no(name: str) -> Any:
        raise AssertionError(f"{name} is not JSON")

    config = json.loads(out, parse_constant=no)["config"]
    assert (config["initializer_range"], config["other"]) == ("inf", ["nan"])


def test_json_of_a_recipe_with_errors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yml").write_text(stack_of(("gone", 0, 3)))
    code, out = plan(capsys, "bad.yml", "--json")
    assert code == 2
    document = json.loads(out)
    assert document["ok"] is False
    assert document["config"] is None
    assert [layer["label"] for layer in document["layers"]] == ["A00", "A01", "A02"]


def test_donors_can_be_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "hub.yml").write_text(stack_of(("org/one", 0, 3), ("org/two", 0, 3)))
    assert plan(capsys, "hub.yml")[0] == 2
    assert plan(capsys, "hub.yml", "--set", "a=a", "--set", "two=b")[0] == 0
    assert run(["plan", "hub.yml", "--set", "c=a"]) == 2
    assert "donors: A org/one, B org/two" in capsys.readouterr().err


def test_lines_of_findings_are_those_of_the_users_file_whatever_is_set(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "hub.yml").write_text("# one\n# two\n" + stack_of(("org/one", 0, 3), ("a", 0, 9)))
    _, out = plan(capsys, "hub.yml", "--set", "A=b", "--json")
    assert [finding["line"] for finding in json.loads(out)["findings"] if finding["severity"] == "error"] == [6]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("slices: [", "line 1"), ("slices: 3\n", "slices is wrong"), (None, "cannot read the recipe")],
)
def test_a_file_that_is_no_recipe(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str | None, sentence: str
) -> None:
    if text is not None:
        (folder / "x.yml").write_text(text)
    assert run(["plan", "x.yml"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert "Traceback" not in captured.err


def test_names_cannot_drive_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "evil.yml").write_text('"k\\e[31m": 1\n' + stack_of(('"a\\e]0;x\\a"', 0, 3)))
    code, out = plan(capsys, "evil.yml")
    assert code == 2
    assert "\x1b" not in out
    assert "\\x1b" in out
