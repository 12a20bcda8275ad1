"""Configs that leave lists by layer out: surgeon reads what transformers makes of them, and splices them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint.families.derived_lists import FILLED_RULES, FILLED_VALUES
from surgeon.checkpoint.families.type_rules import RULES, attributes_by_rules
from surgeon.plan.config.output_config import output_config
from tests.families import matrix
from tests.families.test_matrix import bare, built

KINDS = sorted(kind for kind in {*FILLED_RULES, "bailing_hybrid"} if f"{kind}_text" not in FILLED_RULES)
WORDS = {"attention": "layer_types", "mlp": "mlp_layer_types"}
KEYS: dict[str, list[dict[str, Any]]] = {
    "axk1": [{"first_k_dense_replace": 3, "moe_layer_freq": 2}],
    "axk2": [{"first_k_dense_replace": 3, "moe_layer_freq": 2}, {"moe_layer_freq": 3}],
    "bailing_hybrid": [{"layer_group_size": 3, "first_k_dense_replace": 4}],
    "cohere2_moe": [
        {"first_k_dense_replace": 3},
        {"first_k_dense_replace": 3, "prefix_dense_sliding_window_pattern": 2, "sliding_window_pattern": 3},
        {"sliding_window_pattern": 2},
    ],
    "deepseek_v32": [{"first_k_dense_replace": 1}],
    "dots1": [{"max_window_layers": 3}, {"max_window_layers": 3, "sliding_window": None}, {"max_window_layers": 0}],
    "dots3_note_text": [
        {"use_dsa": False},
        {"use_sliding_window": False},
        {"use_dsa": False, "use_sliding_window": False},
        {"first_k_dense_replace": 2, "moe_layer_freq": 2},
        {"first_k_dense_replace": 0, "moe_layer_freq": [1, 0, 1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1]},
    ],
    "exaone_moe": [{"sliding_window_pattern": 3, "first_k_dense_replace": 2}],
    "glm_moe_dsa": [
        {"index_topk_freq": 4},
        {"index_topk_freq": 3, "index_skip_topk_offset": 1},
        {"index_topk_freq": 2, "index_skip_topk_offset": 0},
        {"index_topk_pattern": "FSSFFSSSFSFFS"},
        {"first_k_dense_replace": 1},
    ],
    "inkling_text": [{"local_layer_ids": [0, 2, 3]}, {"local_layer_ids": []}, {"dense_mlp_idx": 2}],
    "kimi_linear": [
        {"first_k_dense_replace": 3},
        {"linear_attn_config": {
            "full_attn_layers": [2, 4, 5, 13], "kda_layers": [1, 3, 6, 7, 8, 9, 10, 11, 12],
            "head_dim": 8, "num_heads": 4, "short_conv_kernel_size": 4,
        }},
    ],
    "ministral": [{"sliding_window": None}, {"sliding_window": 8}],
    "modernbert-decoder": [{"global_attn_every_n_layers": 2}],
    "qwen4_exp_text": [{"full_attention_interval": 3}],
}  # fmt: skip
"""Keys that say what those lists are, for 13 layers."""


@pytest.mark.parametrize("depth", [2, 3, 6, 13])
@pytest.mark.parametrize("kind", KINDS)
def test_what_transformers_fills_in(kind: str, depth: int) -> None:
    from transformers import AutoConfig

    for more in [{}, *(KEYS.get(kind, []) if depth == 13 else [])]:
        said = {"num_hidden_layers": depth, **more}
        theirs = AutoConfig.for_model(kind, **json.loads(json.dumps(said)))
        for rule in RULES[kind]:
            key = WORDS[rule.attribute]
            if isinstance(made := getattr(theirs, key, None), list):
                read = attributes_by_rules(kind, said, depth)[rule.attribute]
                assert read == attributes_by_rules(kind, {**said, key: made}, depth)[rule.attribute], (more, key)
        for (owner, key), (form, _) in FILLED_VALUES.items():
            assert owner != kind or form(said, depth) == getattr(theirs, key), (more, key)


def test_an_indexer_that_a_config_shares_by_a_pattern_follows_its_layer(tmp_path: Path) -> None:
    raw = {"architectures": ["X"], "model_type": "glm_moe_dsa", "num_hidden_layers": 6, "index_topk_pattern": "FFSFSS"}
    donor = bare(raw, tmp_path)
    for order, wanted in (([0, 3, 4, 1, 2], "FFSFS"), ([0, 0, 0], "FFF"), ([2, 1], None)):
        layers = [(donor, index) for index in order]
        out, findings = output_config(donor, layers, tied=False, dtype=None, vocab_size=None)
        assert bool(findings) == (wanted is None)
        if wanted:
            # A pattern of the old layers beside the list would be read by others.
            assert "index_topk_pattern" not in out
            assert ruled_indexers(out) == wanted


def ruled_indexers(raw: dict[str, Any]) -> str:
    """The kinds of indexers, as transformers reads them."""
    from transformers import AutoConfig

    made = AutoConfig.for_model(**{key: value for key, value in raw.items() if key != "architectures"})
    return "".join(kind[0].upper() for kind in made.indexer_types)


def test_kimis_nested_table_follows_its_layers(tmp_path: Path) -> None:
    table = {"full_attn_layers": [2, 3], "kda_layers": [1, 4], "head_dim": 8}
    raw = {"architectures": ["X"], "model_type": "kimi_linear", "num_hidden_layers": 4, "linear_attn_config": table}
    donor = bare(raw, tmp_path)
    layers = [(donor, index) for index in (0, 2, 1, 3, 2)]
    out, findings = output_config(donor, layers, tied=False, dtype=None, vocab_size=None)
    assert findings == []
    assert out["linear_attn_config"] == {"full_attn_layers": [2, 3, 5], "kda_layers": [1, 4], "head_dim": 8}
    assert [kind[:4] for kind in out["layer_types"]] == ["line", "full", "full", "line", "full"]


@pytest.mark.parametrize("name", [name for name, case in matrix.CASES.items() if case.kind in KINDS])
def test_a_splice_of_a_config_without_lists(tmp_path: Path, name: str) -> None:
    case = matrix.CASES[name]
    made = json.loads(matrix.make_config(case).to_json_string())
    raw = {
        key: value for key, value in made.items() if key not in (*WORDS.values(), "per_layer_config", "indexer_types")
    }
    raw |= {"architectures": ["X"], **{key: case.config[key] for key in case.config if key.startswith("swa_")}}
    theirs = built(raw, tmp_path / "donor")
    checkpoint = bare(raw, tmp_path)
    carried = 0
    for order in ([0, 1, 2, 3, 1, 2, 3, 4, 5], [0, 2, 3, 1, 4, 5], [0, 3, 5]):
        layers = [(checkpoint, index) for index in order]
        out, findings = output_config(checkpoint, layers, tied=checkpoint.tied, dtype=None, vocab_size=None)
        if any(finding.severity == "error" for finding in findings):
            assert case.refused or case.kind in {"dots1"}, findings
            continue
        assert built(out, tmp_path / "out") == [theirs[index] for index in order], order
        carried += 1
    assert carried >= 1 or set(case.refused) >= set(matrix.SPLICES)
