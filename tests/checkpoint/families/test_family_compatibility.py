"""Donors of another class, and scalars that differ: what is allowed, what wins, and that it computes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from surgeon.plan.config.scalars import DEFAULTS
from tests.support.models import tiny_model
from tests.support.planning import codes, found, plan_of, stack_of
from tests.support.sparse import sparse_llama

AB = stack_of(("a", 0, 2), ("b", 2, 4))


@pytest.mark.parametrize(("one", "other"), [("llama", "mistral"), ("mistral", "llama")])
def test_layers_of_another_class_compute_the_same(tmp_path: Path, one: str, other: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from surgeon.probe import unwritten_model
    from tests.support.assembling import assemble

    plain: dict[str, dict[str, Any]] = {"mistral": {"sliding_window": None}, "llama": {}}
    tiny_model(tmp_path / "a", one, seed=1, **plain[one])
    tiny_model(tmp_path / "b", other, seed=2, **plain[other])
    plan = plan_of(tmp_path, AB)
    assert plan.ok, plan.errors
    note = found(plan, "other-class")
    assert note.severity == "note"
    assert note.layers == (2, 3)
    assert f"B is {other} and A is {one}" in note.what
    assert plan.config is not None
    assert plan.config["model_type"] == one
    a, b = (AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in "ab")
    # The other class's own layers, in the model of the config's donor.
    a.model.layers = torch.nn.ModuleList([*a.model.layers[:2], *b.model.layers[2:]])
    a.model.norm, a.lm_head = b.model.norm, b.lm_head
    assemble(plan, tmp_path / "out", fsync=False, workers=1)
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(written) is type(a)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        wanted = a(input_ids=ids, use_cache=False).logits
        assert torch.equal(written(input_ids=ids, use_cache=False).logits, wanted)
        assert torch.equal(unwritten_model.build(plan)(input_ids=ids, use_cache=False).logits, wanted)


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        ("mistral", {"sliding_window": 16}, "sliding window of 16 tokens"),
        ("mistral", {}, "sliding window of 4,096 tokens"),
        ("llama", {"attention_bias": True}, ""),
        ("qwen2", {}, "qwen2 has biases"),
        ("qwen3", {}, "norms queries and keys"),
        ("mixtral", {}, "experts"),
        ("gemma", {}, "1 plus their weight"),
        ("gpt2", {}, "one architecture"),
    ],
)
def test_classes_that_compute_otherwise_are_refused(
    tmp_path: Path, kind: str, config: dict[str, Any], why: str
) -> None:
    sparse_llama(tmp_path / "a")
    sparse_llama(tmp_path / "b", model_type=kind, extra_config=config)
    plan = plan_of(tmp_path, AB)
    if kind == "llama":
        assert "error:architecture" not in codes(plan)
        return
    finding = found(plan, "architecture")
    assert finding.severity == "error"
    assert why in finding.why


def test_biases_keep_llama_out_of_mistral(tmp_path: Path) -> None:
    path = sparse_llama(tmp_path / "a", model_type="mistral") / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sliding_window": None}))
    sparse_llama(tmp_path / "b", extra_config={"attention_bias": True})
    assert "attention_bias" in found(plan_of(tmp_path, AB), "architecture").why
    sparse_llama(tmp_path / "b")
    assert plan_of(tmp_path, AB).ok


@pytest.mark.parametrize(
    ("kind", "a", "b", "severity", "said"),
    [
        ("llama", {"rms_norm_eps": 1e-5}, {"rms_norm_eps": None}, "warning", "norm epsilon of B is 1e-06"),
        ("llama", {"hidden_act": None}, {"hidden_act": "gelu"}, "error", "activation function of B is gelu"),
        ("granite", {"residual_multiplier": 0.5}, {}, "error", "residual multiplier of B is 1.0, that of A is 0.5"),
        ("granite", {}, {"embedding_multiplier": 12.0}, "warning", "embedding multiplier of B is 12.0"),
        ("gemma2", {"attn_logit_softcapping": None}, {"attn_logit_softcapping": 30.0}, "error", "that of A is 50.0"),
        ("falcon", {}, {"alibi": True}, "error", "position scheme of B is True, that of A is False"),
        ("gpt_neox", {}, {"use_parallel_residual": False}, "error", "that of A is True"),
    ],
)
def test_a_scalar_that_differs_tells_which_value_wins(
    tmp_path: Path, kind: str, a: dict[str, Any], b: dict[str, Any], severity: str, said: str
) -> None:
    sparse_llama(tmp_path / "a", model_type=kind, extra_config=a)
    sparse_llama(tmp_path / "b", model_type=kind, extra_config=b)
    finding = found(plan_of(tmp_path, AB), "setting")
    assert finding.severity == severity
    assert said in finding.what
    assert finding.why == "the output has one value for all layers, that of A"


def test_the_default_spelt_out_is_no_difference(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", extra_config={"rms_norm_eps": 1e-6, "hidden_act": "silu"})
    sparse_llama(tmp_path / "b", extra_config={"rms_norm_eps": None, "hidden_act": None})
    assert "setting" not in {finding.code for finding in plan_of(tmp_path, AB).findings}


def test_a_donor_of_ends_alone_is_compared_in_what_ends_use(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", model_type="granite")
    sparse_llama(
        tmp_path / "b", model_type="granite", extra_config={"embedding_multiplier": 2.0, "residual_multiplier": 0.5}
    )
    finding = found(plan_of(tmp_path, stack_of(("a", 0, 4)) + "embeddings: {model: b}\nbase_model: a\n"), "setting")
    assert "embedding multiplier" in finding.what


@pytest.mark.parametrize("kind", DEFAULTS)
def test_unsaid_values_are_those_of_transformers(kind: str) -> None:
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[kind]().get_text_config()
    for keys, value in DEFAULTS[kind].items():
        (theirs,) = {getattr(config, key) for key in keys if hasattr(config, key)} or {value}
        assert theirs == value, keys
