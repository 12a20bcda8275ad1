"""`surgeon inspect`: one checkpoint, several side by side, one layer, every tensor, JSON, downloads, errors."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint import download, open_checkpoint
from surgeon.checkpoint.summary import summarise
from surgeon.cli.app import run
from surgeon.cli.table import Style, TableRow, cells, say, table, wrap
from surgeon.errors import InputError
from tests.support.sparse import (
    LLAMA3_8B,
    LLAMA3_70B,
    MISTRAL_7B,
    TINY,
    llama_tensors,
    sparse_checkpoint,
    sparse_llama,
    write_tokenizer,
)

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ud800-\udfff]")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def shown(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> tuple[str, str]:
    assert run(["inspect", *map(str, args)]) == code
    return capsys.readouterr()


def facts(text: str) -> dict[str, str]:
    """Label -> value of a table with one column of values."""
    return {line[:13].strip(): line[13:].strip() for line in text.splitlines()}


def rows(text: str) -> dict[str, tuple[bool, list[str]]]:
    """Label -> (marked, cells) of the table under the list of donors."""
    found = {}
    for line in text.split("\n\n", 1)[1].splitlines():
        label, *values = re.split(r"\s{2,}", line[2:].strip())
        found[label] = (line.startswith("≠"), values)
    return found


def test_everything_a_person_asks_of_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # the path is long
    folder = sparse_llama(tmp_path / "big", **LLAMA3_70B, shards=30, tokenizer=["<unk>", "a", "b"])
    out, err = shown(capsys, folder)
    assert err == ""
    seen = facts(out)
    assert seen == {
        "path": str(folder),
        "architecture": "LlamaForCausalLM (llama)",
        "layers": "80",
        "hidden size": "8192",
        "heads": "64",
        "KV heads": "8",
        "head width": "128",
        "intermediate": "28672",
        "vocabulary": "128256",
        "context": "8192",
        "rope": "theta 500000",
        "tied": "no",
        "dtypes": "BF16",
        "parameters": "70.55B",
        "per layer": "855.7M",
        "embeddings": "1.05B",
        "head": "1.05B",
        "bytes": "141.1 GB",
        "files": "30",
        "tokenizer": seen["tokenizer"],
        "special ids": "bos 1, eos 2",
    }
    assert re.fullmatch(r"[0-9a-f]{12}, 3 tokens", seen["tokenizer"])


def test_what_is_unusual_is_shown_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {
        **llama_tensors(**{**TINY, "layers": 12, "vocab": 80}, tied=True),
        "model.layers.3.mlp.extra": ("F32", (5,)),
        "vision.one": ("F16", (3,)),
        "lm_head.weight": ("BF16", (80, 16)),
    }
    config = {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "num_hidden_layers": 12, "hidden_size": 16,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32, "vocab_size": 64,
        "sliding_window": 512, "num_local_experts": 8, "quantization_config": {"quant_method": "gptq", "bits": 4},
        "eos_token_id": [1, 106],
    }  # fmt: skip
    sparse_checkpoint(tmp_path, spec, config)
    write_tokenizer(tmp_path, ["<unk>"])
    seen = facts(shown(capsys, tmp_path)[0])
    assert seen["attention"] == "5 sliding, 1 full, repeating"
    assert seen["window"] == "512"
    assert seen["vocabulary"] == "64, embedding 80 rows"
    assert seen["head"] == "tied; the stored one is not used"
    assert seen["per layer"] == "2.3k to 2.3k"
    assert seen["dtypes"].startswith("BF16 ") and "F32 20 B" in seen["dtypes"]
    assert seen["other tensors"] == "1: vision.one"
    assert seen["rope"] == "full: theta 1000000; sliding: theta 10000"
    assert seen["quantised"] == "gptq 4-bit"
    assert seen["experts"] == "8" and seen["MLP"] == "experts"
    assert seen["special ids"] == "eos 1 and 106"
    assert "problems" not in seen


def test_without_a_config_the_headers_still_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sparse_llama(tmp_path)
    (tmp_path / "config.json").unlink()
    seen = facts(shown(capsys, tmp_path)[0])
    assert seen["architecture"] == "unknown" and seen["layers"] == "4" and seen["hidden size"] == "16"
    assert seen["heads"] == "-" and seen["parameters"] == "11.4k"
    assert seen["problems"] == "there is no config.json next to the weights"


def test_several_stand_side_by_side_and_differences_are_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = sparse_llama(tmp_path / "a", **LLAMA3_8B)
    b = sparse_llama(tmp_path / "b", **MISTRAL_7B, model_type="mistral", tied=True)
    out, _ = shown(capsys, a, b)
    assert out.startswith(f"A  {a}\nB  {b}\n\n")
    seen = rows(out)
    assert seen["A"] == (False, ["B"])
    assert seen["hidden size"] == (False, ["4096", "4096"])
    assert seen["vocabulary"] == (True, ["128256", "32000"])
    assert seen["tied"] == (True, ["no", "yes"])
    assert seen["attention"] == (True, ["full", "sliding"])
    assert seen["head"] == (True, ["525.3M", "tied to the embeddings"])
    assert "experts" not in seen and "quantised" not in seen


def test_numbers_that_are_rounded_alike_but_differ_are_told_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = sparse_llama(tmp_path / "a", **LLAMA3_8B)
    b = sparse_llama(tmp_path / "b", **{**LLAMA3_8B, "vocab": 128257})
    seen = rows(shown(capsys, a, b)[0])
    assert seen["parameters"] == (True, ["8,030,261,248", "8,030,269,440"])


def test_equal_tokenizers_are_not_marked_and_others_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = sparse_llama(tmp_path / "a", tokenizer=["<unk>", "a"])
    b = sparse_llama(tmp_path / "b", tokenizer=["<unk>", "a"])
    c = sparse_llama(tmp_path / "c", tokenizer=["<unk>", "b"])
    (b / "tokenizer.json").write_text(json.dumps(json.loads((b / "tokenizer.json").read_text())))
    assert "≠ tokenizer" not in shown(capsys, a, b)[0]
    assert "≠ tokenizer" in shown(capsys, b, c)[0]


def test_many_donors_wrap_into_blocks_within_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [sparse_llama(tmp_path / f"m{n}", **{**TINY, "layers": n + 1}) for n in range(7)]
    out, _ = shown(capsys, *folders)
    table_text = out.split("\n\n", 1)[1]
    assert max(len(line) for line in table_text.splitlines()) <= 80
    heads = [line.split() for line in table_text.splitlines() if re.fullmatch(r"[A-G ]+", line)]
    assert heads == [["A", "B", "C"], ["D", "E", "F"], ["G"]]
    assert [line.split() for line in re.findall(r"≠ layers +(.*)", out)] == [["1", "2", "3"], ["4", "5", "6"], ["7"]]


def test_a_wide_terminal_has_them_all_in_one_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folders = [sparse_llama(tmp_path / f"m{n}") for n in range(7)]
    assert shown(capsys, *folders)[0].count("hidden size") == 1


def test_one_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sparse_llama(tmp_path, **LLAMA3_8B, model_type="mistral", extra_config={"sliding_window": 512})
    out, _ = shown(capsys, folder, "--layer", "3")
    seen = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in out.splitlines())
    assert seen["layer"] == "3 of 32" and seen["attention"] == "sliding" and seen["window"] == "512"
    assert seen["bytes"] == "436.2 MB" and seen["MLP"] == "dense"
    assert seen["self_attn.k_proj.weight"] == "BF16 1024 x 4096  8.4 MB"
    assert len(seen) == 6 + 9


def test_one_layer_of_several_marks_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = sparse_llama(tmp_path / "a", bias=True)
    b = sparse_llama(tmp_path / "b", dtype="F16")
    c = sparse_llama(tmp_path / "c", intermediate=48)
    monkeypatch.setenv("COLUMNS", "120")
    seen = rows(shown(capsys, a, b, c, "--layer", "1")[0])
    assert seen["self_attn.q_proj.bias"] == (True, ["BF16 16", "-", "-"])
    assert seen["mlp.up_proj.weight"] == (True, ["BF16 32 x 16", "F16 32 x 16", "BF16 48 x 16"])
    assert seen["attention"] == (False, ["full", "full", "full"])
    same = rows(shown(capsys, a, a, "--layer", "1")[0])
    assert not any(marked for marked, _ in same.values())


def test_a_layer_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = sparse_llama(tmp_path / "a", layers=2), sparse_llama(tmp_path / "b", layers=4)
    out, err = shown(capsys, a, b, "--layer", "3", code=2)
    assert f"{a}: there is no layer 3. Its layers are 0-1." in err
    assert "B  " in out and "self_attn.q_proj.weight" in out and "A  " not in out
    assert shown(capsys, a, "--layer", "-1", code=2)[0] == ""


def test_every_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sparse_llama(tmp_path, shards=2)
    lines = shown(capsys, folder, "--tensors")[0].splitlines()
    assert len(lines) == 4 * 9 + 3
    assert re.split(r"\s{2,}", lines[0]) == [
        "model.embed_tokens.weight", "BF16", "64 x 16", "2.0 kB", "model-00001-of-00002.safetensors",
    ]  # fmt: skip
    assert lines[-1].startswith("lm_head.weight") and lines[-1].endswith("model-00002-of-00002.safetensors")


def test_a_narrow_terminal_names_each_file_once(tmp_path: Path) -> None:
    from surgeon.cli.inspect_text import Opened, lines

    found = open_checkpoint(str(sparse_llama(tmp_path, shards=2)))
    out = list(lines([Opened("A", "x", found, None)], 1, None, True, Style(terminal=True, width=80)))
    assert [line for line in out if line.startswith("model-0")] == [path.name for path in found.files]
    assert max(map(len, out)) <= 80


KEYS = [
    "ref", "path", "architecture", "model_type", "layers", "hidden_size", "heads", "kv_heads", "head_dim",
    "intermediate_size", "experts", "vocabulary", "embedding_rows", "context", "rope", "attributes", "tied",
    "quantisation", "dtypes", "parameters", "bytes", "files", "tensors", "other_tensors", "tokenizer", "problems",
    "warnings", "what",
]  # fmt: skip


def test_json_is_a_list_with_stable_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sparse_llama(tmp_path, **LLAMA3_8B, shards=2)
    (one,) = json.loads(shown(capsys, folder, "--json")[0])
    assert list(one) == KEYS
    assert one["parameters"] == {
        "total": 8_030_261_248,
        "per_layer": {"min": 218_112_000, "max": 218_112_000},
        "embeddings": 525_336_576,
        "head": 525_336_576,
    }
    assert one["dtypes"] == {"BF16": 16_060_522_496} and one["bytes"] == 16_060_522_496
    assert one["attributes"]["attention"] == [{"value": "full", "first": 0, "last": 31}]
    assert one["tokenizer"] == {"digest": "", "tokens": None, "special": {"bos_token_id": 1, "eos_token_id": 2}}
    assert one["tied"] is False and one["files"] == 2 and one["tensors"] == 291


def test_json_with_details(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sparse_llama(tmp_path)
    one, two = json.loads(shown(capsys, folder, folder, "--json", "--layer", "1", "--tensors")[0])
    assert one == two
    assert one["layer"]["index"] == 1 and one["layer"]["attributes"] == {"attention": "full", "mlp": "dense"}
    assert one["layer"]["tensors"][0] == {
        "name": "input_layernorm.weight", "dtype": "BF16", "shape": [16], "bytes": 32, "file": "model.safetensors",
    }  # fmt: skip
    assert len(one["tensor_list"]) == one["tensors"] == 39


def test_json_stays_json_when_a_config_holds_numbers_that_json_does_not_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sparse_llama(tmp_path, extra_config={"rope_theta": float("inf"), "eos_token_id": [float("nan")]})

    def refuse(name: str) -> Any:
        raise AssertionError(name)

    (one,) = json.loads(shown(capsys, folder, "--json")[0], parse_constant=refuse)
    assert one["rope"]["theta"] == "inf"


def test_one_that_fails_does_not_hide_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = sparse_llama(tmp_path / "good")
    bad = sparse_llama(tmp_path / "bad")
    (bad / "model.safetensors").write_bytes(b"xx")
    out, err = shown(capsys, bad, good, tmp_path / "none", code=2)
    assert out.startswith(f"B  {good}\n") and "hidden size" in out
    first, second = err.splitlines()
    assert first.startswith(f"surgeon: {bad / 'model.safetensors'}: the file is truncated")
    assert "there is no checkpoint at" in second
    out, err = shown(capsys, bad, good, "--json", code=2)
    one, two = json.loads(out)
    assert one == {"ref": str(bad), "error": one["error"]} and "truncated" in one["error"]
    assert two["layers"] == 4 and "truncated" in err


def test_names_with_control_characters_never_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;own\x07\u202e\x9b2J"
    spec = {**llama_tensors(**TINY), f"model.layers.0.{evil}": ("F32", (1,)), f"{evil}\nspoof": ("F32", (1,))}
    config = {
        "architectures": [evil], "model_type": evil, "num_hidden_layers": 4, "rope_scaling": {evil: evil},
        "eos_token_id": evil, "layer_types": [evil] * 4, "quantization_config": {"quant_method": evil},
        "rope_theta": [evil] * 2,
    }  # fmt: skip
    folder = sparse_checkpoint(tmp_path / f"a{evil}", spec, config)
    for options in ([], ["--layer", "0"], ["--tensors"], ["--json", "--tensors", "--layer", "0"]):
        for paths in ([folder], [folder, folder]):
            out, err = shown(capsys, *paths, *options)
            assert not CONTROL.search(out + err)
            assert not any(line.startswith("spoof") for line in out.splitlines())
            assert "\\x1b]0;own\\x07" in out or "\\u001b]0;own\\u0007" in out


def test_ascii_streams_get_ascii(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import io

    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    style = Style.of(stream)
    for line in table([TableRow("tied", ("yes", "no")), TableRow("name", ("é", "é"))], ["A", "B"], style):
        say(line, stream)
    stream.flush()
    text = raw.getvalue().decode("ascii")
    assert "!= tied" in text and "\\xe9" in text


class Tty:
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("env", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    env: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    style = Style.of(Tty())  # type: ignore[arg-type]
    assert style.colour is colour
    out = "\n".join(table([TableRow("a", ("1", "2"))], ["A", "B"], style))
    assert ("\x1b[1m" in out) is colour


@pytest.mark.parametrize(
    "text", ["", "a", "a b", "x" * 50, "one two three four five", "a/b/c/d_e.f-g, h", "漢字" * 9, "é" * 30]
)
@pytest.mark.parametrize("width", [1, 2, 7, 20])
def test_wrapping_never_cuts(text: str, width: int) -> None:
    lines = wrap(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(cells(line) <= max(width, 2) for line in lines)


def test_a_tokenizer_that_cannot_be_read_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sparse_llama(tmp_path)
    (folder / "tokenizer.json").write_text("{")
    seen = facts(shown(capsys, folder)[0])
    assert seen["tokenizer"] == "unreadable" and "tokenizer cannot be read" in seen["warnings"]


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        ("ffff", "full"), ("sfsf", "1 sliding, 1 full, repeating"), ("ssfssfss", "2 sliding, 1 full, repeating"),
        ("sssf", "sliding 0-2, full 3"), ("fsssss", "full 0, sliding 1-5"),
        ("sfssfsssfssssfsss", "full 1, 4, 8, 13; else sliding"),
    ],
)  # fmt: skip
def test_layers_that_differ_are_told_in_a_few_words(tmp_path: Path, kinds: str, text: str) -> None:
    names = [{"f": "full_attention", "s": "sliding_attention"}[kind] for kind in kinds]
    config = {"layer_types": names, "sliding_window": 8}
    folder = sparse_llama(tmp_path, layers=len(kinds), model_type="gemma2", extra_config=config)
    attention = summarise(open_checkpoint(str(folder))).attributes[0]
    assert attention.name == "attention" and attention.text() == text


# --- downloads


class FakeHub(types.ModuleType):
    """Stands in for huggingface_hub: a repository that downloads into the cache, or an error."""

    def __init__(self, files: list[str], error: Exception | None = None, into: Path | None = None) -> None:
        super().__init__("huggingface_hub")
        self.files, self.error, self.into = files, error, into
        self.calls: list[tuple[str, str | None, list[str]]] = []
        hub = self

        class HfApi:
            def model_info(self, name: str, revision: str | None = None) -> Any:
                if hub.error:
                    raise hub.error
                siblings = [types.SimpleNamespace(rfilename=file) for file in hub.files]
                return types.SimpleNamespace(siblings=siblings)

        self.HfApi = HfApi

    def snapshot_download(self, name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.calls.append((name, revision, allow_patterns))
        assert self.into is not None
        snapshot = self.into / f"models--{name.replace('/', '--')}" / "snapshots" / "c0ffee"
        sparse_llama(snapshot, layers=6)
        refs = snapshot.parent.parent / "refs"
        refs.mkdir()
        (refs / (revision or "main")).write_text("c0ffee")
        return str(snapshot)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    fake = FakeHub(["config.json", "model.safetensors", "tokenizer.json", "README.md"], into=tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def test_nothing_is_downloaded_by_itself(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = shown(capsys, "org/model", code=2)
    assert "fetch it with `surgeon inspect --download org/model`" in err.replace("Fetch", "fetch")
    assert hub.calls == []


@pytest.mark.parametrize(("ref", "revision"), [("org/model", None), ("org/model@v2", "v2")])
def test_download_fetches_what_is_missing(
    hub: FakeHub, ref: str, revision: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = shown(capsys, ref, "--download")
    assert facts(out)["layers"] == "6" and facts(out)["name"] == ref
    assert hub.calls == [("org/model", revision, ["config.json", "model.safetensors", "tokenizer.json"])]
    shown(capsys, ref, "--download")
    assert len(hub.calls) == 1


def test_download_leaves_folders_alone(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert "holds no safetensors" in shown(capsys, "org/model", "--download", code=2)[1]
    assert "there is no checkpoint at" in shown(capsys, "./nowhere", "--download", code=2)[1]
    assert hub.calls == []


def named_error(name: str, text: str = "x") -> Exception:
    return type(name, (Exception,), {})(text)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (named_error("RepositoryNotFoundError"), "the Hub has no such model, or it is private"),
        (named_error("GatedRepoError"), "its owner grants access on request"),
        (named_error("RevisionNotFoundError"), "the Hub has no such revision of it"),
        (OSError("[Errno -3] Temporary failure in name resolution\nmore"), "Temporary failure in name resolution"),
        (named_error("ConnectError", ""), "because ConnectError"),
    ],
)
def test_a_failed_download_is_one_sentence(
    hub: FakeHub, error: Exception, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.error = error
    _, err = shown(capsys, "org/model", "--download", code=1)
    assert err.startswith("surgeon: cannot download org/model, because") and sentence in err
    assert len(err.splitlines()) == 1


def test_a_repository_of_pickles_is_refused_before_a_byte_is_fetched(hub: FakeHub) -> None:
    hub.files = ["config.json", "pytorch_model.bin"]
    with pytest.raises(InputError, match="pickles"):
        download.fetch("org/model")
    assert hub.calls == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["config.json", "model.safetensors", "pytorch_model.bin", "modeling_x.py", "vocab.json", "merges.txt",
             "onnx/model.onnx", "original/consolidated.00.safetensors", "tokenizer.model", "README.md",
             ".gitattributes",
             "chat_template.jinja", "../x.safetensors", "training_args.bin", "model.fp16.safetensors"],
            ["chat_template.jinja", "config.json", "merges.txt", "model.safetensors", "tokenizer.model", "vocab.json"],
        ),
        (
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
             "consolidated.safetensors", "params.json", "tekken.json"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
             "params.json", "tekken.json"],
        ),
        (["weights.safetensors"], ["weights.safetensors"]),
        (["pytorch_model.bin", "evil.py"], []),
    ],
)  # fmt: skip
def test_only_safetensors_json_and_tokenizers_are_wanted(files: list[str], expected: list[str]) -> None:
    assert download.wanted(files) == expected


def test_a_download_without_a_network_is_one_sentence(tmp_path: Path) -> None:
    """The real library, sent to a port where nobody listens."""
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path)}
    command = [sys.executable, "-m", "surgeon", "inspect", "org/model", "--download"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("surgeon: cannot download org/model, because")
