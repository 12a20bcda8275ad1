"""The search for checkpoints nearby."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from surgeon.checkpoint import nearby
from surgeon.checkpoint.nearby import find_models
from tests.support.sparse import sparse_llama


def _model(folder: Path) -> None:
    sparse_llama(folder, layers=3, hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)


def _found(*folders: Path, hub: bool = False) -> dict[str, nearby.FoundModel]:
    return {model.ref: model for model in find_models(folders, hub=hub)}


def test_family_layers_and_size(tmp_path: Path) -> None:
    _model(tmp_path / "a")
    (model,) = _found(tmp_path).values()
    size = sum(path.stat().st_size for path in (tmp_path / "a").glob("*.safetensors"))
    assert (model.family, model.layers, model.nbytes, model.kind) == ("llama", 3, size, "model")


def test_two_levels_and_no_hidden_folder(tmp_path: Path) -> None:
    for name in ("one/two", "one/two2/three", ".hidden"):
        _model(tmp_path / name)
    assert set(_found(tmp_path)) == {str(tmp_path / "one/two")}


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    _model(tmp_path / "outside/a")
    inside = tmp_path / "inside"
    _model(inside / "b")
    (inside / "link").symlink_to(tmp_path / "outside/a")
    (inside / "up").symlink_to(tmp_path)
    (inside / "again").symlink_to(inside / "b")
    assert len(_found(inside)) == 1


def test_each_model_once_and_no_more_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        _model(tmp_path / str(number))
    assert len(_found(tmp_path, tmp_path)) == 4
    monkeypatch.setattr(nearby, "MAX_FOUND", 2)
    assert len(_found(tmp_path)) == 2


def test_the_entries_that_are_read_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (tmp_path / f"{number:02d}.txt").touch()
    _model(tmp_path / "z")
    monkeypatch.setattr(nearby, "MAX_ENTRIES", 10)
    assert not _found(tmp_path)


@pytest.mark.parametrize("config", ["[]", "{", '{"model_type": 5, "num_hidden_layers": "many"}', "[" * 5000])
def test_a_config_that_is_no_config(tmp_path: Path, config: str) -> None:
    _model(tmp_path / "a")
    (tmp_path / "a/config.json").write_text(config)
    (model,) = _found(tmp_path).values()
    assert (model.family, model.layers) == ("", 0)


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora/adapter_model.safetensors").write_bytes(b"x")
    (tmp_path / "lora/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base\x1b[2J"}))
    (model,) = _found(tmp_path).values()
    assert model.kind == "adapter"
    assert model.family.startswith("org/base")
    assert "\x1b" not in model.family


def test_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub/models--org--tiny"
    _model(repo / "snapshots/abc123")
    assert not _found(hub=True)  # without a main revision its id opens nothing
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("abc123")
    assert set(_found(hub=True)) == {"org/tiny"}


def test_main_prints_lines_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _model(tmp_path / "a")
    nearby.main([str(tmp_path)])
    assert json.loads(capsys.readouterr().out)["ref"] == str(tmp_path / "a")


def test_weights_that_are_no_regular_file_are_not_listed(tmp_path: Path) -> None:
    for name in ("pipe", "sound"):
        _model(tmp_path / name)
    (tmp_path / "pipe" / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "pipe" / "model.safetensors")
    assert set(_found(tmp_path)) == {str(tmp_path / "sound")}
