"""Edits of blends: what they make of every layer, what they leave alone, how they read as text and in a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surgeon.errors import InputError
from surgeon.recipe import document as documents
from surgeon.recipe import stack
from surgeon.recipe.curves.shortest_form import over_layers
from surgeon.recipe.edits import (
    BlendLayers,
    Collapse,
    Delete,
    Edges,
    Edit,
    SetEnd,
    SetMethod,
    SetParameters,
    Setting,
    Unblend,
    grammar,
)
from surgeon.recipe.parameters import lookup, position
from surgeon.recipe.schema import ENDS, EdgePolicy, EndSource, Recipe
from tests.support.planning import plan_of
from tests.support.sparse import sparse_llama

MODELS = ["./a", "org/b", "c c"]
DEPTH = 12
NAMES = ("layers.1.self_attn.q_proj.weight", "layers.1.mlp.up_proj.weight", "layers.1.norm.weight")


def depth_of(model: str) -> int:
    if model not in MODELS:
        raise InputError("no such donor")
    return DEPTH


def recipe(text: str) -> Recipe:
    return documents.parse(text).recipe


def done(start: Recipe, *texts: str) -> Recipe:
    for text in texts:
        start = grammar.parse(text, MODELS).apply(start, depth_of)
    return start


Layer = tuple[Any, ...]


def layers(of: Recipe, *names: str) -> list[Layer]:
    """Every output layer: its sources, method and base, and per parameter and tensor what each source has."""
    slices, out = of.explicit(depth_of), []
    for cell in stack.cells(slices):
        part = slices[cell.slice_index]
        t = position(cell.offset, stack.length(part))
        values = tuple(
            pytest.approx(found, rel=1e-9, abs=1e-11) if isinstance(found, float) else found
            for name in names
            for tensor in NAMES
            for source in part.sources
            for found in [lookup(name, tensor, t, source.parameters, part.parameters, of.parameters)]
        )
        base = part.base_model or of.base_model
        out.append((cell.sources, part.merge_method or of.merge_method, base, *values))
    return out


PLAIN = recipe("base_model: ./a\nslices: [{sources: [{model: ./a, layer_range: [0, 8]}]}]")
BLENDED = recipe("""
merge_method: linear
slices:
  - sources: [{model: ./a, layer_range: [0, 4]}, {model: org/b, layer_range: [4, 8], parameters: {weight: [0, 1]}}]
    parameters: {weight: [{filter: mlp, value: [1, 0.5]}, {value: 0.25}]}
  - sources: [{model: ./a, layer_range: [4, 8]}, {model: c c, layer_range: [4, 8]}]
