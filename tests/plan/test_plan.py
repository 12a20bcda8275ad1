"""The plan's findings: whatever can be wrong with a recipe is found, with its reason, remedy, line and layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon.plan import Copy, Donors, resolve
from surgeon.recipe import document as documents
from surgeon.recipe.document import parse
from tests.support.planning import codes, found, plan_of, stack_of
from tests.support.sparse import LLAMA2_70B, llama_tensors, sparse_checkpoint, sparse_llama, write_tokenizer

TWO = stack_of(("a", 0, 2), ("b", 2, 4))


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    sparse_llama(tmp_path / "a")
    sparse_llama(tmp_path / "b")
    return tmp_path


def with_b(folder: Path, **b: Any) -> Path:
    sparse_llama(folder / "a")
    sparse_llama(folder / "b", **b)
    return folder


def test_a_good_recipe_has_nothing_but_a_note(pair: Path) -> None:
    plan = plan_of(pair, TWO)
    assert codes(plan) == ["note:base"]
    assert plan.ok
    assert [layer.label for layer in plan.layers] == ["A00", "A01", "B02", "B03"]
    assert all(isinstance(tensor.source, Copy) for tensor in plan.tensors)
    assert not plan.needs_arithmetic
    assert codes(plan_of(pair, stack_of(("a", 0, 2), ("b", 2, 4), base_model="a"))) == []


def test_output_names_and_sources(pair: Path) -> None:
    plan = plan_of(pair, stack_of(("b", 3, 4), ("a", 1, 2)))
    by_name = {tensor.name: tensor.source.entry for tensor in plan.tensors}
    entry = by_name["model.layers.0.mlp.up_proj.weight"]
    assert (entry.name, entry.file.parent.name) == ("model.layers.3.mlp.up_proj.weight", "b")
    assert by_name["model.layers.1.mlp.up_proj.weight"].name == "model.layers.1.mlp.up_proj.weight"
    assert by_name["model.embed_tokens.weight"].file.parent.name == "b"
    assert by_name["model.norm.weight"].file.parent.name == "a"
    assert by_name["lm_head.weight"].file.parent.name == "a"
    assert len(by_name) == len(plan.tensors) == 2 * 9 + 3
    assert plan.config is not None
    assert plan.config["num_hidden_layers"] == 2


# Ranges.


@pytest.mark.parametrize(
    ("start", "stop", "code", "said", "layers"),
    [
        (
            2,
            6,
            "layer-range",
            "Layers 4 to 5 of B do not exist: B (b) has 4 layers, 0-3, and the range is [2, 6]",
            (4, 5),
        ),
        (4, 5, "layer-range", "Layer 4 of B does not exist", (2,)),
        (90, 99, "layer-range", "Take layers from 0 to 3", tuple(range(2, 11))),
        (-2, 2, "layer-range", "Layers -2 to -1 of B do not exist", (2, 3)),
        (3, 1, "range-backwards", "runs backwards", ()),
    ],
)
def test_bad_ranges(pair: Path, start: int, stop: int, code: str, said: str, layers: tuple[int, ...]) -> None:
    text = stack_of(("a", 0, 2), ("b", start, stop))
    plan = plan_of(pair, text)
    finding = found(plan, code)
    assert finding.severity == "error"
    assert said in finding.sentence()
    assert finding.remedy
    assert finding.line == 4
    assert finding.layers == layers
    assert plan.config is None or code != "layer-range"


def test_an_empty_range_between_others(pair: Path) -> None:
    finding = found(plan_of(pair, stack_of(("a", 0, 2), ("b", 3, 3), ("a", 2, 4))), "range-empty")
    assert finding.severity == "error" and finding.remedy and finding.layers == ()
    assert "[3, 3] of B is empty: a range in a file is half-open" in finding.sentence()


def test_a_range_that_ends_too_late_says_where_to_end_it(pair: Path) -> None:
    assert found(plan_of(pair, stack_of(("a", 0, 9))), "layer-range").remedy == "end it at 4"


def test_absurd_ranges_are_found_at_once(pair: Path) -> None:
    plan = plan_of(pair, stack_of(("a", 0, 10**9), ("b", -(10**12), 10**15), ("a", 5, 10**17)))
    assert codes(plan).count("error:layer-range") == 3
    assert "error:too-many-layers" in codes(plan)
    assert len(plan.layers) == 10_000


def test_a_recipe_without_layers(pair: Path) -> None:
    for text in ("", "slices: []\n", "models: []\n", "merge_method: passthrough\nbase_model: a\n"):
        plan = plan_of(pair, text)
        assert "error:empty" in codes(plan)
        assert plan.layers == ()
        assert not plan.ok


# Donors.


def test_missing_donors_are_named_at_their_line(pair: Path) -> None:
    plan = plan_of(pair, stack_of(("a", 0, 2), ("gone", 0, 2), base_model="lost"))
    missing = [finding for finding in plan.findings if finding.code == "donor"]
    assert [finding.line for finding in missing] == [5, 2]
    assert "Donor B cannot be opened" in missing[0].what
    assert "gone" in missing[0].what
    assert [layer.label for layer in plan.layers] == ["A00", "A01", "B00", "B01"]
    assert [bool(layer.tensors) for layer in plan.layers] == [True, True, False, False]
    assert plan.config is None


def test_a_missing_donor_with_its_range_left_out_is_still_a_plan(pair: Path) -> None:
    plan = plan_of(pair, "slices:\n- sources: [{model: gone}]\n")
    assert codes(plan) == ["error:donor"]


def test_adapters_are_named_as_such(pair: Path) -> None:
    assert "LoRA" in found(plan_of(pair, stack_of(("a+lora", 0, 2))), "donor").what


def test_donors_that_cannot_be_spliced(pair: Path) -> None:
    (pair / "b" / "config.json").unlink()
    plan = plan_of(pair, TWO)
    finding = found(plan, "not-spliceable")
    assert "B (b) cannot be spliced: there is no config.json" in finding.sentence()
    assert finding.line == 4
    sparse_llama(pair / "b", extra_config={"quantization_config": {"quant_method": "gptq", "bits": 4}})
    assert "B is quantised (gptq 4-bit)" in found(plan_of(pair, TWO), "quantised-mixed").what


def test_donors_that_are_open_and_not_in_the_recipe_do_not_matter(pair: Path) -> None:
    sparse_llama(pair / "c", hidden=32, extra_config={"quantization_config": {"quant_method": "gptq"}})
    document = parse(stack_of(("a", 0, 2)), pair / "recipe.yml")
    plan = resolve(document, Donors(document.roots, first=("c", "gone", "a")))
    assert plan.ok
    assert codes(plan) == []
    assert [layer.label for layer in plan.layers] == ["C00", "C01"]
    assert sorted(plan.donors) == ["A", "C"]


def test_paths_are_looked_for_beside_the_recipe_then_here(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = pair / "here"
    sparse_llama(here / "a", layers=2)
    sparse_llama(here / "c", layers=3)
    monkeypatch.chdir(here)
    plan = plan_of(pair, stack_of(("a", 0, 4), ("c", 0, 3)))
    assert plan.ok
    assert [donor.checkpoint.depth for donor in plan.donors.values()] == [4, 3]


# Do the donors fit together?


@pytest.mark.parametrize(
    ("b", "code", "said"),
    [
        ({"hidden": 32}, "hidden-size", "The hidden size of B is 32, that of A is 16"),
        ({"heads": 8, "head_dim": 2}, "heads", "The number of attention heads of B is 8, that of A is 4"),
        ({"kv_heads": 4}, "kv-heads", "The number of KV heads of B is 4, that of A is 2"),
        ({"head_dim": 8}, "head-dim", "The head width of B is 8, that of A is 4"),
        ({"intermediate": 48}, "intermediate-size", "The intermediate size of B is 48, that of A is 32"),
        ({"model_type": "qwen2"}, "architecture", "B is qwen2 and A is llama"),
    ],
)
def test_donors_of_another_shape_or_kind(tmp_path: Path, b: dict[str, Any], code: str, said: str) -> None:
    plan = plan_of(with_b(tmp_path, **b), TWO)
    finding = found(plan, code)
    assert finding.severity == "error"
    assert said in finding.what
    assert finding.why
    assert finding.remedy
    assert finding.layers == (2, 3)
    assert finding.line == 4
    if code == "architecture":
        assert "tensor-set" not in [other.code for other in plan.findings]


@pytest.mark.parametrize(
    ("b", "kinds", "said"),
    [
        ({"bias": True}, "biases", "B has self_attn.k_proj.bias, self_attn.q_proj.bias, self_attn.v_proj.bias"),
        ({"qk_norm": True}, "norms", "B has self_attn.k_norm.weight, self_attn.q_norm.weight"),
    ],
)
def test_donors_with_other_biases_or_norms(tmp_path: Path, b: dict[str, Any], kinds: str, said: str) -> None:
    finding = found(plan_of(with_b(tmp_path, **b), TWO), "tensor-set")
    assert f"do not have the same {kinds}" in finding.what
    assert said in finding.why
    assert finding.layers == (2, 3)


def test_a_shape_that_no_config_tells_of(tmp_path: Path) -> None:
    folder = with_b(tmp_path)
    spec = llama_tensors(layers=4, hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)
    for index in range(4):
        spec[f"model.layers.{index}.mlp.up_proj.weight"] = ("BF16", (40, 16))
    config = json.loads((folder / "a" / "config.json").read_text())
    sparse_checkpoint(folder / "b", spec, config)
    finding = found(plan_of(folder, TWO), "shape")
    assert finding.what == "mlp.up_proj.weight is [40, 16] in B and [32, 16] in A"


def test_rope_that_differs_is_a_warning_and_defaults_spelt_out_are_not(tmp_path: Path) -> None:
    folder = with_b(tmp_path, extra_config={"rope_theta": 10000.0})
    finding = found(plan_of(folder, TWO), "rope")
    assert finding.severity == "warning"
    assert "10000.0" in finding.what
    assert "500000.0" in finding.what
    assert finding.layers == (2, 3)
    sparse_llama(folder / "c", extra_config={"rope_theta": None, "rope_scaling": None})
    sparse_llama(
        folder / "d",
        extra_config={"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 10000}},
    )
    assert codes(plan_of(folder, stack_of(("b", 0, 2), ("c", 0, 2), ("d", 2, 4), base_model="b"))) == []
    sparse_llama(folder / "e", extra_config={"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}})
    assert "linear" in found(plan_of(folder, stack_of(("b", 0, 2), ("e", 0, 2))), "rope").what


@pytest.mark.parametrize(
    ("config", "severity", "said"),
    [
        ({"hidden_act": "gelu"}, "error", "activation function"),
        ({"rms_norm_eps": 1e-6}, "warning", "norm epsilon"),
    ],
)
def test_settings_that_differ(tmp_path: Path, config: dict[str, Any], severity: str, said: str) -> None:
    finding = found(plan_of(with_b(tmp_path, extra_config=config), TWO), "setting")
    assert finding.severity == severity
    assert said in finding.what
    assert finding.remedy


def test_settings_only_one_config_states_are_taken_for_defaults(tmp_path: Path) -> None:
    assert codes(plan_of(with_b(tmp_path, extra_config={"hidden_act": None}), TWO)) == ["note:base"]


def test_a_longer_context_is_noted(tmp_path: Path) -> None:
    plan = plan_of(with_b(tmp_path, extra_config={"max_position_embeddings": 32768}), TWO)
    assert "A's context of 8,192 tokens: B has a context of 32,768" in found(plan, "context").sentence()


def test_mixed_dtypes(tmp_path: Path) -> None:
    folder = with_b(tmp_path, dtype="F32")
    plan = plan_of(folder, TWO)
    finding = found(plan, "dtype-mixed")
    assert finding.severity == "warning"
    assert "A BF16, B F32" in finding.what
    assert finding.remedy == "set dtype in the recipe"
    assert {tensor.dtype for tensor in plan.tensors} == {"BF16", "F32"}
    cast = plan_of(folder, TWO + "dtype: float16\n")
    assert found(cast, "dtype-mixed").severity == "note"
    assert {tensor.dtype for tensor in cast.tensors} == {"F16"}


def test_vocabularies_and_tokenizers(tmp_path: Path) -> None:
    words = ["<unk>", *(f"w{index}" for index in range(60))]
    sparse_llama(tmp_path / "a", tokenizer=words)
    sparse_llama(tmp_path / "same", tokenizer=words)
    sparse_llama(tmp_path / "other", tokenizer=[*words[:30], *words[31:], words[30]])
    sparse_llama(tmp_path / "wide", vocab=128, tokenizer=words)
    sparse_llama(tmp_path / "bare")
    assert codes(plan_of(tmp_path, stack_of(("a", 0, 2), ("same", 2, 4)))) == ["note:base"]
    # The layers between see no ids, the head's donor gives them out.
    inner = plan_of(tmp_path, stack_of(("a", 0, 1), ("other", 1, 3), ("a", 3, 4)))
    assert found(inner, "tokenizer").severity == "warning"
    outer = plan_of(tmp_path, stack_of(("a", 0, 2), ("other", 2, 4)))
    assert found(outer, "tokenizer").severity == "error"
    assert "A and B have different tokenizers: id 30 is 'w29' in A and 'w30' in B" in found(outer, "tokenizer").what
    assert codes(plan_of(tmp_path, stack_of(("a", 0, 1), ("wide", 1, 3), ("a", 3, 4)))) == ["note:base"]
    padded = plan_of(tmp_path, stack_of(("a", 0, 2), ("wide", 2, 4)))
    assert padded.ok and "64 rows" in found(padded, "rows").what
    assert found(plan_of(tmp_path, stack_of(("a", 0, 2), ("bare", 2, 4))), "tokenizer-unknown").severity == "note"
    assert "64 rows" in found(plan_of(tmp_path, stack_of(("a", 0, 2), ("bare", 2, 4))), "tokenizer-unknown").why


def test_vocabularies_of_other_sizes_without_tokenizers(tmp_path: Path) -> None:
    finding = found(plan_of(with_b(tmp_path, vocab=80), TWO), "tokenizer")
    assert finding.severity == "error"
    assert "different vocabularies (64 and 80 rows)" in finding.what


def test_the_tokenizers_donor_counts_too(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", tokenizer=["<unk>", "x"])
    sparse_llama(tmp_path / "b", tokenizer=["<unk>", "y"])
    plan = plan_of(tmp_path, stack_of(("a", 0, 4), base_model="b"))
    assert found(plan, "tokenizer").severity == "error"
    assert [path.parent.name for path in plan.files.values()] == ["b", "b"]


# Keys, methods, parameters.


def test_unknown_keys_are_errors_with_the_nearest_known(pair: Path) -> None:
    plan = plan_of(pair, TWO + "dtyp: float16\nparamters: {}\nfoo: 1\n")
    unknown = [finding for finding in plan.findings if finding.code == "unknown-key"]
    assert [(finding.line, finding.remedy) for finding in unknown] == [
        (5, "did you mean `dtype`?"),
        (6, "did you mean `parameters`?"),
        (7, "remove it"),
    ]
    assert unknown[0].sentence().endswith("Did you mean `dtype`?")
    assert not plan.ok


def test_a_model_named_twice_in_a_slice(pair: Path) -> None:
    text = "slices:\n- sources:\n  - {model: a, layer_range: [0, 2]}\n  - {model: a, layer_range: [2, 4]}\n"
    plan = plan_of(pair, text)
    assert codes(plan) == ["error:sources"]
    assert found(plan, "sources").layers == (0, 1)


def test_several_sources_and_other_methods(pair: Path) -> None:
    text = "slices:\n- sources:\n  - {model: a, layer_range: [0, 2]}\n  - {model: b, layer_range: [1, 4]}\n"
    assert codes(plan_of(pair, text))[:2] == ["error:slice-lengths", "error:sources"]
    assert "(2, 3)" in found(plan_of(pair, text), "slice-lengths").what
    finding = found(plan_of(pair, "merge_method: tise\n" + TWO.split("\n", 1)[1]), "method")
    assert (finding.line, finding.layers) == (1, (0, 1, 2, 3))
    assert "'tise'" in finding.what
    assert "`ties`" in finding.remedy


def test_parameters_that_copying_does_not_have(pair: Path) -> None:
    text = (
        stack_of(("a", 0, 4), parameters="{scael: 2, weight: 1}")
        + "  parameters: {foo: 1}\nlm_head: {parameters: {t: 1}}\n"
    )
    found_here = [(f.severity, f.line, f.remedy) for f in plan_of(pair, text).findings if f.code == "parameter"]
    assert found_here == [
        ("error", 2, "did you mean `scale`?"),
        ("error", 5, "remove it"),
        ("warning", 2, "remove it"),
        ("warning", 6, "remove it"),
    ]


@pytest.mark.parametrize("value", ["high", "[1, x]", "'nan'", "{a: 1}", "[[1]]"])
def test_values_of_scale_that_are_no_numbers(pair: Path, value: str) -> None:
    plan = plan_of(pair, stack_of(("a", 0, 2)) + f"  parameters: {{scale: {value}}}\n")
    finding = found(plan, "parameter") if value != "{a: 1}" else plan.errors[-1]
    assert "cannot be used" in finding.what
    assert finding.layers == ((1,) if value == "[1, x]" else (0, 1))


def test_what_cannot_be_carried_out(pair: Path) -> None:
    text = TWO + "modules: {}\nfirst_layers: {count: 2}\n"
    plan = plan_of(pair, text)
    assert codes(plan)[:2] == ["error:unsupported", "error:edges"]
    assert [finding.line for finding in plan.errors] == [5, 6]
    assert plan_of(pair, stack_of(("a", 0, 2), base_model="a", tokenizer_source="base")).ok
    assert plan_of(pair, stack_of(("a", 0, 2), base_model="a", tokenizer_source="a")).ok


def test_filters_that_match_nothing(pair: Path) -> None:
    text = stack_of(("a", 0, 2)) + "  parameters: {scale: [{filter: o_porj, value: 2}, {filter: lm_head, value: 2}]}\n"
    finding = found(plan_of(pair, text), "filter")
    assert "'o_porj'" in finding.what
    assert finding.remedy == "did you mean 'o_proj'?"
    assert finding.line == 4
    beyond = stack_of(("a", 0, 2), ("a", 2, 4)) + "  parameters: {scale: [{filter: layers.0., value: 2}]}\n"
    assert "'layers.0.'" in found(plan_of(pair, beyond), "filter").what


def test_scales_that_a_norm_undoes(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", model_type="qwen3", qk_norm=True, head_dim=4)
    text = (
        stack_of(("a", 0, 2)) + "  parameters: {scale: [{filter: q_proj, value: 0.5}, {filter: o_proj, value: 0.5}]}\n"
    )
    finding = found(plan_of(tmp_path, text), "scale-no-effect")
    assert "q_proj.weight" in finding.what
    assert "q_norm" in finding.remedy
    assert finding.layers == (0, 1)


def test_tensors_that_cannot_be_scaled(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", layers=2)
    spec = llama_tensors(layers=2, hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)
    spec["model.layers.1.mlp.up_proj.weight"] = ("I8", (32, 16))
    sparse_checkpoint(tmp_path / "a", spec, json.loads((tmp_path / "a" / "config.json").read_text()))
    finding = found(plan_of(tmp_path, stack_of(("a", 0, 2)) + "  parameters: {scale: 0.5}\n"), "scale-type")
    assert finding.layers == (1,)
    assert "mlp.up_proj.weight" in finding.what


# What comes along, and what stays behind.


def test_buffers_stay_behind_and_do_not_tell_donors_apart(pair: Path) -> None:
    spec = llama_tensors(layers=4, hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)
    spec |= {f"model.layers.{index}.self_attn.rotary_emb.inv_freq": ("F32", (2,)) for index in range(4)}
    sparse_checkpoint(pair / "b", spec, json.loads((pair / "a" / "config.json").read_text()))
    plan = plan_of(pair, TWO)
    assert plan.ok
    assert not any("inv_freq" in tensor.name for tensor in plan.tensors)
    assert "4 buffers of B are left out" in found(plan, "buffers").what


def test_layers_the_config_does_not_count_stay_behind_once_layers_move(pair: Path) -> None:
    config = json.loads((pair / "a" / "config.json").read_text())
    (pair / "a" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    moved = plan_of(pair, stack_of(("a", 0, 3), ("a", 1, 3), base_model="a"))
    assert len({tensor.name for tensor in moved.tensors}) == len(moved.tensors) == 5 * 9 + 3
    assert "9 tensors of A are left out" in found(moved, "uncounted-layers").what
    still = plan_of(pair, stack_of(("a", 0, 3)))
    assert "9 tensors outside the layers come unchanged from A" in found(still, "other-tensors").what


def test_other_tensors_come_from_the_base_model(pair: Path) -> None:
    spec = llama_tensors(layers=4, hidden=16, heads=4, kv_heads=2, intermediate=32, vocab=64)
    spec["visual.patch.weight"] = ("BF16", (3, 3))
    sparse_checkpoint(pair / "b", spec, json.loads((pair / "a" / "config.json").read_text()))
    plan = plan_of(pair, stack_of(("a", 0, 2), ("b", 2, 4), base_model="b"))
    assert [tensor.name for tensor in plan.extra] == ["visual.patch.weight"]
    assert plan.tensors[-1].name == "visual.patch.weight"
    assert plan_of(pair, TWO).extra == ()


def test_the_base_model_gives_config_and_files(pair: Path) -> None:
    write_tokenizer(pair / "b", ["<unk>"])
    (pair / "b" / "generation_config.json").write_text("{}")
    config = json.loads((pair / "b" / "config.json").read_text())
    (pair / "b" / "config.json").write_text(json.dumps({**config, "mark": "b"}))
    plan = plan_of(pair, stack_of(("a", 0, 4), base_model="b"))
    assert plan.config_donor == "B"
    assert plan.config is not None
    assert plan.config["mark"] == "b"
    assert sorted(plan.files) == ["generation_config.json", "tokenizer.json", "tokenizer_config.json"]
    assert plan_of(pair, stack_of(("a", 0, 4))).files == {}


# Dtypes and estimates.


def test_dtype_and_out_dtype(pair: Path) -> None:
    for keys, wanted in (({"dtype": "float32"}, "F32"), ({"dtype": "float16", "out_dtype": "float32"}, "F32")):
        plan = plan_of(pair, stack_of(("a", 0, 2), base_model="a", **keys))
        assert {tensor.dtype for tensor in plan.tensors} == {wanted}
        assert plan.config is not None
        assert plan.config["torch_dtype"] == "float32"
        assert plan.needs_arithmetic
    assert codes(plan) == ["note:out-dtype"]
    same = plan_of(pair, stack_of(("a", 0, 2), dtype="bfloat16"))
    assert not same.needs_arithmetic


def test_the_config_says_the_dtype_most_of_the_output_has(tmp_path: Path) -> None:
    folder = with_b(tmp_path, dtype="F32")
    plan = plan_of(folder, stack_of(("b", 0, 4), base_model="a"))
    assert plan.config is not None
    assert plan.config["torch_dtype"] == "float32"


def test_estimates(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", layers=4)
    plan = plan_of(tmp_path, stack_of(("a", 0, 4)), shard_size=10_000)
    sizes = plan.estimates
    per_layer = 16 * 16 * 2 + 2 * 16 * 8 + 3 * 16 * 32 + 2 * 16
    assert sizes.parameters == 4 * per_layer + 2 * 64 * 16 + 16
    assert sizes.nbytes == 2 * sizes.parameters
    assert sizes.kv_per_token == 2 * 4 * 2 * 4 * 2
    assert sizes.run_context == 4096
    assert sizes.run_bytes == sizes.nbytes + 4096 * sizes.kv_per_token
    assert sizes.disk_bytes > sizes.nbytes
    assert sizes.shards == 3
    short = plan_of(with_b(tmp_path, extra_config={"max_position_embeddings": 100}), stack_of(("b", 0, 4)))
    assert short.estimates.run_context == 100


def test_the_cache_of_a_float32_model_is_float32(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", dtype="F32")
    assert plan_of(tmp_path, stack_of(("a", 0, 4))).estimates.kv_per_token == 2 * 4 * 2 * 4 * 4


def test_the_cache_follows_the_tensors_where_the_config_is_silent(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a", head_dim=8, model_type="llama", extra_config={"num_key_value_heads": None})
    assert plan_of(tmp_path, stack_of(("a", 0, 4))).estimates.kv_per_token == 2 * 4 * 2 * 8 * 2


# Nothing that a recipe or a config says makes resolving fail.

_odd = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 9), st.floats(allow_nan=False), st.text(max_size=3),
    st.lists(st.integers(-1, 5), max_size=5), st.dictionaries(st.sampled_from("ab"), st.integers(), max_size=2),
    st.lists(st.sampled_from(["full_attention", "sliding_attention", None, 1]), min_size=3, max_size=5),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([
            "num_hidden_layers", "layer_types", "no_rope_layers", "mlp_layer_types", "sliding_window", "rope_theta",
            "rope_parameters", "rope_scaling", "text_config", "tie_word_embeddings", "mlp_only_layers", "vision_config",
            "decoder_sparse_step", "first_k_dense_replace", "num_experts", "model_type", "vocab_size", "hidden_act",
            "sliding_window_pattern", "use_sliding_window", "max_window_layers", "dtype", "torch_dtype", "head_dim",
            "architectures", "quantization_config", "max_position_embeddings", "intermediate_size", "layerwise",
        ]),
        _odd, max_size=4,
    ),
    st.sampled_from(["llama", "qwen3", "gemma3_text", "smollm3", "novel", "gpt2"]), st.booleans(),
)  # fmt: skip
def test_configs_full_of_nonsense_are_planned_or_refused(
    tmp_path: Path, junk: dict[str, Any], model_type: str, base: bool
) -> None:
    sparse_llama(tmp_path / "a", model_type=model_type, extra_config={k: v for k, v in junk.items() if v is not None})
    sparse_llama(tmp_path / "b", model_type=model_type)
    text = stack_of(("b", 0, 2), ("a", 1, 4), ("b", 2, 3), **({"base_model": "a"} if base else {}))
    plan = plan_of(tmp_path, text)
    assert plan.ok or all(finding.sentence() for finding in plan.errors)
    assert len({tensor.name for tensor in plan.tensors}) == len(plan.tensors)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_recipe_has_a_plan(pair: Path, data: st.DataObject) -> None:
    refs = st.sampled_from(["a", "b", "gone"])
    bounds = st.one_of(st.integers(-2, 6), st.sampled_from([10**12, -(10**12)]))
    setting = st.sampled_from([1, "x", [0, 1], [], {"filter": "mlp", "value": 2}, {"a": 1}, [{"value": [1, "2"]}]])
    source = st.fixed_dictionaries(
        {"model": refs},
        optional={"layer_range": st.tuples(bounds, bounds), "parameters": st.builds(dict, scale=setting)},
    )
    part = st.fixed_dictionaries(
        {"sources": st.lists(source, min_size=1, max_size=2)},
        optional={
            "merge_method": st.sampled_from(["passthrough", "slerp"]),
            "parameters": st.builds(dict, scale=setting),
        },
    )
    end = st.fixed_dictionaries(
        {}, optional={"model": refs, "tie": st.booleans(), "parameters": st.builds(dict, t=setting)}
    )
    recipe = st.fixed_dictionaries({}, optional={
        "slices": st.lists(part, max_size=3), "base_model": refs, "embeddings": end, "lm_head": end, "final_norm": end,
        "merge_method": st.sampled_from(["passthrough", "ties"]), "dtype": st.sampled_from(["float32", "bfloat16"]),
        "parameters": st.builds(dict, scale=setting),
    })  # fmt: skip
    plan = plan_of(pair, json.dumps(data.draw(recipe)))
    assert all(finding.sentence() for finding in plan.findings)
    if plan.ok:
        assert plan.config is not None
        assert plan.config["num_hidden_layers"] == len(plan.layers)
        assert len({tensor.name for tensor in plan.tensors}) == len(plan.tensors)


# Known models, by their shapes alone.


@pytest.mark.parametrize(
    ("name", "shape", "ranges", "layers", "billions"),
    [
        ("solar", {**LLAMA2_70B, "layers": 32, "hidden": 4096, "heads": 32, "intermediate": 14336},
         [("a", 0, 24), ("a", 8, 32)], 48, 10.73),
        ("goliath", LLAMA2_70B,
         [("a", 0, 16), ("b", 8, 24), ("a", 17, 32), ("b", 25, 40), ("a", 33, 48), ("b", 41, 56), ("a", 49, 64),
          ("b", 57, 72), ("a", 65, 80)], 137, 117.7),
        ("llama-3-120b", {**LLAMA2_70B, "vocab": 128256},
         [("a", start, start + 20) for start in range(0, 70, 10)], 140, 121.9),
    ],
)  # fmt: skip
def test_known_numbers(
    tmp_path: Path, name: str, shape: dict[str, Any], ranges: list[tuple[str, int, int]], layers: int, billions: float
) -> None:
    for letter in {model for model, _, _ in ranges}:
        sparse_llama(tmp_path / letter, **shape)
    plan = plan_of(tmp_path, stack_of(*ranges))
    assert plan.ok, name
    assert len(plan.layers) == layers
    assert plan.estimates.parameters / 1e9 == pytest.approx(billions, abs=0.05 if layers > 48 else 0.005)


def test_a_recipe_of_other_line_ends_and_forms_plans_alike(pair: Path) -> None:
    plain = plan_of(pair, TWO)
    flow = plan_of(pair, yaml_flow(TWO))
    assert [tensor.source for tensor in flow.tensors] == [tensor.source for tensor in plain.tensors]


def yaml_flow(text: str) -> str:
    return json.dumps(documents.as_data(parse(text).recipe)).replace("\n", "\r\n")
