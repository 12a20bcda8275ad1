"""Every family of the matrix comes out right or is refused with its reason, and rules say what transformers reads."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon.assemble.load_back import expectation
from surgeon.checkpoint.checkpoint import Checkpoint, Layer
from surgeon.checkpoint.families.derived_lists import FILLED_VALUES
from surgeon.checkpoint.families.model_config import ModelConfig, layer_attributes
from surgeon.checkpoint.families.naming import FAMILIES
from surgeon.checkpoint.families.type_rules import FILLED, RULES, UNTIED
from surgeon.plan.config.output_config import output_config
from surgeon.verify.load_back_child import check
from tests.families import matrix, matrix_pairs
from tests.plan.config.test_output_config import settings as settings_of
from tests.support.models import one_thread
from tests.support.paths import ROOT
from tests.support.planning import codes, plan_of, stack_of


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """One thread, and nothing on the terminal from a library about models this small."""
    from transformers import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.set_verbosity_warning()


CORE = [
    "bart", "bert", "deepseek_v3", "falcon", "gemma2", "gemma3_text", "gpt2", "jamba", "llama", "llama4_text",
    "longcat_flash", "mamba2", "mixtral", "mllama", "qwen2", "qwen3_moe", "qwen3_next", "rwkv", "smollm3", "zamba2",
]  # fmt: skip
"""Model types that every run of the tests tries; the others are slow together."""


def cases() -> Iterator[Any]:
    for name, case in matrix.CASES.items():
        yield pytest.param(name, marks=() if case.kind in CORE else pytest.mark.slow)


@pytest.mark.parametrize("name", cases())
def test_a_family_is_right_or_refused(tmp_path: Path, name: str) -> None:
    case = matrix.CASES[name]
    for splice, outcome in [*matrix.outcomes(case, tmp_path), *matrix_pairs.outcomes(case, tmp_path)]:
        words = case.refused.get(splice)
        assert outcome.state == ("refused" if words else "right"), (splice, outcome.why)
        assert (words or "") in outcome.why, splice


def test_the_matrix_is_wide() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    right = {case.kind for case in matrix.CASES.values() if not case.refused}
    assert len(right) >= 90
    assert set(RULES) & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) <= {case.kind for case in matrix.CASES.values()}


def test_the_table_in_the_docs_is_current() -> None:
    docs = ROOT / "docs" / "families.md"
    assert docs.read_text(encoding="utf-8") == matrix.table(), (
        "run `python -m tests.families --table > docs/families.md`"
    )


@pytest.mark.parametrize(
    "name", ["bamba, mixed", "lfm2, mixed", "nemotron_h", "gemma4_text, nothing shared", "gpt_neo"]
)
def test_layers_of_two_hybrids_are_compared_by_their_kind(tmp_path: Path, name: str) -> None:
    shutil.copytree(matrix.make_donor(matrix.CASES[name], tmp_path / "a"), tmp_path / "b")
    plan = plan_of(tmp_path, stack_of(("a", 0, 2), ("b", 3, 4), ("a", 1, 2), ("b", 2, 6)))
    assert [code for code in codes(plan) if code.startswith("error")] == []


@pytest.mark.parametrize(
    ("name", "indices", "words"),
    [
        ("gemma4_text, nothing shared", (0, 3, 2), "a last layer with sliding attention"),
        ("modernbert-decoder", (1, 2, 3), "its first layer lacks a norm"),
        ("modernbert-decoder", (0, 1, 0), "its first layer lacks a norm"),
        ("gpt_neox_japanese", (0, 1, 4), "only its last layer has a bias"),
        ("gpt_neox_japanese", (0, 5, 5), "only its last layer has a bias"),
        ("olmo_hybrid", (1, 2), "a stack without a layer of full attention"),
        ("lfm2, mixed", (0, 0), ""),
    ],
)
def test_ends_that_are_special(tmp_path: Path, name: str, indices: tuple[int, ...], words: str) -> None:
    made = matrix.make_config(matrix.CASES[name])
    checkpoint = bare({"architectures": ["X"], **json.loads(made.to_json_string())}, tmp_path)
    pairs = [(checkpoint, index) for index in indices]
    _, findings = output_config(checkpoint, pairs, tied=checkpoint.tied, dtype=None, vocab_size=None)
    told = [finding.sentence() for finding in findings if finding.severity == "error"]
    assert bool(told) == bool(words)
    assert all(words in sentence for sentence in told[:1])


def bare(raw: dict[str, Any], folder: Path) -> Checkpoint:
    """A checkpoint of a config, with no tensors."""
    config = ModelConfig.of(raw)
    assert config.depth is not None
    layers = tuple(Layer(index, {}, row) for index, row in enumerate(layer_attributes(config, config.depth)))
    return Checkpoint("x", folder, folder, (), {}, config, None, layers, {}, {})


@pytest.mark.parametrize(
    ("listed", "indices", "words"),
    [
        ([3, 6], (0, 1, 2, 1, 3, 5), ""),
        ([3, 6], (2, 0, 1), ""),
        ([3, 6], (0, 2, 1, 2), "the tables of n-grams of layer 3"),
        ([3, 6], (5, 1, 2), "the tables of n-grams of layer 0, 2"),
        ([1], (0, 1, 2, 0), "the tables of n-grams of layer 3"),
        ([], (5, 5, 0), ""),
        ([[1], None, "2", 3], (2, 0), ""),
    ],
)
def test_tables_of_n_grams_follow_their_layers(
    tmp_path: Path, listed: list[Any], indices: tuple[int, ...], words: str
) -> None:
    case = matrix.CASES["qwen4_exp_text, tables of n-grams within"]
    made = json.loads(matrix.make_config(case).to_json_string())
    donor = bare({"architectures": ["X"], **made, "ple_layer_ids": listed}, tmp_path)
    out, findings = output_config(donor, [(donor, index) for index in indices], tied=False, dtype=None, vocab_size=None)
    assert words in " ".join(finding.what for finding in findings) and bool(findings) == bool(words)
    assert out["ple_layer_ids"] == [place + 1 for place, index in enumerate(indices) if index + 1 in listed]


def test_a_head_is_never_tied_where_transformers_has_nothing_to_tie() -> None:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    for kind in {case.kind for case in matrix.CASES.values()} & NAMES.keys():
        made = getattr(transformers, NAMES[kind])
        written = {"mllama": "mllama_text_model", **matrix.SAVED_AS}.get(kind, kind)
        # The class of bigbird_pegasus that has an encoder too ties its head.
        assert (written in UNTIED) == (not made._tied_weights_keys) or kind == "bigbird_pegasus", kind


@pytest.mark.parametrize(
    "name", ["blt", "cpmant", "hrm_text", "inkling2_text", "longcat_flash", "qwen4_exp_text, tables of n-grams within"]
)
def test_the_load_back_counts_and_places_as_transformers_does(tmp_path: Path, name: str) -> None:
    case = matrix.CASES[name]
    matrix.make_donor(case, tmp_path / "a")
    ranges = [(0, matrix.DEPTH)] if "grow" in case.refused else matrix.SPLICES["grow"]
    plan = plan_of(tmp_path, stack_of(*(("a", start, stop) for start, stop in ranges)))
    assert plan.ok and not [finding for finding in plan.findings if finding.severity == "warning"]
    (tmp_path / "config.json").write_text(json.dumps(plan.config))
    outcome = check(tmp_path, json.loads(json.dumps(expectation(plan))))
    assert (outcome.checked, outcome.mismatches) == (True, ())


def test_two_minicpm3_of_other_depths_keep_their_residual_scale(tmp_path: Path) -> None:
    made = matrix.make_config(matrix.CASES["minicpm3, scaled by depth"])
    raw = {"architectures": ["X"], **json.loads(made.to_json_string())}
    one, other = bare(raw, tmp_path), bare({**raw, "scale_depth": 1.5}, tmp_path)
    out, _ = output_config(one, [(one, 0), (one, 5)], tied=False, dtype=None, vocab_size=None)
    assert out["scale_depth"] / 2**0.5 == 1.4 / 6**0.5
    _, findings = output_config(one, [(one, 0), (other, 5)], tied=False, dtype=None, vocab_size=None)
    assert any("the residual scale of each layer" in finding.what for finding in findings)


def test_a_list_that_transformers_fills_in_is_known_by_rule_or_refused() -> None:
    """A config that leaves such a list out must never be taken for one whose layers are all alike."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    attributes = {"layer_types": "attention", "mlp_layer_types": "mlp", "no_rope_layers": "rope"}
    unknown = []
    for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if kind.endswith("_assistant"):
            continue  # Their configs cannot be made without another model's.
        text = CONFIG_MAPPING[kind]().get_text_config(decoder=True)
        said = text.to_dict()
        for key in (*attributes, "layer_rope_theta", "indexer_types", "kv_source_layers"):
            if not isinstance(said.get(key), list) or text.model_type in FAMILIES:
                continue
            ruled = any(rule.attribute == attributes.get(key) for rule in RULES.get(text.model_type, ()))
            ruled |= (text.model_type, key) in FILLED_VALUES
            if not ruled and text.model_type not in FILLED.get(key, ()):
                unknown.append((text.model_type, key))
    assert not unknown


