"""An unwritten blend generates what the assembled one does, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.probe.unwritten_model import build
from tests.support.assembling import assemble
from tests.support.blending import plan_of
from tests.support.models import one_thread, tiny_model


def scaled(*scales: float) -> str:
    """A recipe of one layer of `a` again and again, its down projection times each of these."""
    rules = (f"{{scale: [{{filter: down_proj, value: {scale}}}, {{value: 1}}]}}" for scale in scales)
    parts = (f"- sources: [{{model: a, layer_range: [1, 2], parameters: {rule}}}]\n" for rule in rules)
    return "merge_method: passthrough\nslices:\n" + "".join(parts)


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
    "a blended layer again with another t": "base_model: a\nmerge_method: slerp\nslices:\n"
    + "".join(
        "- {sources: [{model: a, layer_range: [1, 2]}, {model: b, layer_range: [1, 2]}], "
        f"parameters: {{t: {t}}}}}\n"
        for t in (0.25, 0.75, 0.25)
    )
    + "parameters: {t: 0.5}\n",
    "a blended layer again with another method": "base_model: a\nslices:\n"
    + "".join(
        f"- {{merge_method: {method}, sources: [{{model: a, layer_range: [1, 2]}}, {{model: b, layer_range: [1, 2]}}], "
        "parameters: {weight: 0.4}}\n"
        for method in ("linear", "task_arithmetic", "linear")
    )
    + "parameters: {weight: 1}\nmerge_method: linear\n",
    "a layer again with another scale": scaled(1, 0.5, 0, 1),
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


def test_layers_of_one_source_with_other_values_are_other_layers(tmp_path: Path) -> None:
    """Experts are fused when they are loaded: once for each distinct layer."""
    import torch
    from transformers import AutoModelForCausalLM

    tiny_model(tmp_path / "a", "qwen3_moe", layers=2, dtype="bfloat16")
    plan = plan_of(tmp_path, scaled(1, 0.5, 1))
    assemble(plan, tmp_path / "out", fsync=False)
    ids = torch.arange(3, 40)[None]
    with one_thread(), torch.no_grad():
        written = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()(ids).logits
        model = build(plan)
        assert model(ids).logits.equal(written)
    held = [{weight.data_ptr() for weight in layer.mlp.parameters()} for layer in model.model.layers]
    assert held[0] == held[2] != held[1]


def test_blended_layers_are_of_the_kind_that_they_have_at_their_own_places(tmp_path: Path) -> None:
    """Layer 0 of `a` and layer 1 of `b` have experts; layer 1 of `a` and layer 0 of `b` have none."""
    import torch
    from transformers import AutoModelForCausalLM

    for seed, (name, dense) in enumerate((("a", 1), ("b", 0))):
        tiny_model(tmp_path / name, "qwen3_moe", layers=2, seed=seed, dtype="bfloat16", mlp_only_layers=[dense])
    copied = "- {merge_method: passthrough, sources: [{model: a, layer_range: [1, 2]}]}\n"
    blended = "- sources: [{model: a, layer_range: [0, 1]}, {model: b, layer_range: [1, 2]}]\n"
    text = "merge_method: linear\nparameters: {weight: 1}\nembeddings: {model: a}\nlm_head: {model: a}\n"
    plan = plan_of(tmp_path, f"{text}final_norm: {{model: a}}\nslices:\n{copied}{copied}{blended}")
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    assemble(plan, tmp_path / "out", fsync=False)
    ids = torch.arange(3, 40)[None]
    with one_thread(), torch.no_grad():
        written = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()(ids).logits
        model = build(plan)
        assert model(ids).logits.equal(written)
    held = [{weight.data_ptr() for weight in layer.mlp.parameters()} for layer in model.model.layers]
    assert held[0] == held[1] != held[2]
