"""What surgeon knows of model families, held against what transformers does with the same files and configs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint import open_checkpoint
from surgeon.checkpoint.families.model_config import ATTENTION_NAMES, ModelConfig, layer_attributes
from surgeon.checkpoint.families.naming import FAMILIES, find_naming
from surgeon.checkpoint.families.type_rules import DEPTHS
from tests.support.models import tiny_config, tiny_model

LAYERS = 12
SLIDES_BY_WINDOW = {"mistral", "mixtral", "phi3", "starcoder2", "qwen3_moe"}
"""Families whose model asks only whether config.sliding_window is set."""

TABLES = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "gpt2", "gpt_neox", "falcon",
    "mixtral", "qwen3_moe",
)  # fmt: skip


def auto_config(raw: dict[str, Any]) -> Any:
    """What transformers makes of that config.json."""
    from transformers import AutoConfig

    settings = {key: value for key, value in raw.items() if key != "model_type"}
    return AutoConfig.for_model(raw["model_type"], **json.loads(json.dumps(settings)))


def transformers_rows(config: Any) -> list[dict[str, Any]]:
    """Every layer's attributes as the model of that (text) config acts on them."""
    kind = config.model_type
    rows: list[dict[str, Any]] = []
    for index in range(config.num_hidden_layers):
        if FAMILIES[kind].explicit:
            attention = ATTENTION_NAMES[config.layer_types[index]]
        else:
            slides = kind in SLIDES_BY_WINDOW and config.sliding_window is not None
            attention = "sliding" if slides else "full"
        row: dict[str, Any] = {"attention": attention}
        if attention == "sliding":
            row["window"] = config.sliding_window
        if (no_rope := getattr(config, "no_rope_layers", None)) is not None:
            row["rope"] = bool(no_rope[index])
        experts = getattr(config, "num_local_experts", getattr(config, "num_experts", 0)) or 0
        dense = index in (getattr(config, "mlp_only_layers", None) or [])
        step = getattr(config, "decoder_sparse_step", 1)
        row["mlp"] = "experts" if experts > 0 and not dense and (index + 1) % step == 0 else "dense"
        rows.append(row)
    return rows


def surgeon_rows(raw: dict[str, Any]) -> list[dict[str, Any]]:
    config = ModelConfig.of(raw)
    assert config.depth is not None
    return layer_attributes(config, config.depth)


OLD_CONFIGS: list[dict[str, Any]] = [
    *({"model_type": kind, "num_hidden_layers": LAYERS} for kind in FAMILIES if kind not in {"gemma3", *DEPTHS}),
    {"model_type": "mistral", "num_hidden_layers": 4, "sliding_window": None},
    {"model_type": "mistral", "num_hidden_layers": 4, "sliding_window": 32},
    {"model_type": "mixtral", "num_hidden_layers": 4, "sliding_window": 32},
    {"model_type": "llama", "num_hidden_layers": 4, "sliding_window": 32},
    {"model_type": "olmoe", "num_hidden_layers": 4, "sliding_window": 32},
    {"model_type": "phi3", "num_hidden_layers": 4, "sliding_window": 2047},
    {"model_type": "starcoder2", "num_hidden_layers": 4, "sliding_window": 4096, "use_sliding_window": False},
    *(
        {"model_type": kind, "num_hidden_layers": 6, "sliding_window": 64, **extra}
        for kind in ("qwen2", "qwen3", "qwen2_moe", "qwen3_moe")
        for extra in (
            {},
            {"use_sliding_window": False, "max_window_layers": 2},
            {"use_sliding_window": True},
            {"use_sliding_window": True, "max_window_layers": 0},
            {"use_sliding_window": True, "max_window_layers": 3},
            {"use_sliding_window": True, "max_window_layers": 6},
        )
    ),
    {"model_type": "qwen2", "num_hidden_layers": 32, "use_sliding_window": True},
    *(
        {"model_type": kind, "num_hidden_layers": 13, "sliding_window": 64, "sliding_window_pattern": period}
        for kind in ("gemma2", "gemma3_text", "cohere2", "olmo3", "exaone4", "gpt_oss")
        for period in (2, 3, 5)
    ),
    {"model_type": "gemma3_text", "num_hidden_layers": 13, "_sliding_window_pattern": 3},
    {"model_type": "smollm3", "num_hidden_layers": 9, "no_rope_layer_interval": 3},
    {"model_type": "smollm3", "num_hidden_layers": 4, "no_rope_layers": [1, 0, 0, 1]},
    {
        "model_type": "smollm3", "num_hidden_layers": 8, "use_sliding_window": True, "sliding_window": 64,
    },
    {
        "model_type": "smollm3", "num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 64,
        "no_rope_layers": [0, 1, 0, 1],
    },
    {"model_type": "llama", "num_hidden_layers": 4, "no_rope_layer_interval": 2},
    *(
        {"model_type": kind, "num_hidden_layers": 7, **extra}
        for kind in ("qwen2_moe", "qwen3_moe")
        for extra in ({"mlp_only_layers": [0, 3]}, {"decoder_sparse_step": 2}, {"num_experts": 0})
    ),
    {"model_type": "qwen3", "num_hidden_layers": 3, "layer_types": ["full_attention"] * 3},
    {
        "model_type": "gemma2", "num_hidden_layers": 3,
        "layer_types": ["full_attention", "full_attention", "sliding_attention"],
    },
    {
        "model_type": "gemma3_text", "num_hidden_layers": 4, "sliding_window_pattern": 2,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "sliding_attention"],
    },
    {
        "model_type": "mistral", "num_hidden_layers": 2, "sliding_window": None,
        "layer_types": ["sliding_attention", "full_attention"],
    },
]  # fmt: skip


