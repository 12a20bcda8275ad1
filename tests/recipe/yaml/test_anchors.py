"""Published recipes keep constants under keys of no meaning, one of them for each anchor and often the same."""

from __future__ import annotations

import pytest

from surgeon.errors import InputError
from surgeon.recipe.document import Document, parse
from surgeon.recipe.edits import grammar

TEXT = """# two models, the repeated layers damped
constant: &FIRST ./a
constant: &SECOND ./b
constant: &DAMPING 0.7071067812
damped-repeat: &damped_repeat
  # by the square root of a half
  parameters:
    scale:
      - {filter: o_proj, value: *DAMPING}
      - value: 1.0
ranges:
  - &RANGE [0, 3]
slices:
  - sources:
    - model: *FIRST
      layer_range: *RANGE
  - sources:
    - model: *SECOND
      layer_range: [1, 4]
      <<: *damped_repeat
merge_method: passthrough
dtype: float16
"""


def edited(document: Document, *operations: str) -> Document:
    recipe = document.recipe
    for operation in operations:
        recipe = grammar.parse(operation, recipe.model_refs()).apply(recipe, lambda ref: 4)
    return document.with_recipe(recipe)


def test_keys_that_carry_anchors_are_no_mistakes() -> None:
    document = parse(TEXT)
    assert document.key_problems == ()
    first, second = document.recipe.slices or ()
    assert (first.sources[0].model, first.sources[0].layer_range) == ("./a", (0, 3))
    assert second.sources[0].model == "./b"
    scale = [{"filter": "o_proj", "value": 0.7071067812}, {"value": 1.0}]
    assert second.sources[0].parameters == {"scale": scale}


@pytest.mark.parametrize(
    "operations",
    [
        ("scale 3-3 o_proj=0.5",),
        ("delete 0-2",),
        ("delete 3-5",),
        ("duplicate 1-2",),
        ("reverse 0-5",),
        ("delete 0-4",),
    ],
)
def test_an_edit_keeps_them_and_the_comments(operations: tuple[str, ...]) -> None:
    document = parse(TEXT)
    after = edited(document, *operations)
    assert after.key_problems == ()
    for comment in ("# two models, the repeated layers damped", "# by the square root of a half"):
        assert comment in after.text
    assert parse(after.text).recipe == after.recipe != document.recipe


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_every_anchor_taken_out_leaves_a_recipe(ends: str) -> None:
    document = parse(TEXT.replace("\n", ends))
    renamed = document.with_models({"./a": "./c", "./b": "./d"})
    assert renamed.key_problems == ()
    assert [part.sources[0].model for part in renamed.recipe.slices or ()] == ["./c", "./d"]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("slices: &x []\nslices: &y []\nmerge_method: passthrough\n", 2, "the key 'slices' occurs twice"),
        ("constant: 1\nconstant: 2\nmerge_method: passthrough\n", 2, "the key 'constant' occurs twice"),
        ("constant: &a 1\nconstant: 2\nmerge_method: passthrough\n", 2, "the key 'constant' occurs twice"),
        ("merge_method: linear\nparameters:\n  weight: &a 1\n  weight: &b 1\n", 4, "the key 'weight' occurs twice"),
    ],
)
def test_other_keys_still_occur_once(text: str, line: int, why: str) -> None:
    with pytest.raises(InputError) as error:
        parse(text)
    assert f"line {line}" in error.value.where
    assert error.value.why == why


def test_a_slip_with_an_anchor_that_nothing_repeats_is_a_slip() -> None:
    (problem,) = parse("merge_method: linear\nparametrs: &p {weight: 1}\n").key_problems
    assert (problem.key, problem.suggestion, problem.line) == ("parametrs", "parameters", 2)
    (problem,) = parse("merge_method: linear\nmade_up: {weight: 1}\n").key_problems
    assert problem.key == "made_up"


def test_alias_bombs_stay_refused_under_such_keys() -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 9)]
    with pytest.raises(InputError, match="too large"):
        parse("\n".join([*lines, "merge_method: linear", "parameters: {x: *a8}"]))
