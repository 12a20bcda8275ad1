"""Curves: what is done to them, and that the form written down is worth the numbers drawn."""

from __future__ import annotations

from math import isclose
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from surgeon.recipe.curves import tracks as curves
from surgeon.recipe.curves.shortest_form import OF_THE_LARGEST, RELATIVE, over_layers, rounded, shortest
from surgeon.recipe.curves.tracks import REST, Level, drawn, preset, setting, taper, tracks
from surgeon.recipe.parameters import evaluate, lookup, position

numbers = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-12)
decimals = st.integers(-300, 300).map(lambda value: value / 100)


def worth(value: Any, count: int) -> list[Any]:
    """What mergekit's evaluation makes of a setting, layer by layer."""
    return [evaluate(value, "model.layers.0.x", position(index, count)) for index in range(count)]


def same(got: list[Any], wanted: list[Any]) -> bool:
    floor = OF_THE_LARGEST * max(map(abs, wanted))
    return all(isclose(one, other, rel_tol=RELATIVE, abs_tol=floor) for one, other in zip(got, wanted, strict=True))


@settings(max_examples=300)
@given(st.lists(st.one_of(numbers, decimals), min_size=1, max_size=40))
@example([0.1] * 7)
@example([1e6, 1e-12, 1e-11, -1e6])
@example([0.0, 0.0, 1e-300, 0.0])
def test_the_shortest_form_is_worth_the_values(values: list[float]) -> None:
    form = shortest(values)
    assert same(worth(form.value, len(values)), [rounded(value) for value in values])
    assert not isinstance(form.value, list) or len(form.value) <= len(values)


@settings(max_examples=300)
@given(st.lists(decimals, min_size=1, max_size=12), st.integers(1, 50))
def test_no_form_is_longer_than_the_gradient_that_was_drawn(gradient: list[float], count: int) -> None:
    values = drawn(gradient, count)
    form = shortest(values)
    length = len(form.value) if isinstance(form.value, list) else 1
    # A gradient that leaves 0 to 1 between layers, where no layer does, is not written again.
    within = min(gradient) >= min(0, *values) and max(gradient) <= max(1, *values)
    assert length <= (min(len(gradient), count) if within else count)
    assert same(worth(form.value, count), list(values))


@pytest.mark.parametrize("values", [[0.05, 0, 0, 0.05], [0.9, 1, 1, 0.9], [-1.1, -1, -1, -1.1]])
def test_no_form_leaves_a_parameters_bounds_between_layers(values: list[float]) -> None:
    form = shortest(values)
    assert isinstance(form.value, list)
    assert min(0, *values) <= min(form.value) and max(form.value) <= max(1, *values)  # type: ignore[operator]
    assert same(worth(form.value, 4), values)


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=30, unique=True))
def test_numbers_nobody_could_read_are_written_layer_by_layer(values: list[float]) -> None:
    form = shortest(values)
    assert isinstance(form.value, list)
    if len(values) // 2 + 1 < len(form.value) < len(values):
        assert all(float(f"{value:.4f}") == value for value in form.value if not isinstance(value, str))


def test_forms_have_names() -> None:
    assert [shortest(values).name for values in ([0.5, 0.5], drawn((0, 1), 8), [0, 1, 0.25])] == [
        "scalar", "gradient", "each layer",
    ]  # fmt: skip
    assert shortest(drawn((0, 0.5, 0.3, 0.7, 1), 8)).value == [0, 0.5, 0.3, 0.7, 1]
    assert shortest(drawn((1 / 3, 2 / 3), 7)).value == [0.333333333333, 0.666666666667]
    assert shortest(drawn((0, 0.5, 1), 33)).text == "[0, 1]"
    # Long decimals are worth it where they are half as many as the layers.
    knots = (0.123456789, 0.987654321, 0.314159265, 0.707106781, 0.141421356)
    assert [len(shortest(drawn(knots, count)).value) for count in (7, 8, 9)] == [7, 8, 5]  # type: ignore[arg-type]
    assert shortest([1.0]).value == 1
    assert isinstance(shortest([1.0, 2.0]).value[0], int)  # type: ignore[index]