@pytest.mark.parametrize("raw", OLD_CONFIGS, ids=lambda raw: "-".join(map(str, raw.values()))[:60])
def test_layer_attributes_are_what_transformers_resolves(raw: dict[str, Any]) -> None:
    config = auto_config(raw)
    wanted = transformers_rows(config)
    assert surgeon_rows(raw) == wanted
    # The config that transformers writes back means the same.
    assert surgeon_rows(json.loads(config.to_json_string(use_diff=False))) == wanted


def test_an_exaone_without_a_window_has_no_sliding_layer() -> None:
    raw = {
        "model_type": "exaone4",
        "num_hidden_layers": 3,
        "sliding_window": None,
        "layer_types": ["full_attention"] * 3,
    }
    assert surgeon_rows(raw) == transformers_rows(auto_config(raw))
    del raw["layer_types"]  # transformers divides by zero here
    assert {row["attention"] for row in surgeon_rows(raw)} == {"full"}


def test_a_string_pattern_is_read_letter_by_letter_with_a_full_last_layer() -> None:
    raw = {"model_type": "exaone4", "num_hidden_layers": 6, "sliding_window": 8, "sliding_window_pattern": "LLLG"}
    kinds = [row["attention"] for row in surgeon_rows(raw)]
    assert kinds == ["sliding", "sliding", "sliding", "full", "sliding", "full"]


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_what_a_family_leaves_unsaid_is_what_transformers_fills_in(kind: str) -> None:
    theirs = auto_config({"model_type": kind})
    text = theirs.get_text_config()
    family = FAMILIES[kind]
    ours = ModelConfig.of({"model_type": kind})
    assert family.tied == ours.tied == theirs.tie_word_embeddings
    if kind not in {"apertus", "gpt_oss"}:  # these two bring a whole scaling as their default
        assert ours.rope == ModelConfig.of(json.loads(theirs.to_json_string(use_diff=False))).rope
    for key, value in family.defaults.items():
        assert getattr(text, key) == value, key
    if experts := getattr(text, "num_local_experts", getattr(text, "num_experts", None)):
        assert ours.experts == experts
    width = {"d_head": 24} if kind == "xlnet" else {}
    small = auto_config({"model_type": kind, "hidden_size": 96, "num_attention_heads": 4, **width}).get_text_config()
    if (width := getattr(small, "head_dim", None)) and "head_dim" not in family.defaults:  # type: ignore[assignment]
        raw = {"model_type": kind, "hidden_size": 96, "num_attention_heads": 4}
        assert ModelConfig.of(raw).head_dim == width


