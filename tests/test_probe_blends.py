"""An unwritten blend generates what the assembled one does, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from blending import plan_of
from models import one_thread, tiny_model

from surgeon.assemble import assemble
from surgeon.probe.virtual import build

RECIPES = {
    "slerp": "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: [0, 1]}\n",
    "dare": "merge_method: dare_ties\nbase_model: a\nmodels: [{model: b}, {model: c}]\n"
    "parameters: {weight: 0.5, density: 0.4}\nseed: 3\n",
    "ties over the model": "merge_method: ties\nbase_model: a\nmodels: [{model: b}, {model: c}]\n"
    "parameters: {weight: 0.5, density: 0.4, scope: model}\n",
    "a blended layer twice": "base_model: a\nslices:\n"
    + 2
    * "- {merge_method: linear, sources: [{model: a, layer_range: [1, 2]}, {model: b, layer_range: [1, 2]}], "
    "parameters: {weight: 1}}\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("abc"):
        tiny_model(made / name, layers=3, seed=seed, dtype="bfloat16")
    return made


@pytest.mark.parametrize("name", RECIPES)
def test_logits_are_those_of_the_assembled_model(name: str, folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    plan = plan_of(folder, RECIPES[name])
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    assemble(plan, tmp_path / "out", fsync=False)
    ids = torch.arange(3, 40)[None]
    with one_thread(), torch.no_grad():
        written = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()(ids).logits
        assert build(plan)(ids).logits.equal(written)
