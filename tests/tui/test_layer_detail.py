"""What the inspector says of a layer with experts: a line for each kind of tensor, whatever the number of experts."""

from __future__ import annotations

from pathlib import Path

import pytest

from surgeon.bench.sparse_donors import SparseShape, make_sparse
from surgeon.checkpoint.layer_weights import group_name
from surgeon.plan import Plan
from surgeon.tui.rows.layer_detail import layer_detail
from surgeon.tui.rows.pane_rows import donor_rows, stack_rows
from tests.support.planning import plan_of, stack_of

BLEND = "merge_method: linear\nslices:\n- sources:\n  - {model: a, layer_range: [0, 2], parameters: {weight: 0.3}}\n"
BLEND += "  - {model: b, layer_range: [0, 2], parameters: {weight: [{filter: up_proj, value: 0.2}, {value: 0.7}]}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        make_sparse(tmp_path / name, SparseShape(2, 16, 4, 2, 4, 8, 32, experts=12))
    return tmp_path


def stack_lines(plan: Plan, index: int = 0) -> list[str]:
    row = stack_rows(plan, [" "] * len(plan.layers), False)[index + 1]
    return layer_detail(plan, None, row, "", True)[1]


def test_experts_are_on_one_line(folder: Path) -> None:
    plan = plan_of(folder, stack_of(("a", 0, 2)))
    donor = plan.donors["A"].checkpoint
    row = donor_rows(donor, "A", [1, 1])[2]
    for lines in (stack_lines(plan), layer_detail(plan, donor, row, "A", False)[1]):
        shown = [line.split() for line in lines if "experts." in line]
        assert [line[0] for line in shown] == [
            f"mlp.experts.0-11.{name}_proj.weight" for name in ("gate", "up", "down")
        ]
        assert shown[0][1:] == ["BF16", "12", "of", "8x16", "3.1", "kB"]
        assert sum("input_layernorm.weight" in line for line in lines) == 1


def test_values_and_factors_of_experts_are_said_once(folder: Path) -> None:
    lines = stack_lines(plan_of(folder, BLEND))
    assert sum("experts.0-11.up_proj" in line and "0.2" in line for line in lines) == 1
    lines = stack_lines(plan_of(folder, stack_of(("a", 0, 2), parameters="{scale: [{filter: down_proj, value: 0.5}]}")))
    assert [line for line in lines if " x " in line] == ["mlp.experts.0-11.down_proj.weight x 0.5"]


@pytest.mark.parametrize(
    ("group", "name"),
    [
        (("a.experts.0.w1", "a.experts.1.w1", "a.experts.3.w1"), "a.experts.0-1, 3.w1"),
        (("a.experts.7.w1",), "a.experts.7.w1"),
        (("norm.weight",), "norm.weight"),
    ],
)
def test_groups_are_named(group: tuple[str, ...], name: str) -> None:
    assert group_name(group) == name