parameters: {weight: [0.5, 0.75, 1]}
""")


# -- blend, unblend, method


def test_copies_become_a_blend() -> None:
    after = done(PLAIN, "blend 2-5 B:4-7 method=slerp t=0,1")
    rows = layers(after, "t")
    assert [row[0] for row in rows[2:6]] == [(("./a", index), ("org/b", index + 2)) for index in range(2, 6)]
    assert {row[1] for row in rows[2:6]} == {"slerp"}
    assert [row[3] for row in rows[2:6]] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [row[:3] for row in rows[:2] + rows[6:]] == [r[:3] for r in layers(PLAIN)[:2] + layers(PLAIN)[6:]]
    assert after.slices and after.slices[1].parameters == {"t": [0, 1]}
    assert after.slices[1].base_model is None, "the recipe's base is one of the sources"


def test_a_blend_over_several_slices_takes_each_ones_source() -> None:
    start = done(PLAIN, "insert C:0-3")
    rows = layers(done(start, "blend 6-9 B:0-3 method=slerp t=0,1"), "t")
    assert [row[0][0] for row in rows[6:10]] == [("./a", 6), ("./a", 7), ("c c", 0), ("c c", 1)]
    assert [row[0][1] for row in rows[6:10]] == [("org/b", index) for index in range(4)]
    assert [row[3] for row in rows[6:10]] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [row[2] for row in rows[6:10]] == ["./a", "./a", "c c", "c c"], "slerp begins at one of its sources"


def test_a_blend_takes_further_donors_and_another_method() -> None:
    two = done(PLAIN, "blend 0-3 B:0-3 method=slerp t=.5")
    three = done(two, "blend 0-3 C:0-3 method=ties base=A weight=.5 density=.4 donor=C")
    assert three.slices
    assert [source.model for source in three.slices[0].sources] == MODELS
    assert three.slices[0].parameters == {"weight": 0.5}, "t is none of ties' parameters"
    assert three.slices[0].sources[2].parameters == {"density": 0.4}
    assert done(two, "blend 0-3 method=linear weight=1").slices[0].merge_method == "linear"  # type: ignore[index]


def test_the_copys_own_factors_do_not_stay_in_a_blend() -> None:
    scaled = done(PLAIN, "scale 0-3 mlp=0.5")
    assert done(scaled, "blend 0-3 B:0-3 method=slerp t=0").slices[0].parameters == {"t": 0}  # type: ignore[index]


@pytest.mark.parametrize("model", ["./a", "org/b"])
def test_unblending_leaves_a_copy(model: str) -> None:
    blended = done(PLAIN, "blend 2-5 B:2-5 method=slerp t=.5")
    after = Unblend(2, 6, model).apply(blended, depth_of)
    assert [row[0] for row in layers(after)[2:6]] == [((model, index),) for index in range(2, 6)]
    if model == "./a":
        assert after == PLAIN
    assert Unblend(2, 6).apply(blended, depth_of) == PLAIN


def test_a_copy_among_blends_says_that_it_is_one() -> None:
    after = done(BLENDED, "unblend 1-2 B")
    assert [(row[0], row[1]) for row in layers(after)[1:3]] == [
        ((("org/b", 5),), "passthrough"), ((("org/b", 6),), "passthrough"),
    ]  # fmt: skip
    rest, before = layers(after, "weight"), layers(BLENDED, "weight")
    assert [rest[0], *rest[3:]] == [before[0], *before[3:]]


def test_another_method_keeps_what_it_knows() -> None:
    ties = done(BLENDED, "param 0-3 normalize=true", "method 0-3 ties")
    assert ties.slices and ties.slices[0].merge_method == "ties"
    assert [row[3:] for row in layers(ties, "weight", "normalize")] == [
        row[3:] for row in layers(done(BLENDED, "param 0-3 normalize=true"), "weight", "normalize")
    ]
    slerp = done(ties, "method 0-3 slerp")
    assert slerp.slices and not slerp.slices[0].parameters and not slerp.slices[0].sources[1].parameters
    assert done(ties, "method 0-3 linear").slices[0].merge_method is None  # type: ignore[index]


def test_the_method_of_everything_is_the_recipes() -> None:
    start = recipe("models: [{model: ./a}, {model: org/b}]\nmerge_method: linear\nparameters: {weight: 1}")
    after = done(start, "method 0-11 karcher")
    assert after.merge_method == "karcher" and after.models == start.models and after.slices is None


# -- parameters


def oracle(before: list[Layer], edit: SetParameters, slices_of: Recipe) -> list[Layer]:
    """What each layer's weights must be, straight from what the settings say."""
    out = []
    cells = stack.cells(slices_of.explicit(depth_of))
    for index, (row, cell) in enumerate(zip(before, cells, strict=True)):
        new = list(row)
        if edit.start <= index < edit.stop:
            for setting in edit.settings:
                value = over_layers(setting.values, edit.stop - edit.start)[index - edit.start]
                for place in range(3, len(row)):
                    tensor, source = divmod(place - 3, len(cell.sources))
                    named = setting.filter == "*" or setting.filter in NAMES[tensor]
                    if named and setting.donor in (None, cell.sources[source][0]):
                        new[place] = pytest.approx(value, rel=1e-9, abs=1e-11)
        out.append(tuple(new))
    return out


numbers = st.integers(-20, 20).map(lambda value: value / 10)
weights = st.builds(
    Setting, st.just("weight"), st.lists(numbers, min_size=1, max_size=4).map(tuple),
    st.sampled_from(["*", "*", "mlp", "self_attn"]), st.sampled_from([None, None, "./a"]),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 7), st.integers(1, 8), st.lists(weights, min_size=1, max_size=2))
def test_a_parameter_is_what_was_asked_for_there_and_nothing_else(start: int, count: int, found: list[Setting]) -> None:
    if len(found) == 2 and {setting.filter for setting in found} != {"mlp", "self_attn"}:
        found = found[:1]  # which of several that take the same tensors wins has a test of its own
    edit = SetParameters(start, min(start + count, 8), tuple(found))
    after = edit.apply(BLENDED, depth_of)
    assert layers(after, "weight") == oracle(layers(BLENDED, "weight"), edit, BLENDED)
    assert layers(after) == layers(BLENDED)


