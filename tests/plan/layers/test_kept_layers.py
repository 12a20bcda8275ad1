"""Kept layers and groups of experts: whatever was planned before, a plan is the one that is made from nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from surgeon.bench.sparse_donors import SparseShape, make_sparse
from surgeon.checkpoint import layer_weights
from surgeon.errors import InputError
from surgeon.plan import Donors, Plan, resolve
from surgeon.plan.config.estimate import shards, split
from surgeon.plan.layers.layer_tensors import TensorPlanner
from surgeon.recipe import stack
from surgeon.recipe.document import Document, fresh, parse
from surgeon.recipe.edits import Delete, Duplicate, Insert, Move, Reverse, grammar
from surgeon.recipe.parameters import matched, settled
from surgeon.recipe.schema import Recipe
from surgeon.tui.session import Session
from tests.support.recipe_strategies import DEPTHS, MODELS, edits_for, recipes
from tests.support.recipe_strategies import settings as parameter_settings

SHAPE: dict[str, Any] = {
    "hidden": 16, "heads": 4, "kv_heads": 2, "head_dim": 4, "intermediate": 8, "vocab": 32, "experts": 12,
}  # fmt: skip
LAYER = 45  # its tensors
GROUPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The donors of the random recipes, all with experts; those of `b` are wider."""
    found = tmp_path_factory.mktemp("kept") / "here"
    for name, depth in DEPTHS.items():
        make_sparse(found / name, SparseShape(**{**SHAPE, "layers": depth, "intermediate": 4 if name == "b" else 8}))
    return found


def in_folder(folder: Path, recipe: Recipe) -> Document:
    return parse(fresh(recipe).text, folder / "r.yml")


def from_nothing(document: Document, donors: Donors) -> Plan:
    """The plan with newly opened donors, every tensor planned by itself."""
    with patch.object(layer_weights, "_groups", lambda tensors: tuple((suffix,) for suffix in tensors)):
        return resolve(document, Donors(donors.roots, donors.first))


def assert_same(plan: Plan, other: Plan) -> None:
    assert plan.findings == other.findings
    assert plan.estimates == other.estimates
    assert plan.config == other.config
    assert (plan.ends, plan.extra) == (other.ends, other.extra)
    assert plan.tensors == other.tensors
    assert plan.layers == other.layers
    for layer, again in zip(plan.layers, other.layers, strict=True):
        assert (layer.nbytes, layer.numel, layer.planned) == (again.nbytes, again.numel, again.planned)


def commands(depth: int) -> st.SearchStrategy[str]:
    """Edits of blends as text, for a stack of that many layers."""
    return st.builds(
        lambda low, count, text: text.format(f"{low}-{min(low + count, depth - 1)}"),
        st.integers(0, depth - 1),
        st.integers(0, 3),
        st.sampled_from([
            "blend {0} B:0-3 method=linear weight=0.3", "blend {0} B:2-5 method=slerp t=0.2,0.7",
            "blend {0} B:0-3 method=dare_linear base=A weight=0.5 density=0.5", "param {0} t=0.4,0.6 filter=experts.1",
            "blend {0} D:0-3 method=linear weight=0.5", "param {0} weight=0.1 filter=mlp", "param {0} weight=",
            "param {0} weight=1,2 donor=B", "method {0} linear", "unblend {0}", "edges first 2 t=0.5,0 taper",
            "edges last 1 model=B", "scale {0} o_proj=0.5 experts.1=0.25", "scale {0} down_proj=0", "dtype float32",
        ]),
    )  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipes, st.data())
def test_after_any_edits_a_plan_is_as_from_nothing(folder: Path, start: Recipe, data: st.DataObject) -> None:
    session = Session(MODELS, in_folder(folder, start))
    assert_same(session.plan, from_nothing(session.current, session.donors))
    for _ in range(data.draw(st.integers(1, 6))):
        depth = stack.depth(session.recipe.explicit(session.donors.depth))
        kind = data.draw(st.sampled_from(["edit", "blend", "blend", "undo"]))
        with suppress(InputError):
            if kind == "undo":
                session.undo()
            elif kind == "blend" and depth:
                session.command(data.draw(commands(depth)))
            else:
                session.apply(data.draw(edits_for(depth)))
        assert_same(session.plan, from_nothing(session.current, session.donors))


