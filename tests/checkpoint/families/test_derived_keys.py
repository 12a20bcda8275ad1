"""Configs that leave more than lists by layer out: windows, dense layers, older keys that say the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint.families.model_config import ModelConfig
from surgeon.checkpoint.families.type_rules import FILLED, WINDOW_KEYS, attributes_by_rules
from surgeon.plan.config.output_config import output_config
from tests.families import matrix
from tests.families.test_matrix import bare, built

LISTS = ("layer_types", "mlp_layer_types")
MORE: dict[str, list[dict[str, Any]]] = {
    "axk1": [{"first_k_dense_replace": 2}, {"first_k_dense_replace": 0, "moe_layer_freq": 2}],
    "deepseek_v32": [{"first_k_dense_replace": 1}, {"first_k_dense_replace": 9}],
    "dots1": [
        {"sliding_window": 8, "max_window_layers": 2}, {"sliding_window": None, "max_window_layers": 2},
        {"max_window_layers": 0}, {"first_k_dense_replace": 3},
    ],
    "flint": [{"mlp_only_layers": [3]}, {"num_experts": 0}, {"decoder_sparse_step": 2, "mlp_only_layers": []}],
    "inkling_text": [{"local_layer_ids": [0, 3, 4]}, {"dense_mlp_idx": 2}, {"local_layer_ids": []}],
    "kimi_linear": [
        {"first_k_dense_replace": 2},
        {"linear_attn_config": {"full_attn_layers": [2, 5, 6], "kda_layers": [1, 3, 4], "head_dim": 8, "num_heads": 4}},
        {"linear_attn_config": {"head_dim": 8}},
    ],
    "modernbert-decoder": [{"global_attn_every_n_layers": 2}, {"global_attn_every_n_layers": 1}],
}  # fmt: skip
"""Keys from which transformers makes such a list, beside none at all."""

CONFIGS = [
    (kind, more)
    for kind in (
        "axk1", "cwm", "deepseek_v32", "dots1", "flint", "glm4_moe_lite", "inkling_text", "kimi_linear", "kolibri1",
        "lfm3", "modernbert-decoder", "vaultgemma",
    )
    for more in [{}, *MORE.get(kind, ())]
]  # fmt: skip


@pytest.mark.parametrize("more", MORE["flint"] + [{}], ids=str)
def test_flints_dense_layers_are_those_of_transformers(tmp_path: Path, more: dict[str, Any]) -> None:
    made = json.loads(matrix.make_config(matrix.CASES["flint"]).to_json_string())
    raw = {key: value for key, value in made.items() if key != "mlp_only_layers"} | {"architectures": ["X"], **more}
    classes = [next(value for key, value in layer.items() if key == "mlp.class") for layer in built(raw, tmp_path)]
    assert attributes_by_rules("flint", raw, 6)["mlp"] == ["experts" if "Moe" in name else "dense" for name in classes]


@pytest.mark.parametrize("kind", ["qwen2_vl_text", "qwen2_5_vl_text"])
@pytest.mark.parametrize(
    "more", [{}, {"use_sliding_window": True, "max_window_layers": 2}, {"max_window_layers": 0}], ids=str
)
def test_a_window_that_a_switch_turns_on(kind: str, more: dict[str, Any]) -> None:
    from transformers import AutoConfig

    theirs = AutoConfig.for_model(kind, num_hidden_layers=6, **more).layer_types
    assert [f"{word}_attention" for word in attributes_by_rules(kind, more, 6)["attention"]] == theirs


@pytest.mark.parametrize("kind", WINDOW_KEYS)
def test_a_window_that_is_left_out_is_the_one_of_transformers(kind: str) -> None:
    from transformers import CONFIG_MAPPING

    key, absent = WINDOW_KEYS[kind]
    assert getattr(CONFIG_MAPPING[kind](), key) == absent
    assert ModelConfig.of({"model_type": kind}).window == absent
    assert ModelConfig.of({"model_type": kind, key: None}).window is None


ORDERS = ([0, 1, 2, 3, 1, 2, 3, 4, 5], [0, 1, 4, 5], [0, 3, 1, 2, 4, 5])


@pytest.mark.parametrize(("kind", "more"), CONFIGS, ids=lambda value: str(value)[:50])
def test_a_list_that_is_left_out_moves_with_the_layers(tmp_path: Path, kind: str, more: dict[str, Any]) -> None:
    case = next(case for case in matrix.CASES.values() if case.kind == kind)
    made = json.loads(matrix.make_config(case).to_json_string())
    left_out = (
        *LISTS, "mlp_only_layers", "first_k_dense_replace", "max_window_layers", "local_layer_ids", "sliding_window",
    )  # fmt: skip
    raw = {"architectures": ["X"], **{key: value for key, value in made.items() if key not in left_out}, **more}
    sources = built(raw, tmp_path / "donor")
    checkpoint = bare(raw, tmp_path)
    for order in ORDERS:
        out, findings = output_config(
            checkpoint, [(checkpoint, index) for index in order], tied=checkpoint.tied, dtype=None, vocab_size=None
        )
        told = [finding.sentence() for finding in findings if finding.severity == "error"]
        if told:
            assert (kind == "dots1" and "the kind of MLP" in told[0]) or kind == "olmo_hybrid", told
            continue
        assert built(out, tmp_path / "out") == [sources[index] for index in order], order


@pytest.mark.parametrize("base", ["a", "b"])
def test_a_donor_that_has_the_list_and_one_that_has_not(tmp_path: Path, base: str) -> None:
    """In place too, where the lists of both say other things."""
    made = json.loads(matrix.make_config(matrix.Case("kimi_linear", {"num_key_value_heads": 4})).to_json_string())
    kinds = ["linear_attention", "linear_attention", "full_attention"] * 2
    listed = {**made, "layer_types": kinds, "mlp_layer_types": ["dense", "dense", *["sparse"] * 4]}
    silent = {key: value for key, value in made.items() if key not in LISTS}
    donors = {"a": bare(listed, tmp_path), "b": bare(silent, tmp_path)}
    pairs = [*((donors["a"], index) for index in range(3)), *((donors["b"], index) for index in range(3, 6))]
    out, findings = output_config(donors[base], pairs, tied=False, dtype=None, vocab_size=None)
    assert not [finding.sentence() for finding in findings if finding.severity == "error"]
    assert out["layer_types"] == [*kinds[:3], "linear_attention", "full_attention", "linear_attention"]
    assert out["mlp_layer_types"] == ["dense", "dense", *["sparse"] * 4]


def test_older_keys_say_the_same_as_the_list_or_go() -> None:
    """Programs that read only those would build other layers."""
    raw = {
        "architectures": ["X"], "model_type": "kimi_linear", "num_hidden_layers": 4, "first_k_dense_replace": 1,
        "linear_attn_config": {"full_attn_layers": [4], "kda_layers": [1, 2, 3], "head_dim": 8},
    }  # fmt: skip
    donor = bare(raw, Path())
    pairs = [(donor, index) for index in (0, 3, 1)]
    out, _ = output_config(donor, pairs, tied=False, dtype=None, vocab_size=None)
    assert out["linear_attn_config"] == {"full_attn_layers": [2], "kda_layers": [1, 3], "head_dim": 8}
    assert (out["first_k_dense_replace"], out["mlp_layer_types"]) == (1, ["dense", "sparse", "sparse"])
    out, _ = output_config(donor, [(donor, index) for index in (3, 0)], tied=False, dtype=None, vocab_size=None)
    assert "first_k_dense_replace" not in out and out["mlp_layer_types"] == ["sparse", "dense"]


def test_a_list_that_surgeon_has_no_rule_for_is_named_with_its_remedy() -> None:
    assert "neomme" in FILLED["layer_types"]
    raw = {"architectures": ["X"], "model_type": "neomme", "num_hidden_layers": 4}
    donor = bare(raw, Path())
    _, findings = output_config(donor, [(donor, 0), (donor, 0)], tied=False, dtype=None, vocab_size=None)
    told = next(finding for finding in findings if "`layer_types`" in finding.what)
    assert "write the list `layer_types`, 4 layers long" in told.remedy
