"""The curve editor without a screen: the edit it gives makes of every layer what was drawn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.errors import InputError
from surgeon.recipe import document as documents
from surgeon.recipe import stack
from surgeon.recipe.edits import BlendLayers, grammar
from surgeon.recipe.parameters import lookup, position
from surgeon.recipe.schema import Recipe
from surgeon.tui.curves.drafts import NEW, Draft
from surgeon.tui.curves.open_draft import open_draft

MODELS = ["./a", "org/b", "c c"]
NAMES = ("layers.1.self_attn.q_proj.weight", "layers.1.mlp.up_proj.weight", "layers.1.norm.weight")
END_NAMES = {"embeddings": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "lm_head": "lm_head.weight"}


def depth_of(model: str) -> int:
    return 12


def recipe(text: str) -> Recipe:
    return documents.parse(text).recipe


SLERP = recipe("""
base_model: ./a
slices:
  - sources: [{model: ./a, layer_range: [0, 2]}]
  - merge_method: slerp
    sources: [{model: ./a, layer_range: [2, 8]}, {model: org/b, layer_range: [2, 8]}]
    parameters: {t: [{filter: mlp, value: [1, 0.5]}, {filter: self_attn, value: 0.1}, {value: [0, 0.5, 0.3, 0.7, 1]}]}
""")
WEIGHTS = recipe("""
merge_method: linear
slices:
  - sources: [{model: ./a, layer_range: [0, 4]}, {model: org/b, layer_range: [4, 8], parameters: {weight: [0, 1]}}]
    parameters: {weight: [{filter: mlp, value: [1, 0.5]}, {value: 0.25}]}
  - sources: [{model: c c, layer_range: [4, 8]}, {model: c c, layer_range: [0, 4]}]
    parameters: {weight: [{filter: mlp, value: 2}, {value: 1}]}
