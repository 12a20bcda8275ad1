"""Quantised donors: bytes are moved as they are, and what the config says of single layers moves with the layers."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import pytest

from surgeon.checkpoint.dtypes import BITS
from surgeon.plan import Copy, Plan
from surgeon.plan.config.quantised import _Unclear, layer_in
from tests.support.assembling import CONFIG, HIDDEN, assemble, contents, write_file
from tests.support.assembling import shapes as plain_shapes
from tests.support.planning import codes, found, plan_of, stack_of

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 4, "version": "gemm", "zero_point": True}

FORMATS: dict[str, tuple[dict[str, Any], Tensors]] = {
    "fp8": (
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [4, 4]},
        {"weight": ("F8_E4M3", (HIDDEN, HIDDEN)), "weight_scale_inv": ("F32", (2, 2))},
    ),
    "compressed-tensors": (
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "version": "0.9",
         "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4}}}},
        {"weight_packed": ("I32", (HIDDEN, 1)), "weight_scale": ("BF16", (HIDDEN, 1)), "weight_shape": ("I64", (2,))},
    ),
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": 4, "desc_act": False, "sym": True},
        {"qweight": ("I32", (1, HIDDEN)), "qzeros": ("I32", (2, 1)), "scales": ("F16", (2, HIDDEN)),
         "g_idx": ("I32", (HIDDEN,))},
    ),
    "awq": (
        AWQ, {"qweight": ("I32", (HIDDEN, 1)), "qzeros": ("I32", (2, 1)), "scales": ("F16", (2, HIDDEN))},
    ),
    "bitsandbytes 4-bit": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        {"weight": ("U8", (HIDDEN * HIDDEN // 2, 1)), "weight.absmax": ("U8", (1,)),
         "weight.quant_map": ("F32", (16,)), "weight.quant_state.bitsandbytes__nf4": ("U8", (90,))},
    ),
    "bitsandbytes 8-bit": (
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"weight": ("I8", (HIDDEN, HIDDEN)), "SCB": ("F32", (HIDDEN,)), "weight_format": ("U8", ())},
    ),
    "mxfp4": (
        {"quant_method": "mxfp4"},
        {"gate_up_proj_blocks": ("U8", (2, 4, 1, 16)), "gate_up_proj_scales": ("U8", (2, 4, 1))},
    ),
}  # fmt: skip


def quantised(
    folder: Path, settings: dict[str, Any] | None, packed: Tensors, *, depth: int = 4, seed: int = 0, plain: int = -1
) -> Path:
    """A llama of random bytes whose q_proj is quantised in all layers but `plain`."""
    dice = random.Random(seed)
    specs = []
    for name, shape in plain_shapes(depth).items():
        if name.endswith("q_proj.weight") and f".{plain}." not in name:
            stem = name.removesuffix("weight")
            specs += [(stem + last, dtype, shape) for last, (dtype, shape) in packed.items()]
        else:
            specs.append((name, "BF16", shape))
    folder.mkdir(parents=True, exist_ok=True)
    # The wide ones first, as all writers do it: no element lies at an odd address.
    specs.sort(key=lambda spec: -BITS[spec[1]])
    write_file(
        folder / "model.safetensors",
        [(name, dtype, shape, dice.randbytes(prod(shape) * BITS[dtype] // 8)) for name, dtype, shape in specs],
    )
    config = {**CONFIG, "num_hidden_layers": depth, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config | ({"quantization_config": settings} if settings else {})))
    return folder


def with_settings(folder: Path, name: str, **settings: Any) -> Path:
    return quantised(folder / name, {**AWQ, **settings}, FORMATS["awq"][1], seed=ord(name[0]))


def written(plan: Plan) -> dict[str, Any]:
    assert plan.ok, [finding.sentence() for finding in plan.errors]
    assert plan.config is not None
    settings = plan.config["quantization_config"]
    assert isinstance(settings, dict)
    return settings


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_moved_to_the_bit(tmp_path: Path, name: str) -> None:
    settings, packed = FORMATS[name]
    a = quantised(tmp_path / "a", settings, packed)
    b = quantised(tmp_path / "b", settings, packed, seed=1)
    plan = plan_of(tmp_path, stack_of(("a", 0, 3), ("b", 1, 4), ("a", 3, 4), base_model="a"))
    assert written(plan) == settings
    assert all(isinstance(tensor.source, Copy) for tensor in plan.tensors)
    assert plan.config is not None and plan.config["torch_dtype"] == "bfloat16"
    assemble(plan, tmp_path / "out")
    files = {"A": contents(a), "B": contents(b)}
    out = contents(tmp_path / "out")
    assert {tensor.name for tensor in plan.tensors} == set(out)
    for tensor in plan.tensors:
        assert out[tensor.name] == files[tensor.donor][tensor.source.entry.name]
    assert f"model.layers.4.self_attn.q_proj.{next(iter(packed))}" in out


@pytest.mark.parametrize("key", ["modules_to_not_convert", "ignore", "ignored_layers", "llm_int8_skip_modules",
                                 "exclude_modules"])  # fmt: skip
def test_lists_of_modules_follow_their_layers(tmp_path: Path, key: str) -> None:
    mine = ["lm_head", "model.layers.1.mlp.gate", "layers.3.self_attn", "model.vision_tower.layers.1.fc"]
    theirs = ["model.layers.0", "lm_head", "model.vision_tower.layers.1.fc"]
    with_settings(tmp_path, "a", **{key: mine})
    with_settings(tmp_path, "b", **{key: theirs})
    plan = plan_of(tmp_path, stack_of(("a", 1, 4), ("a", 1, 2), ("b", 0, 2), base_model="a"))
    assert written(plan)[key] == [
        "model.layers.4", "lm_head", "model.layers.0.mlp.gate", "layers.2.self_attn", "model.layers.3.mlp.gate",
        "model.vision_tower.layers.1.fc",
    ]  # fmt: skip


def test_a_list_that_only_the_other_donor_has(tmp_path: Path) -> None:
    with_settings(tmp_path, "a", modules_to_not_convert=None)
    with_settings(tmp_path, "b", modules_to_not_convert=["model.layers.3.mlp"])
    plan = plan_of(tmp_path, stack_of(("a", 0, 2), ("b", 2, 4), base_model="a"))
    assert written(plan)["modules_to_not_convert"] == ["model.layers.3.mlp"]
    alone = plan_of(tmp_path, stack_of(("a", 0, 2), base_model="a"))
    assert written(alone)["modules_to_not_convert"] is None


def test_layers_that_are_left_out_take_their_entries_along(tmp_path: Path) -> None:
    with_settings(tmp_path, "a", modules_to_not_convert=["model.layers.3.mlp", "model.layers.7.mlp"])
    assert written(plan_of(tmp_path, stack_of(("a", 0, 3))))["modules_to_not_convert"] == []
    whole = written(plan_of(tmp_path, stack_of(("a", 0, 4))))
    assert whole["modules_to_not_convert"] == ["model.layers.3.mlp", "model.layers.7.mlp"]


def test_tables_by_pattern_follow_their_layers_in_their_order(tmp_path: Path) -> None:
    dynamic = {
        r"+:.*\.2\..*gate.*": {"bits": 8}, r"-:model\.layers\.1\.mlp": {}, r"-:.*down.*": {},
        r".*\.layers\.\d+\.q.*": {"bits": 2}, r"+:^model\.layers\.2\.(q|k)_proj$": {"group_size": 32},
    }  # fmt: skip
    with_settings(tmp_path, "a", dynamic=dynamic)
    made = written(plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 2, 4))))["dynamic"]
    assert list(made.items()) == [
        (r"-:model\.layers\.1\.mlp", {}),
        (r"+:.*\.2\..*gate.*", {"bits": 8}), (r"+:.*\.3\..*gate.*", {"bits": 8}),
        (r"-:.*down.*", {}), (r".*\.layers\.\d+\.q.*", {"bits": 2}),
        (r"+:^model\.layers\.2\.(q|k)_proj$", {"group_size": 32}),
        (r"+:^model\.layers\.3\.(q|k)_proj$", {"group_size": 32}),
    ]  # fmt: skip


def test_targets_of_groups_follow_their_layers(tmp_path: Path) -> None:
    settings, packed = FORMATS["compressed-tensors"]
    groups = {
        "group_0": {"targets": [r"re:.*layers\.0\.mlp.*", r"re:.*layers\.[0-9]+\.self_attn.*"], "weights": {"bits": 4}},
        "group_1": {"targets": ["model.layers.1.mlp.gate"], "weights": {"bits": 8}},
    }
    quantised(tmp_path / "a", {**settings, "config_groups": groups, "ignore": ["re:.*lm_head"]}, packed)
    made = written(plan_of(tmp_path, stack_of(("a", 1, 3), ("a", 0, 1))))
    assert made["config_groups"]["group_0"]["targets"] == [
        r"re:.*layers\.2\.mlp.*",
        r"re:.*layers\.[0-9]+\.self_attn.*",
    ]
    assert made["config_groups"]["group_1"] == {"targets": ["model.layers.0.mlp.gate"], "weights": {"bits": 8}}
    assert made["ignore"] == ["re:.*lm_head"]
    rest = written(plan_of(tmp_path, stack_of(("a", 2, 4))))
    assert list(rest["config_groups"]) == ["group_0"], "a group without targets must not become one of everything"


def test_layers_that_stay_leave_the_config_as_it_is(tmp_path: Path) -> None:
    with_settings(tmp_path, "a", ignore=[r"re:.*layers\.[0-9]\.mlp"])
    plan = plan_of(tmp_path, stack_of(("a", 0, 4)))
    assert written(plan)["ignore"] == [r"re:.*layers\.[0-9]\.mlp"]
    moved = found(plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 2, 4))), "quantised-entry")
    assert moved.severity == "error"
    assert r"layers\\.[0-9]\\.mlp" in moved.what and "several layers" in moved.why and moved.remedy


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("lm_head", None), ("gate", None), ("model.layers.12.mlp.experts.3.w1", "12"), ("model.layers.12", "12"),
        ("*.layers.0.self_attn*", "0"), ("model.layers.*.self_attn", None), ("model.language_model.layers.3.mlp", "3"),
        ("transformer.h.4.attn", "4"), ("visual.blocks.3.attn", None), ("mtp.layers.0.mlp", None),
        ("mlp.experts.3", None), ("gptqmodel:4.2.5", None), ("re:.*lm_head", None), (r"re:.*layers\.3\.mlp", "3"),
        ("re:model.layers.3.mlp.*", "3"), (r"re:.*layers[.]3[.]", "3"), (r"re:.*self_attn\.(q|k)_proj$", None),
        (r"re:.*\.layers\..*\.mlp", None), (r"re:vision_model\.layers\.[0-3]\.", None), (r"re:.*\.w1$", None),
        (r"re:.*mlp\.experts\.\d+\.gate", None),
    ],
)  # fmt: skip
def test_where_a_name_says_its_layer(name: str, index: str | None) -> None:
    span = layer_in(name, name.startswith("re:"))
    assert (None if span is None else name[slice(*span)]) == index


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1*", "model.layers.[0-3].mlp", "novel.layers.3.mlp", "3.mlp.gate", r"re:.*layers\.[0-9]\.mlp",
        r"re:.*layers\.(1|2)\.", r"re:.*layers\.1", r"re:.*layers\.1.*mlp", r"re:.*layers\.1\d\.", r"re:.*\.[0-3]\.mlp",
        r"re:.*layers\.1\.mlp|lm_head", r"re:(?!.*layers\.1\.).*", r"re:.*layers\.1\..*layers\.2\.", r"re:.*\.(1|2)\.",
        r"re:.*layers\.\d\.mlp", r"re:.*layers\.1?\.",
    ],
)  # fmt: skip
def test_names_that_may_mean_several_layers_are_refused(name: str) -> None:
    with pytest.raises(_Unclear):
        layer_in(name, name.startswith("re:"))


def test_patterns_are_never_run(tmp_path: Path) -> None:
    """One that would take for ever, if it were."""
    with_settings(tmp_path, "a", ignore=["re:(a+)+$" * 20, "re:" + "(" * 5000, "re:[" + "\\" * 5000])
    assert plan_of(tmp_path, stack_of(("a", 0, 3), ("a", 2, 4))).config is not None


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    with_settings(tmp_path, "a", group_size=128, modules_to_not_convert=["lm_head"])
    with_settings(tmp_path, "b", group_size=64, modules_to_not_convert=["lm_head"])
    with_settings(tmp_path, "c", group_size=128, modules_to_not_convert=[])
    finding = found(plan_of(tmp_path, stack_of(("a", 0, 2), ("b", 2, 4))), "quantised-differs")
    assert finding.severity == "error" and finding.remedy and finding.line == 4
    assert "group_size is 64 in B and 128 in A" in finding.what
    lists = found(plan_of(tmp_path, stack_of(("a", 0, 2), ("c", 2, 4))), "quantised-differs")
    assert "modules_to_not_convert is not stated in B and ['lm_head'] in A" in lists.what


def test_the_order_of_patterns_counts(tmp_path: Path) -> None:
    rules = {"-:.*down.*": {}, "+:.*": {"bits": 8}}
    with_settings(tmp_path, "a", dynamic=rules)
    with_settings(tmp_path, "b", dynamic=dict(reversed(rules.items())))
    with_settings(tmp_path, "c", dynamic={"+:.*": {"bits": 8}})
    for other in "bc":
        finding = found(plan_of(tmp_path, stack_of(("a", 0, 2), (other, 2, 4))), "quantised-differs")
        assert "dynamic is" in finding.what


def test_how_it_was_made_does_not_matter(tmp_path: Path) -> None:
    with_settings(tmp_path, "a", meta={"quantizer": "gptqmodel:4.2.5"}, ignore=["x", "y"])
    with_settings(tmp_path, "b", meta={"quantizer": "gptqmodel:5.0.0"}, ignore=["y", "x"])
    assert codes(plan_of(tmp_path, stack_of(("a", 0, 2), ("b", 2, 4), base_model="a"))) == []


@pytest.mark.parametrize("text", [stack_of(("a", 0, 2), ("b", 2, 4)), stack_of(("a", 0, 4), lm_head="{model: b}")])
def test_quantised_and_plain_do_not_mix(tmp_path: Path, text: str) -> None:
    with_settings(tmp_path, "a")
    quantised(tmp_path / "b", None, {"weight": ("BF16", (HIDDEN, HIDDEN))})
    finding = found(plan_of(tmp_path, text), "quantised-mixed")
    assert finding.severity == "error" and "A is quantised (awq 4-bit), but B is not" in finding.what
    assert "dequantise first" in finding.remedy


def test_quantised_by_the_names_alone_stays_refused(tmp_path: Path) -> None:
    quantised(tmp_path / "a", None, FORMATS["gptq"][1])
    finding = found(plan_of(tmp_path, stack_of(("a", 0, 4))), "not-spliceable")
    assert "its tensors are quantised (GPTQ or AWQ), but config.json does not describe the quantisation" in finding.why


def test_arithmetic_is_refused(tmp_path: Path) -> None:
    settings, packed = FORMATS["fp8"]
    quantised(tmp_path / "a", settings, packed)
    whole = stack_of(("a", 0, 4))
    cast = found(plan_of(tmp_path, whole + "dtype: bfloat16\n"), "quantised-dtype")
    assert cast.severity == "error" and "weight_scale_inv (F32)" in cast.what and "dequantise" in cast.remedy
    scale = whole + "parameters: {scale: [{filter: FILTER, value: 0.5}]}\n"
    for wanted in ("weight_scale_inv", "down_proj"):
        refused = found(plan_of(tmp_path, scale.replace("FILTER", wanted)), "quantised-scale")
        assert refused.severity == "error" and refused.layers == (0, 1, 2, 3)
    assert plan_of(tmp_path, scale.replace("FILTER", "lm_head")).ok, "a head that is not quantised can be scaled"


def test_a_dtype_that_changes_nothing_is_allowed(tmp_path: Path) -> None:
    packed = {**FORMATS["awq"][1], "scales": ("BF16", (2, HIDDEN))}
    quantised(tmp_path / "a", AWQ, packed)
    plan = plan_of(tmp_path, stack_of(("a", 0, 4)) + "dtype: bfloat16\n")
    assert plan.ok and not plan.needs_arithmetic
    assert plan.config is not None and plan.config["torch_dtype"] == "bfloat16"


def test_layers_left_plain_by_both_donors(tmp_path: Path) -> None:
    """A layer that one donor leaves as it was stands beside the other donor's quantised one."""
    packed = FORMATS["awq"][1]
    settings = {**AWQ, "modules_to_not_convert": ["model.layers.2.self_attn.q_proj"]}
    quantised(tmp_path / "a", AWQ, packed)
    quantised(tmp_path / "b", settings, packed, seed=1, plain=2)
    plan = plan_of(tmp_path, stack_of(("a", 0, 3), ("b", 2, 4), base_model="a"))
    assert written(plan)["modules_to_not_convert"] == ["model.layers.3.self_attn.q_proj"]


def test_a_head_that_is_packed_is_not_cropped(tmp_path: Path) -> None:
    from tests.support.sparse import llama_tensors, sparse_checkpoint, write_tokenizer

    for name, vocab in (("a", 64), ("b", 80)):
        spec: dict[str, Any] = llama_tensors(layers=2, hidden=16, heads=2, kv_heads=2, intermediate=32, vocab=vocab)
        del spec["lm_head.weight"]
        spec |= {"lm_head.qweight": ("I32", (2, vocab)), "lm_head.scales": ("F16", (4, vocab))}
        config = {**CONFIG, "num_hidden_layers": 2, "hidden_size": 16, "vocab_size": vocab}
        sparse_checkpoint(tmp_path / name, spec, {**config, "quantization_config": {"quant_method": "gptq"}})
        write_tokenizer(tmp_path / name, ["<unk>", "w"])
    finding = found(plan_of(tmp_path, stack_of(("a", 0, 1), ("b", 1, 2), base_model="a")), "rows")
    assert finding.severity == "error" and "lm_head.qweight is packed" in finding.why
