"""Lints: each fires where a practitioner would shake his head, and keeps quiet beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from surgeon.plan import Plan
from tests.support.planning import codes, found, plan_of, stack_of
from tests.support.sparse import llama_tensors, sparse_checkpoint, sparse_llama

SIZES: dict[str, Any] = {"hidden": 16, "heads": 4, "kv_heads": 2, "intermediate": 32, "vocab": 64}


def checkpoint(folder: Path, kind: str, norms: Sequence[str], layers: int = 4, **config: Any) -> Path:
    """Llama's tensors with other norms, under the config of another family."""
    sparse_llama(folder, layers=layers, model_type=kind, extra_config={**SETTINGS.get(kind, {}), **config})
    raw = (folder / "config.json").read_text()
    spec = {name: value for name, value in llama_tensors(layers=layers, **SIZES).items() if "layernorm" not in name}
    for index in range(layers):
        spec |= {f"model.layers.{index}.{norm}.weight": ("BF16", (16,)) for norm in norms}
    sparse_checkpoint(folder, spec, None)
    (folder / "config.json").write_text(raw)
    return folder


SETTINGS: dict[str, dict[str, Any]] = {"gemma3_text": {"sliding_window": 16, "head_dim": 4}}
PRE = ("input_layernorm", "post_attention_layernorm")
SANDWICH = (*PRE, "pre_feedforward_layernorm", "post_feedforward_layernorm")
POST = ("post_attention_layernorm", "post_feedforward_layernorm")
GLM4 = (*PRE, "post_self_attn_layernorm", "post_mlp_layernorm")


def scaled(folder: Path, *rules: str, stop: int = 4) -> Plan:
    listed = ", ".join(rules)
    return plan_of(folder, stack_of(("a", 0, stop)) + f"  parameters: {{scale: [{listed}]}}\n")


@pytest.mark.parametrize(
    ("kind", "norms", "module", "after"),
    [
        ("gemma2", SANDWICH, "o_proj", "post_attention_layernorm"),
        ("gemma2", SANDWICH, "down_proj", "post_feedforward_layernorm"),
        ("olmo2", POST, "o_proj", "post_attention_layernorm"),
        ("olmo2", POST, "down_proj", "post_feedforward_layernorm"),
        ("glm4", GLM4, "o_proj", "post_self_attn_layernorm"),
        ("glm4", GLM4, "down_proj", "post_mlp_layernorm"),
        ("qwen3", (*PRE, "self_attn.q_norm"), "q_proj", "q_norm"),
        ("qwen3", (*PRE, "self_attn.k_norm"), "k_proj", "k_norm"),
    ],
)
def test_a_scale_that_a_norm_undoes(tmp_path: Path, kind: str, norms: Sequence[str], module: str, after: str) -> None:
    checkpoint(tmp_path / "a", kind, norms)
    finding = found(scaled(tmp_path, f"{{filter: {module}, value: 0.5}}"), "scale-no-effect")
    assert finding.severity == "warning"
    assert finding.what == f"The scale of {module}.weight has no effect"
    assert finding.remedy == f"scale {after} instead"
    assert finding.layers == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("kind", "norms", "rule"),
    [
        ("llama", PRE, "{filter: o_proj, value: 0.5}"),
        ("llama", PRE, "{filter: q_proj, value: 0.5}"),
        ("gemma2", SANDWICH, "{filter: v_proj, value: 0.5}"),
        ("gemma2", SANDWICH, "{filter: o_proj, value: -1}"),
        ("gemma2", SANDWICH, "{filter: o_proj, value: 0}"),
        ("gemma2", SANDWICH, "{filter: post_attention_layernorm, value: 0.5}"),
    ],
)
def test_scales_that_count(tmp_path: Path, kind: str, norms: Sequence[str], rule: str) -> None:
    checkpoint(tmp_path / "a", kind, norms)
    assert "warning:scale-no-effect" not in codes(scaled(tmp_path, rule))