def _list(*kinds: str) -> Callable[[Any, int], list[str]]:
    return lambda draw, depth: draw(st.lists(st.sampled_from(kinds), min_size=depth, max_size=depth))


def _indices(draw: Any, depth: int) -> list[int]:
    return sorted(draw(st.sets(st.integers(0, depth - 1), min_size=1)))


def _count(draw: Any, depth: int) -> int:
    return int(draw(st.integers(0, depth)))


def _runs(draw: Any, depth: int) -> list[Any]:
    return [[draw(st.lists(st.sampled_from(["global", "local"]), min_size=depth, max_size=depth)), 1]]


def _period(draw: Any, depth: int) -> int:
    return int(draw(st.integers(1, depth)))


_ATTENTION = _list("full_attention", "sliding_attention")
_LINEAR = _list("full_attention", "linear_attention")
_MLP = _list("dense", "sparse")
_ROPE: Callable[[Any, int], list[int]] = lambda draw, depth: draw(  # noqa: E731
    st.lists(st.integers(0, 1), min_size=depth, max_size=depth)
)

KEYS: dict[str, dict[str, Callable[[Any, int], Any]]] = {
    "afmoe": {"layer_types": _ATTENTION, "num_dense_layers": _count},
    "bamba": {"attn_layer_indices": _indices},
    "deepseek_v3": {"first_k_dense_replace": _count},
    "ernie4_5_moe": {"moe_layer_start_index": _count, "moe_layer_end_index": _count, "moe_layer_interval": _period},
    "exaone_moe": {"layer_types": _ATTENTION, "mlp_layer_types": _MLP},
    "gemma3_text": {"layer_types": _ATTENTION},
    "glm4_moe": {"first_k_dense_replace": _count},
    "gpt_neo": {"attention_types": _runs},
    "granitemoehybrid": {"layer_types": _LINEAR},
    "jamba": {"attn_layer_period": _period, "expert_layer_period": _period},
    "laguna": {"layer_types": _ATTENTION, "mlp_layer_types": _MLP},
    "lfm2_moe": {"layer_types": _list("conv", "full_attention"), "num_dense_layers": _count},
    "llama4_text": {"no_rope_layers": _ROPE, "moe_layers": _indices},
    "nemotron_h": {"layers_block_type": _list("linear_attention", "moe", "full_attention", "mlp")},
    "qwen3_moe": {"mlp_only_layers": _indices, "decoder_sparse_step": _period},
    "qwen3_next": {"layer_types": _LINEAR, "mlp_only_layers": _indices},
    "recurrent_gemma": {"block_types": _list("recurrent", "attention")},
    "smollm3": {"no_rope_layers": _ROPE},
}
"""Hybrids and mixtures, and what their layers are said to be by."""


