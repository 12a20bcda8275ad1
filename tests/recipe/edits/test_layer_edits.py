"""Edits: each one against a plain list of cells, what they keep, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.errors import InputError
from surgeon.recipe import stack
from surgeon.recipe.edits import (
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
)
from surgeon.recipe.parameters import lookup, position
from surgeon.recipe.schema import EndSource, Recipe, Slice, Source
from tests.support.recipe_strategies import DEPTHS, MODELS, depth_of, edits_for, recipes

Cells = list[tuple[str, int]]
NAMES = ("layers.1.o_proj.weight", "layers.0.mlp.down_proj.weight", "norm.weight")


def recipe(*ranges: tuple[str, int, int], **more: Any) -> Recipe:
    parts = tuple(Slice(sources=(Source(model=model, layer_range=(start, stop)),)) for model, start, stop in ranges)
    return Recipe(slices=parts, **more)


def cells(of: Recipe) -> Cells:
    return [cell.sources[0] for cell in stack.cells(of.explicit(depth_of))]


def factors(of: Recipe) -> list[tuple[Any, ...]]:
    """For every output layer: where it comes from, and what some of its tensors are multiplied with."""
    slices = of.explicit(depth_of)
    out = []
    for cell in stack.cells(slices):
        part = slices[cell.slice_index]
        t = position(cell.offset, stack.length(part))
        levels = (part.sources[0].parameters, part.parameters, of.parameters)
        values = tuple(lookup("scale", name, t, *levels) for name in NAMES)
        out.append((*cell.sources[0], *(None if v is None else pytest.approx(v, rel=1e-9, abs=1e-12) for v in values)))
    return out


def donor(model: str, start: int = 0, stop: int | None = None) -> Cells:
    return [(model, index) for index in range(start, DEPTHS[model] if stop is None else stop)]


def moved(old: Sequence[Any], edit: Move) -> list[Any]:
    block = list(old[edit.start : edit.stop])
    if edit.start <= edit.to <= edit.stop:
        return list(old)
    if edit.to < edit.start:
        return [*old[: edit.to], *block, *old[edit.to : edit.start], *old[edit.stop :]]
    return [*old[: edit.start], *old[edit.stop : edit.to], *block, *old[edit.to :]]


def interleaved(models: Sequence[str], block: int, stride: int) -> Cells:
    depth = min(DEPTHS[model] for model in models)
    out: Cells = []
    for turn, start in enumerate(range(0, depth, stride)):
        out += donor(models[turn % len(models)], start, min(start + block, depth))
        if start + block >= depth:
            return out
    return out


def expanded(old: Sequence[Any], edit: Expand) -> list[Any]:
    out: list[Any] = []
    for index, item in enumerate(old):
        out.append(item)
        if edit.start <= index < edit.stop and (index - edit.start + 1) % edit.every == 0:
            out.append(item)
    return out


ORACLE: dict[type[Edit], Callable[[Cells, Any], Cells]] = {
    Insert: lambda old, e: [*old[: _at(old, e)], *donor(e.model, e.start, e.stop), *old[_at(old, e) :]],
    InsertRuns: lambda old, e: [*old[: _at(old, e)], *(c for run in e.runs for c in donor(*run)), *old[_at(old, e) :]],
    Delete: lambda old, e: [*old[: e.start], *old[e.stop :]],
    Move: moved,
    Duplicate: lambda old, e: [*old[: e.stop], *old[e.start : e.stop] * e.times, *old[e.stop :]],
    Replace: lambda old, e: [*old[: e.start], *donor(e.model, e.from_start, e.from_stop), *old[e.stop :]],
    Reverse: lambda old, e: [*old[: e.start], *old[e.start : e.stop][::-1], *old[e.stop :]],
    Upscale: lambda old, e: [*donor(e.model, 0, DEPTHS[e.model] - e.drop), *donor(e.model, e.drop)],
    SelfStack: lambda old, e: interleaved((e.model,), e.block, e.step),
    Interleave: lambda old, e: interleaved(e.models, e.block, e.stride),
    Scale: lambda old, e: old,
    Expand: expanded,
    SetEnd: lambda old, e: old,
    SetBase: lambda old, e: old,
    SetDtype: lambda old, e: old,
}


def _at(old: Cells, edit: Any) -> int:
    return len(old) if edit.at is None else int(edit.at)


@settings(max_examples=200, deadline=None)
@given(recipes, st.data())
def test_every_edit_does_to_the_stack_what_a_list_would(start: Recipe, data: st.DataObject) -> None:
    old = cells(start)
    edit = data.draw(edits_for(len(old)))
    assert cells(edit.apply(start, depth_of)) == ORACLE[type(edit)](old, edit)


@settings(max_examples=150, deadline=None)
@given(recipes, st.data())
def test_layers_keep_their_factors_wherever_they_go(start: Recipe, data: st.DataObject) -> None:
    old = factors(start)
    edit = data.draw(edits_for(len(old)))
    if not isinstance(edit, (Delete, Move, Duplicate, Reverse, SetBase, SetDtype, SetEnd)):
        return
    assert factors(edit.apply(start, depth_of)) == ORACLE[type(edit)](old, edit)  # type: ignore[arg-type]


@settings(max_examples=150, deadline=None)
@given(recipes, st.data())
def test_what_an_expansion_adds_is_zero_there_and_only_there(start: Recipe, data: st.DataObject) -> None:
    old = factors(start)
    low = data.draw(st.integers(0, len(old) - 1))
    high = data.draw(st.integers(low + 1, len(old)))
    edit = Expand(low, high, data.draw(st.integers(1, high - low)), ("o_proj",))
    new = edit.apply(start, depth_of)
    copies = [index + 1 + number for number, index in enumerate(edit.ends(len(old)))]
    wanted = expanded(old, edit)
    for index in copies:
        wanted[index] = (*wanted[index][:2], 0, *wanted[index][3:])
    assert factors(new) == wanted


@settings(max_examples=150, deadline=None)
@given(recipes, st.data())
def test_a_scale_is_what_was_asked_for_and_nothing_else(start: Recipe, data: st.DataObject) -> None:
    old = factors(start)
    low = data.draw(st.integers(0, len(old) - 1))
    high = data.draw(st.integers(low + 1, len(old)))
    wanted = data.draw(st.sampled_from([{"o_proj": 0.5}, {"mlp": 2.0, "o_proj": 1.0}, {"*": 0.25}, {"*": 1.0}]))
    new = factors(Scale(low, high, tuple(wanted.items())).apply(start, depth_of))
    for index, (before, after) in enumerate(zip(old, new, strict=True)):
        if not low <= index < high:
            assert after == before
            continue
        for name, was, now in zip(NAMES, before[2:], after[2:], strict=True):
            asked = next((value for key, value in wanted.items() if key != "*" and key in name), wanted.get("*"))
            if asked is None:
                assert now == was
            else:
                assert (1.0 if now is None else now) == pytest.approx(asked)


@given(recipes, st.data())
def test_the_layers_an_edit_touched_are_those_it_made(start: Recipe, data: st.DataObject) -> None:
    old = cells(start)
    edit = data.draw(edits_for(len(old)))
    new = cells(edit.apply(start, depth_of))
    touched = edit.touched()
    if touched is None:
        return
    made = new[slice(*touched)]
    match edit:
        case Insert():
            assert made == donor(edit.model, edit.start, edit.stop)
        case Replace():
            assert made == donor(edit.model, edit.from_start, edit.from_stop)
        case Move():
            assert made == old[edit.start : edit.stop]
        case Duplicate():
            assert made == old[edit.start : edit.stop] * edit.times
        case Reverse():
            assert made == old[edit.start : edit.stop][::-1]
        case Scale():
            assert made == old[edit.start : edit.stop]


@given(recipes, st.data())
def test_deleting_what_was_inserted_restores_the_stack(start: Recipe, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(cells(start))))
    model = data.draw(st.sampled_from(MODELS))
    between = Insert(model, 1, 4, at).apply(start, depth_of)
    assert factors(Delete(at, at + 3).apply(between, depth_of)) == factors(start)


@given(recipes, st.data())
def test_moving_there_and_back_and_reversing_twice_change_nothing(start: Recipe, data: st.DataObject) -> None:
    depth = len(cells(start))
    low = data.draw(st.integers(0, depth - 1))
    high = data.draw(st.integers(low + 1, depth))
    to = data.draw(st.integers(0, depth))
    there = Move(low, high, to)
    landed = there.touched()
    assert landed is not None
    back = Move(*landed, high if to < low else low if to > high else landed[0])
    assert factors(back.apply(there.apply(start, depth_of), depth_of)) == factors(start)
    twice = Reverse(low, high).apply(Reverse(low, high).apply(start, depth_of), depth_of)
    assert factors(twice) == factors(start)


@given(recipes, st.data())
def test_an_edit_leaves_the_recipe_it_was_given_alone(start: Recipe, data: st.DataObject) -> None:
    before = start.model_dump_json()
    data.draw(edits_for(len(cells(start)))).apply(start, depth_of)
    assert start.model_dump_json() == before


# Single cases.


def test_slices_that_continue_one_another_are_joined() -> None:
    start = recipe(("./base", 0, 8))
    assert Delete(2, 4).apply(Insert("b", 0, 2, 2).apply(start, depth_of), depth_of) == start
    assert Insert("./base", 8, 10).apply(start, depth_of).slices == recipe(("./base", 0, 10)).slices
    assert Duplicate(0, 8).apply(start, depth_of).slices == recipe(("./base", 0, 8), ("./base", 0, 8)).slices


def test_slices_with_parameters_are_never_joined() -> None:
    part = Slice(sources=(Source(model="b", layer_range=(0, 2)),), parameters={"scale": 2})
    start = Recipe(slices=(part,))
    assert len(Insert("b", 2, 4).apply(start, depth_of).slices or ()) == 2


def test_a_whole_range_left_out_is_written_when_it_is_cut() -> None:
    start = Recipe(slices=(Slice(sources=(Source(model="b"),)),))
    assert cells(Delete(0, 1).apply(start, depth_of)) == donor("b", 1)


def test_models_become_slices_when_the_stack_is_edited_and_not_before() -> None:
    start = Recipe.model_validate({"models": [{"model": "b", "parameters": {"scale": [0, 1]}}]})
    assert SetDtype("float16").apply(start, depth_of).models is not None
    after = Delete(0, 1).apply(start, depth_of)
    assert after.models is None
    assert after.model_fields_set == {"slices"}
    assert after.slices is not None
    assert after.slices[0].sources[0].parameters == {"scale": [0.25, 0.5, 0.75, 1.0]}


def test_a_gradient_of_the_whole_recipe_goes_with_the_pieces_of_a_cut_slice() -> None:
    start = recipe(("b", 0, 5), ("./base", 0, 2), parameters={"scale": [0.0, 1.0]})
    after = Delete(2, 3).apply(start, depth_of)
    assert [row[2] for row in factors(after)] == [0.0, 0.25, 0.75, 1.0, 0.0, 1.0]
    assert after.slices is not None
    assert after.slices[-1] == start.slices[-1]  # type: ignore[index]


def test_slices_without_layers_are_left_alone_by_edits_elsewhere() -> None:
    start = recipe(("b", 3, 3), ("./base", 0, 8), ("b", 5, 2))
    after = Delete(2, 4).apply(start, depth_of).slices
    assert after is not None
    assert [stack.span(part.sources[0]) for part in after] == [(3, 3), (0, 2), (4, 8), (5, 2)]


def test_an_empty_recipe_takes_edits() -> None:
    after = Insert("b", 0, 2).apply(Recipe(), depth_of)
    assert cells(after) == donor("b", 0, 2)
    assert "merge_method" in after.model_fields_set


def test_solar_and_the_self_merges() -> None:
    def many(_: str) -> int:
        return 80

    def spans(of: Recipe) -> list[tuple[int, int]]:
        return [stack.span(part.sources[0]) for part in of.slices or ()]

    assert spans(Upscale("m", 8, 32).apply(Recipe(), many)) == [(0, 24), (8, 32)]
    wanted = [(0, 20), (10, 30), (20, 40), (30, 50), (40, 60), (50, 70), (60, 80)]
    assert spans(SelfStack("m", 20, 10).apply(Recipe(), many)) == wanted
    assert spans(Interleave(("a", "b"), 16, 16).apply(Recipe(), lambda _: 40)) == [(0, 16), (16, 32), (32, 40)]


def test_ends_are_set_tied_and_left_to_the_slices_again() -> None:
    start = recipe(("b", 0, 2), lm_head=EndSource(model="./base", parameters={"scale": 2}))
    assert SetEnd("lm_head", "b").apply(start, depth_of).lm_head == EndSource(model="b", parameters={"scale": 2})
    assert SetEnd("lm_head", tie=True).apply(start, depth_of).lm_head == EndSource(tie=True)
    assert SetEnd("lm_head").apply(start, depth_of).lm_head is None


def test_a_dtype_decides_what_is_written() -> None:
    start = recipe(("b", 0, 2), dtype="float32", out_dtype="float16")
    after = SetDtype("bfloat16").apply(start, depth_of)
    assert (after.dtype, after.out_dtype) == ("bfloat16", None)
    assert SetDtype(None).apply(start, depth_of) == recipe(("b", 0, 2))


def test_a_scale_goes_where_it_wins() -> None:
    part = Slice(sources=(Source(model="b", layer_range=(0, 2), parameters={"scale": 2}),), parameters={"scale": 3})
    after = Scale(0, 2, (("o_proj", 0.5),)).apply(Recipe(slices=(part,)), depth_of)
    assert after.slices is not None
    assert after.slices[0].sources[0].parameters == {"scale": [{"filter": "o_proj", "value": 0.5}, {"value": 2}]}
    assert after.slices[0].parameters == {"scale": 3}


def test_a_scale_taken_away_leaves_nothing_behind() -> None:
    start = recipe(("b", 0, 4))
    scaled = Scale(1, 3, (("o_proj", 0.5),)).apply(start, depth_of)
    plain = Scale(1, 3, (("o_proj", 1.0),)).apply(scaled, depth_of)
    assert plain.slices == start.slices
    kept = Scale(1, 3, (("o_proj", 1.0),)).apply(scaled.model_copy(update={"parameters": {"scale": 2}}), depth_of)
    assert [row[2] for row in factors(kept)] == [2, 1, 1, 2]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (Insert("b", 3, 6), "there are no layers 3-5 in b"),
        (Insert("b", 5, 6), "no layer 5 in b, because it has 5 layers (0-4)"),
        (Insert("b", 2, 2), "empty"),
        (Insert("b", 0, 1, 9), "no position 9"),
        (Insert("nowhere", 0, 1), "no such donor"),
        (InsertRuns((("b", 0, 1), ("b", 3, 6)), 0), "no layers 3-5"),
        (Delete(7, 9), "no layers 7-8 in the stack, because it has 8 layers (0-7)"),
        (Delete(3, 3), "empty"),
        (Move(0, 9, 0), "no layers"),
        (Move(0, 2, 9), "no position 9"),
        (Duplicate(0, 9), "no layers"),
        (Duplicate(0, 1, 0), "is not a valid number of copies"),
        (Duplicate(0, 1, 1001), "is not a valid number of copies"),
        (Replace(0, 1, "b", 4, 7), "no layers 4-6 in b"),
        (Replace(8, 9, "b", 0, 1), "no layer 8"),
        (Reverse(-1, 3), "no layers -1-2"),
        (SetEnd("embeddings", tie=True), "only lm_head"),
        (SetEnd("lm_head", "nowhere"), "no such donor"),
        (SetBase("nowhere"), "no such donor"),
        (SetDtype("int4"), "'int4' is not a dtype"),
        (Upscale("b", 5), "m=5 leaves no layers"),
        (Upscale("b", 1, 9), "in b"),
        (SelfStack("b", 2, 3), "omit layers"),
        (SelfStack("b", 0, 0), "omit layers"),
        (Interleave((), 1, 1), "omit layers"),
        (Interleave(("empty", "b"), 1, 1), "without layers"),
        (Scale(0, 1, ()), "no factor"),
        (Scale(0, 1, (("mlp", float("nan")),)), "not a finite number"),
        (Scale(0, 9, (("mlp", 2.0),)), "no layers"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_its_reason(edit: Edit, sentence: str) -> None:
    def asked(model: str) -> int:
        if model == "nowhere":
            raise InputError("no such donor")
        return 0 if model == "empty" else depth_of(model)

    with pytest.raises(InputError) as caught:
        edit.apply(recipe(("./base", 0, 8)), asked)
    assert sentence.lower() in caught.value.sentence().lower()


def test_stacks_beyond_all_measure_are_refused_before_they_are_built() -> None:
    start = recipe(("./base", 0, 12))
    hundred = Duplicate(0, 12, 800).apply(start, depth_of)
    with pytest.raises(InputError, match="10,000"):
        Duplicate(0, 9000, 1000).apply(hundred, depth_of)
    with pytest.raises(InputError, match="10,000"):
        Insert("./base", 0, 12).apply(Duplicate(0, 380).apply(hundred, depth_of), depth_of)
    huge = recipe(("./base", 0, 10**12), ("b", 0, 5))
    assert len(stack.cells(huge.explicit(depth_of))) == stack.MAX_LAYERS
    assert cells(Delete(0, stack.MAX_LAYERS).apply(huge, depth_of)) == donor("b")


@pytest.mark.parametrize(
    ("edit", "selection", "again"),
    [
        (Insert("b", 0, 2, 3), (5, 7), Insert("b", 0, 2, 7)),
        (Delete(0, 2), (5, 6), Delete(5, 7)),
        (Duplicate(0, 2, 3), (5, 6), Duplicate(5, 7, 3)),
        (Reverse(0, 3), (4, 5), Reverse(4, 7)),
        (Move(2, 4, 6), (3, 5), Move(3, 5, 7)),
        (Move(4, 6, 1), (5, 7), Move(5, 7, 2)),
        (Replace(0, 2, "b", 1, 2), (4, 5), Replace(4, 6, "b", 1, 2)),
        (Scale(0, 2, (("mlp", 2.0),)), (4, 8), Scale(4, 8, (("mlp", 2.0),))),
        (SetDtype("float16"), (4, 5), SetDtype("float16")),
    ],
)
def test_repeating_an_edit_elsewhere(edit: Edit, selection: tuple[int, int], again: Edit) -> None:
    assert edit.moved_to(*selection) == again
