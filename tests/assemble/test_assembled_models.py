"""Assembled models as transformers sees them: they load, and compute what the same layers in that order compute."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from surgeon.plan import Donors, resolve
from surgeon.recipe.document import load
from tests.support.assembling import assemble, contents, passthrough, plan_of
from tests.support.models import tiny_model
from tests.support.paths import CONFORMANCE

CASES = [
    "llama--passthrough-goliath",
    "llama--passthrough-scale",
    "llama-bf16--passthrough-solar",
    "qwen2--passthrough-solar",
]


def loaded(folder: Path) -> Any:
    """The model, loaded as users load it; every key has to be used, and none to be missing."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype="auto")
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    return model.eval()


def logits(model: Any) -> Any:
    import torch

    tokens = torch.randint(0, model.config.vocab_size, (2, 17), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model(tokens).logits


def layers_of(model: Any) -> Any:
    inner = model.base_model
    return getattr(inner, "layers", None) if hasattr(inner, "layers") else inner.h


def stacked(base: Path, *picks: tuple[Path, int, int], head: Path | None = None) -> Any:
    """The expected model, made without surgeon: deep copies of the donors' layers in that order, renumbered."""
    from torch import nn

    donors = {folder: loaded(folder) for folder, *_ in picks} | {base: loaded(base)}
    model = copy.deepcopy(donors[picks[0][0]])
    chosen = [(donors[folder], index) for folder, start, stop in picks for index in range(start, stop)]
    layers = [copy.deepcopy(layers_of(donor)[index]) for donor, index in chosen]
    for number, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    setattr(model.base_model, "layers" if hasattr(model.base_model, "layers") else "h", nn.ModuleList(layers))
    for key in ("layer_types",):
        if getattr(model.config, key, None):
            setattr(model.config, key, [getattr(donor.config, key)[index] for donor, index in chosen])
    model.config.num_hidden_layers = len(layers)
    last = donors[head or picks[-1][0]]
    if hasattr(model.base_model, "norm"):
        model.base_model.norm = copy.deepcopy(last.base_model.norm)
    if not last.config.tie_word_embeddings:
        model.lm_head = copy.deepcopy(last.lm_head)
    return model.eval()


def same(one: Any, other: Any) -> bool:
    import torch

    return torch.equal(one, other)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "gpt2", "mixtral"])
def test_a_deeper_model_of_one_donor(tmp_path: Path, family: str, dtype: str) -> None:
    a = tiny_model(tmp_path / "a", family, 4, seed=1, dtype=dtype)
    picks = ((a, 0, 3), (a, 1, 2), (a, 1, 4))
    assemble(plan_of(passthrough(*picks)), tmp_path / "out", shard_size=40_000)
    model = loaded(tmp_path / "out")
    assert model.config.num_hidden_layers == 7
    assert same(logits(model), logits(stacked(a, *picks)))
    assert not same(logits(model), logits(loaded(a)))


@pytest.mark.parametrize("tied", [False, True])
def test_two_donors(tmp_path: Path, tied: bool) -> None:
    a = tiny_model(tmp_path / "a", "llama", 4, seed=1, tie_word_embeddings=tied)
    b = tiny_model(tmp_path / "b", "llama", 3, seed=2, tie_word_embeddings=tied)
    picks = ((a, 0, 2), (b, 0, 3), (a, 1, 4))
    assemble(plan_of(passthrough(*picks, more=f"base_model: {json.dumps(str(a))}")), tmp_path / "out")
    assert ("lm_head.weight" in contents(tmp_path / "out")) != tied
    assert same(logits(loaded(tmp_path / "out")), logits(stacked(a, *picks)))


def test_a_tied_donors_head_under_another_embedding(tmp_path: Path) -> None:
    a = tiny_model(tmp_path / "a", "llama", 3, seed=1, tie_word_embeddings=False)
    b = tiny_model(tmp_path / "b", "llama", 3, seed=2, tie_word_embeddings=True)
    assemble(plan_of(passthrough((a, 0, 3), (b, 1, 3))), tmp_path / "out")
    out, donor = contents(tmp_path / "out"), contents(b)
    assert out["lm_head.weight"] == donor["model.embed_tokens.weight"]
    assert out["model.embed_tokens.weight"] == contents(a)["model.embed_tokens.weight"]
    assert not loaded(tmp_path / "out").config.tie_word_embeddings


def test_a_cast_model_is_the_donor_in_that_dtype(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    a = tiny_model(tmp_path / "a", "llama", 3, seed=1)
    assemble(plan_of(passthrough((a, 0, 3), more="dtype: bfloat16")), tmp_path / "out")
    model = loaded(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    assert same(logits(model), logits(AutoModelForCausalLM.from_pretrained(a, dtype=torch.bfloat16)))


def test_a_scaled_layer_computes_what_its_scaled_weights_compute(tmp_path: Path) -> None:
    a = tiny_model(tmp_path / "a", "llama", 3, seed=1)
    recipe = (
        "slices:\n"
        f"  - sources: [{{model: {a}, layer_range: [0, 2]}}]\n"
        f"  - sources: [{{model: {a}, layer_range: [1, 3], parameters: {{scale: [{{filter: o_proj, value: 0.25}}, "
        "{value: 1.0}]}}]\nmerge_method: passthrough\n"
    )
    assemble(plan_of(recipe), tmp_path / "out")
    expected = stacked(a, (a, 0, 2), (a, 1, 3))
    for layer in list(layers_of(expected))[2:]:
        layer.self_attn.o_proj.weight.data *= 0.25
    assert same(logits(loaded(tmp_path / "out")), logits(expected))


@pytest.mark.skipif(not CONFORMANCE.is_dir(), reason="the conformance cases are not beside this checkout")
@pytest.mark.parametrize("case", CASES)
def test_conformance(case: str, tmp_path: Path, monkeypatch) -> None:
    from safetensors.torch import load_file

    monkeypatch.chdir(CONFORMANCE)
    plan = resolve(load(CONFORMANCE / "recipes" / f"{case}.yml"), Donors((CONFORMANCE,)))
    assemble(plan, tmp_path / "out", shard_size=50_000)
    expected = load_file(CONFORMANCE / "expected" / f"{case}.safetensors")
    written: dict[str, Any] = {}
    for shard in (tmp_path / "out").glob("*.safetensors"):
        written |= load_file(shard)
    assert written.keys() == expected.keys()
    scaled = 0
    for tensor in plan.tensors:
        got, want = written[tensor.name], expected[tensor.name]
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if type(tensor.source).__name__ == "Copy":
            assert same(got, want), tensor.name
        else:
            scaled += 1
            error = (got.double() - want.double()).abs()
            assert bool((error <= 1e-6 + 1e-5 * want.double().abs()).all()), tensor.name
    assert bool(scaled) == ("scale" in case)
    assert logits(loaded(tmp_path / "out")).isfinite().all()
