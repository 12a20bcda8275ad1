"""Tokenizers of merges end to end: plan, assemble, load with transformers, encode, run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.assembling import assemble
from tests.support.blending import plan_of
from tests.support.models import tiny_model, tiny_tokenizer

TOOL = "<tool>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one tokenizer; `b` has one token more, in a row that was padding."""
    made = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("a", "b")):
        tiny_tokenizer(tiny_model(made / name, layers=2, seed=seed))
    path = made / "b" / "tokenizer.json"
    document = json.loads(path.read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    document["added_tokens"].append({"id": 259, "content": TOOL, **flags})
    path.write_text(json.dumps(document))
    return made


def loaded(out: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)


LINEAR = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
STACK = "slices:\n- sources: [{model: a, layer_range: [0, 2]}]\n- sources: [{model: b, layer_range: [1, 2]}]\n"


@pytest.mark.parametrize("recipe", [LINEAR, STACK + "base_model: a\n"], ids=["linear", "frankenmerge"])
def test_a_union_knows_every_token_and_runs(recipe: str, folder: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    plan = plan_of(folder, recipe + "tokenizer_source: union\nchat_template: chatml\n")
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    assemble(plan, tmp_path / "out", fsync=False)
    tokenizer, model = loaded(tmp_path / "out")
    ids = tokenizer(f"hello {TOOL}")["input_ids"]
    assert tokenizer.convert_tokens_to_ids(TOOL) in ids
    rows = model.get_input_embeddings().weight.shape[0]
    assert model.config.vocab_size == rows > max(ids)
    assert model(torch.tensor([ids])).logits.isfinite().all()
    assert "<|im_start|>" in tokenizer.chat_template
    old = load_file(folder / "b" / "model.safetensors")["model.embed_tokens.weight"][259]
    mine = model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(TOOL)]
    assert mine.allclose(old, atol=1e-6), "the only donor that has a token gives its row"


@pytest.mark.slow
def test_a_donors_tokenizer_and_padding_to_a_multiple(folder: Path, tmp_path: Path) -> None:
    plan = plan_of(folder, LINEAR + "tokenizer: {source: b, pad_to_multiple_of: 64}\n")
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    assert plan.config is not None
    assert plan.config["vocab_size"] == plan.ends["embeddings"].tensors[0].shape[0] == 320
    assemble(plan, tmp_path / "out", fsync=False, check=True)
    tokenizer, _ = loaded(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(TOOL) == 259


def test_the_virtual_model_speaks_the_new_tokenizer(folder: Path) -> None:
    from surgeon.probe.subject import from_plan

    subject = from_plan(plan_of(folder, LINEAR + "tokenizer_source: union\n"), "cpu")
    ids = subject.encode(f"x{TOOL}")
    assert ids[-1] == subject.tokenizer.convert_tokens_to_ids(TOOL)
