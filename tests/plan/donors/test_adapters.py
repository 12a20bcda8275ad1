"""Adapters as donors of a recipe, end to end: `model+adapter`, and adapters alone against the base."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.plan.donors.open_donors import rebased
from surgeon.recipe.document import parse
from tests.support.adapters import low_rank, write_adapter
from tests.support.assembling import assemble, contents
from tests.support.blending import donors, merged, plan_of, stored
from tests.support.planning import found

MODULE = "model.layers.1.mlp.up_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    donors(tmp_path, ("base", "other"))
    write_adapter(tmp_path / "lora", low_rank(MODULE, 12, 8), base_model_name_or_path=str(tmp_path / "base"))
    write_adapter(tmp_path / "second", low_rank("model.layers.2.self_attn.q_proj", 8, 8, seed=9))
    return tmp_path


def expected(folder: Path, adapter: str, module: str) -> object:
    from safetensors.torch import load_file

    pieces = load_file(folder / adapter / "adapter_model.safetensors")
    down, up = (pieces[f"base_model.model.{module}.lora_{half}.weight"].double() for half in "AB")
    return (stored(folder, "base")[f"{module}.weight"].double() + 2 * up @ down).float()


@pytest.mark.parametrize("ref", ["base+lora", "lora"])
def test_a_model_with_an_adapter_is_copied_but_for_what_the_adapter_changes(folder: Path, ref: str) -> None:
    plan = plan_of(folder, f"slices: [{{sources: [{{model: {ref}, layer_range: [0, 4]}}]}}]\n")
    tensors = merged(plan)
    base = stored(folder, "base")
    assert tensors[f"{MODULE}.weight"].allclose(expected(folder, "lora", MODULE), atol=1e-6)  # type: ignore[arg-type]
    assert all(tensors[name].equal(base[name]) for name in base if name != f"{MODULE}.weight")


def test_adapters_alone_are_merged_against_the_base(folder: Path) -> None:
    text = "merge_method: ties\nbase_model: base\nmodels:\n- {model: lora}\n- {model: second}\n"
    text += "parameters: {weight: 1, density: 1}\n"
    plan = plan_of(folder, text)
    tensors = merged(plan)
    assert tensors[f"{MODULE}.weight"].allclose(expected(folder, "lora", MODULE), atol=1e-6)  # type: ignore[arg-type]
    other = "model.layers.2.self_attn.q_proj"
    assert tensors[f"{other}.weight"].allclose(expected(folder, "second", other), atol=1e-6)  # type: ignore[arg-type]
    assemble(plan, folder / "out", fsync=False)
    assert len(contents(folder / "out")) == len(tensors)


def test_an_adapter_that_does_not_fit_is_told_with_its_first_tensor(folder: Path) -> None:
    write_adapter(folder / "wide", low_rank(MODULE, 12, 10))
    finding = found(plan_of(folder, "slices: [{sources: [{model: base+wide, layer_range: [0, 4]}]}]\n"), "donor")
    assert MODULE in finding.what
    assert finding.line == 1
    lost = found(plan_of(folder, "slices: [{sources: [{model: second, layer_range: [0, 4]}]}]\n"), "donor")
    assert "org/base" in lost.what


def test_saving_elsewhere_keeps_both_halves(folder: Path) -> None:
    document = parse("slices: [{sources: [{model: base+lora, layer_range: [0, 4]}]}]\n", folder / "recipe.yml")
    (folder / "deeper").mkdir()
    assert "../base+../lora" in rebased(document, document.roots, folder / "deeper" / "recipe.yml").text