ROPES: list[dict[str, Any]] = [
    {"model_type": "llama", "rope_theta": 500000.0},
    {"model_type": "llama", "rope_theta": 10000},
    {
        "model_type": "llama", "rope_theta": 5e5, "max_position_embeddings": 4096,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
        },
    },
    {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}},
    {"model_type": "llama", "rope_scaling": {"type": "dynamic", "rope_type": "dynamic", "factor": 4.0}},
    {"model_type": "qwen2", "max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 4.0}},
    {
        "model_type": "qwen2",
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
    },
    {"model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 20000},
    {"model_type": "gpt_neox"},
    {"model_type": "phi", "partial_rotary_factor": 0.4},
    {"model_type": "stablelm", "partial_rotary_factor": 0.25, "rope_theta": 10000},
    {"model_type": "glm4", "partial_rotary_factor": 0.5},
    {
        "model_type": "phi3", "rope_theta": 10000.0, "original_max_position_embeddings": 4096,
        "max_position_embeddings": 131072, "hidden_size": 64, "num_attention_heads": 4,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
    },
    {"model_type": "gemma3_text", "rope_theta": 2e6, "rope_local_base_freq": 5000.0},
    {"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    {"model_type": "olmo3", "rope_theta": 500000},
    {
        "model_type": "olmo3", "rope_theta": 500000,
        "rope_scaling": {
            "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192, "attention_factor": 1.2,
            "beta_fast": 32, "beta_slow": 1,
        },
    },
    {"model_type": "gpt2"},
    {"model_type": "falcon"},
    {"model_type": "falcon", "alibi": True},
]  # fmt: skip


@pytest.mark.parametrize("raw", ROPES, ids=lambda raw: "-".join(map(str, raw.values()))[:60])
def test_old_and_new_spellings_of_a_rope_compare_equal(raw: dict[str, Any]) -> None:
    written = json.loads(auto_config(raw).to_json_string(use_diff=False))
    assert ModelConfig.of(raw).rope == ModelConfig.of(written).rope


def test_ropes_that_differ_compare_different() -> None:
    ropes = [ModelConfig.of(raw).rope for raw in ROPES]
    assert ropes[0] != ropes[1] != ropes[2]
    assert ModelConfig.of({"model_type": "llama"}).rope == {"theta": 10000.0}
    assert ModelConfig.of({"model_type": "never-heard"}).rope == {}
    assert ModelConfig.of({"model_type": "never-heard", "rope_theta": 7}).rope == {"theta": 7}


@pytest.fixture(scope="module", params=TABLES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    kind = request.param
    return kind, tiny_model(tmp_path_factory.mktemp(kind), kind)


def test_every_tensor_of_a_family_finds_its_place(tiny: tuple[str, Path]) -> None:
    _kind, folder = tiny
    found = open_checkpoint(str(folder))
    assert found.problems == () and found.warnings == ()
    assert found.depth == 4
    assert not found.other, sorted(found.other)
    assert found.naming is not None
    placed = {found.naming.name(found.naming.place(name)) for name in found.tensors}
    assert placed == set(found.tensors)
    assert {len(layer.tensors) for layer in found.layers} == {len(found.layers[0].tensors)}
    assert all(found.ends[end] for end in ("embeddings", "final_norm"))
    assert bool(found.ends["lm_head"]) != found.tied
    assert found.token_embedding is not None and found.token_embedding.shape == (320, 32)
    assert sum(layer.numel for layer in found.layers) < found.numel


def test_sizes_and_attributes_of_a_family_are_the_models_own(tiny: tuple[str, Path]) -> None:
    from transformers import AutoConfig

    kind, folder = tiny
    found = open_checkpoint(str(folder))
    config = AutoConfig.from_pretrained(folder)
    assert found.config is not None
    assert found.config.model_type == kind
    assert found.config.hidden_size == config.hidden_size == 32
    assert found.config.heads == config.num_attention_heads == 4
    assert found.config.vocab_size == config.vocab_size
    assert found.config.context == config.max_position_embeddings
    assert found.tied == config.tie_word_embeddings
    expected = transformers_rows(config)
    assert [dict(layer.attributes) for layer in found.layers] == expected


def test_heads_and_their_width_agree_with_the_shapes(tiny: tuple[str, Path]) -> None:
    found = open_checkpoint(str(tiny[1]))
    assert found.config is not None
    width, kv_heads = found.config.head_dim, found.config.kv_heads
    assert width and kv_heads
    shapes = {name.split(".")[-2]: entry.shape for name, entry in found.layers[0].tensors.items()}
    if "k_proj" in shapes:
        assert shapes["k_proj"] == (kv_heads * width, 32)
    else:
        fused = next(shapes[name] for name in ("query_key_value", "c_attn", "qkv_proj") if name in shapes)
        assert (4 + 2 * kv_heads) * width in fused


VLM_TEXT = {
    "num_hidden_layers": 7, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 320, "sliding_window": 16,
}  # fmt: skip


def test_the_language_tower_of_a_vision_language_model(tmp_path: Path) -> None:
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    vision = {
        "num_hidden_layers": 2, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    config = Gemma3Config(text_config=VLM_TEXT, vision_config=vision, mm_tokens_per_image=4, image_token_index=5)
    with torch.device("cpu"):
        Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    found = open_checkpoint(str(tmp_path))
    assert found.problems == ()
    assert found.depth == 7
    assert found.config is not None and found.config.nest == "text_config"
    assert found.config.model_type == "gemma3_text"
    assert found.tied
    assert found.other and all("vision" in name or "multi_modal" in name for name in found.other)
    assert [dict(layer.attributes) for layer in found.layers] == transformers_rows(config.text_config)
    assert [layer.attributes["attention"] for layer in found.layers].count("full") == 1


def test_a_nested_config_may_leave_out_what_its_family_fills_in() -> None:
    """As the published config of gemma-3-4b-it does."""
    raw = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        },
    }  # fmt: skip
    ours, theirs = ModelConfig.of(raw), auto_config(raw).text_config
    assert (ours.heads, ours.kv_heads, ours.head_dim) == (8, 4, 256)
    assert (ours.heads, ours.kv_heads) == (theirs.num_attention_heads, theirs.num_key_value_heads)
    assert ours.vocab_size == theirs.vocab_size
    assert ours.context == theirs.max_position_embeddings
    assert surgeon_rows(raw) == transformers_rows(theirs)


@pytest.mark.parametrize(
    ("prefix", "base"),
    [
        ("model.layers", "model."),
        ("model.language_model.layers", "model.language_model."),
        ("language_model.model.layers", "language_model.model."),
        ("transformer.h", "transformer."),
        ("gpt_neox.layers", "gpt_neox."),
        ("transformer.blocks", "transformer."),
        ("model.decoder.layers", "model.decoder."),
        ("backbone.layers", "backbone."),
        ("backbone.blocks", "backbone."),
        ("rwkv.blocks", "rwkv."),
        ("model.L_module.layers", "model."),
        ("model.llm.layers", "model.llm."),
        ("model.global_transformer.layers", "model."),
        ("cpmant.encoder.layers", "cpmant."),
    ],
)
def test_known_prefixes(prefix: str, base: str) -> None:
    naming = find_naming(["vision.blocks.0.w", f"{prefix}.0.mlp.experts.3.w", f"{prefix}.11.norm.weight"])
    assert naming is not None and naming.base == base
    place = naming.place(f"{prefix}.11.mlp.experts.3.w")
    assert (place.role, place.index, place.suffix) == ("layer", 11, "mlp.experts.3.w")
    assert naming.name(place) == f"{prefix}.11.mlp.experts.3.w"


@pytest.mark.parametrize("name", ["layers.0.w", "visual.blocks.0.w", "mtp.layers.0.w", "model.blocks.1.w", "h.0.w"])
def test_unknown_prefixes_are_not_guessed(name: str) -> None:
    assert find_naming([name, "norm.weight"]) is None


def test_bare_names_need_embeddings_beside_them() -> None:
    naming = find_naming(["h.0.attn.weight", "wte.weight"])
    assert naming is not None and naming.prefix == "h."


@pytest.mark.parametrize("number", ["03", "00", "٣", "³", "-1", "+1", "1_0", "", "999999", " 1"])
def test_only_one_spelling_of_a_layer_number_counts(number: str) -> None:
    naming = find_naming(["model.layers.3.w"])
    assert naming is not None
    assert naming.place(f"model.layers.{number}.w").role == "other"


def test_the_tiny_configs_say_what_they_are_meant_to() -> None:
    """The tests above need real variety: a family with several kinds of layers, and one with experts."""
    assert len(set(tiny_config("gemma2").layer_types)) == 2
    assert tiny_config("qwen3_moe").num_experts == 4


def test_shards_as_transformers_writes_them(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(tiny_config("llama"))
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    found = open_checkpoint(str(tmp_path))
    assert len(found.files) > 2 and found.depth == 4
    assert found.problems == () and found.warnings == () and not found.other
    assert found.numel == sum(parameter.numel() for parameter in model.parameters())
