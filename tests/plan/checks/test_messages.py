"""What a recipe's mistakes are told as: the cause first, in the recipe's own words, with what helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.errors import InputError
from surgeon.plan.findings import Finding
from surgeon.recipe.document import parse
from tests.support.planning import codes, found, plan_of
from tests.support.sparse import sparse_checkpoint, sparse_llama

JARGON = ("tuple", "dictionary", "instance of", "valid string", "validation", "parse string", "pydantic", "literal")


def told(folder: Path, text: str) -> list[Finding]:
    return list(plan_of(folder, text).findings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slices: [{sources: [{model: a, layer_range: [0, 4, 8]}]}]", "a layer range is two whole numbers"),
        ("slices: [{sources: [{model: a, layer_range: 4}]}]", "a layer range is two whole numbers"),
        (
            "slices: [{sources: {model: a, layer_range: [0, 4]}}]",
            "sources are a list of entries such as `- model: ...`",
        ),
        ("slices: [{model: a, layer_range: [0, 4]}]", "Put model and layer_range there"),
        ("slices: 3", "slices are a list of entries"),
        ("slices: [x]", "each entry of slices is a table of keys"),
        ("models: {a: 1}", "models are a list of entries such as `- model: ...`"),
        ("models: [a, b]", "each entry of models is a table of keys, such as `model: ...`"),
        ("models: [{model: [x]}]", "it should be text"),
        ("models: [{model: a}]\nparameters: [weight]", "parameters are a table, such as `weight: 0.5`"),
        ("models: [{model: a}]\nseed: x", "it should be a whole number"),
        ("models: [{model: a}]\ntokenizer: {source: 3}", "it should be text"),
        ("models: [{model: a}]\nlm_head: {tie: perhaps}", "it should be true or false"),
    ],
)
def test_no_word_of_the_validator_reaches_a_user(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        parse(f"merge_method: linear\n{text}\n")
    sentence = error.value.sentence()
    assert said in sentence
    assert not any(word in sentence.lower() for word in JARGON), sentence


def test_a_misplaced_parameter_is_sent_to_its_place(tmp_path: Path) -> None:
    sparse_llama(tmp_path / "a")
    text = (
        "merge_method: linear\nmodels: [{model: a, parameters: {weight: 1}}, {model: a, weight: 1}]\nnormalize: true\n"
    )
    remedies = [finding.remedy for finding in told(tmp_path, text) if finding.code == "unknown-key"]
    assert remedies == [
        "put it under `parameters:`, as `parameters: {weight: ...}`",
        "put it under `parameters:`, as `parameters: {normalize: ...}`",
    ]


@pytest.mark.parametrize(("key", "meant"), [("modelnorm", None), ("dtyp", "dtype"), ("slice", "slices"), ("xyz", None)])
def test_a_suggestion_means_the_same(key: str, meant: str | None) -> None:
    (problem,) = parse(f"merge_method: linear\n{key}: 1\n").key_problems
    assert problem.suggestion == meant


def test_a_mixture_of_experts_is_recognised(tmp_path: Path) -> None:
    text = "base_model: a\ngate_mode: hidden\nexperts: [{source_model: b, positive_prompts: [x]}]\n"
    sparse_llama(tmp_path / "a")
    (finding,) = told(tmp_path, text)
    assert finding.code == "mergekit-moe"
    assert finding.line == 3


def test_slerp_of_three_says_which_is_the_base(tmp_path: Path) -> None:
    for name in "abc":
        sparse_llama(tmp_path / name)
    text = "merge_method: slerp\nbase_model: b\nparameters: {t: 0.5}\nmodels: [{model: a}, {model: b}, {model: c}]\n"
    assert "slerp takes exactly 2 donors, the base B among them" in found(plan_of(tmp_path, text), "donors").what


def test_what_cannot_be_spliced_comes_without_ranges_that_nobody_wrote(tmp_path: Path) -> None:
    spec = {
        "blocks_of.0.output.dense.weight": ("F32", (4, 4)),
        "table.weight": ("F32", (8, 4)),
    }
    for name in "ab":
        sparse_checkpoint(tmp_path / name, spec, {"model_type": "other", "num_hidden_layers": 1})
    plan = plan_of(tmp_path, "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n")
    assert codes(plan) == ["error:not-spliceable", "error:not-spliceable"]
    text = "merge_method: linear\nmodels: [{model: a}, {model: gone}]\nparameters: {weight: 1}\n"
    assert [code for code in codes(plan_of(tmp_path, text)) if "range" in code or "empty" in code] == []


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod."])
def test_a_wrappers_prefix_is_named(tmp_path: Path, prefix: str) -> None:
    names = {"model.embed_tokens.weight": (8, 4), "model.layers.0.mlp.up_proj.weight": (4, 4)}
    spec = {prefix + name: ("F32", shape) for name, shape in names.items()}
    sparse_checkpoint(tmp_path / "a", spec, {"model_type": "llama", "num_hidden_layers": 1})
    plan = plan_of(tmp_path, "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [0, 1]}]}]\n")
    assert f"every tensor name begins with `{prefix}`" in found(plan, "not-spliceable").why


@pytest.mark.parametrize(
    "method", ["task_arithmetic", "ties", "dare_ties", "breadcrumbs", "della", "sce", "model_stock"]
)
def test_a_base_without_donors_is_the_base(tmp_path: Path, method: str) -> None:
    """What people write to bake an adapter: base_model and the only model are one reference."""
    sparse_llama(tmp_path / "a")
    for extra in ("", "parameters: {weight: 1, density: 0.5}\n"):
        plan = plan_of(tmp_path, f"merge_method: {method}\nbase_model: a\nmodels: [{{model: a}}]\n{extra}")
        assert plan.ok, codes(plan)
        assert found(plan, "only-base").severity == "note"
        assert {layer.method for layer in plan.layers} == {"passthrough"}
        assert not plan.needs_arithmetic


@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e16"])
def test_numbers_whose_sums_overflow_are_refused(tmp_path: Path, value: str) -> None:
    """Two weights of 1e308 sum to infinity, and every share of it would be 0: a model of zeros."""
    for name in "ab":
        sparse_llama(tmp_path / name)
    text = f"merge_method: linear\nmodels: [{{model: a}}, {{model: b}}]\nparameters: {{weight: {value}}}\n"
    assert "exceeds 1e+15" in found(plan_of(tmp_path, text), "parameter").why


@pytest.mark.parametrize(("weights", "more", "told"), [
    ((1, -1), "", True), ((1, -1), ", normalize: false", False), ((1, 1), "", False), ((0.5, -0.25), "", False),
])  # fmt: skip
def test_weights_that_sum_to_zero_are_told(tmp_path: Path, weights: tuple[float, float], more: str, told: bool) -> None:
    for name in "ab":
        sparse_llama(tmp_path / name)
    one, other = weights
    models = f"[{{model: a, parameters: {{weight: {one}}}}}, {{model: b, parameters: {{weight: {other}}}}}]"
    shared = f"parameters: {{{more.strip(', ')}}}\n" if more else ""
    plan = plan_of(tmp_path, f"merge_method: linear\nmodels: {models}\n{shared}")
    assert ("warning:weights-cancel" in codes(plan)) == told


@pytest.mark.parametrize("name", ["/tmp/s1", "~/s1", "../s1", ".."])
def test_a_stage_has_a_name_and_no_path(name: str) -> None:
    with pytest.raises(InputError, match="a stage cannot be named"):
        parse(f"name: {name}\nmerge_method: linear\nmodels: [{{model: a}}]\n")


def test_a_recipe_that_is_too_large_is_refused(tmp_path: Path) -> None:
    from surgeon.recipe.document import MAX_BYTES, load

    (tmp_path / "r.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="too large to be a recipe"):
        load(tmp_path / "r.yaml")
