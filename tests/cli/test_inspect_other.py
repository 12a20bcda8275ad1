"""`surgeon inspect` of what is no checkpoint or no decoder: adapters, GGUF files, encoders, the Hub cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from surgeon.cli.app import run
from tests.checkpoint.test_gguf_header import GOOD
from tests.support.adapters import low_rank, write_adapter
from tests.support.sparse import sparse_llama
from tests.support.tui import app, donors, keys


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def _lora(folder: Path) -> Path:
    tensors = low_rank("model.layers.1.self_attn.q_proj", 16, 16) | low_rank("model.layers.3.mlp.up_proj", 32, 16)
    return write_adapter(folder, tensors)


def test_an_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _lora(tmp_path / "lora")
    assert run(["inspect", "lora"]) == 0
    out = capsys.readouterr().out
    for words in (
        "a LoRA adapter",
        "org/base",
        "rank     4",
        "scaled by 2",
        "q_proj (1), up_proj (1)",
        "layers   1, 3",
    ):
        assert words in out
    assert run(["inspect", "lora", "--json"]) == 0
    (data,) = json.loads(capsys.readouterr().out)
    assert (data["what"], data["layers"]) == ("adapter", [1, 3])


def test_an_adapter_that_cannot_be_merged_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_adapter(tmp_path / "lora", low_rank("model.layers.1.self_attn.q_proj", 16, 16), peft_type="IA3")
    assert run(["inspect", "lora"]) == 2
    assert "only LoRA adapters can be merged" in capsys.readouterr().err


def test_a_gguf_file_and_a_folder_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "g").mkdir()
    (tmp_path / "g/m.gguf").write_bytes(GOOD)
    for target in ("g/m.gguf", "g"):
        assert run(["inspect", target]) == 0
        out = capsys.readouterr().out
        assert "a GGUF file, version 3" in out
        assert "layers        4" in out
        assert "\x1b" not in out


def test_beside_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    donors(tmp_path, "a")
    _lora(tmp_path / "lora")
    assert run(["inspect", "a", "lora"]) == 0
    out = capsys.readouterr().out
    assert "LlamaForCausalLM" in out
    assert "a LoRA adapter" in out


@pytest.mark.parametrize(("changes", "words"), [
    ({"is_encoder_decoder": True}, "an encoder-decoder"),
    ({"architectures": ["LlamaModel"]}, "without a language-model head"),
])  # fmt: skip
def test_what_generates_no_text_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], words: str
) -> None:
    donors(tmp_path, "a")
    path = tmp_path / "a/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    if "architectures" in changes:
        from safetensors.torch import load_file, save_file

        file = next((tmp_path / "a").glob("*.safetensors"))
        tensors = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("lm_head")}
        save_file(tensors, file)
    run(["inspect", "a"])
    assert words in capsys.readouterr().out


def test_the_folder_of_a_repository_in_the_hub_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repo = tmp_path / "hub/models--org--tiny"
    sparse_llama(repo / "snapshots/abc", layers=3, hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)
    assert run(["inspect", str(repo)]) == 0
    assert "snapshots/abc" in capsys.readouterr().out.replace("\n", "").replace(" ", "")
    (repo / "snapshots/def").mkdir()
    assert run(["inspect", str(repo)]) == 2
    assert "2 revisions and no main one" in capsys.readouterr().err
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("abc\n")
    assert run(["inspect", str(repo)]) == 0
    assert run(["inspect", str(tmp_path / "hub")]) == 2
    assert "a Hub cache with 1 model" in capsys.readouterr().err


@pytest.mark.asyncio
async def test_a_donor_with_an_adapter_shows_what_it_changes(tmp_path: Path) -> None:
    donors(tmp_path, "a")
    _lora(tmp_path / "lora")
    application = app(["./a+./lora", "./a"])
    async with application.run_test(size=(120, 40)) as pilot:
        await keys(pilot, "j j")
        view = application.surgery.view
        rows = view.donor_panes[0].rows
        assert [row.text.endswith("+1") for row in rows[1:6]] == [False, True, False, True, False]
        _, lines = view.detail_of(view.donor_panes[0])
        text = "\n".join(lines)
        for words in ("base org/base", "rank 4", "changes 1 tensor of this layer: self_attn.q_proj"):
            assert words in text
        await keys(pilot, "j")
        assert "changes nothing in this layer" in "\n".join(view.detail_of(view.donor_panes[0])[1])
        assert not any("+1" in row.text for row in view.donor_panes[1].rows)
