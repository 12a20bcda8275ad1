"""The output's config: transformers, given it, builds every layer as the layer it came from was built in its donor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint.families.naming import FAMILIES
from surgeon.checkpoint.families.type_rules import DEPTHS
from surgeon.plan import Plan
from surgeon.plan.config.output_config import output_config
from tests.support.models import tiny_config
from tests.support.planning import codes, found, plan_of, stack_of
from tests.support.sparse import sparse_checkpoint, sparse_llama

Config = dict[str, Any]
LISTS = ("layer_types", "mlp_layer_types", "no_rope_layers")
GROWN = (("a", 0, 5), ("a", 1, 3), ("a", 2, 6), ("a", 0, 1), ("a", 5, 6))
SHUFFLED = (("a", 3, 6), ("a", 0, 3))
PRUNED = (("a", 0, 1), ("a", 2, 3), ("a", 5, 6))


def built(raw: Config, folder: Path) -> tuple[Any, dict[str, tuple[int, ...]], list[Config]]:
    """What transformers makes of a config: itself, the tensors of the model, and every layer's own settings."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    # The one name here that transformers gives another on disk.
    head = {"lm_head.weight": "embed_out.weight"} if text.model_type == "gpt_neox" else {}
    tensors = {head.get(name, name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if text.tie_word_embeddings:
        tensors = {name: shape for name, shape in tensors.items() if not name.startswith("lm_head.")}
    return config, tensors, [settings(layer, text, index) for index, layer in enumerate(layers_of(model))]


def layers_of(model: Any) -> Any:
    body = model.base_model
    for name in ("language_model", "layers", "h"):
        body = getattr(body, name, body)
    return body


def settings(layer: Any, config: Any, index: int) -> Config:
    """Every plain value that a layer and its parts hold, without the index itself."""
    out: Config = {}
    for path, module in layer.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, (bool, int, float, str, type(None))) and name not in ("layer_idx", "layer_id"):
                out[f"{path}.{name}"] = value
        out[f"{path}.class"] = type(module).__name__
    out |= {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    out |= {name: getattr(config, name)[index] for name in LISTS if getattr(config, name, None)}
    return out


@lru_cache(maxsize=64)
def _json(model_type: str, layers: int, more: str) -> str:
    return str(tiny_config(model_type, layers, **json.loads(more)).to_json_string())


def raw_config(model_type: str, layers: int = 6, **more: Any) -> Config:
    """A config.json as transformers writes it."""
    raw: Config = json.loads(_json(model_type, layers, json.dumps(more)))
    return {"architectures": ["X"], **raw}


def donor(folder: Path, name: str, raw: Config) -> list[Config]:
    """A checkpoint of that config in `folder/name`, and its layers' settings."""
    _, tensors, layers = built(raw, folder / f"{name}-built")
    sparse_checkpoint(folder / name, {key: ("BF16", shape) for key, shape in tensors.items()}, raw)
    return layers


def check(plan: Plan, folder: Path, wanted: list[Config]) -> None:
    """That transformers builds the planned model with these layers, and with exactly the planned tensors."""
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    assert plan.config is not None
    _, tensors, layers = built(plan.config, folder / "out")
    assert len(layers) == len(wanted)
    for index, (have, want) in enumerate(zip(layers, wanted, strict=True)):
        assert have == want, f"layer {index} is {plan.layers[index].label}"
    assert {tensor.name: tensor.shape for tensor in plan.tensors} == tensors


def modern(key: str, value: Any) -> Callable[[Config], Config]:
    return lambda raw: {**raw, key: value}


def without(*keys: str, **more: Any) -> Callable[[Config], Config]:
    """The config as older versions wrote it."""

    def change(raw: Config) -> Config:
        raw = {key: value for key, value in raw.items() if key not in keys} | more
        if isinstance(raw.get("text_config"), Mapping):
            raw["text_config"] = change(raw["text_config"])
        return raw

    return change


CASES: dict[str, tuple[str, Config, Callable[[Config], Config] | None]] = {
    "llama": ("llama", {}, None),
    "llama with what others ignore": ("llama", {}, without(pretraining_tp=1, eos_token_id=[1, 2, 3, 4, 5, 6])),
    "mistral": ("mistral", {"sliding_window": 16}, None),
    "mistral without a window": ("mistral", {"sliding_window": None}, None),
    "qwen2": ("qwen2", {}, None),
    "qwen2 from an old version": ("qwen2", {}, without("layer_types", "rope_parameters", rope_theta=1e6)),
    "qwen2 that slides": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}, None),
    "qwen3": ("qwen3", {}, None),
    "qwen3 that slides": ("qwen3", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 3}, None),
    "qwen3 that slides, old": (
        "qwen3", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 3}, without("layer_types"),
    ),
    "gemma": ("gemma", {}, None),
    "gemma2": ("gemma2", {}, None),
    "gemma2 from an old version": ("gemma2", {}, without("layer_types")),
    "gemma3": ("gemma3_text", {}, None),
    "gemma3 from an old version": ("gemma3_text", {}, without("layer_types", sliding_window_pattern=6)),
    "gemma3 of another period": ("gemma3_text", {}, without("layer_types", sliding_window_pattern=3)),
    "phi3": ("phi3", {}, None),
    "phi3 with a window": ("phi3", {"sliding_window": 16}, None),
    "gpt2": ("gpt2", {}, None),
    "gpt2 by its own key": ("gpt2", {}, without("num_hidden_layers", n_layer=6)),
    "gpt_neox": ("gpt_neox", {}, None),
    "falcon": ("falcon", {}, None),
    "mixtral": ("mixtral", {}, None),
    "qwen3_moe": ("qwen3_moe", {}, None),
    "qwen3_moe, some dense": ("qwen3_moe", {"mlp_only_layers": [0, 3]}, None),
    "qwen3_moe, every second": ("qwen3_moe", {"decoder_sparse_step": 2, "mlp_only_layers": [5]}, None),
    "qwen2_moe, some dense": (
        "qwen2_moe", {"mlp_only_layers": [1], "num_experts": 4, "moe_intermediate_size": 32,
                      "shared_expert_intermediate_size": 32}, None,
    ),
    "smollm3": ("smollm3", {}, None),
    "smollm3 from an interval": ("smollm3", {"no_rope_layer_interval": 3}, without("no_rope_layers", "layer_types")),
    "smollm3 that slides": ("smollm3", {"use_sliding_window": True, "sliding_window": 16}, without("layer_types")),
    "cohere2": ("cohere2", {"sliding_window": 16}, None),
    "cohere2 from an old version": (
        "cohere2", {"sliding_window": 16}, without("layer_types", sliding_window_pattern=4),
    ),
    "olmo2": ("olmo2", {}, None),
    "olmo3": ("olmo3", {"sliding_window": 16}, None),
    "olmo3 from an old version": ("olmo3", {"sliding_window": 16}, without("layer_types")),
    "gpt_oss": ("gpt_oss", {"head_dim": 8, "num_local_experts": 4, "sliding_window": 16}, None),
    "gpt_oss from an old version": (
        "gpt_oss", {"head_dim": 8, "num_local_experts": 4, "sliding_window": 16}, without("layer_types"),
    ),
    "exaone4": ("exaone4", {"sliding_window": 16, "sliding_window_pattern": 4}, None),
    "granite": ("granite", {}, None),
    "starcoder2": ("starcoder2", {"sliding_window": 16}, None),
    "an unknown one with lists": ("vaultgemma", {"sliding_window": 16, "head_dim": 8}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_layers_are_what_they_were(tmp_path: Path, case: str) -> None:
    model_type, more, change = CASES[case]
    raw = raw_config(model_type, **more)
    raw = change(raw) if change else raw
    sources = donor(tmp_path, "a", raw)
    for ranges in (GROWN, SHUFFLED, PRUNED):
        plan = plan_of(tmp_path, stack_of(*ranges))
        check(plan, tmp_path, [sources[index] for _, start, stop in ranges for index in range(start, stop)])


def test_a_model_in_its_own_order_keeps_its_config_to_the_letter(tmp_path: Path) -> None:
    for case, (model_type, more, change) in CASES.items():
        raw = raw_config(model_type, **more)
        raw = change(raw) if change else raw
        sparse = tmp_path / case.replace(" ", "-")
        donor(sparse, "a", raw)
        plan = plan_of(sparse, stack_of(("a", 0, 6)))
        assert plan.config == raw, case


@pytest.mark.parametrize("old", [False, True])
def test_nested_text_models(tmp_path: Path, old: bool) -> None:
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14, "model_type": "siglip_vision_model"}  # fmt: skip
    text = raw_config("gemma3_text")
    if old:
        text = without("layer_types", "rope_parameters", "_sliding_window_pattern")(text)
    raw = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text,
           "vision_config": vision, "tie_word_embeddings": True, "mm_tokens_per_image": 4}  # fmt: skip
    sources = donor(tmp_path, "a", raw)
    plan = plan_of(tmp_path, stack_of(*GROWN))
    check(plan, tmp_path, [sources[index] for _, start, stop in GROWN for index in range(start, stop)])
    assert plan.config is not None
    assert plan.config["text_config"]["num_hidden_layers"] == 13
    assert plan.config["vision_config"] == vision
    assert any(tensor.name.startswith("model.vision_tower.") for tensor in plan.extra)