@settings(max_examples=300)
@given(parameter_settings, parameter_settings, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_settings_that_are_settled_alike_give_every_name_the_same(one: Any, other: Any, t: float, u: float) -> None:
    names = [f"model.layers.{index}.{rest}" for index in (1, 2) for rest in ("mlp.down_proj", "x.o_proj", "mlp.up")]
    if settled(one, t) == settled(other, u):
        assert [matched(one, name, t) for name in names] == [matched(other, name, u) for name in names]


def test_values_that_differ_are_not_settled_alike() -> None:
    values: list[Any] = [1, 1.0, True, "1", 0.0, -0.0, [], None, [1, 2], {"value": 1}, {"filter": "mlp", "value": 1}]
    assert len({settled(value, 0.5) for value in values}) == len(values)
    assert settled([0, 1], 0.25) != settled([0, 1], 0.5)
    assert settled([0, 1, 0], 0.25) == settled([0.5, 9], 0.0)


@given(st.lists(st.lists(st.integers(0, 5), max_size=5), max_size=5), st.integers(1, 9))
def test_shards_are_counted_as_they_are_split(runs: list[list[int]], limit: int) -> None:
    class Tensor:
        def __init__(self, nbytes: int) -> None:
            self.nbytes = nbytes

    tensors: Any = [Tensor(nbytes) for run in runs for nbytes in run]
    sums = [[sum(run[:end]) for end in range(len(run) + 1)] for run in runs]
    assert shards(sums, limit) == len(split(tensors, limit))


@pytest.fixture
def planned() -> Iterator[list[str]]:
    """The names of the layers' tensors that are planned, not those of a group behind its first."""
    names: list[str] = []
    plan = TensorPlanner._tensor

    def note(self: TensorPlanner, place: Any, *rest: Any) -> Any:
        if place.role == "layer":
            names.append(f"{place.index}.{place.suffix}")
        return plan(self, place, *rest)

    with patch.object(TensorPlanner, "_tensor", note):
        yield names


def two_donors(folder: Path) -> Session:
    text = "slices:\n- sources: [{model: ./base, layer_range: [0, 6]}]\n- sources: [{model: org/math}]\n"
    return Session(document=parse(text, folder / "r.yml"))


def test_an_edit_plans_what_it_touched(folder: Path, planned: list[str]) -> None:
    session = two_donors(folder)
    assert len(session.plan.tensors) == 18 * LAYER + 3
    assert len(planned) == 18 * GROUPS
    for edit in (Delete(2, 4), Move(0, 1, 9), Duplicate(3, 6, 2), Reverse(0, 8), Insert("org/math", 0, 12, 3)):
        planned.clear()
        session.apply(edit)
        assert session.plan.ok and planned == [], edit
    session.apply(Insert("./base", 6, 8, 0))
    assert session.plan.ok and len(planned) == 2 * GROUPS
    planned.clear()
    session.command("blend 4-6 B:4-6 method=linear weight=0.25")
    assert session.plan.ok and len(planned) == 3 * GROUPS
    planned.clear()
    session.undo()
    session.redo()
    assert session.plan.ok and planned == []
    session.command("dtype float32")
    assert {tensor.dtype for tensor in session.plan.tensors} == {"F32"}


def test_a_gradient_that_is_cut_plans_the_layers_that_changed(folder: Path, planned: list[str]) -> None:
    session = two_donors(folder)
    session.command("blend 0-5 B:0-5 method=linear weight=0,0.25,0.5,0.75,0.875,1")
    assert session.plan.ok
    planned.clear()
    session.apply(Delete(2, 3))
    assert session.plan.ok and planned == []


def test_a_filter_with_a_number_sets_experts_apart(folder: Path) -> None:
    session = two_donors(folder)
    session.command("scale 0-2 experts.1.=0.5 layers.1.=2")
    factors = {tensor.name: getattr(tensor.source, "factor", 1.0) for tensor in session.plan.tensors}
    assert factors["model.layers.0.mlp.experts.1.up_proj.weight"] == 0.5
    assert factors["model.layers.0.mlp.experts.11.up_proj.weight"] == 1.0
    assert factors["model.layers.1.mlp.experts.2.up_proj.weight"] == 2
    assert factors["model.layers.2.mlp.experts.2.up_proj.weight"] == 1.0


BLENDS = """merge_method: {}
base_model: {}
parameters: {{{}}}
slices:
- sources:
  - {{model: ./base, layer_range: [0, 4]}}
  - {{model: {}, layer_range: [0, 4]}}
"""
MATH = "org/math"


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        # the filter of a parameter of all donors matches the output's name
        (BLENDS.format("slerp", "./base", "t: [{filter: layers.1., value: 0.3}, {value: 0.6}]", MATH), "delete 0"),
        # a missing value is reported with the name of a tensor of the output
        (BLENDS.format("slerp", "./base", "", MATH), "delete 0"),
        (BLENDS.format("task_arithmetic", "./base", "weight: 0.5", MATH), "base B"),
        (BLENDS.format("linear", "./base", "weight: 0.5", MATH), "method 0-3 task_arithmetic"),
        (BLENDS.format("dare_linear", "./base", "weight: 0.5, density: 0.5", MATH), "delete 0"),
        (BLENDS.format("linear", "./base", "weight: [0.1, 0.9, 0.4]", MATH), "reverse 0-3"),
        # every tensor of an expert that cannot be blended is named
        (BLENDS.format("linear", "./base", "weight: 0.5", "b"), "delete 0"),
    ],
    ids=["filter", "missing", "base", "method", "seed", "gradient", "unequal"],
)
def test_one_edit_makes_the_plan_that_is_made_from_nothing(folder: Path, text: str, edit: str) -> None:
    session = Session(document=parse(text, folder / "r.yml"))
    before = session.plan
    session.command(edit)
    after = session.plan
    assert_same(after, from_nothing(session.current, session.donors))
    assert (after.tensors, after.findings) != (before.tensors, before.findings)