def test_words_and_booleans_are_one_for_all_or_one_per_layer() -> None:
    assert shortest(["l1", "l1"]).value == "l1"
    assert shortest([True, True]).value is True
    assert shortest([1.0, True]).value == [1, True]
    values = [True, False, False, True, False] * 10
    assert worth(shortest(values).value, 50) == values
    assert shortest(["l1", "paper", "l1"]).text == "[l1, paper, l1]"


@given(st.one_of(st.booleans(), st.sampled_from(["l1", "none"])), st.integers(1, 60), st.data())
def test_words_come_back(word: bool | str, count: int, data: st.DataObject) -> None:
    other = not word if isinstance(word, bool) else "paper"
    values = data.draw(st.lists(st.sampled_from([word, other]), min_size=count, max_size=count))
    assert worth(shortest(values).value, count) == values


# -- operations


def test_ranges_are_set_added_to_and_scaled() -> None:
    flat = (0.5,) * 5
    assert curves.put(flat, 1, 3, 0.25) == (0.5, 0.25, 0.25, 0.5, 0.5)
    assert curves.add(flat, 0, 2, 0.25) == (0.75, 0.75, 0.5, 0.5, 0.5)
    assert curves.scale(flat, 3, 5, 0.5) == (0.5, 0.5, 0.5, 0.25, 0.25)
    assert curves.ramp(flat, 1, 4, 0, 1) == (0.5, 0, 0.5, 1, 0.5)
    assert curves.ramp(flat, 2, 3, 0, 1) == (0.5, 0.5, 1, 0.5, 0.5)
    assert curves.spread(flat, 0, 5, (0, 1, 0)) == (0, 0.5, 1, 0.5, 0)
    assert curves.mirror((1, 2, 3, 4), 0, 3) == (3, 2, 1, 4)
    assert curves.clamp((-1, 0.5, 2), 0, 1) == (0, 0.5, 1)
    assert curves.clamp((-1, 0.5, 2), None, 1) == (-1, 0.5, 1)


@given(st.lists(decimals, min_size=1, max_size=30).map(tuple), st.data())
def test_operations_leave_other_layers_alone(curve: tuple[float, ...], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(curve) - 1))
    stop = data.draw(st.integers(start + 1, len(curve)))
    for done in (
        curves.put(curve, start, stop, 9), curves.add(curve, start, stop, 1), curves.scale(curve, start, stop, 2),
        curves.ramp(curve, start, stop, 0, 1), curves.smooth(curve, start, stop, 2), curves.mirror(curve, start, stop),
    ):  # fmt: skip
        assert len(done) == len(curve)
        assert done[:start] == curve[:start] and done[stop:] == curve[stop:]


@given(st.lists(decimals, min_size=1, max_size=30).map(tuple), st.floats(0.3, 5))
def test_smoothing_keeps_between_the_extremes_and_flattens(curve: tuple[float, ...], radius: float) -> None:
    done = curves.smooth(curve, 0, len(curve), radius)
    assert min(curve) - 1e-9 <= min(done) and max(done) <= max(curve) + 1e-9
    assert curves.smooth((0.5,) * 9, 0, 9, radius) == pytest.approx((0.5,) * 9)


def test_smoothing_weights_neighbours_by_their_distance() -> None:
    done = curves.smooth((0, 0, 0, 1, 0, 0, 0), 0, 7, 1)
    assert done[3] == pytest.approx(1 / (1 + 2 * 0.6065306597 + 2 * 0.1353352832))
    assert done == pytest.approx(done[::-1])
    assert done[3] > done[2] > done[1] > done[0] == 0


