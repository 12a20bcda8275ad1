"""Edits as text: every one reads back from what it is written as, and slips are answered with the usage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.errors import InputError
from surgeon.recipe.edits import (
    EDITS,
    Delete,
    Duplicate,
    Edit,
    Expand,
    Insert,
    InsertRuns,
    Interleave,
    Move,
    Replace,
    Reverse,
    Scale,
    SelfStack,
    SetBase,
    SetDtype,
    SetEnd,
    Upscale,
    grammar,
)
from surgeon.recipe.edits.grammar import parse, renamed, unparse
from surgeon.recipe.letters import letter, letters, named
from tests.support.recipe_strategies import MODELS, edits_for

AB = ["./base", "org/math"]


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("insert B:8-23 @14", Insert("org/math", 8, 24, 14)),
        ("insert B:8", Insert("org/math", 8, 9)),
        ("insert b:[8,24) @end", Insert("org/math", 8, 24)),
        ("insert B:[8, 24)", Insert("org/math", 8, 24)),
        ("splice math:0-1 @0", Insert("org/math", 0, 2, 0)),
        ("insert 'my models/x':0-1", Insert("my models/x", 0, 2)),
        ("insert ./x:0-1", Insert("./x", 0, 2)),
        ("insert A:0-3 B:2 @1", InsertRuns((("./base", 0, 4), ("org/math", 2, 3)), 1)),
        ("delete 16-17", Delete(16, 18)),
        ("del [0,4)", Delete(0, 4)),
        ("move 16-23 @4", Move(16, 24, 4)),
        ("duplicate 16-23", Duplicate(16, 24)),
        ("dup 3 x2", Duplicate(3, 4, 2)),
        ("replace 16-23 B:8-15", Replace(16, 24, "org/math", 8, 16)),
        ("reverse 4-7", Reverse(4, 8)),
        ("end lm_head B", SetEnd("lm_head", "org/math")),
        ("end head tie", SetEnd("lm_head", tie=True)),
        ("end norm auto", SetEnd("final_norm")),
        ("upscale A m=8", Upscale("./base", 8)),
        ("dus A m=8 n=32", Upscale("./base", 8, 32)),
        ("selfstack A block=20 stride=10", SelfStack("./base", 20, 10)),
        ("interleave A B", Interleave(("./base", "org/math"))),
        ("interleave A B block=16 stride=8", Interleave(("./base", "org/math"), 16, 8)),
        ("interleave A B block=4", Interleave(("./base", "org/math"), 4, 4)),
        ("scale 16-31 o_proj=0.707 down_proj=.5", Scale(16, 32, (("o_proj", 0.707), ("down_proj", 0.5)))),
        ("scale 3 *=2", Scale(3, 4, (("*", 2.0),))),
        ("expand 0-31 every=4", Expand(0, 32, 4)),
        ("expand [0,32) every=4 zero=o_proj,down_proj", Expand(0, 32, 4, ("o_proj", "down_proj"))),
        ("dtype keep", SetDtype(None)),
        ("dtype bfloat16", SetDtype("bfloat16")),
        ("base auto", SetBase(None)),
        ("base B", SetBase("org/math")),
    ],
)
def test_what_a_text_means(text: str, edit: Edit) -> None:
    assert parse(text, AB) == edit
    assert parse(unparse(edit, AB), AB) == edit


@pytest.mark.parametrize("text", ["expand {} every=2 zero=o_proj", "scale {} o_proj=0.5", "delete {}", "reverse {}"])
def test_an_edit_of_layers_is_repeated_on_others(text: str) -> None:
    assert parse(text.format("0-3"), AB).moved_to(5, 9) == parse(text.format("5-8"), AB)


@given(st.integers(0, 12).flatmap(edits_for), st.booleans())
def test_every_edit_reads_back_from_its_text(edit: Edit, by_letter: bool) -> None:
    models = MODELS if by_letter else ["other", *MODELS][:1] + MODELS[::-1]
    assert parse(unparse(edit, models), models) == edit


def test_every_edit_has_a_usage_that_can_be_typed() -> None:
    for kind in EDITS:
        assert kind.help
        for text in (kind.usage.replace("[", "").replace("]", "").split("|")[0],):
            assert parse(text, AB).verb == kind.verb


def test_a_donor_named_like_another_ones_letter_is_written_by_name() -> None:
    models = ["B", "A"]
    for model in models:
        assert parse(unparse(SetBase(model), models), models) == SetBase(model)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the edit is empty"),
        ("delte 3", "did you mean delete"),
        ("frobnicate", "known: insert, delete"),
        ("delete", "a range is missing. Write it like: delete 16-17"),
        ("delete x", "'x' is not a range"),
        ("delete 7-3", "runs backwards"),
        ("delete -3", "'-3' is not a range"),
        ("delete 3 4", "'4' is not expected there"),
        ("delete 3 @4", "'@4' is not expected there"),
        ("insert B:3 x2", "'x2' is not a donor's range"),
        ("delete 99999999999", "is not a range"),
        ("insert 3-4", "is not a donor's range"),
        ("insert Z:3-4", "there is no donor Z (known: A ./base, B org/math)"),
        ("insert :3", "is not a donor's range"),
        ("move 3-4", "the position @n is missing"),
        ("replace 3", "a donor's range is missing"),
        ("end middle A", "'middle' is not an end"),
        ("end lm_head", "a donor is missing"),
        ("upscale A", "m= is missing"),
        ("upscale A m=x", "m=x is not a whole number"),
        ("upscale A m=1 k=2", "'k=2' is not expected"),
        ("selfstack A stride=3", "block= is missing"),
        ("interleave A", "two donors are needed"),
        ("scale 3 o_proj=high", "a factor is not a number"),
        ("expand 0-3", "every= is missing"),
        ("expand 0-3 every=x", "every=x is not a whole number"),
        ("dtype", "a value is missing"),
        ("base 'A", "cannot read the edit"),
    ],
)
def test_slips_are_answered_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, AB)
    assert sentence.lower() in caught.value.sentence().lower()


@given(st.text(max_size=30))
def test_any_text_is_an_edit_or_an_error(text: str) -> None:
    try:
        parse(text, AB)
    except InputError as error:
        assert error.sentence()


@given(st.integers(0, 12).flatmap(edits_for))
def test_donors_of_an_edit_can_be_renamed(edit: Edit) -> None:
    there = renamed(edit, lambda ref: f"moved/{ref}")
    assert renamed(there, lambda ref: ref.removeprefix("moved/")) == edit
    assert ("moved/" in unparse(there)) == any(
        model in str(edit) for model in MODELS if model != "b" or "'b'" in str(edit)
    )


def test_letters_go_on_after_z() -> None:
    assert [letter(index) for index in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]
    assert letters(["x", "y", "x"]) == {"x": "A", "y": "B"}


def test_a_donor_is_named_by_letter_reference_or_folder() -> None:
    models = ["../m/base", "org/math", "other/base"]
    assert named("b", models) == "org/math"
    assert named("org/math", models) == "org/math"
    assert named("math", models) == "org/math"
    assert named("base", models) is None
    assert named("D", models) is None


def test_aliases_name_edits_there_are() -> None:
    assert set(grammar.ALIASES.values()) <= {kind.verb for kind in EDITS}
