"""What a recipe may say: mergekit's forms, surgeon's own keys, and what is refused with a sentence."""

from __future__ import annotations

import pytest

from surgeon.errors import InputError
from surgeon.recipe.document import Document, parse
from surgeon.recipe.schema import Recipe


def refusal(text: str) -> str:
    with pytest.raises(InputError) as caught:
        parse(text)
    return caught.value.sentence()


def one_source(text: str) -> Document:
    return parse(f"merge_method: passthrough\nslices:\n- sources:\n  - {text}\n")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("./a", "./a"),
        ("org/name@v2", "org/name@v2"),
        ("{model: {path: ./a+b}}", "./a+b"),
        ("{model: {path: org/name, revision: v2}}", "org/name@v2"),
        ("{model: {path: org/name, revision: v2}, lora: {path: ./lora}}", "org/name@v2+./lora"),
        ("{model: ./a}", "./a"),
    ],
)
def test_a_model_is_a_string_or_mergekits_table(written: str, meant: str) -> None:
    assert parse(f"base_model: {written}\n").recipe.base_model == meant


@pytest.mark.parametrize("written", ["{path: ./a}", "{model: {name: ./a}}", "[a]", "{model: {path: a}, loar: b}", "''"])
def test_other_forms_of_a_model_are_refused(written: str) -> None:
    assert "base_model" in refusal(f"base_model: {written}\n")


def test_an_overridden_architecture_is_refused_rather_than_ignored() -> None:
    text = "base_model: {model: {path: ./a}, override_architecture: LlamaForCausalLM}\n"
    assert "override_architecture" in refusal(text)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("bfloat16", "bfloat16"), ("torch.float16", "float16"), ("bf16", "bfloat16"), ("float", "float32")],
)
def test_dtypes_have_one_spelling(written: str, meant: str) -> None:
    assert parse(f"dtype: {written}\nout_dtype: {written}\n").recipe.dtype == meant


def test_an_unknown_dtype_is_refused_with_the_known_ones() -> None:
    assert "'BF8' is not one of bfloat16, float16, float32" in refusal("dtype: BF8\n")


@pytest.mark.parametrize("written", ["[0, 16]", "[0.0, 16.0]", '["0", "16"]', "\n    - 0\n    - 16"])
def test_layer_ranges_are_whole_numbers_however_written(written: str) -> None:
    recipe = one_source(f"model: a\n    layer_range: {written}").recipe
    assert recipe.slices is not None
    assert recipe.slices[0].sources[0].layer_range == (0, 16)


@pytest.mark.parametrize(
    "written", ["[0]", "[0, 1, 2]", "[0.5, 2]", "[a, b]", "[true, 2]", "16", "[0, 1e30]", "{a: 1}"]
)
def test_other_layer_ranges_are_refused_at_their_line(written: str) -> None:
    sentence = refusal(f"merge_method: passthrough\nslices:\n- sources:\n  - model: a\n    layer_range: {written}\n")
    assert "line 5" in sentence
    assert "layer_range" in sentence


def test_a_range_left_out_means_all_layers() -> None:
    recipe = one_source("model: a").recipe
    assert [source.layer_range for part in recipe.explicit(lambda _: 7) for source in part.sources] == [(0, 7)]


def test_models_stand_for_one_slice_of_everything() -> None:
    recipe = parse("models:\n- model: a\n  parameters: {scale: 0.5}\nmerge_method: passthrough\n").recipe
    (part,) = recipe.explicit(lambda _: 7)
    assert part.sources[0].layer_range == (0, 7)
    assert part.sources[0].parameters == {"scale": 0.5}
    assert recipe.model_refs() == ["a"]


def test_models_and_slices_together_are_refused() -> None:
    assert "not both" in refusal("models: [{model: a}]\nslices: [{sources: [{model: a}]}]\n")


def test_a_slice_without_sources_is_refused() -> None:
    assert "sources" in refusal("slices: [{sources: []}]\n")
    assert "sources" in refusal("slices: [{}]\n")


def test_a_misspelt_required_key_is_named_with_its_line() -> None:
    sentence = refusal("slices:\n- sources:\n  - modle: a\n    layer_range: [0, 1]\n")
    assert "slices.0.sources.0.model is missing" in sentence
    assert "line 3" in sentence
    assert "`modle`" in sentence
    assert "`source`" in refusal("slices:\n- source:\n  - model: a\n")


@pytest.mark.parametrize("value", [".nan", ".inf", "[0, -.inf]", "[{filter: mlp, value: .nan}]"])
def test_parameters_that_are_no_finite_numbers_are_refused(value: str) -> None:
    assert "not a finite number" in refusal(f"parameters: {{scale: {value}}}\n")


def test_references_are_listed_once_slices_first() -> None:
    text = (
        "base_model: base\nlm_head: {model: d}\nslices:\n"
        "- sources: [{model: c}]\n- sources: [{model: b}]\n- sources: [{model: c}]\n  base_model: e\n"
    )
    assert parse(text).recipe.model_refs() == ["c", "b", "e", "base", "d"]


def test_renaming_models_reaches_every_place() -> None:
    text = (
        "base_model: a\nembeddings: {model: a}\nslices:\n- sources: [{model: a}, {model: b}]\n  base_model: b\n"
        "models:\n"
    )
    renamed = parse(text).recipe.with_models({"a": "x", "b": "y"})
    assert renamed.model_refs() == ["x", "y"]
    assert renamed.embeddings is not None
    assert renamed.embeddings.model == "x"


def test_recipes_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().dtype = "float16"  # type: ignore[misc]