@pytest.mark.parametrize("base", ["a", "b"])
@pytest.mark.parametrize(
    ("model_type", "a", "b"),
    [
        ("qwen2", {}, {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 4},
         {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
        ("gemma3_text", {}, {"layer_types": ["full_attention"] * 3 + ["sliding_attention"] * 3}),
        ("smollm3", {}, {"no_rope_layers": [0, 1, 0, 1, 1, 1]}),
        ("qwen3_moe", {"mlp_only_layers": [2]}, {"decoder_sparse_step": 2}),
    ],
)  # fmt: skip
def test_donors_of_other_patterns(tmp_path: Path, model_type: str, a: Config, b: Config, base: str) -> None:
    layers = {"a": donor(tmp_path, "a", raw_config(model_type, **a))}
    layers["b"] = donor(tmp_path, "b", raw_config(model_type, **b))
    ranges = (("a", 0, 3), ("b", 1, 6), ("a", 2, 6))
    plan = plan_of(tmp_path, stack_of(*ranges, base_model=base))
    check(plan, tmp_path, [layers[name][index] for name, start, stop in ranges for index in range(start, stop)])


def test_donors_of_other_depths(tmp_path: Path) -> None:
    layers = {"a": donor(tmp_path, "a", raw_config("gemma2", 6)), "b": donor(tmp_path, "b", raw_config("gemma2", 9))}
    ranges = (("a", 0, 3), ("b", 4, 9), ("a", 2, 6))
    plan = plan_of(tmp_path, stack_of(*ranges))
    check(plan, tmp_path, [layers[name][index] for name, start, stop in ranges for index in range(start, stop)])


@pytest.mark.parametrize(
    ("a", "b", "kind"), [(16, None, "sliding"), (None, 16, "full"), (16, 32, "sliding with a window of 16")]
)
def test_one_window_for_all_layers_is_the_base_models_and_said(tmp_path: Path, a: Any, b: Any, kind: str) -> None:
    donor(tmp_path, "a", raw_config("mistral", sliding_window=a))
    donor(tmp_path, "b", raw_config("mistral", sliding_window=b))
    plan = plan_of(tmp_path, stack_of(("a", 0, 3), ("b", 3, 6)))
    assert codes(plan) == ["warning:setting", "note:base"]
    assert found(plan, "setting").layers == (3, 4, 5)
    assert f"its attention is {kind}" in found(plan, "setting").what
    assert plan.config is not None
    assert plan.config["sliding_window"] == a


def test_no_list_is_left_behind_by_a_donor_that_has_none(tmp_path: Path) -> None:
    old = without("layer_types")(raw_config("gemma2"))
    layers = {"a": donor(tmp_path, "a", raw_config("gemma2")), "b": donor(tmp_path, "b", old)}
    ranges = (("a", 1, 4), ("b", 0, 2))
    for base in ("a", "b"):
        plan = plan_of(tmp_path, stack_of(*ranges, base_model=base))
        check(plan, tmp_path, [layers[name][index] for name, start, stop in ranges for index in range(start, stop)])


# What cannot be said is refused, and only then.


def refused(plan: Plan, what: str) -> None:
    finding = next(finding for finding in plan.findings if finding.code == "config" and what in finding.what)
    assert finding.severity == "error"
    assert finding.why
    assert finding.remedy


def test_attention_scaled_by_the_layers_index(tmp_path: Path) -> None:
    donor(tmp_path, "a", raw_config("gpt2", scale_attn_by_inverse_layer_idx=True))
    refused(plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 2, 6))), "scale_attn_by_inverse_layer_idx")
    assert plan_of(tmp_path, stack_of(("a", 0, 6))).ok