STAGES = """name: halved
slices:
- sources: [{model: ./base}]
parameters: {scale: [{filter: down_proj, value: 0.5}]}
---
slices:
- sources: [{model: halved, layer_range: [0, 4]}]
"""


def test_experts_of_a_stage_are_what_the_stage_makes_of_each(folder: Path) -> None:
    session = Session(document=parse(STAGES, folder / "r.yml"))
    assert_same(session.plan, from_nothing(session.current, session.donors))
    changed = parse(STAGES.replace("0.5", "0.25"), folder / "r.yml")
    assert_same(resolve(changed, session.donors), from_nothing(changed, session.donors))
    assert resolve(changed, session.donors).tensors != session.plan.tensors


def test_forgotten_donors_are_planned_again(tmp_path: Path, planned: list[str]) -> None:
    for name in ("a", "b"):
        make_sparse(tmp_path / name, SparseShape(**{**SHAPE, "layers": 2}))
    session = Session(document=parse("slices:\n- sources: [{model: a}]\n", tmp_path / "r.yml"))
    before = session.plan
    make_sparse(tmp_path / "a", SparseShape(**{**SHAPE, "layers": 2, "intermediate": 4}))
    planned.clear()
    session.open("b")
    after = session.plan
    assert len(planned) == 2 * GROUPS
    assert after.estimates.nbytes < before.estimates.nbytes
    assert_same(after, from_nothing(session.current, session.donors))


def test_another_template_names_the_tensors_anew(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_sparse(tmp_path / name, SparseShape(**{**SHAPE, "layers": 3}))
    prefixed(tmp_path / "b")
    session = Session(document=parse("slices:\n- sources: [{model: a}]\n- sources: [{model: b}]\n", tmp_path / "r.yml"))
    assert session.plan.tensors[1].name.startswith("model.layers.0.")
    session.command("base B")
    assert session.plan.tensors[1].name.startswith("layers.0.")
    assert_same(session.plan, from_nothing(session.current, session.donors))


def prefixed(folder: Path) -> None:
    """Remove `model.` from the names of a checkpoint's tensors."""
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    table = json.loads(raw[8 : 8 + length])
    text = json.dumps({name.removeprefix("model."): value for name, value in table.items()}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])


def test_few_layers_are_kept(folder: Path) -> None:
    donors = Donors([folder])
    for factor in range(120):
        text = f"slices:\n- sources: [{{model: ./base}}]\nparameters: {{scale: {factor + 0.5}}}\n"
        resolve(parse(text, folder / "r.yml"), donors)
    assert len(donors.layers._kept) <= 1024 + 12 and len(donors.layers._kept) > 1000


def test_a_command_is_read_from_text() -> None:
    """The texts above are edits, so that the random test does not skip all of them."""
    for text in (
        "blend 0-3 B:0-3 method=linear weight=0.3",
        "param 1-2 t=0.4,0.6 filter=experts.1",
        "method 1-1 linear",
    ):
        assert grammar.parse(text, MODELS)