@st.composite
def splices(draw: Any) -> tuple[str, int, dict[str, Any], list[int]]:
    """A model type, a depth, keys of its config, and an order of its layers."""
    kind = draw(st.sampled_from(sorted(KEYS)))
    depth = draw(st.integers(2, 6))
    said = {key: make(draw, depth) for key, make in KEYS[kind].items()}
    if kind == "jamba":
        said |= {"attn_layer_offset": said["attn_layer_period"] - 1, "expert_layer_offset": 0}
    if kind == "laguna":
        said["num_attention_heads_per_layer"] = draw(st.lists(st.sampled_from([2, 4]), min_size=depth, max_size=depth))
    order = draw(st.lists(st.integers(0, depth - 1), min_size=1, max_size=8))
    return kind, depth, said, order


def built(raw: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Every layer's own settings, as transformers makes them of a config."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    layers = matrix.find_stack(model, config.num_hidden_layers)[1]
    return [settings_of(layer, config, index) for index, layer in enumerate(layers)]


OLD: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "qwen3_next, an interval": ("qwen3_next", ("layer_types",), {"full_attention_interval": 2}),
    "qwen3_next, nothing": ("qwen3_next", ("layer_types",), {}),
    "llama4, intervals": (
        "llama4_text",
        ("layer_types", "moe_layers", "no_rope_layers"),
        {"interleave_moe_layer_step": 2, "no_rope_layer_interval": 3, "no_rope_layers": []},
    ),
    "granitemoehybrid, older names": (
        "granitemoehybrid",
        ("layer_types",),
        {"layers_block_type": ["mamba", "attention", "mamba", "mamba", "attention", "mamba"]},
    ),
    "lfm2, indices": ("lfm2", ("layer_types",), {"full_attn_idxs": [1, 4]}),
    "afmoe, a period": ("afmoe", ("layer_types",), {"global_attn_every_n_layers": 3}),
    "nemotron_h, letters": (
        "nemotron_h",
        ("layers_block_type", "layer_types"),
        {"hybrid_override_pattern": "M-M*-E", "num_hidden_layers": 6},
    ),
    "recurrent_gemma, a short list": ("recurrent_gemma", (), {"block_types": ["recurrent", "attention"]}),
    "gpt_neo, runs": (
        "gpt_neo",
        ("attention_layers",),
        {"attention_types": [[["local"], 2], [["global", "local"], 2]]},
    ),
    "ernie4_5_moe, to the last": ("ernie4_5_moe", (), {"moe_layer_end_index": -1, "moe_layer_start_index": 2}),
    "bamba, indices": ("bamba", (), {"attn_layer_indices": [0, 3]}),
    "jamba, nothing": ("jamba", ("attn_layer_period", "attn_layer_offset", "expert_layer_period"), {}),
    "deepseek_v3, nothing": ("deepseek_v3", ("first_k_dense_replace",), {}),
    "gemma4, no table": ("gemma4_text", ("per_layer_config",), {"global_head_dim": 16}),
}


