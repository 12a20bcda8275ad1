"""`surgeon export --mergekit`: what comes out writes the same tensors in mergekit's words; the rest is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from surgeon.cli.app import run
from surgeon.errors import InputError
from surgeon.mergekit import Exported, export, localised
from surgeon.mergekit.facts import BASELESS, METHODS, RESCALE
from surgeon.mergekit.plan_difference import difference
from surgeon.methods.catalogue import every
from surgeon.plan import Convert, Donors
from surgeon.recipe.document import as_data, parse
from surgeon.recipe.schema import Recipe
from tests.support.blending import donors, merged, plan_of
from tests.support.sparse import mark, sparse_llama

KEYS = {
    "name", "merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype", "tokenizer_source",
    "tokenizer", "chat_template",
}  # fmt: skip
"""Every key that a document of mergekit's may have here."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return donors(tmp_path_factory.mktemp("house"), ("base", "a", "b", "c"))


@pytest.fixture
def folder(house: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(house)
    return house


def exported(folder: Path, text: str) -> Exported:
    document = localised(parse(text, folder / "recipe.yml"), Path.cwd())
    return export(document, Donors(document.roots))


def slices_of(made: Exported) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = as_data(made.document.recipe)["slices"]
    return found


def check_mergekits(recipe: Recipe) -> None:
    """What mergekit checks of a document, and what it ignores without a word."""
    data = as_data(recipe)
    assert set(data) <= KEYS
    assert "merge_method" in data
    words = [value for value in _scalars(data) if isinstance(value, str)]
    assert not set(words) & {"l1", "none", "paper"}
    for part in data.get("slices", ()):
        assert set(part) <= {"sources", "base_model", "parameters"}
        refs = [source["model"] for source in part["sources"]]
        assert len(set(refs)) == len(refs)
        assert all("layer_range" in source for source in part["sources"])
        base = part.get("base_model", recipe.base_model)
        if recipe.merge_method not in BASELESS and base is not None:
            assert base in refs
    if recipe.slices:
        assert len(recipe.slices[0].sources) >= len(recipe.slices[-1].sources)


def _scalars(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    return [scalar for item in value for scalar in _scalars(item)] if isinstance(value, list) else [value]


def pair(method: str, more: str = "", *, each: str = "", base: str = "a", keys: str = "") -> str:
    """A recipe of one slice with the donors a and b, all four layers."""
    own = f", parameters: {{{each}}}" if each else ""
    return (
        f"merge_method: {method}\nbase_model: {base}\n{keys}slices:\n- sources:\n"
        f"  - {{model: a, layer_range: [0, 4]{own}}}\n  - {{model: b, layer_range: [0, 4]{own}}}\n{more}"
    )


SLERP = pair("slerp", "parameters: {t: [{filter: self_attn, value: [0, 1]}, {value: [0.2, 0.9]}]}\n")
TASK = pair("ties", each="weight: [0.3, 0.9], density: [0.4, 0.8]", base="base")
MIXED = """\
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- merge_method: METHOD
  base_model: a
  sources:
  - {model: a, layer_range: [1, 3]}
  - {model: b, layer_range: [2, 4]}
  parameters: {t: [0.2, 0.7], weight: [0.3, 0.8]}
- sources: [{model: c, layer_range: [1, 4]}]
"""
THREE = """\
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: b, layer_range: [1, 4]}]
"""
STAGES = """\
# the left one
name: left
merge_method: slerp
slices:
- sources: [{model: a, layer_range: [0, 4]}, {model: b, layer_range: [0, 4]}]
parameters: {t: 0.4}
last_layers: {count: 1, model: b}
---
name: right
merge_method: ties
base_model: base
models:
- {model: a, parameters: {weight: 1, density: 0.6}}
- {model: c, parameters: {weight: 0.5, density: 0.7}}
---
merge_method: linear
models:
- {model: left, parameters: {weight: 1}}
- {model: right, parameters: {weight: 3}}
lm_head: {model: base}
"""

EXPRESSIBLE = {
    "a base for slerp": pair("slerp", "parameters: {t: [0.2, 0.9]}\n").replace("base_model: a\n", ""),
    "edge: a donor in slerp": SLERP + "first_layers: {count: 1, model: a}\nlast_layers: {count: 2, model: b}\n",
    "edge: a third donor in slerp": SLERP + "last_layers: {count: 1, model: c}\n",
    "edge: a gradient": SLERP + "first_layers: {count: 2, parameters: {t: [0.5, 0.6]}}\n",
    "edge: a filter over the slices' values": SLERP
    + "last_layers: {count: 3, parameters: {t: [{filter: mlp, value: [1, 0.4]}]}}\n",
    "edge: a taper": SLERP + "first_layers: {count: 3, taper: true, parameters: {t: 0}}\n",
    "edge: each donor's own": TASK + "last_layers: {count: 2, parameters: {weight: [0.1, 0.6]}}\n",
    "edge: a taper of each donor's own": TASK + "first_layers: {count: 2, taper: true, parameters: {weight: 0}}\n",
    "edge: a donor in ties": TASK + "first_layers: {count: 1, model: a}\nlast_layers: {count: 1, model: base}\n",
    "edge: a scaled donor in linear": pair("linear", each="weight: [0.3, 0.9]")
    + "first_layers: {count: 2, model: c, parameters: {scale: [{filter: o_proj, value: [0.5, 0.7]}]}}\n",
    "edge: over a scale": THREE
    + "parameters: {scale: [{filter: down_proj, value: [0.5, 2]}]}\n"
    + "first_layers: {count: 1, model: c, parameters: {scale: [{filter: o_proj, value: 0.5}]}}\n"
    + "last_layers: {count: 2, parameters: {scale: [{filter: up_proj, value: [0.5, 3]}]}}\n",
    "edge: over several slices": THREE + "first_layers: {count: 3, model: c}\n",
    "a method of a slice: slerp": MIXED.replace("METHOD", "slerp"),
    "a method of a slice: linear": MIXED.replace("METHOD", "linear"),
    "a method of a slice: task_arithmetic": MIXED.replace("METHOD", "task_arithmetic"),
    "a method of a slice: nearswap": MIXED.replace("METHOD", "nearswap"),
    "a scaled copy beside linear": MIXED.replace("METHOD", "linear")
    + "parameters: {scale: [{filter: o_proj, value: [0.2, 0.6]}]}\nlast_layers: {count: 1, parameters: {scale: 3}}\n",
    "ends: donors": THREE + "embeddings: {model: c}\nfinal_norm: {model: a}\nlm_head: {model: a}\n",
    "ends: norm and head of two donors": THREE + "final_norm: {model: c}\n",
    "ends: a scaled one": THREE + "lm_head: {model: a, parameters: {scale: 0.5}}\n",
    "ends: values of their own": SLERP + "embeddings: {parameters: {t: 0.5}}\nlm_head: {parameters: {t: 0.7}}\n",
    "ends: a donor's norm on slerp's arc": SLERP + "final_norm: {model: b}\n",
    "ends: two donors on slerp's arc": SLERP + "final_norm: {model: b}\nlm_head: {model: a}\n",
    "ends: the head of a donor that is not the base, which stands second": pair(
        "slerp", "parameters: {t: 0.3}\n", base="b"
    )
    + "lm_head: {model: a}\n",
    "ends: the norm of a donor that is not the base, which stands second": pair(
        "slerp", "parameters: {t: 0.3}\n", base="b"
    )
    + "final_norm: {model: a}\n",
    "ends: the base's head with ties": TASK + "lm_head: {model: base}\n",
    "ends: lambda for one of two": TASK + "lm_head: {parameters: {lambda: 0.5}}\n",
    "ends: by linear, of three": pair("linear", each="weight: [0.3, 0.9]") + "final_norm: {model: c}\n",
    "ends: of a slice's start": SLERP + "last_layers: {count: 4, parameters: {t: 0.5}}\n",
    "sources without the base": """\
merge_method: task_arithmetic
base_model: base
slices:
- sources: [{model: a, layer_range: [0, 2], parameters: {weight: 0.6}}]
- sources:
  - {model: b, layer_range: [1, 4], parameters: {weight: 0.6}}
  - {model: c, layer_range: [1, 4], parameters: {weight: 0.3}}
""",
    "more donors behind than before": """\
merge_method: linear
base_model: a
parameters: {weight: 1}
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: b, layer_range: [1, 4]}, {model: c, layer_range: [1, 4]}]
""",
    "one model twice": """\
merge_method: linear
base_model: a
parameters: {weight: [0.2, 0.9]}
slices:
- sources: [{model: a, layer_range: [0, 2]}, {model: a, layer_range: [2, 4]}]
""",
    "a base that a slice leaves out": pair("nuslerp", each="weight: [0.3, 0.9]", base="base"),
    "words": TASK + "parameters: {rescale: [{filter: mlp, value: l1}, {value: none}], scope: tensor}\n",
    "words that change": TASK + "parameters: {normalize: [true, false, false]}\n",
    "whole donors": "merge_method: slerp\nmodels: [{model: a}, {model: b}]\nparameters: {t: 0.3}\nbase_model: b\n"
    "final_norm: {model: b}\n",
    "linear beside a base": "merge_method: linear\nbase_model: base\nparameters: {weight: 1}\n"
    "models: [{model: a}, {model: b}]\n",
    "a dtype in between": "merge_method: linear\ndtype: bfloat16\nout_dtype: float32\nparameters: {weight: 1}\n"
    "models: [{model: a}, {model: b}]\n",
    "no ranges": "slices:\n- sources: [{model: a}]\n",
    "stages": STAGES,
}


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_what_is_exported_gives_the_same_numbers(folder: Path, name: str) -> None:
    import torch

    text = EXPRESSIBLE[name]
    made = exported(folder, text)
    assert made.changed
    for one in (made.document, *made.document.stages):
        check_mergekits(one.recipe)
    wanted, found = merged(plan_of(folder, text)), merged(plan_of(folder, made.document.text))
    assert wanted.keys() == found.keys()
    for key, tensor in wanted.items():
        assert tensor.dtype == found[key].dtype
        assert torch.allclose(tensor, found[key], rtol=1e-5, atol=1e-6), key


def test_a_recipe_without_own_keys_stays_as_it_is(folder: Path) -> None:
    text = f"# mine\n{SLERP}seed: 7  # lucky\n# the end\n"
    made = exported(folder, text)
    assert not made.changed
    assert made.document.text == f"# mine\n{SLERP}# the end\n"
    linear = pair("linear", each="weight: 1")
    for plain in (SLERP, linear, linear.replace("base_model: a\n", "")):
        assert exported(folder, plain).document.text == plain


def test_a_source_without_a_range_is_given_one(folder: Path) -> None:
    text = "merge_method: linear\nslices:\n- sources: [{model: a}, {model: b, layer_range: [0, 4]}]\n"
    made = exported(folder, text + "parameters: {weight: 1}\n")
    check_mergekits(made.document.recipe)
    assert [source["layer_range"] for source in slices_of(made)[0]["sources"]] == [[0, 4], [0, 4]]


def test_comments_outlive_what_is_compiled(folder: Path) -> None:
    made = exported(folder, f"# mine\n{SLERP}# careful with these\nlast_layers: {{count: 1, model: b}}\n")
    assert {"# mine", "# careful with these"} <= set(made.document.text.splitlines())


def test_edges_become_slices_of_their_own(folder: Path) -> None:
    text = pair("slerp", "parameters: {t: [0, 0.9]}\nlm_head: {model: b}\n")
    text += "first_layers: {count: 1, model: c}\nlast_layers: {count: 1, parameters: {t: 0.5}}\n"
    embeddings, first, middle, last, ends = slices_of(exported(folder, text))
    assert [source["layer_range"] for source in embeddings["sources"]] == [[0, 0], [0, 0]]
    assert embeddings["parameters"] == {"t": 0}
    assert first["sources"][0] == {"model": "c", "layer_range": [0, 1]}
    assert (first["base_model"], first["parameters"]) == ("c", {"t": 0})
    assert middle["sources"] == [{"model": "a", "layer_range": [1, 3]}, {"model": "b", "layer_range": [1, 3]}]
    assert middle["parameters"] == {"t": [pytest.approx(0.3), pytest.approx(0.6)]}
    assert last["parameters"] == {"t": 0.5}
    assert ends["parameters"] == {"t": [{"filter": "lm_head.weight", "value": 1}, {"value": 0}]}


def test_ends_are_left_to_the_slices_where_they_give_them(folder: Path) -> None:
    made = exported(folder, THREE + "embeddings: {model: a}\nlm_head: {model: b}\n")
    assert [s["sources"][0]["layer_range"] for s in slices_of(made)] == [[0, 2], [1, 4]]
    only_first = exported(folder, THREE + "embeddings: {model: c}\nlm_head: {model: b}\n")
    assert [s["sources"][0]["model"] for s in slices_of(only_first)] == ["c", "a", "b"]


def test_a_tapers_values_are_rules_for_tensors_of_a_layer(folder: Path) -> None:
    made = exported(folder, SLERP + "first_layers: {count: 2, taper: true, parameters: {t: 0}}\n")
    rules = slices_of(made)[2]["parameters"]["t"]
    assert rules[-1] == {"value": pytest.approx((0.2 + 0.7 / 3) / 2)}
    assert {rule["filter"] for rule in rules[:-1]} == {f"self_attn.{x}_proj.weight" for x in "kqvo"}


def test_stages_keep_their_names_and_comments(folder: Path) -> None:
    made = exported(folder, STAGES)
    assert [stage.recipe.name for stage in made.document.stages] == ["left", "right"]
    assert made.document.text.startswith("# the left one\nname: left\n")
    assert any("mergekit-multi" in note for note in made.notes)


def test_blends_of_16_bits_are_computed_in_float32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    donors(tmp_path, ("base", "a", "b", "c"), dtype="bfloat16")
    monkeypatch.chdir(tmp_path)
    made = exported(tmp_path, STAGES)
    assert [stage.recipe.dtype for stage in made.document.stages] == ["float32", "float32"]
    assert {stage.recipe.out_dtype for stage in made.document.stages} == {None}
    assert (made.document.recipe.dtype, made.document.recipe.out_dtype) == ("float32", "bfloat16")
    assert {tensor.dtype for tensor in plan_of(tmp_path, made.document.text).tensors} == {"BF16"}
    # slerp is computed in float32 and rounded once by mergekit itself.
    plain = exported(tmp_path, SLERP + "last_layers: {count: 1, model: b}\n")
    assert "dtype" not in as_data(plain.document.recipe) and not plain.notes
    as_it_is = exported(tmp_path, pair("task_arithmetic", "  - {model: base, layer_range: [0, 4]}\n"
                                       "parameters: {weight: 1}\n", base="base"))  # fmt: skip
    assert not as_it_is.changed and any("`out_dtype: bfloat16`" in note for note in as_it_is.notes)


def test_other_spellings_of_a_dtype_are_mergekits(folder: Path) -> None:
    made = exported(folder, THREE + "dtype: bf16  # small\n")
    assert "dtype: bfloat16" in made.document.text and "bf16" not in made.document.text


def test_chance_is_noted(folder: Path) -> None:
    text = TASK.replace("ties", "dare_linear").replace("density: [0.4, 0.8]", "density: 0.5")
    made = exported(folder, text + "first_layers: {count: 1, model: a}\nseed: 3\n")
    assert any("dare_linear drops random elements" in note for note in made.notes)
    assert "seed" not in made.document.text
    ties = exported(folder, TASK + "first_layers: {count: 1, model: a}\n")
    assert any("of equal magnitudes" in note for note in ties.notes)


REFUSED = {
    "paper": ("dare_ties", "parameters: {rescale: paper}\n", "rescale: paper", 7),
    "scope": ("ties", "parameters: {scope: model}\n", "mergekit's ties has no scope: model", 7),
    "scaled edge": ("ties", "first_layers: {count: 1, model: a, parameters: {scale: 2}}\n",
                    "layer 0 is a copy of a, and ties cannot multiply a copied layer", 7),
    "norm and head": ("ties", "final_norm: {model: b}\n", "uses one base for both", None),
    "tied": ("ties", "lm_head: {tie: true}\n", "mergekit writes a separate head", 7),
    "no copies": ("nuslerp", "last_layers: {count: 1, model: a}\n",
                  "no parameters of nuslerp copy a layer exactly", 7),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_mergekit_cannot_express_is_refused(folder: Path, name: str) -> None:
    method, more, why, line = REFUSED[name]
    with pytest.raises(InputError, match="mergekit cannot express this recipe") as caught:
        exported(folder, pair(method, more, each="weight: 1, density: 0.5", base="base"))
    assert why in caught.value.why
    assert caught.value.where.endswith(f"line {line}" if line else "recipe.yml")


def test_two_methods_are_stages(folder: Path) -> None:
    second = "- merge_method: linear\n  sources: [{model: c, layer_range: [0, 1], parameters: {weight: 1}}]\n"
    with pytest.raises(InputError, match="blended by slerp and by linear") as caught:
        exported(folder, SLERP.replace("parameters: {t", second + "parameters: {t"))
    assert "stages" in caught.value.remedy
    assert caught.value.where.endswith("line 7")


def test_weights_that_sum_to_zero(folder: Path) -> None:
    text = pair("linear", "parameters: {normalize: true}\n").replace("4]}\n  - {model: b", "4], W1}\n  - {model: b")
    text = text.replace("W1", "parameters: {weight: 1}").replace("b, layer_range: [0, 4]", "b, layer_range: [0, 4], W2")
    text = text.replace("W2", "parameters: {weight: -1}")
    with pytest.raises(InputError, match="sum to zero"):
        exported(folder, text)
    assert exported(folder, text.replace("true", "false")).document.text == text.replace("true", "false")


def test_errors_of_the_recipe_come_first(folder: Path) -> None:
    with pytest.raises(InputError, match="Layer 4 of A does not exist"):
        exported(folder, THREE.replace("[0, 2]", "[3, 5]"))


def test_of_several_errors_the_first_is_told(folder: Path) -> None:
    text = pair("slerp", "parameters: {t: 0.5}\nlm_head: {model: ./nowhere}\n").replace("[0, 4]", "[0, 9]", 1)
    plan = plan_of(folder, text)
    assert len(plan.errors) > 1
    with pytest.raises(InputError) as caught:
        exported(folder, text)
    assert plan.errors[0].what in caught.value.sentence() and plan.errors[-1].what not in caught.value.sentence()


def test_tied_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mergekit writes no head where no donor of the last slice stores one, and copies the config's word for it."""
    for name, tied in (("a", True), ("b", True), ("c", False)):
        sparse_llama(tmp_path / name, tied=tied)
    monkeypatch.chdir(tmp_path)
    assert exported(tmp_path, THREE).document.recipe.lm_head is None  # the two embeddings are one
    mark(tmp_path / "b", "model.embed_tokens.weight")
    with pytest.raises(InputError, match="this head is B's embedding"):
        exported(tmp_path, THREE)
    same = exported(tmp_path, THREE + "lm_head: {tie: true}\n")
    assert [s["sources"][0]["model"] for s in slices_of(same)] == ["a", "b"]
    with pytest.raises(InputError, match="mergekit copies tie_word_embeddings from A"):
        exported(tmp_path, THREE + "lm_head: {model: c}\n")
    ends = "final_norm: {model: c}\nlm_head: {model: c}\n"
    untied = exported(tmp_path, THREE.replace("slices:", "base_model: c\nslices:") + ends)
    assert [s["sources"][0]["model"] for s in slices_of(untied)] == ["a", "b", "c"]


def test_padding_that_only_some_donors_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["<unk>", *(f"w{index}" for index in range(39))]
    for name, vocab in (("a", 64), ("b", 80)):
        sparse_llama(tmp_path / name, vocab=vocab, tokenizer=words)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot omit padding rows"):
        exported(tmp_path, THREE)


def test_what_mergekit_does_not_know_of_an_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        sparse_llama(tmp_path / name, extra_config={"architectures": ["NovelForCausalLM"]})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="takes norm and head from the first slice"):
        exported(tmp_path, THREE)
    made = exported(tmp_path, THREE.replace("b,", "a,"))
    assert any("no template for NovelForCausalLM" in note for note in made.notes)


def test_attributes_of_layers_stay_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    more = {"model_type": "qwen2", "layer_types": kinds, "use_sliding_window": True, "sliding_window": 8}
    sparse_llama(tmp_path / "a", extra_config={**more, "architectures": ["Qwen2ForCausalLM"]})
    monkeypatch.chdir(tmp_path)
    moved = "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [1, 3]}]\n"
    assert any("layer_types" in note for note in exported(tmp_path, moved).notes)
    assert not exported(tmp_path, moved.replace("[1, 3]", "[0, 4]")).notes


def test_a_stage_that_is_called_like_something_else(folder: Path) -> None:
    with pytest.raises(InputError, match="reads every word slerp as the stage of that name"):
        exported(folder, STAGES.replace("left", "slerp"))


def test_donors_are_found_from_where_mergekit_runs(
    house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = localised(parse(THREE, house / "recipe.yml"), tmp_path)
    assert document.model_refs == [str(house / "a"), str(house / "b")]
    monkeypatch.chdir(house)
    assert localised(document, house) == document
    assert localised(parse(THREE, house / "recipe.yml"), house).text == THREE
    (tmp_path / "x+y").symlink_to(house / "a")
    with pytest.raises(InputError, match=r"mergekit cannot read the name .*x\+y"):
        localised(parse(THREE.replace("model: a", "model: ./x+y"), tmp_path / "recipe.yml"), house)
    hub = THREE.replace("model: a", "model: org/name@main")
    assert localised(parse(hub, house / "recipe.yml"), tmp_path).model_refs == ["org/name@main", str(house / "b")]


def test_tokenizers_are_found_from_there_too(house: Path, tmp_path: Path) -> None:
    text = THREE + "tokenizer: {source: c, tokens: {x: {source: b}, y: {source: {kind: zero}}}}\n"
    document = localised(parse(text, house / "recipe.yml"), tmp_path)
    settings = document.recipe.tokenizer
    assert settings is not None
    assert (settings.source, settings.tokens["x"].source) == (str(house / "c"), str(house / "b"))


def test_rows_that_no_token_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["<unk>", *(f"w{index}" for index in range(39))]
    for name in "ab":
        sparse_llama(tmp_path / name, vocab=64, tokenizer=words)
    monkeypatch.chdir(tmp_path)
    text = THREE.replace("slices:", "base_model: a\ntokenizer_source: base\nslices:")
    with pytest.raises(InputError, match="mergekit writes 40 rows of embedding and head") as caught:
        exported(tmp_path, text)
    assert caught.value.where.endswith("line 3")


def test_the_check_sees_every_kind_of_difference(folder: Path) -> None:
    plan = plan_of(folder, SLERP)
    assert difference(plan, plan_of(folder, SLERP)) == ""
    assert "layers.1.self_attn" in difference(plan, plan_of(folder, SLERP.replace("value: [0, 1]", "value: [0, 0.9]")))
    assert "instead of the slerp of A~B" in difference(plan, plan_of(folder, SLERP.replace("model: b", "model: c")))
    assert "BF16" in difference(plan, plan_of(folder, SLERP + "dtype: bfloat16\n"))
    copied = plan_of(folder, THREE)
    assert difference(copied, replace(copied, layers=copied.layers[:-1])).endswith("would not be written")
    assert difference(replace(copied, layers=copied.layers[:-1]), copied).endswith("would be written too")
    scaled = plan_of(folder, THREE + "parameters: {scale: [{filter: o_proj, value: 2}]}\n")
    assert any(isinstance(tensor.source, Convert) for tensor in scaled.tensors)
    assert "a copy of A instead of A times 2" in difference(scaled, copied)


def test_mergekits_defaults_are_surgeons() -> None:
    """Where a recipe says nothing nothing is written, so that both must take the same."""
    methods = every()
    for name, table in METHODS.items():
        found = {p.name: p.default for p in methods[name].parameters.values() if p.name in table}
        assert {key: RESCALE.get(str(value), value) for key, value in found.items()} == dict(table), name


# The command.


def command(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = run(["export", *args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_prints_or_writes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yml").write_text(STAGES)
    code, out, err = command(capsys, str(tmp_path / "own.yml"), "--mergekit")
    assert code == 0 and out.startswith("# the left one\n") and "last_layers" not in out
    assert "note: it has several documents" in err
    code, nothing, _ = command(capsys, str(tmp_path / "own.yml"), "--mergekit", "-o", str(tmp_path / "out.yml"))
    assert (code, nothing, (tmp_path / "out.yml").read_text()) == (0, "", out)


def test_the_command_refuses_in_a_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = TASK.replace("density: [0.4, 0.8]", "density: 0.4")
    (tmp_path / "own.yml").write_text(task + "parameters: {scope: model}\n")
    code, out, err = command(capsys, str(tmp_path / "own.yml"), "--mergekit", "-o", str(tmp_path / "out.yml"))
    assert (code, out) == (2, "")
    assert "own.yml, line 7: mergekit cannot express this recipe, because mergekit's ties has no scope" in err
    assert not (tmp_path / "out.yml").exists()
    code, _, err = command(capsys, str(tmp_path / "own.yml"))
    assert code == 2 and "--mergekit" in err
    (tmp_path / "own.yml").write_text(THREE.replace("model: a", "model: gone"))
    code, _, err = command(capsys, str(tmp_path / "own.yml"), "--mergekit")
    assert code == 2 and "there is no checkpoint at gone" in err