parameters: {weight: [0.5, 0.75, 1], normalize: false}
""")
TIES = recipe("""
merge_method: ties
base_model: ./a
models: [{model: org/b, parameters: {weight: 0.5}}, {model: c c, parameters: {weight: 0.3, density: [0.2, 0.8]}}]
parameters: {lambda: [{filter: mlp, value: 0.9}, {value: 1.1}], rescale: false}
lm_head: {parameters: {lambda: 0.7}}
""")


def held(of: Recipe, name: str, layer: int, source: int | None, tensor: str) -> Any:
    """What a recipe gives a parameter."""
    slices = of.explicit(depth_of)
    cell = stack.cells(slices)[layer]
    part = slices[cell.slice_index]
    t = position(cell.offset, stack.length(part))
    own = [] if source is None else [part.sources[source].parameters]
    return lookup(name, tensor, t, *own, part.parameters, of.parameters)


def at_end(of: Recipe, name: str, end: str) -> Any:
    slices = of.explicit(depth_of)
    part = slices[0 if end == "embeddings" else -1]
    own = getattr(of, end)
    return lookup(name, END_NAMES[end], 0.0, own.parameters if own else {}, part.parameters, of.parameters)


def agrees(made: Draft, after: Recipe) -> None:
    """Everything in the draft is what the recipe says."""
    for line in made.lines:
        name, parameter = line.parameter.name, line.parameter
        if line.ends:
            for end, value in zip(line.ends, line.values, strict=True):
                found = at_end(after, name, end)
                assert (parameter.default if found is None else found) == pytest.approx(value, rel=1e-9, abs=1e-11)
            continue
        group = [other for other in made.lines if other.group == line.group and not other.ends]
        for index in range(made.count):
            for tensor in NAMES:
                first = next(other for other in group if other.filter == "*" or other.filter in tensor)
                found = held(after, name, made.start + index, line.source, tensor)
                value = parameter.default if found is None else parameter.typed(found)
                wanted = first.values[index]
                if isinstance(wanted, (bool, str)):
                    assert value == wanted
                else:
                    assert value == pytest.approx(wanted, rel=1e-9, abs=1e-11)


def changed(made: Draft, data: st.DataObject) -> Draft:
    """One thing done to a draft."""
    index = data.draw(st.integers(0, len(made.lines) - 1))
    line = made.lines[index]
    what = data.draw(st.sampled_from(["set", "set", "point", "filter", "remove"]))
    try:
        if what == "filter":
            return made.with_filter(index, data.draw(st.sampled_from(["self_attn", "norm", "mlp", "lm_head"])))
        if what == "remove":
            return made.without(index)
    except InputError:
        return made
    if not line.drawn:
        words = [True, False] if line.parameter.kind == "bool" else list(line.parameter.words)
        return made.with_line(index, [data.draw(st.sampled_from(words))] * len(line.values))  # type: ignore[list-item]
    number = st.integers(0, 20).map(lambda value: value / 20)
    values = list(line.values)
    if what == "set":
        values = data.draw(st.lists(number, min_size=len(values), max_size=len(values)))
    else:
        values[data.draw(st.integers(0, len(values) - 1))] = data.draw(number)
    return made.with_line(index, values)


def case(data: st.DataObject) -> tuple[Recipe, Draft]:
    """A recipe, and a draft of some of its layers or of a blend over them."""
    start = data.draw(st.sampled_from([SLERP, WEIGHTS, TIES]))
    if start is SLERP:
        low = data.draw(st.integers(2, 7))
        span = low, data.draw(st.integers(low + 1, 8))
    else:
        depth = stack.depth(start.explicit(depth_of))
        low = data.draw(st.integers(0, depth - 1))
        span = low, data.draw(st.integers(low + 1, depth))
    edit = None
    if data.draw(st.booleans()):
        texts = {
            "slerp": "B:0-{last} method=slerp", "linear": "C:0-{last} method=linear", "ties": "method=ties base=A",
            "dare": "C:0-{last} B:0-{last} method=dare_linear base=B",
        }  # fmt: skip
        which = data.draw(st.sampled_from(sorted(texts)))
        if which == "slerp":
            start, span = recipe("slices: [{sources: [{model: ./a}]}]"), (0, data.draw(st.integers(1, 12)))
        last = span[1] - span[0] - 1
        edit = grammar.parse(f"blend {span[0]}-{span[1] - 1} {texts[which].format(last=last)}", MODELS)
        assert isinstance(edit, BlendLayers)
    try:
        return start, open_draft(start, depth_of, *span, edit)  # type: ignore[arg-type]
    except InputError:  # slices with other filters or bases: drawn one by one
        return SLERP, open_draft(SLERP, depth_of, 2, 8)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_the_edit_makes_what_was_drawn(data: st.DataObject) -> None:
    start, made = case(data)
    if made.edit is None:
        if made.ends_at is None:
            agrees(made, start)
        assert not made.changed
    for _ in range(data.draw(st.integers(0, 4))):
        made = changed(made, data)
    edit = made.result()
    if edit is None:
        return
    text = grammar.unparse(edit, MODELS)
    again = grammar.parse(text, MODELS)
    agrees(made, again.apply(start, depth_of))


def test_a_new_filter_keeps_the_rest_that_the_recipe_gives() -> None:
    made = open_draft(TIES, depth_of, 0, 12)
    index = next(number for number, line in enumerate(made.lines) if line.parameter.name == "lambda")
    made = made.with_filter(index, "self_attn")
    edit = made.result()
    assert edit is not None
    agrees(made, edit.apply(TIES, depth_of))


def test_one_end_set_within_a_slice_leaves_the_other_as_it_is_shown() -> None:
    made = open_draft(SLERP, depth_of, 3, 8)
    index = next(number for number, line in enumerate(made.lines) if line.ends)
    made = made.with_line(index, [0.0, *made.lines[index].values[1:]])
    edit = made.result()
    assert edit is not None
    agrees(made, edit.apply(SLERP, depth_of))


def labels(made: Draft) -> list[str]:
    return [f"{line.parameter.name}{'' if line.source is None else line.source} {line.label}" for line in made.lines]


def test_a_track_per_filter_donor_and_end() -> None:
    assert labels(open_draft(SLERP, depth_of, 2, 8)) == ["t mlp", "t self_attn", "t rest", "t ends"]
    assert labels(open_draft(SLERP, depth_of, 3, 7)) == ["t mlp", "t self_attn", "t rest"]
    assert open_draft(SLERP, depth_of, 2, 8).lines[-1].ends == ("final_norm", "lm_head")
    assert open_draft(SLERP, depth_of, 2, 8, tied=True).lines[-1].ends == ("final_norm",)
    ties = open_draft(TIES, depth_of, 0, 12)
    assert labels(ties) == [
        "weight0 rest", "weight1 rest", "density0 rest", "density1 rest", "normalize rest",
        "lambda mlp", "lambda rest", "lambda ends", "rescale rest", "scope rest",
    ]  # fmt: skip
    assert ties.lines[7].values == (1.1, 1.1, 0.7) and ties.lines[7].follows == (0, 0, -1)
    assert [line.origin for line in ties.lines if line.parameter.name == "density"] == ["default", "source"]


def test_one_number_that_changes_is_one_word_of_the_edit() -> None:
    made = open_draft(SLERP, depth_of, 2, 8)
    assert made.result() is None
    edit = made.with_line(0, [0.5] * 6).result()
    assert edit and grammar.unparse(edit, MODELS) == (
        "param 2-7 t=0,0.5,0.3,0.7,1 t=0.5 filter=mlp t=0.1 filter=self_attn"
    )
    ties = open_draft(TIES, depth_of, 0, 12)
    weight = ties.with_line(1, [0.4] * 12).result()
    assert weight and grammar.unparse(weight, MODELS) == "param 0-11 weight=0.4 donor=C"
    same = ties.with_line(0, [0.4] * 12).with_line(1, [0.4] * 12).result()
    assert same and grammar.unparse(same, MODELS) == "param 0-11 weight=0.4"
    back = ties.with_line(1, [0.4] * 12).with_line(1, [0.3] * 12)
    assert back.result() is None


def test_ends_follow_their_layer_until_they_are_given_a_value() -> None:
    made = open_draft(SLERP, depth_of, 2, 8)
    moved = made.with_line(2, [0.9, *made.lines[2].values[1:]])
    assert moved.lines[3].values == (0.9, 0.9)
    own = moved.with_line(3, [0.9, 0.25])
    assert own.lines[3].follows == (0, -1)
    edit = own.result()
    assert edit and grammar.unparse(edit, MODELS).endswith("t=0.25 end=lm_head")
    after = edit.apply(SLERP, depth_of)
    again = open_draft(after, depth_of, 2, 8)
    assert again.lines[3].values == (0.9, 0.25)
    gone = again.without(3).result()
    assert gone and grammar.unparse(gone, MODELS) == "param 2-7 t= end=lm_head"
    assert gone.apply(after, depth_of).lm_head is None


def test_a_new_blend_begins_with_values() -> None:
    start = recipe("base_model: ./a\nslices: [{sources: [{model: ./a, layer_range: [0, 8]}]}]")
    slerp = grammar.parse("blend 2-5 B:2-5 method=slerp", MODELS)
    made = open_draft(start, depth_of, 2, 6, slerp)  # type: ignore[arg-type]
    assert [(line.values, line.origin) for line in made.lines] == [((0.5,) * 4, NEW)]
    assert grammar.unparse(made.result(), MODELS) == "blend 2-5 B:2-5 method=slerp t=0.5"  # type: ignore[arg-type]
    three = grammar.parse("blend 2-5 B:2-5 C:2-5 method=dare_ties base=A", MODELS)
    weights = [line.values[0] for line in open_draft(start, depth_of, 2, 6, three).lines[:2]]  # type: ignore[arg-type]
    assert weights == [0.5, 0.5], "the base has no weight"


def test_values_are_kept_within_bounds_and_of_their_kind() -> None:
    ties = open_draft(TIES, depth_of, 0, 12)
    assert ties.with_line(2, [1.7] * 12).lines[2].values == (1,) * 12
    assert ties.with_line(0, [1.7] * 12).lines[0].values == (1.7,) * 12
    with pytest.raises(InputError, match="not one of"):
        ties.with_line(8, ["nothing"] * 12)
    with pytest.raises(InputError, match="not a number"):
        ties.with_line(0, ["much"] * 12)
    karcher = recipe("slices: [{sources: [{model: ./a}, {model: org/b}], merge_method: karcher}]")
    assert open_draft(karcher, depth_of, 0, 12).with_line(0, [3.6] * 12).lines[0].values == (4,) * 12


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("blend 0-1 B:0-1 method=linear weight=1", "no parameters in common"),
        ("blend 4-5 C:4-5 method=slerp t=1", "different numbers of sources"),
        ("param 4-5 t=1 filter=norm", "different filters for t"),
    ],
)
def test_what_cannot_be_drawn_together_is_refused(text: str, sentence: str) -> None:
    mixed = grammar.parse(text, MODELS).apply(SLERP, depth_of)
    with pytest.raises(InputError, match=sentence):
        open_draft(mixed, depth_of, 0 if text.startswith("blend 0") else 2, 8)
    nested = recipe(
        "slices: [{sources: [{model: ./a}], parameters: {scale: [{filter: a, value: [{filter: b, value: 1}]}]}}]"
    )
    with pytest.raises(InputError, match="filters within filters"):
        open_draft(nested, depth_of, 0, 12)


def test_the_rest_stays_and_filters_are_there_once() -> None:
    made = open_draft(SLERP, depth_of, 2, 8)
    for wrong in (lambda: made.without(2), lambda: made.with_filter(0, "mlp"), lambda: made.with_filter(0, "")):
        with pytest.raises(InputError):
            wrong()
    assert labels(made.without(0)) == ["t self_attn", "t rest", "t ends"]
    assert labels(made.with_filter(0, "norm")) == ["t mlp", "t self_attn", "t norm", "t rest", "t ends"]


def test_the_form_is_that_of_each_slice_written() -> None:
    made = open_draft(WEIGHTS, depth_of, 0, 4)
    assert [form.text for form in made.forms(made.lines[2])] == ["[0, 1]"] and not made.cuts
    assert open_draft(WEIGHTS, depth_of, 1, 4).cuts and open_draft(WEIGHTS, depth_of, 0, 3).cuts
    assert [open_draft(SLERP, depth_of, *span).ends_at for span in ((2, 8), (4, 8), (4, 6), (2, 6))] == [None, 4, 6, 6]
    whole = recipe("""
merge_method: slerp
slices:
  - sources: [{model: ./a, layer_range: [0, 4]}, {model: org/b, layer_range: [0, 4]}]
  - sources: [{model: ./a, layer_range: [4, 8]}, {model: org/b, layer_range: [4, 8]}]
parameters: {t: 0}
""")
    both = open_draft(whole, depth_of, 0, 8).with_line(0, [0, 0, 0, 0, 0, 0.5, 0.5, 1])
    assert [form.text for form in both.forms(both.lines[0])] == ["0", "[0, 0.5, 0.5, 1]"]