@pytest.mark.parametrize(
    "key",
    [{"layer_window_sizes": [1, 2, 3, 4]}, {"attn_layer_period": 2}, {"global_attn_every_n_layers": 3},
     {"hybrid_override_pattern": "M-M*"}, {"per_layer_config": {"full_attention": {}}}, {"num_kv_shared_layers": 2},
     {"some_list": [0, 0, 1, 1]}, {"full_attn_idxs": [1]}],
)  # fmt: skip
def test_keys_of_unknown_families_that_may_count_layers(tmp_path: Path, key: Config) -> None:
    sparse_llama(tmp_path / "a", model_type="novel", extra_config=key)
    refused(plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 1, 4))), next(iter(key)))
    assert codes(plan_of(tmp_path, stack_of(("a", 0, 4)))) == []


def test_lists_of_as_many_entries_as_layers_count_from_three_layers_on(tmp_path: Path) -> None:
    """Pairs are of many things."""
    for depth in (2, 3):
        folder = tmp_path / str(depth)
        sparse_llama(folder / "a", layers=depth, extra_config={"novel_entries": [5] * depth})
        plan = plan_of(folder, stack_of(("a", 0, depth), ("a", 1, depth)))
        if depth == 2:
            assert not any("novel_entries" in finding.sentence() for finding in plan.findings)
        else:
            refused(plan, "novel_entries")