def test_a_value_without_a_filter_drops_what_filters_say_and_one_with_a_filter_does_not() -> None:
    assert done(BLENDED, "param 0-3 weight=1").slices[0].parameters == {"weight": 1}  # type: ignore[index]
    assert done(BLENDED, "param 0-3 weight=1").slices[0].sources[1].parameters == {}  # type: ignore[index]
    both = done(BLENDED, "param 0-3 weight=1 filter=norm weight=0 filter=mlp")
    assert both.slices and both.slices[0].parameters["weight"] == [
        {"filter": "mlp", "value": 0}, {"filter": "norm", "value": 1}, {"value": 0.25},
    ]  # fmt: skip
    assert both.slices[0].sources[1].parameters["weight"] == [
        {"filter": "norm", "value": 1}, {"filter": "mlp", "value": 0}, {"value": [0, 1]},
    ]  # fmt: skip
    gone = done(both, "param 0-3 weight= filter=mlp weight= filter=norm")
    assert gone.slices and gone.slices[0].parameters == {"weight": 0.25}
    assert gone.slices[0].sources[1].parameters == {"weight": [0, 1]}
    bare = done(gone, "param 0-3 weight=").slices
    assert bare and not bare[0].parameters and not bare[0].sources[1].parameters


def test_the_same_donor_twice_is_told_apart_by_its_place() -> None:
    start = done(PLAIN, "blend 0-3 A:4-7 method=linear weight=1 weight=.25 source=1")
    assert start.slices and [source.parameters for source in start.slices[0].sources] == [{}, {"weight": 0.25}]
    assert done(start, "param 0-3 weight=2 donor=A").slices[0].sources[0].parameters == {"weight": 2}  # type: ignore[index]


def test_pieces_keep_their_values_in_the_shortest_form() -> None:
    start = done(PLAIN, "blend 0-7 B:0-7 method=slerp t=0,.5,1")
    after = done(start, "param 3-4 t=.1")
    assert after.slices
    assert [part.parameters["t"] for part in after.slices] == [
        [0, pytest.approx(2 / 7)], 0.1, [pytest.approx(5 / 7), 1],
    ]  # fmt: skip
    inner = done(start, "param 2-5 t=1 filter=mlp").slices
    assert inner and inner[1].parameters["t"][1]["value"] == [pytest.approx(2 / 7), pytest.approx(5 / 7)]
    values = [row[3] for row in layers(after, "t")]
    assert values == pytest.approx([0, 1 / 7, 2 / 7, 0.1, 0.1, 5 / 7, 6 / 7, 1])


def test_parameters_of_everything_stay_where_they_are_said() -> None:
    start = recipe(
        "models: [{model: ./a}, {model: org/b, parameters: {weight: 1}}]\nmerge_method: linear\n"
        "parameters: {weight: 0.5, normalize: true}"
    )
    after = done(start, "param 0-11 weight=0,1", "param 0-11 weight=.25 donor=B normalize=false")
    assert after.slices is None and after.parameters == {"weight": [0, 1], "normalize": False}
    assert after.models and [entry.parameters for entry in after.models] == [{}, {"weight": 0.25}]
    one = recipe(
        "merge_method: slerp\nparameters: {t: 0.5}\n"
        "slices: [{sources: [{model: ./a, layer_range: [0, 8]}, {model: org/b, layer_range: [0, 8]}]}]"
    )
    assert done(one, "param 0-7 t=0,1").parameters == {"t": [0, 1]}
    assert done(one, "param 0-3 t=0,1").parameters == {"t": 0.5}


def test_the_base_of_whole_models_stays_when_they_become_slices() -> None:
    start = recipe(
        "models: [{model: org/b}, {model: c c}]\nmerge_method: nuslerp\nbase_model: ./a\nparameters: {weight: 1}"
    )
    after = Delete(3, 4).apply(start, depth_of)
    assert {source.model for part in after.slices or () for source in part.sources} == set(MODELS)
    without = recipe("models: [{model: org/b}, {model: c c}]\nmerge_method: linear\nbase_model: ./a")
    assert [len(part.sources) for part in Delete(3, 4).apply(without, depth_of).slices or ()] == [2, 2]


# -- collapse, edges, ends


