"""The documents of a recipe in stages, one at a time."""

from __future__ import annotations

from surgeon.recipe.document import parse
from surgeon.recipe.document_stages import RESULT, edited_document, stage_names, standalone, with_stage

TEXT = """\
# the first
name: one
slices:
  - sources: [{model: ./a, layer_range: [0, 4]}]  # half of it
---
name: two
slices:
  - sources: [{model: one, layer_range: [0, 2]}]
---
name: other
slices:
  - sources: [{model: ./c, layer_range: [0, 2]}]
---
merge_method: linear
models:
  - model: two
    parameters: {weight: 1}
  - model: other
    parameters: {weight: 1}
"""


def test_a_stage_has_only_the_stages_that_it_needs() -> None:
    document = parse(TEXT)
    assert stage_names(document) == ["one", "two", "other"]
    assert [stage.recipe.name for stage in edited_document(document, "two").stages] == ["one"]
    assert edited_document(document, "one").stages == ()
    assert edited_document(document, RESULT) is document


def test_changing_a_stage_keeps_the_rest_of_the_text() -> None:
    document = parse(TEXT)
    one = edited_document(document, "one").recipe
    assert one.slices is not None
    source = one.slices[0].sources[0].model_copy(update={"layer_range": (0, 3)})
    shorter = one.model_copy(update={"slices": (one.slices[0].model_copy(update={"sources": (source,)}),)})
    changed = with_stage(document, "one", shorter)
    assert changed.recipe == document.recipe
    assert edited_document(changed, "one").recipe == shorter
    before, after = TEXT.splitlines(), changed.text.splitlines()
    assert [old for old, new in zip(before, after, strict=True) if old != new] == [before[3]]
    assert with_stage(document, "two", edited_document(document, "two").recipe) is document


def test_a_stage_alone_is_the_result_of_its_own_recipe() -> None:
    alone = standalone(parse(TEXT), "two")
    assert alone.recipe.name is None
    assert alone.recipe.model_refs() == ["one"]
    assert stage_names(alone) == ["one"]


def test_stages_in_a_circle() -> None:
    document = parse("name: x\nmodels: [{model: y}]\n---\nname: y\nmodels: [{model: x}]\n---\nmodels: [{model: x}]\n")
    assert [stage.recipe.name for stage in edited_document(document, "x").stages] == ["y"]
    assert stage_names(standalone(document, "x")) == ["y"]
