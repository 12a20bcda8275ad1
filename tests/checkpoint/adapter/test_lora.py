"""Adapters on disk: what opens, what their settings mean, and every refusal with its reason."""

from __future__ import annotations

import json
import re
from math import isfinite, sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.checkpoint.adapter.adapter_config import Patterns
from surgeon.checkpoint.adapter.lora import Adapter, is_adapter, open_adapter
from surgeon.errors import InputError
from tests.support.sparse import sparse_file, sparse_llama, write_tokenizer

Q = "base_model.model.model.layers.0.self_attn.q_proj"
PAIR = {f"{Q}.lora_A.weight": (4, 16), f"{Q}.lora_B.weight": (16, 4)}


def put(folder: Path, shapes: dict[str, tuple[int, ...]] | None = None, dtype: str = "F32", **config: Any) -> Path:
    """An adapter's folder with tensors of these shapes; keys of `config` go to its config."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {"peft_type": "LORA", "r": 4, "lora_alpha": 8} | config
    (folder / "adapter_config.json").write_text(json.dumps(table))
    spec = {name: (dtype, shape) for name, shape in (PAIR if shapes is None else shapes).items()}
    sparse_file(folder / "adapter_model.safetensors", spec)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_adapter(folder)
    sentence = caught.value.sentence()
    assert str(folder) in sentence
    return sentence


def test_what_is_in_the_folder(tmp_path: Path) -> None:
    names = {
        **PAIR,
        "base_model.model.model.norm.weight": (16,),
        f"{Q}.base_layer.bias": (16,),
        "base_model.model.lm_head.modules_to_save.default.weight": (64, 16),
    }
    adapter = open_adapter(put(tmp_path, names, base_model_name_or_path="org/base\x1b[2J"))
    assert adapter.base == "org/base\x1b[2J"
    (module,) = adapter.factors
    factors = adapter.factors[module]
    assert module == "model.layers.0.self_attn.q_proj"
    assert (factors.down.shape, factors.up.shape, factors.magnitude, factors.embedding) == (
        (4, 16),
        (16, 4),
        None,
        False,
    )
    assert {name: entry.shape for name, entry in adapter.stored.items()} == {
        "model.norm.weight": (16,),
        "model.layers.0.self_attn.q_proj.bias": (16,),
        "lm_head.weight": (64, 16),
    }
    assert open_adapter(tmp_path / "adapter_model.safetensors").factors == adapter.factors


def test_both_names_of_what_was_trained_whole(tmp_path: Path) -> None:
    """peft writes them where a vocabulary has grown, and loads the plain one."""
    head = "base_model.model.lm_head"
    names = {f"{head}.{part}weight": (66, 16) for part in ("", "modules_to_save.", "original_module.")}
    adapter = open_adapter(put(tmp_path, names))  # type: ignore[arg-type]
    assert adapter.stored["lm_head.weight"].name == f"{head}.weight"
    assert adapter.originals["lm_head.weight"].name == f"{head}.original_module.weight"


def test_names_without_a_prefix_and_with_an_adapters_name(tmp_path: Path) -> None:
    names = {
        "layers.0.q.lora_A.default.weight": (4, 8),
        "layers.0.q.lora_B.default.weight": (8, 4),
        "layers.0.q.lora_magnitude_vector.default.weight": (8,),
        "embed.lora_embedding_A.default": (4, 9),
        "embed.lora_embedding_B.default": (8, 4),
        "embed.lora_magnitude_vector": (8,),
    }
    adapter = open_adapter(put(tmp_path, names, use_dora=True))
    assert {module: factors.embedding for module, factors in adapter.factors.items()} == {
        "layers.0.q": False,
        "embed": True,
    }


def test_the_tokenizer_beside_it(tmp_path: Path) -> None:
    put(tmp_path)
    assert open_adapter(tmp_path).tokenizer.files == ()
    write_tokenizer(tmp_path, ["<unk>", "a"], added={"<new>": 2})
    assert open_adapter(tmp_path).tokenizer.last == ("<new>", 2)


def test_what_is_an_adapter(tmp_path: Path) -> None:
    assert is_adapter(put(tmp_path / "adapter"))
    model = sparse_llama(tmp_path / "model")
    assert not is_adapter(model)
    assert not is_adapter(tmp_path / "nowhere")
    (model / "adapter_config.json").write_text("{}")
    assert not is_adapter(model)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "adapter_model.bin").touch()
    assert is_adapter(tmp_path / "old")


@pytest.mark.parametrize(
    ("config", "module", "rank", "factor"),
    [
        ({"r": 4, "lora_alpha": 8}, "a", 4, 2),
        ({"r": 4, "lora_alpha": 0.5}, "a", 4, 0.125),
        ({"r": 16, "lora_alpha": 8, "use_rslora": True}, "a", 16, 2),
        ({"r": None, "lora_alpha": 8}, "a", 4, 2),
        ({"rank_pattern": {"q": 2}}, "x.q", 2, 4),
        ({"rank_pattern": {"q": 2}}, "x.kq", 4, 2),
        ({"rank_pattern": {"q": 2}}, "x.q.k", 4, 2),
        ({"rank_pattern": {"x.q": 2}}, "w.x.q", 2, 4),
        ({"rank_pattern": {"^x.q": 2}}, "w.x.q", 4, 2),
        ({"rank_pattern": {"^x.q": 2}}, "x.q", 2, 4),
        ({"alpha_pattern": {"q": 2}}, "x.q", 4, 0.5),
        ({"alpha_pattern": {"q": 2}, "rank_pattern": {"x.q": 8}, "use_rslora": True}, "x.q", 8, 2 / sqrt(8)),
        ({"alpha_pattern": {r".*\.(k|q)": 2, "q": 4}}, "w.x.q", 4, 0.5),
        ({"alpha_pattern": {"q": 4, r".*\.(k|q)": 2}}, "w.x.q", 4, 1),
        ({"alpha_pattern": {"x.q": 4, "q": 12}}, "w.x.q", 4, 1),
        ({"alpha_pattern": {"q": 12, "x.q": 4}}, "w.x.q", 4, 3),
        ({"alpha_pattern": {r"layers\.([0-9]|1[0-5])\..*_proj": 16}}, "model.layers.15.mlp.up_proj", 4, 4),
        ({"alpha_pattern": {r"layers\.([0-9]|1[0-5])\..*_proj": 16}}, "model.layers.16.mlp.up_proj", 4, 2),
        ({"alpha_pattern": {"q|k": 16}}, "x.k", 4, 4),
    ],
)
def test_rank_and_scale(tmp_path: Path, config: dict[str, Any], module: str, rank: int, factor: float) -> None:
    if config.get("r", 4) is None:
        config = config | {"r": 4}
    found = open_adapter(put(tmp_path, **config)).config
    assert (found.rank_of(module), found.factor_of(module)) == (rank, pytest.approx(factor, rel=1e-15))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_patterns_mean_what_they_mean_to_peft(data: st.DataObject) -> None:
    """peft: the first key with re.match(rf"(.*\\.)?({key})$", name)."""
    part = st.sampled_from(["a", "b", "ab", "layers", "0", "10"])
    name = ".".join(data.draw(st.lists(part, min_size=1, max_size=4)))
    atoms = ["a", "b", "ab", "layers", "0", r"\.", ".", ".*", r"\d+", "(a|b)", "[ab]", "^", "|", "a?"]
    pattern = st.lists(st.sampled_from(atoms), min_size=1, max_size=4).map("".join)
    keys = data.draw(st.lists(pattern, min_size=1, max_size=3, unique=True))
    expected = next((n for n, key in enumerate(keys) if re.match(rf"(.*\.)?({key})$", name)), None)
    plain = [key for key in keys if re.fullmatch(r"[\w.-]+", key) and "." in key]
    if not plain:  # a dot in a plain name is a dot
        assert Patterns(Path("x"), "rank_pattern", dict(zip(keys, range(9), strict=False))).find(name) == expected


@pytest.mark.parametrize(
    ("config", "fragments"),
    [
        ({"peft_type": "LOHA"}, ["a 'LOHA' adapter", "only LoRA"]),
        ({"peft_type": "IA3"}, ["a 'IA3' adapter"]),
        ({"peft_type": "PROMPT_TUNING"}, ["only LoRA adapters can be merged"]),
        ({"peft_type": "ADALORA"}, ["only LoRA adapters can be merged"]),
        ({"peft_type": None}, ["whose config does not state its type"]),
        ({"layer_replication": [[0, 2], [1, 3]]}, ["layer_replication", "repeats layers"]),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, ["target_parameters", "fused parameters"]),
        ({"trainable_token_indices": [1, 2]}, ["trainable_token_indices", "single rows"]),
        ({"lora_bias": True}, ["lora_bias", "its factors have biases"]),
        ({"kasa_config": {}, "use_qalora": True}, ["use_qalora", "quantised"]),
        ({"kasa_config": {"beta": 1}}, ["KaSA"]),
        ({"arrow_config": {"top_k": 3}}, ["arrow_config"]),
        ({"alora_invocation_tokens": [5]}, ["alora_invocation_tokens"]),
        ({"use_bdlora": {"nblocks": 2}}, ["use_bdlora"]),
        ({"init_lora_weights": "pissa_niter_16"}, ["'pissa_niter_16'", "changes the base", "path_initial_model"]),
        ({"init_lora_weights": "olora"}, ["'olora'"]),
        ({"init_lora_weights": "loftq"}, ["'loftq'"]),
        ({"r": 0}, ["r is '0', not a rank"]),
        ({"r": True}, ["r is 'True'"]),
        ({"r": 4.5}, ["r is '4.5'"]),
        ({"lora_alpha": "16"}, ["lora_alpha is '16', not a number"]),
        ({"lora_alpha": float("nan")}, ["lora_alpha is 'nan'"]),
        ({"lora_alpha": 10**400}, ["lora_alpha is"]),
        ({"use_rslora": "yes"}, ["use_rslora is 'yes'"]),
        ({"modules_to_save": "lm_head"}, ["modules_to_save is not a list"]),
        ({"rank_pattern": [1]}, ["rank_pattern is not a table"]),
        ({"rank_pattern": {"q": -1}}, ["rank_pattern of 'q' is '-1'"]),
        ({"alpha_pattern": {"q": None}}, ["alpha_pattern of 'q' is 'None'"]),
        ({"alpha_pattern": {"(q": 1}}, ["'(q'", "is broken"]),
        ({"alpha_pattern": {"(a+)+b": 1}}, ["'(a+)+b'", "too complex"]),
        ({"alpha_pattern": {"a*a*a*a*b": 1}}, ["too complex"]),
        ({"alpha_pattern": {"(.|.)" * 9: 1}}, ["too complex"]),
        ({"alpha_pattern": {"x|" * 400: 1}}, ["too complex"]),
    ],
)
def test_configs_that_are_refused(tmp_path: Path, config: dict[str, Any], fragments: list[str]) -> None:
    sentence = refusal(put(tmp_path, **config))
    for fragment in fragments:
        assert fragment in sentence


@pytest.mark.parametrize(
    "config",
    [
        {"init_lora_weights": True},
        {"init_lora_weights": "gaussian"},
        {"layer_replication": None, "target_parameters": [], "lora_bias": False, "arrow_config": None},
        {"bias": "all", "layers_to_transform": [0], "layers_pattern": "layers", "task_type": "CAUSAL_LM"},
    ],
)
def test_settings_that_change_nothing(tmp_path: Path, config: dict[str, Any]) -> None:
    assert isinstance(open_adapter(put(tmp_path, **config)), Adapter)


KEYS = st.sampled_from(
    ["r", "lora_alpha", "use_rslora", "use_dora", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern",
     "ensure_weight_tying", "init_lora_weights", "base_model_name_or_path", "target_parameters", "lora_bias"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(config=st.dictionaries(KEYS, VALUES, max_size=5))
def test_any_config_opens_or_is_refused(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> None:
    folder = put(tmp_path_factory.getbasetemp() / "any", **config)
    try:
        adapter = open_adapter(folder)
        assert isfinite(adapter.config.factor_of("model.layers.0.self_attn.q_proj"))
    except InputError as error:
        assert str(folder) in error.sentence()


A, B, M = (f"{Q}.lora_{kind}" for kind in ("A.weight", "B.weight", "magnitude_vector"))
EMBED = "base_model.model.model.embed_tokens"


@pytest.mark.parametrize(
    ("shapes", "config", "fragments"),
    [
        ({}, {}, ["the adapter holds no tensors"]),
        ({A: (4, 16)}, {}, [A, "no matching lora_B"]),
        ({B: (4, 16)}, {}, [B, "no matching lora_A"]),
        ({f"{EMBED}.lora_embedding_A": (4, 16)}, {}, ["no matching lora_embedding_B"]),
        ({M: (16,)}, {"use_dora": True}, [M, "no matching lora_A"]),
        ({**PAIR, f"{Q}.lora_embedding_A": (4, 1), f"{Q}.lora_embedding_B": (4, 1)}, {}, ["has embedding factors too"]),
        (PAIR, {"use_dora": True}, [A, "no matching DoRA magnitudes", "use_dora: true"]),
        ({**PAIR, M: (16,)}, {}, [A, "has DoRA magnitudes", "use_dora: false"]),
        ({**PAIR, f"{Q}.lora_B.bias": (16,)}, {}, ["lora_B.bias", "does not exist in plain LoRA"]),
        ({**PAIR, f"{Q}.lora_diag": (4,)}, {}, ["lora_diag"]),
        ({"lora_unet_down.lora_down.weight": (4, 4)}, {}, ["lora_down"]),
        ({f"{EMBED}.token_adapter.trainable_tokens_delta": (4, 4)}, {}, ["trainable_tokens_delta"]),
        ({**PAIR, f"{Q}.lora_A.default.weight": (4, 16)}, {}, ["lora_A.default.weight", "for the same weight"]),
        ({"a.base_layer.bias": (1,), "a.bias": (1,)}, {}, ["'a.base_layer.bias'", "'a.bias'", "for the same weight"]),
    ],
)
def test_weights_that_are_refused(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], config: dict[str, Any], fragments: list[str]
) -> None:
    sentence = refusal(put(tmp_path, shapes, **config))
    for fragment in fragments:
        assert fragment in sentence


def test_weights_of_other_types_are_refused(tmp_path: Path) -> None:
    assert "is F8_E4M3" in refusal(put(tmp_path, dtype="F8_E4M3"))


def test_files_that_are_refused(tmp_path: Path) -> None:
    assert "adapter_config.json" in refusal(tmp_path)
    put(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    assert "there is no adapter_model.safetensors" in refusal(tmp_path)
    (tmp_path / "adapter_model.bin").touch()
    assert "a pickle, which runs code" in refusal(tmp_path)
    put(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    assert "JSON object" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    assert "not valid JSON" in refusal(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\xff" * 20)
    put_config = {"peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(put_config))
    assert "adapter_model.safetensors" in refusal(tmp_path)


def test_a_hostile_pattern_does_not_keep_it_busy(tmp_path: Path) -> None:
    """The worst that passes takes polynomial time in a name's length, and names are short."""
    config = open_adapter(put(tmp_path, alpha_pattern={".*.*.*(a|a)!": 1})).config
    assert config.factor_of("a." * 30 + "a") == 2
    with pytest.raises(InputError, match="too long to be matched"):
        config.factor_of("a" * 400)