@pytest.mark.parametrize("name", OLD)
def test_configs_that_say_it_in_older_ways(tmp_path: Path, name: str) -> None:
    kind, without, more = OLD[name]
    named = {"gemma4_text": "gemma4_text, nothing shared", "deepseek_v3": "deepseek_v3, one dense first"}
    case = matrix.CASES[named.get(kind, kind)]
    made = json.loads(matrix.make_config(case).to_json_string())
    raw = {"architectures": ["X"], **{key: value for key, value in made.items() if key not in without}, **more}
    theirs = built(raw, tmp_path / "donor")
    checkpoint = bare(raw, tmp_path)
    assert (checkpoint.depth, len(theirs)) == (6, 6)
    carried = 0
    for order in ([0, 1, 0, 1, 2, 3, 4, 5], [0, 2, 3], [3, 1, 5], [0, 1, 4, 5]):
        out, findings = output_config(
            checkpoint, [(checkpoint, index) for index in order], tied=checkpoint.tied, dtype=None, vocab_size=None
        )
        if not any(finding.severity == "error" for finding in findings):
            assert built(out, tmp_path / "out") == [theirs[index] for index in order], order
            carried += 1
    assert carried >= 1 + (kind not in {"afmoe", "deepseek_v3", "ernie4_5_moe", "gemma4_text", "jamba"})


@given(splices())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_random_splices_of_random_hybrids_keep_what_each_layer_is(
    tmp_path: Path, splice: tuple[str, int, dict[str, Any], list[int]]
) -> None:
    kind, depth, said, order = splice
    depths = {matrix.DEPTH_NAMES.get(kind, "num_hidden_layers"): depth}
    made = matrix.make_config(matrix.Case(kind, {**depths, **said}))
    raw = {"architectures": ["X"], **json.loads(made.to_json_string())}
    theirs = built(raw, tmp_path / "donor")
    checkpoint = bare(raw, tmp_path)
    assert (checkpoint.depth, len(theirs)) == (depth, depth)
    pairs = [(checkpoint, index) for index in order]
    out, findings = output_config(checkpoint, pairs, tied=checkpoint.tied, dtype=None, vocab_size=None)
    if any(finding.severity == "error" for finding in findings):
        assert kind in {"afmoe", "deepseek_v3", "ernie4_5_moe", "glm4_moe", "jamba", "lfm2_moe"}, findings
        return
    ours = built(out, tmp_path / "out")
    assert ours == [theirs[index] for index in order]