def test_a_collapse_is_the_first_layer_and_the_others_differences(in_tmp: Path) -> None:
    after = done(PLAIN, "collapse 3-5")
    assert after.slices and len(layers(after)) == 6
    one = after.slices[1]
    assert [stack.span(source) for source in one.sources] == [(3, 4), (4, 5), (5, 6)]
    assert (one.merge_method, one.base_model, one.parameters) == ("task_arithmetic", "./a", {"weight": 1})
    sparse_llama(in_tmp / "a", layers=8)
    made = plan_of(in_tmp, documents.fresh(after).text)
    assert made.ok, made.errors
    assert made.layers[3].method == "task_arithmetic" and made.layers[3].base == 0
    values = {(v.name, v.donor): v.value for v in made.layers[3].tensors[0].values}
    assert (values["weight", 1], values["weight", 2]) == (1, 1) and ("weight", 0) not in values
    assert values["lambda", None] == 1 and values["normalize", None] is False


def test_edges() -> None:
    first = done(PLAIN, "edges first 2 model=B")
    assert first.first_layers == EdgePolicy(count=2, model="org/b")
    last = done(first, "edges last 3 t=.5,0 t=1 filter=mlp taper")
    assert last.last_layers == EdgePolicy(
        count=3, parameters={"t": [{"filter": "mlp", "value": 1}, {"value": [0.5, 0]}]}, taper=True
    )
    assert done(last, "edges last 1").last_layers == last.last_layers.model_copy(update={"count": 1})  # type: ignore[union-attr]
    assert done(last, "edges last 0", "edges first 0") == PLAIN
    assert done(PLAIN, "edges first 0") is PLAIN


def test_ends_have_parameters_of_their_own() -> None:
    after = done(BLENDED, "end head weight=.5", "end head weight=1 filter=lm")
    assert after.lm_head == EndSource(parameters={"weight": [{"filter": "lm", "value": 1}, {"value": 0.5}]})
    assert done(after, "end head weight=").lm_head is None
    assert done(after, "end head A").lm_head == EndSource(model="./a", parameters=after.lm_head.parameters)
    same = done(BLENDED, "param 0-3 weight=1 weight=.5 end=head weight=.25 end=embed")
    assert same.lm_head == EndSource(parameters={"weight": 0.5})
    assert same.embeddings == EndSource(parameters={"weight": 0.25})
    only = done(BLENDED, "param 0-3 weight=.5 end=norm")
    assert only.slices == BLENDED.slices and only.final_norm


# -- as text


words = st.sampled_from(["l1", "paper"])
any_setting = st.builds(
    Setting,
    st.sampled_from(["t", "weight", "lambda", "rescale"]),
    st.one_of(
        st.lists(st.floats(-1e9, 1e9), max_size=4).map(tuple),
        st.lists(st.booleans(), max_size=2).map(tuple),
        st.lists(words, max_size=2).map(tuple),
    ),
    st.sampled_from(["*", "mlp", "q_proj", "a b", "=:3"]),
    st.sampled_from([None, *MODELS]),
    st.sampled_from([None, 0, 3]),
    st.sampled_from([None, *ENDS]),
)  # fmt: skip
some_settings = st.lists(any_setting, max_size=3).map(tuple)
model = st.sampled_from(MODELS)
span = st.tuples(st.integers(0, 90), st.integers(1, 9)).map(lambda pair: (pair[0], sum(pair)))
runs = st.lists(st.tuples(model, span).map(lambda pair: (pair[0], *pair[1])), max_size=3).map(tuple)


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    start, stop = draw(span)
    found = draw(some_settings)
    method = draw(st.sampled_from(["slerp", "ties"]))
    return draw(
        st.sampled_from([
            BlendLayers(start, stop, draw(runs), method, draw(st.sampled_from([None, *MODELS])), found),
            Unblend(start, stop, draw(st.sampled_from([None, *MODELS]))),
            SetParameters(start, stop, (Setting("t", (0.5,)), *found)),
            SetMethod(start, stop, method),
            Collapse(start, stop),
            Edges(draw(st.booleans()), start, draw(st.sampled_from([None, *MODELS])), found, draw(st.booleans())),
            SetEnd(draw(st.sampled_from(ENDS)), settings=(Setting("t", (0.5,)), *found)),
        ])
    )  # fmt: skip


@given(edits(), st.booleans())
def test_every_edit_reads_back_from_its_text(edit: Edit, by_letter: bool) -> None:
    models = MODELS if by_letter else []
    text = grammar.unparse(edit, models)
    again = grammar.parse(text, models)
    assert again == edit and grammar.unparse(again, models) == text