def test_the_norm_really_undoes_it(tmp_path: Path) -> None:
    import torch

    from surgeon.probe import unwritten_model
    from tests.support.models import tiny_model

    tiny_model(tmp_path / "a", "olmo2", rms_norm_eps=1e-12)
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        plain = unwritten_model.build(plan_of(tmp_path, stack_of(("a", 0, 4))))(input_ids=ids).logits
        for module, factor, same in (("o_proj", 4, True), ("down_proj", 4, True), ("o_proj", -4, False)):
            plan = scaled(tmp_path, f"{{filter: {module}, value: {factor}}}")
            assert ("warning:scale-no-effect" in codes(plan)) == same
            assert torch.allclose(unwritten_model.build(plan)(input_ids=ids).logits, plain, atol=1e-3) == same


def test_layers_that_are_multiplied_away(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a")
    dead = found(scaled(tmp_path, "{filter: proj, value: 0}"), "layer-zero")
    assert dead.severity == "warning"
    assert dead.layers == (0, 1, 2, 3)
    silent = found(scaled(tmp_path, "{filter: o_proj, value: 0}", "{filter: down_proj, value: 0}"), "layer-identity")
    assert silent.severity == "note"
    assert not {"note:layer-identity", "warning:layer-zero"} & set(
        codes(scaled(tmp_path, "{filter: o_proj, value: 0}"))
    )


def test_a_number_in_a_filter_hits_more_layers(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", layers=24)
    finding = found(scaled(tmp_path, "{filter: layers.1, value: 0.5}", stop=24), "filter-number")
    assert finding.severity == "warning"
    assert finding.layers == tuple(range(10, 20))
    assert "also matches layer 10-19" in finding.what
    assert "'layers.1.'" in finding.remedy
    assert finding.line == 4
    for fine in ("layers.1.", "layers.20", "proj"):
        assert "warning:filter-number" not in codes(scaled(tmp_path, f"{{filter: {fine}, value: 0.5}}", stop=24))


def test_a_broken_pattern_is_noted(tmp_path: Path) -> None:
    checkpoint(tmp_path / "a", "gemma3_text", SANDWICH, layers=18)
    finding = found(plan_of(tmp_path, stack_of(("a", 0, 10), ("a", 8, 18))), "pattern")
    assert finding.severity == "note"
    # Full attention at 5, then at 13 (donor 11): seven sliding layers between, five in the donor.
    assert finding.layers == tuple(range(5, 14))
    assert "are 7 others, but 5 in the donors" in finding.why
    for whole in ((("a", 0, 12), ("a", 6, 18)), (("a", 0, 18),), (("a", 0, 6), ("a", 12, 18))):
        assert "note:pattern" not in codes(plan_of(tmp_path, stack_of(*whole)))
    sparse_llama(tmp_path / "b")
    assert "note:pattern" not in codes(plan_of(tmp_path, stack_of(("b", 0, 3), ("b", 1, 4))))


def test_a_last_layer_that_slides_where_the_family_makes_it_full(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    checkpoint(tmp_path / "a", "gemma4_text", SANDWICH, layer_types=kinds, sliding_window=16)
    finding = found(plan_of(tmp_path, stack_of(("a", 0, 3))), "last-layer")
    assert finding.severity == "error"
    assert finding.layers == (2,)
    assert "error:last-layer" not in codes(plan_of(tmp_path, stack_of(("a", 0, 2))))


def test_a_relative_bias_that_only_layer_0_has(tmp_path: Path) -> None:
    folder = sparse_llama(tmp_path / "a", layers=3)
    spec = dict(llama_tensors(layers=3, **SIZES))
    spec["model.layers.0.self_attn.relative_attention_bias.weight"] = ("BF16", (32, 4))
    sparse_checkpoint(folder, spec, None)
    for ranges, layers in (((("a", 1, 3),), (0,)), ((("a", 0, 2), ("a", 0, 2)), (2,))):
        finding = found(plan_of(tmp_path, stack_of(*ranges)), "relative-bias")
        assert finding.severity == "error"
        assert finding.layers == layers
    assert "error:relative-bias" not in codes(plan_of(tmp_path, stack_of(("a", 0, 2))))


@pytest.mark.parametrize("key", ["scale_attn_by_inverse_layer_idx", "scale_depth"])
def test_scales_that_depend_on_the_depth_are_refused_and_say_why(tmp_path: Path, key: str) -> None:
    sparse_llama(tmp_path / "a", extra_config={key: True})
    plan = plan_of(tmp_path, stack_of(("a", 0, 4), ("a", 2, 4)))
    assert any(key in finding.what and "depth" in finding.why for finding in plan.errors)
