"""`export --mergekit` of every kind of donor that a recipe can name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from surgeon.cli.app import run
from surgeon.recipe.document import load
from tests.support.adapters import low_rank, write_adapter
from tests.support.models import tiny_model, tiny_tokenizer

MODULE = "model.layers.1.mlp.up_proj"
ENTRY = "- {{model: {}, parameters: {{weight: 0.5}}}}\n"
LINEAR = "merge_method: linear\ndtype: float32\nmodels:\n"

RECIPES = {
    "plain": LINEAR + ENTRY.format("a") + ENTRY.format("b"),
    "base and adapter": LINEAR + ENTRY.format("a+lora") + ENTRY.format("b"),
    "adapter alone": LINEAR + ENTRY.format("lora") + ENTRY.format("a") + "base_model: a\n",
    "several adapters": LINEAR + ENTRY.format("lora") + ENTRY.format("lora2") + "base_model: a\n",
    "adapter with its own base": LINEAR + ENTRY.format("own") + ENTRY.format("b"),
    "adapter as tokenizer's source": LINEAR + ENTRY.format("lora") + ENTRY.format("a")
    + "base_model: a\ntokenizer: {source: lora, pad_to_multiple_of: 64}\n",
    "lone file": LINEAR + ENTRY.format("a/model.safetensors") + ENTRY.format("b"),
    "stage with an adapter": "name: s\nbase_model: a\n" + LINEAR + ENTRY.format("lora") + ENTRY.format("a") + "---\n"
    + LINEAR + ENTRY.format("s") + ENTRY.format("b"),
}  # fmt: skip


@pytest.fixture(scope="module")
def donors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    for seed, name in enumerate(("a", "b")):
        tiny_tokenizer(tiny_model(folder / name, "llama", 2, seed=seed))
    for seed, name in enumerate(("lora", "lora2", "own")):
        base = str(folder / "b") if name == "own" else None
        # peft, which mergekit uses, applies nothing without target_modules.
        settings = {"base_model_name_or_path": base, "target_modules": ["up_proj"], "task_type": "CAUSAL_LM"}
        write_adapter(folder / name, low_rank(MODULE, 64, 32, seed=seed), **settings)
    return folder


@pytest.fixture
def here(donors: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(donors)
    return donors


def exported(here: Path, name: str) -> Path:
    (here / "r.yml").write_text(RECIPES[name])
    assert run(["export", "r.yml", "--mergekit", "-o", "x.yml"]) == 0
    return here / "x.yml"


@pytest.mark.parametrize(
    ("name", "refs"),
    [
        ("plain", ["a", "b"]),
        ("base and adapter", ["a+lora", "b"]),
        ("adapter alone", ["a+lora", "a"]),
        ("several adapters", ["a+lora", "a+lora2", "a"]),
        ("adapter with its own base", ["b+own", "b"]),
        ("lone file", ["a", "b"]),
    ],
)
def test_donors_are_named_as_mergekit_takes_them(
    name: str, refs: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [ref.replace(f"{here}/", "") for ref in load(exported(here, name)).model_refs]
    assert found == refs
    assert ("--lora-merge-cache" in capsys.readouterr().err) == any("+" in ref for ref in refs)


def test_an_adapter_of_a_stage_and_one_that_gives_the_tokenizer(here: Path) -> None:
    document = load(exported(here, "stage with an adapter"))
    assert document.stages[0].recipe.models is not None
    assert document.stages[0].recipe.models[0].model == "a+lora"
    settings = load(exported(here, "adapter as tokenizer's source")).recipe.tokenizer
    assert settings is not None and settings.source == "a+lora"


def test_what_mergekit_cannot_read_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "two").mkdir(exist_ok=True)
    for name in ("one.safetensors", "other.safetensors"):
        shutil.copy(here / "a" / "model.safetensors", here / "two" / name)
    shutil.copy(here / "a" / "config.json", here / "two")
    for ref, sentence in (("two/one.safetensors", "mergekit reads folders"), ("lora", "which already has an adapter")):
        base = "base_model: a+lora2\n" if ref == "lora" else ""
        (here / "r.yml").write_text(LINEAR + ENTRY.format(ref) + ENTRY.format("b") + base)
        assert run(["export", "r.yml", "--mergekit"]) == 2
        assert sentence in capsys.readouterr().err


@pytest.mark.skipif("MERGEKIT" not in os.environ, reason="MERGEKIT names no folder with mergekit's commands")
@pytest.mark.parametrize("name", RECIPES)
def test_mergekit_runs_what_is_exported(name: str, here: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    recipe, bin_ = exported(here, name), Path(os.environ["MERGEKIT"])
    options = ["--lora-merge-cache", str(tmp_path / "cache"), "--no-write-model-card"]
    words = [str(recipe), str(tmp_path / "theirs"), *options]
    command = [str(bin_ / "mergekit-yaml"), *words]
    if "---" in RECIPES[name]:
        words = [str(recipe), "-I", str(tmp_path / "between"), "--out-path", str(tmp_path / "theirs"), *options]
        command = [str(bin_ / "mergekit-multi"), *words]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert run(["assemble", "r.yml", str(tmp_path / "mine"), "--no-check", "--no-fsync", "--quiet"]) == 0
    mine = load_file(tmp_path / "mine" / "model.safetensors")
    shards = [load_file(path) for path in sorted((tmp_path / "theirs").glob("*.safetensors"))]
    theirs = {key: tensor for shard in shards for key, tensor in shard.items()}
    assert mine.keys() == theirs.keys()
    # It rounds the model that it bakes an adapter into.
    limit = 5e-3 if "lora" in RECIPES[name] or "own" in RECIPES[name] else 2e-5
    if "tokenizer" in RECIPES[name]:
        # Rows of padding mean nothing: surgeon keeps the donors', mergekit makes them anew.
        tokens = len(json.loads((here / "a" / "tokenizer.json").read_text())["model"]["vocab"])
        for table in (mine, theirs):
            table |= {key: tensor[:tokens] for key, tensor in table.items() if tensor.shape[0] > tokens}
    assert max(float((mine[key].double() - theirs[key].double()).abs().max()) for key in mine) < limit