@given(edits())
def test_donors_can_be_renamed(edit: Edit) -> None:
    there = grammar.renamed(edit, lambda ref: f"moved/{ref}")
    assert grammar.renamed(there, lambda ref: ref.removeprefix("moved/")) == edit
    assert ("moved/" in grammar.unparse(there)) == any(repr(name) in repr(edit) for name in MODELS)


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        (
            "blend 16-23 B:8-15 method=slerp base=A t=0.5",
            BlendLayers(16, 24, (("org/b", 8, 16),), "slerp", "./a", (Setting("t", (0.5,)),)),
        ),
        ("blend [2,4) B:[2, 4)", BlendLayers(2, 4, (("org/b", 2, 4),))),
        ("blend 3 method=karcher", BlendLayers(3, 4, (), "karcher")),
        ("param 4 t=0,.5,1 filter=mlp donor=B", SetParameters(4, 5, (Setting("t", (0, 0.5, 1), "mlp", "org/b"),))),
        ("param 4 rescale=paper normalize=true", SetParameters(
            4, 5, (Setting("rescale", ("paper",)), Setting("normalize", (True,))))),
        ("unblend 1-2", Unblend(1, 3)),
        ("edges first 0", Edges(False, 0)),
        ("edges last 2 taper t=1", Edges(True, 2, None, (Setting("t", (1.0,)),), True)),
        ("end norm weight=1", SetEnd("final_norm", settings=(Setting("weight", (1.0,)),))),
    ],
)  # fmt: skip
def test_texts(text: str, edit: Edit) -> None:
    assert grammar.parse(text, MODELS) == edit


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("blend 1-2", "a donor's range is missing"),
        ("blend 1-2 B:1-2 t=1 C:1-2", "'C:1-2' is not expected there"),
        ("blend 1-2 B:1-2 method=", "method= has no value"),
        ("blend 1-2 B:1-2 method=a method=b", "'method=b' is not expected there"),
        ("blend 1-2 Z:1-2", "there is no donor Z"),
        ("param 1-2", "a parameter is missing"),
        ("param 1-2 t=x=y", "neither a number nor a word"),
        ("param 1-2 filter=mlp", "'filter=mlp' has no parameter before it"),
        ("param 1-2 t=1 source=x", "source=x is not a whole number"),
        ("param 1-2 t=1 end=middle", "'middle' is not an end"),
        ("param 1-2 t=1 filter=", "filter= has no value"),
        ("unblend 1-2 A B", "'B' is not expected there"),
        ("method 1-2", "a method is missing"),
        ("edges middle 2", "neither first nor last"),
        ("edges first x", "'x' is not a whole number"),
    ],
)
def test_slips_are_answered_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        grammar.parse(text, MODELS)
    assert sentence in caught.value.sentence()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("blend 0-3 B:0-2 method=slerp", "3 layers of org/b for 4 layers"),
        ("blend 0-3 B:10-13 method=slerp", "no layers 10-13 in org/b"),
        ("blend 0-9 B:0-9 method=slerp", "no layers 0-9 in the stack"),
        ("blend 0-3 B:0-3", "no blend method"),
        ("blend 0-3 B:0-3 method=passthrough", "no blend method"),
        ("blend 0-3 B:0-3 method=slepr", "no method 'slepr', did you mean slerp"),
        ("blend 0-3 B:0-3 method=slerp weight=1", "slerp has no parameter 'weight'"),
        ("blend 0-3 B:0-3 method=slerp t=1 donor=B", "one value for all donors"),
        ("blend 0-3 B:0-3 method=slerp base=nowhere", "no such donor"),
        ("blend 0-3 B:0-3 method=ties base=A density=2", "2 is above 1"),
        ("blend 0-3 B:0-3 method=linear weight=1 donor=C", "no source of these layers is c c"),
        ("unblend 0-3 B", "no source of these layers is org/b"),
        ("param 0-3 scale=x", "scale cannot have that value"),
        ("param 0-3 scale=nan", "not a finite number"),
        ("param 0-3 scale=1 source=4", "no source of these layers is number 4"),
        ("param 0-3 scale=1,2 end=head", "lm_head is not a run of layers"),
        ("param 0-3 scale=1 end=head donor=A", "applies to all donors"),
        ("method 0-3 passthrough", "unblend"),
        ("method 0-3 nothing", "no method 'nothing'"),
        ("collapse 3", "one layer cannot be collapsed"),
        ("collapse 5-8", "no layers 5-8"),
        ("edges first 9 model=A", "the stack has 8"),
        ("edges first 2", "neither a donor nor parameters"),
        ("edges first 2 model=nowhere", "no such donor"),
        ("edges first 2 t=1 donor=A", "apply to all donors"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_reason(text: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        done(PLAIN, text)
    assert sentence.lower().rstrip("?") in caught.value.sentence().lower().replace(". did", ", did")


def test_what_is_computed_or_mixed_is_not_collapsed() -> None:
    with pytest.raises(InputError, match="2 donors"):
        done(PLAIN, "insert B:0-3", "collapse 6-9")
    with pytest.raises(InputError, match="unchanged copies"):
        done(PLAIN, "scale 0-3 mlp=2", "collapse 2-5")
    with pytest.raises(InputError, match="unchanged copies"):
        done(BLENDED, "collapse 0-3")


def test_a_base_that_a_method_needs_is_asked_for() -> None:
    start = PLAIN.model_copy(update={"base_model": None})
    with pytest.raises(InputError, match="ties needs a base"):
        done(start, "blend 0-3 B:0-3 method=ties weight=1")
    assert done(start, "blend 0-3 B:0-3 method=ties base=A weight=1").slices[0].base_model == "./a"  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "selection", "again"),
    [
        ("blend 2-5 B:4-7 method=slerp t=1", (6, 9), "blend 6-8 B:8-10 method=slerp t=1"),
        ("param 2-5 t=0,1", (0, 2), "param 0-1 t=0,1"),
        ("unblend 2-5 A", (0, 2), "unblend 0-1 A"),
        ("method 2 ties", (0, 2), "method 0-1 ties"),
        ("collapse 2-4", (5, 6), "collapse 5-7"),
        ("edges first 2 model=A", (5, 6), "edges first 2 model=A"),
    ],
)
def test_repeating_an_edit_elsewhere(text: str, selection: tuple[int, int], again: str) -> None:
    assert grammar.unparse(grammar.parse(text, MODELS).moved_to(*selection), MODELS) == again