def test_layers_that_predict_several_tokens_stay_behind(tmp_path: Path) -> None:
    sparse_llama(
        tmp_path / "a", model_type="novel", extra_config={"num_nextn_predict_layers": 1, "mtp_layer_types": ["x"]}
    )
    plan = plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 1, 4)))
    assert codes(plan) == ["note:mtp"]
    assert plan.config is not None
    assert plan.config["num_nextn_predict_layers"] == 0 and "mtp_layer_types" not in plan.config
    unmoved = plan_of(tmp_path, stack_of(("a", 0, 4)))
    assert unmoved.config is not None
    assert (codes(unmoved), unmoved.config["num_nextn_predict_layers"]) == ([], 1)


def test_keys_of_donors_that_give_layers_count_too(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", model_type="novel")
    sparse_llama(tmp_path / "b", model_type="novel", extra_config={"attn_layer_period": 2})
    refused(plan_of(tmp_path, stack_of(("a", 0, 2), ("b", 2, 4))), "attn_layer_period")


def test_keys_that_count_nothing_are_no_reason_to_refuse(tmp_path: Path) -> None:
    harmless = {
        "layer_norm_eps": 1e-5, "use_layernorm": True, "layer_norm_bias": True, "layerdrop": 0.1, "n_shared_experts": 1,
        "shared_expert_intermediate_size": 4, "moe_layer_freq": 1, "eos_token_id": [1, 2, 3, 4], "block_size": 128,
        "bad_words_ids": [[1], [2], [3], [4]], "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4},
        "num_nextn_predict_layers": 0, "layer_types": None, "pretraining_tp": 1, "initializer_range": 0.02,
        "residual_multiplier": 0.5, "id2label": {"0": "x", "1": "y"}, "router_jitter_noise": 0.1,
    }  # fmt: skip
    sparse_llama(tmp_path / "a", model_type="novel", extra_config=harmless)
    assert codes(plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 1, 4)))) == []


def test_a_dense_layer_behind_a_sparse_one_where_only_a_prefix_can_be_said(tmp_path: Path) -> None:
    more = {"first_k_dense_replace": 2, "n_routed_experts": 4}
    sparse_llama(tmp_path / "a", model_type="novel", extra_config=more)
    refused(plan_of(tmp_path, stack_of(("a", 0, 4), ("a", 1, 4))), "kind of MLP of layer 4")
    plan = plan_of(tmp_path, stack_of(("a", 0, 2), ("a", 0, 2), ("a", 2, 4)))
    assert plan.ok
    assert plan.config is not None
    assert plan.config["first_k_dense_replace"] == 4


