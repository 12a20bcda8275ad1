"""Parameters: mergekit's rules for gradients, filters and precedence, and cutting a slice without changing a value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgeon.recipe.parameters import cut, evaluate, has_gradient, lookup, over, position, rules
from tests.support.recipe_strategies import settings

NAME = "model.layers.3.self_attn.o_proj.weight"


def gradient(values: list[float], t: float) -> float:
    """mergekit's formula (config.py, `evaluate_setting`), written out again."""
    scaled = t * (len(values) - 1)
    i0 = int(scaled)
    i1 = min(len(values) - 1, i0 + 1)
    frac = scaled - i0
    return (1 - frac) * values[i0] + frac * values[i1]


@pytest.mark.parametrize(("t", "value"), [(0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 0.5), (1, 0.0)])
def test_a_list_is_a_gradient(t: float, value: float) -> None:
    assert evaluate([0, 1, 0], NAME, t) == value


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=6), st.integers(1, 40), st.data())
def test_gradients_follow_mergekits_formula(values: list[float], length: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, length - 1))
    t = 1.0 if length == 1 else index / (length - 1)
    assert position(index, length) == t
    assert evaluate(values, NAME, t) == gradient(values, t)


def test_a_lone_layer_lies_at_the_end_of_its_gradient() -> None:
    assert evaluate([0.0, 1.0], NAME, position(0, 1)) == 1.0


@pytest.mark.parametrize(("value", "meant"), [("0.5", 0.5), ("1e-4", 1e-4), (["0", "1"], 0.5), (3, 3.0)])
def test_numbers_may_be_written_as_text(value: Any, meant: float) -> None:
    assert evaluate(value, NAME, 0.5) == meant


def test_the_first_filter_that_matches_decides() -> None:
    value = [{"filter": "o_proj", "value": 0.1}, {"filter": "self_attn", "value": 0.2}, {"value": 0.3}]
    assert evaluate(value, NAME, 0) == 0.1
    assert evaluate(value, "model.layers.3.self_attn.q_proj.weight", 0) == 0.2
    assert evaluate(value, "model.layers.3.mlp.up_proj.weight", 0) == 0.3


def test_a_filter_is_a_substring_and_no_pattern() -> None:
    value = [{"filter": "layers.1", "value": 2}]
    assert evaluate(value, "model.layers.17.mlp.up_proj.weight", 0) == 2
    assert evaluate(value, "model.layers.21.mlp.up_proj.weight", 0) is None
    assert evaluate([{"filter": "o_.*", "value": 2}], NAME, 0) is None


@pytest.mark.parametrize("everything", [{"value": 4}, {"filter": "*", "value": 4}, {"filter": None, "value": 4}])
def test_a_missing_filter_and_a_star_match_everything(everything: dict[str, Any]) -> None:
    assert evaluate([everything], NAME, 0) == 4
    assert evaluate(everything, NAME, 0) == 4


def test_the_value_of_a_filter_may_be_a_gradient() -> None:
    assert evaluate([{"filter": "attn", "value": [0, 1]}], NAME, 0.25) == 0.25


def test_an_empty_list_is_unset() -> None:
    assert evaluate([], NAME, 0) is None
    assert lookup("scale", NAME, 0, {"scale": []}, {"scale": 2}) == 2


@pytest.mark.parametrize("value", [{"a": 1}, [[1]], [{"value": 1}, 2]])
def test_what_is_no_setting_raises(value: Any) -> None:
    with pytest.raises(ValueError, match=r"number|convert"):
        evaluate(value, NAME, 0)


def test_the_most_specific_level_that_matches_wins() -> None:
    source, part, recipe = {"scale": [{"filter": "mlp", "value": 1}]}, {"scale": 2}, {"scale": 3}
    assert lookup("scale", NAME, 0, source, part, recipe) == 2
    assert lookup("scale", "model.layers.0.mlp.up_proj.weight", 0, source, part, recipe) == 1
    assert lookup("scale", NAME, 0, {}, {}, recipe) == 3
    assert lookup("scale", NAME, 0, {}, {}, {}) is None


@pytest.mark.parametrize("length", [2, 3, 7, 49, 50, 81])
def test_booleans_are_picked_not_mixed(length: int) -> None:
    values = [index % 3 == 0 for index in range(length)]
    picked = [evaluate(values, NAME, position(index, length)) for index in range(length)]
    assert picked == values


@given(settings, st.integers(1, 12), st.data())
def test_cutting_keeps_the_value_of_every_layer(value: Any, length: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    piece = cut(value, length, start, stop)
    for name in (NAME, "model.layers.1.mlp.up_proj.weight", "lm_head.weight"):
        before = [evaluate(value, name, position(index, length)) for index in range(start, stop)]
        after = [evaluate(piece, name, position(index, stop - start)) for index in range(stop - start)]
        for old, new in zip(before, after, strict=True):
            assert new == (old if old is None else pytest.approx(old, rel=1e-9, abs=1e-12))


@given(st.lists(st.booleans(), min_size=2, max_size=5), st.integers(2, 60), st.data())
def test_cutting_keeps_booleans(values: list[bool], length: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    piece = cut(values, length, start, stop)
    before = [evaluate(values, NAME, position(index, length)) for index in range(start, stop)]
    assert [evaluate(piece, NAME, position(index, stop - start)) for index in range(stop - start)] == before


def test_scalars_and_filters_without_gradients_are_cut_to_themselves() -> None:
    assert cut(0.5, 8, 2, 4) == 0.5
    assert cut([{"filter": "mlp", "value": 2}], 8, 2, 4) == [{"filter": "mlp", "value": 2}]


@given(settings, settings)
def test_one_setting_over_another_says_what_both_levels_said(upper: Any, lower: Any) -> None:
    both = over(upper, lower)
    for name in (NAME, "model.layers.1.mlp.up_proj.weight", "lm_head.weight"):
        for t in (0.0, 0.4, 1.0):
            wanted = lookup("scale", name, t, {"scale": upper}, {"scale": lower})
            assert evaluate(both, name, t) == wanted


def test_settings_know_whether_they_change_from_layer_to_layer() -> None:
    assert has_gradient([0, 1])
    assert has_gradient([{"filter": "mlp", "value": [0, 1]}])
    assert not has_gradient([{"filter": "mlp", "value": [1]}])
    assert not has_gradient([1])
    assert not has_gradient("0.5")
    assert rules([0, 1]) == [{"value": [0, 1]}]
    assert rules({"filter": "mlp", "value": 1}) == [{"filter": "mlp", "value": 1}]
    assert rules(None) == rules([]) == []