# -- in a file


FILE = """\
# a merge
merge_method: passthrough
base_model: ./a   # its config
slices:
  # the lower half
  - sources: [{model: ./a, layer_range: [0, 4]}]   # copied
  # the upper half
  - merge_method: slerp
    sources:
      - {model: ./a, layer_range: [4, 8]}   # from here
      - {model: org/b, layer_range: [4, 8]}
    parameters:
      t: [0, 1]   # rising
dtype: bfloat16
"""


@pytest.mark.parametrize(
    ("text", "removed", "added"),
    [
        ("param 4-7 t=1,0", ["      t: [0, 1]   # rising"], ["      t: [1, 0]   # rising"]),
        ("edges first 2 model=B", [], ["first_layers:", "  count: 2", "  model: org/b"]),
        ("end head t=.5", [], ["lm_head:", "  parameters:", "    t: 0.5"]),
        ("method 4-7 nearswap", ["  - merge_method: slerp"], ["  - merge_method: nearswap"]),
    ],
)
def test_a_file_keeps_everything_else(text: str, removed: list[str], added: list[str]) -> None:
    document = documents.parse(FILE)
    after = document.with_recipe(done(document.recipe, text)).text
    kept = [line for line in FILE.splitlines() if line not in removed]
    assert [line for line in after.splitlines() if line not in added] == kept
    assert set(added) <= set(after.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        "blend 1-2 B:1-2 method=linear weight=1",
        "unblend 5-6",
        "param 5 t=.9",
        "collapse 0-3",
        "blend 4-7 C:4-7 method=linear",
    ],
)
def test_comments_survive_whatever_happens(text: str) -> None:
    document = documents.parse(FILE)
    changed = document.with_recipe(done(document.recipe, text))
    for comment in ("# a merge", "# its config", "# the lower half", "# the upper half"):
        assert comment in changed.text
    assert documents.parse(changed.text).recipe == changed.recipe


def test_taking_a_blend_back_leaves_the_file_as_it_was() -> None:
    document = documents.parse(FILE)
    there = done(document.recipe, "blend 1-2 B:1-2 method=linear weight=1")
    back = document.with_recipe(there).with_recipe(done(there, "unblend 1-2 A"))
    assert back.recipe == document.recipe
    assert replace(back, text="").recipe.slices == document.recipe.slices