def test_a_taper_leads_from_the_end_value_into_the_curve() -> None:
    assert taper((1.0,) * 6, 2, 0) == (0, 0.5, 1, 1, 0.5, 0)
    assert taper((1.0,) * 6, 2, 0, last=False) == (0, 0.5, 1, 1, 1, 1)
    assert taper((0.4,) * 4, 4, 0, first=False) == pytest.approx((0.3, 0.2, 0.1, 0.0))
    assert taper((1.0,) * 3, 0, 0) == (1, 1, 1)
    assert len(taper((1.0,) * 2, 5, 0)) == 2


def test_presets() -> None:
    assert preset("V", 5)[REST] == (1, 0.5, 0, 0.5, 1)
    assert preset("inverted V", 5)[REST] == (0, 0.5, 1, 0.5, 0)
    assert preset("ramp", 3)[REST] == (0, 0.5, 1)
    assert preset("ramp down", 3, 0.25, 0.75)[REST] == (0.75, 0.5, 0.25)
    assert preset("flat", 2)[REST] == (0.5, 0.5)
    assert setting(preset("gradient slerp", 32)) == [
        {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
        {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
        {"value": 0.5},
    ]
    with pytest.raises(KeyError):
        preset("nothing", 3)


# -- in a recipe


filters = st.sampled_from(["self_attn", "mlp", "norm", "layers.1"])
values = st.one_of(decimals, st.lists(decimals, min_size=1, max_size=5))
ruled = st.lists(
    st.one_of(st.builds(lambda f, v: {"filter": f, "value": v}, filters, values), values.map(lambda v: {"value": v})),
    max_size=4,
)
tables = st.one_of(st.just({}), st.builds(lambda value: {"t": value}, st.one_of(values, ruled)))
NAMES = ("model.layers.1.self_attn.q.weight", "model.layers.0.mlp.up.weight", "model.layers.0.input_norm.weight")


@settings(max_examples=300)
@given(st.lists(tables, min_size=1, max_size=3), st.integers(1, 12))
def test_tracks_mean_what_the_tables_do(levels: list[dict[str, Any]], count: int) -> None:
    names = ("source", "slice", "recipe")
    found = tracks("t", count, [Level(name, table) for name, table in zip(names, levels, strict=False)])
    again = {"t": setting({track.filter: track.values for track in found})}
    for name in NAMES:
        for index in range(count):
            wanted = lookup("t", name, position(index, count), *levels)
            track = next((track for track in found if track.filter == REST or track.filter in name), None)
            assert (track.values[index] if track else None) == wanted
            got = lookup("t", name, position(index, count), again)
            assert (got is None) == (wanted is None)
            assert got is None or got == pytest.approx(wanted, rel=RELATIVE, abs=4e-12)


def test_tracks_say_whose_they_are() -> None:
    levels = [
        Level("source", {"t": [{"filter": "mlp", "value": 1}]}),
        Level("slice", {"t": [{"filter": "self_attn", "value": [0, 1]}, {"filter": "mlp", "value": 0}]}),
        Level("recipe", {"t": 0.5}),
    ]
    assert [(track.filter, track.values, track.origin) for track in tracks("t", 3, levels)] == [
        ("mlp", (1, 1, 1), "source"), ("self_attn", (0, 0.5, 1), "slice"), (REST, (0.5, 0.5, 0.5), "recipe"),
    ]  # fmt: skip
    assert tracks("weight", 3, levels) == ()
    assert tracks("t", 2, [Level("slice", {"t": ["paper", "l1"]})])[0].values == ("paper", "l1")


def test_filters_within_filters_are_no_curve() -> None:
    nested = {"t": [{"filter": "mlp", "value": [{"filter": "up", "value": 1}]}]}
    with pytest.raises(ValueError, match="filters within filters"):
        tracks("t", 3, [Level("slice", nested)])


def test_a_curve_without_values_says_nothing() -> None:
    assert setting({}) == []
    assert over_layers([], 3) == ()
