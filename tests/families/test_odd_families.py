"""Model types that name, count or tie in a way of their own: tensors beside the layers, depth, heads never tied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint.families.naming import find_naming
from tests.plan.config.test_output_config import refused
from tests.support.planning import plan_of, stack_of
from tests.support.sparse import sparse_llama


@pytest.mark.parametrize(
    ("name", "index", "suffix"),
    [
        ("model.H_module.layers.2.mlp.down_proj.weight", 2, "H_module.layers.mlp.down_proj.weight"),
        ("model.llm.attn_res.attn_queries.0", 1, "attn_res.attn_queries"),
        ("model.llm.attn_res.mlp_queries.3", 3, "attn_res.mlp_queries"),
    ],
)
def test_what_a_layer_has_elsewhere_goes_with_it(name: str, index: int, suffix: str) -> None:
    naming = find_naming(["model.L_module.layers.0.w" if "H_module" in name else "model.llm.layers.0.w"])
    assert naming is not None
    place = naming.place(name)
    assert (place.role, place.index, place.suffix) == ("layer", index, suffix)
    assert naming.name(place) == name


@pytest.mark.parametrize("suffix", ["attn_res.attn_queries", "attn_res.mlp_queries.w"])
def test_no_two_names_share_a_place(suffix: str) -> None:
    naming = find_naming(["model.llm.layers.0.w"])
    assert naming is not None
    assert naming.place(f"model.llm.layers.0.{suffix}").role == "other"


def test_the_norm_of_rwkvs_embeddings_is_not_its_first_layers() -> None:
    naming = find_naming(["rwkv.blocks.0.ln1.weight"])
    assert naming is not None
    place = naming.place("rwkv.blocks.0.pre_ln.weight")
    assert place.role == "embeddings" and naming.name(place) == "rwkv.blocks.0.pre_ln.weight"
    assert naming.place("rwkv.blocks.1.pre_ln.weight").role == "layer"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (
            {
                "model_type": "hrm_text", "num_layers_per_stack": 4, "num_hidden_layers": 24, "H_cycles": 3,
                "L_cycles": 1,
            },
            {"num_layers_per_stack": 7, "num_hidden_layers": 42},
        ),
        ({"model_type": "hrm_text", "num_hidden_layers": 4}, {"num_layers_per_stack": None, "num_hidden_layers": 7}),
        ({"model_type": "longcat_flash", "num_layers": 4, "num_hidden_layers": 8},
         {"num_layers": 7, "num_hidden_layers": 14}),
        ({"model_type": "xlstm", "num_blocks": 4, "num_hidden_layers": 4}, {"num_blocks": 7, "num_hidden_layers": 7}),
    ],
)  # fmt: skip
def test_depth_of_families_that_count_in_a_way_of_their_own(
    tmp_path: Path, said: dict[str, Any], wanted: dict[str, Any]
) -> None:
    sparse_llama(tmp_path / "a", extra_config=said)
    plan = plan_of(tmp_path, stack_of(("a", 0, 4), ("a", 1, 4)))
    assert plan.ok and plan.config is not None
    assert {key: plan.config.get(key) for key in wanted} == wanted


def test_a_head_that_transformers_never_ties(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", model_type="xlstm", extra_config={"tie_word_embeddings": True})
    recipe = stack_of(("a", 0, 3))
    assert plan_of(tmp_path, recipe).ok
    refused(plan_of(tmp_path, f"{recipe}\nlm_head: {{tie: true}}\n"), "a head that is the embedding")
