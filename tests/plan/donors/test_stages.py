"""Several documents in one recipe: earlier ones are donors of later ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.errors import InputError
from surgeon.plan.donors.open_donors import Donors, rebased
from surgeon.plan.resolve import resolve
from surgeon.recipe.document import parse
from tests.support.blending import donors, merged, plan_of, stored
from tests.support.planning import codes, found

STAGES = """\
# the left half
name: left
merge_method: slerp
base_model: base
models: [{model: base}, {model: a}]   # two of them
parameters: {t: 0.4}
---
name: right
merge_method: linear
models:
- {model: a, parameters: {weight: 1}}
- {model: b, parameters: {weight: 3}}
---
merge_method: slerp
base_model: left
slices:
- sources:
  - {model: left, layer_range: [0, 4]}
  - {model: right, layer_range: [0, 4]}
parameters: {t: [0.2, 0.8]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return donors(tmp_path)


def test_a_tree_of_merges_is_one_pass(folder: Path) -> None:
    import torch

    def slerp(one: torch.Tensor, other: torch.Tensor, t: float) -> torch.Tensor:
        angle = torch.arccos((one * other).sum() / one.norm() / other.norm())
        if abs(torch.cos(angle)) > 0.9995:
            return (1 - t) * one + t * other
        return (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * other) / torch.sin(angle)

    plan = plan_of(folder, STAGES)
    mine = merged(plan)
    base, a, b = ({k: v.double() for k, v in stored(folder, name).items()} for name in ("base", "a", "b"))
    for name, tensor in mine.items():
        layer = int(name.split(".")[2]) if ".layers." in name else 0
        left, right = slerp(base[name], a[name], 0.4), (a[name] + 3 * b[name]) / 4
        expected = slerp(left, right, 0.2 + 0.6 * layer / 3)
        assert torch.allclose(tensor.double(), expected, atol=2e-6), name
    assert set(plan.donors) == {"A", "B", "C", "D", "E"}
    assert [plan.donors[letter].ref for letter in "ABCDE"] == ["left", "right", "base", "a", "b"]


def test_stages_may_stand_in_any_order_and_the_nameless_one_is_the_result(folder: Path) -> None:
    first, second, last = STAGES.split("---\n")
    assert merged(plan_of(folder, "---\n".join([last, second, first])))["lm_head.weight"].equal(
        merged(plan_of(folder, STAGES))["lm_head.weight"]
    )


def test_a_splice_of_a_stage_copies_what_the_stage_copies(folder: Path) -> None:
    text = """\
name: stack
slices:
- sources: [{model: a, layer_range: [0, 3]}]
- sources: [{model: b, layer_range: [1, 4]}]
---
slices:
- sources: [{model: stack, layer_range: [2, 4]}]
- sources: [{model: a, layer_range: [3, 4]}]
"""
    plan = plan_of(folder, text)
    assert plan.ok
    assert not plan.needs_arithmetic
    tensors = merged(plan)
    assert tensors["model.layers.1.mlp.up_proj.weight"].equal(stored(folder, "b")["model.layers.1.mlp.up_proj.weight"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models: [{model: a}]\n---\nmodels: [{model: b}]\n", "2 of the recipe's documents have no name"),
        ("name: x\nmodels: [{model: a}]\n---\nname: x\nmodels: [{model: b}]\n", "two documents of the recipe are"),
        ("name: x\nmodels: [{modle: a}]\n---\nmodels: [{model: x}]\n", "line 2"),
    ],
)
def test_what_is_no_recipe_in_stages(text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text)
    assert sentence in caught.value.sentence()


def test_circles_unused_stages_and_errors_within_a_stage(folder: Path) -> None:
    circle = "name: x\nmodels: [{model: y}]\n---\nname: y\nmodels: [{model: x}]\n---\nmodels: [{model: x}]\n"
    assert "error:stage-circle" in codes(plan_of(folder, circle))
    unused = "name: x\nmodels: [{model: a}]\n---\nmodels: [{model: a}]\n"
    assert "warning:stage-unused" in codes(plan_of(folder, unused))
    wrong = "name: x\nslices:\n- sources: [{model: a, layer_range: [0, 9]}]\n---\nmodels: [{model: x}]\n"
    finding = found(plan_of(folder, wrong), "layer-range")
    assert finding.what.startswith("Stage x: ")
    assert finding.line == 3


def test_editing_the_result_leaves_the_stages_and_comments_alone(folder: Path) -> None:
    document = parse(STAGES, folder / "recipe.yml")
    changed = document.with_recipe(document.recipe.model_copy(update={"dtype": "bfloat16"}))
    assert changed.recipe.dtype == "bfloat16"
    assert changed.text == STAGES + "dtype: bfloat16\n"


def test_saving_elsewhere_renames_the_donors_of_every_stage(folder: Path) -> None:
    document = parse(STAGES, folder / "recipe.yml")
    (folder / "deeper").mkdir()
    moved = rebased(document, document.roots, folder / "deeper" / "recipe.yml")
    assert "models: [{model: ../base}, {model: ../a}]   # two of them" in moved.text
    assert "model: ../b," in moved.text
    assert "base_model: left" in moved.text


def test_findings_of_a_stage_have_the_lines_of_the_text_as_it_is_now(folder: Path) -> None:
    """The same donors plan a recipe again after lines were added above a stage, and in it."""
    text = STAGES.replace("merge_method: linear", "merge_methd: linear\nmerge_method: linear")
    edits = (text, "# one line more\n" + text, text.replace("name: right", "name: right\n# two\n# lines"))
    first = parse(text, folder / "recipe.yml")
    kept = Donors(first.roots)
    for edited in edits:
        document = parse(edited, folder / "recipe.yml")
        again, fresh = resolve(document, kept).findings, resolve(document, Donors(document.roots)).findings
        assert again == fresh
        known = [finding.line for finding in again if finding.line is not None]
        assert 1 + edited.split("\n").index("merge_methd: linear") in known


def test_a_problem_that_is_only_in_the_text_of_a_stage_is_found_after_an_edit(folder: Path) -> None:
    document = parse(STAGES, folder / "recipe.yml")
    kept = Donors(document.roots)
    resolve(document, kept)
    wrong = parse(STAGES.replace("weight: 3}}", "weight: 3}}\nnonsense: 1"), folder / "recipe.yml")
    assert any("nonsense" in finding.what for finding in resolve(wrong, kept).findings)