def test_lists_that_are_too_short_are_refused(tmp_path: Path) -> None:
    raw = raw_config("gemma2")
    donor(tmp_path, "a", raw)
    raw["layer_types"] = raw["layer_types"][:4]
    (tmp_path / "a" / "config.json").write_text(json.dumps(raw))
    refused(plan_of(tmp_path, stack_of(("a", 0, 6), ("a", 4, 6))), "attention kind")


def test_families_whose_layers_know_their_place(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", model_type="diffllama")
    refused(plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 1, 4))), "layers of diffllama at other indices")
    assert plan_of(tmp_path, stack_of(("a", 0, 4))).ok


def test_pictures_that_enter_the_first_layers(tmp_path: Path) -> None:
    more = {"vision_config": {"deepstack_visual_indexes": [5, 11]}}
    sparse_llama(tmp_path / "a", model_type="novel", extra_config=more)
    refused(plan_of(tmp_path, stack_of(("a", 1, 4))), "deepstack_visual_indexes")


def test_depth_under_every_name_it_has(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", extra_config={"num_layers": 4, "n_layer": 2})
    plan = plan_of(tmp_path, stack_of(("a", 0, 4), ("a", 1, 4)))
    assert plan.config is not None
    assert (plan.config["num_hidden_layers"], plan.config["num_layers"], plan.config["n_layer"]) == (7, 7, 2)


def test_the_rows_of_the_embedding_are_the_vocabulary(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a")
    sparse_llama(tmp_path / "b", vocab=80)
    plan = plan_of(tmp_path, stack_of(("a", 0, 4), embeddings="{model: b}", lm_head="{model: b}"))
    assert plan.config is not None
    assert plan.config["vocab_size"] == 80


def test_every_known_family_that_transformers_has_is_spliced_or_refused_rightly(tmp_path: Path) -> None:
    """Configs as their classes make them, resolved by transformers before and after."""
    from transformers import CONFIG_MAPPING, AutoConfig

    from surgeon.checkpoint.checkpoint import Checkpoint, Layer
    from surgeon.checkpoint.families.model_config import ModelConfig, layer_attributes

    for model_type in FAMILIES:
        made = CONFIG_MAPPING[model_type]()
        text = made.get_text_config()
        raw = json.loads(json.dumps(made.to_dict(), default=str))
        config = ModelConfig.of(raw)
        depth = config.depth
        key = DEPTHS[model_type].key if model_type in DEPTHS else "num_hidden_layers"
        assert depth == getattr(text, key), model_type
        order = [index for index in (0, 1, 2, 3, 2, 3, 4, 5, 5, 1) if index < depth]  # type: ignore[operator]
        layers = tuple(Layer(index, {}, row) for index, row in enumerate(layer_attributes(config, depth)))  # type: ignore[arg-type]
        checkpoint = Checkpoint("x", tmp_path, tmp_path, (), {}, config, None, layers, {}, {})
        pairs = [(checkpoint, index) for index in order]
        out, findings = output_config(checkpoint, pairs, tied=checkpoint.tied, dtype=None, vocab_size=None)
        assert not findings, (model_type, findings)
        (tmp_path / "config.json").write_text(json.dumps(out))
        again = AutoConfig.from_pretrained(tmp_path).get_text_config()
        assert getattr(again, key) == len(order), model_type
        # The other stack keeps its depth.
        assert key == "num_hidden_layers" or getattr(again, "encoder_layers", 0) == getattr(text, "encoder_layers", 0)
        for name, value in vars(text).items():
            if isinstance(value, (list, tuple)) and len(value) == depth:
                assert list(getattr(again, name)) == [value[index] for index in order], (model_type, name)


def test_resolving_never_loads_torch_or_transformers() -> None:
    import subprocess
    import sys

    script = "import sys, surgeon.plan; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("said", "kept"),
    [("/home/me/tune", False), ("~/tune", False), ("./tune", False), ("C:\\me\\tune", False), ("org/model", True)],
)
def test_where_a_donor_lay_is_not_published(tmp_path: Path, said: str, kept: bool) -> None:
    sparse_llama(tmp_path / "a", extra_config={"_name_or_path": said})
    plan = plan_of(tmp_path, stack_of(("a", 0, 2), ("a", 1, 4)))
    assert plan.config is not None
    assert ("_name_or_path" in plan.config) == kept
