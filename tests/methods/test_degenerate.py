"""Results that are defined where the formula is not: no length, no direction, no weight, nothing kept, no elements."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from surgeon.methods.catalogue import every, find
from surgeon.methods.formulas import arcee_fusion
from tests.support.memory_inputs import blended, made

A = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.25, -1.0]])
B = torch.tensor([[0.5, 1.0, -0.75], [-2.0, 0.125, 4.0]])
ZERO = torch.zeros_like(A)
METHODS = sorted(every())


def merged(name: str, *tensors: torch.Tensor, base: int | None = None, weights: Any = None, **one: Any) -> torch.Tensor:
    method = find(name)
    assert method is not None
    own = {key: one.pop(key) for key in list(one) if method.parameters[key.rstrip("_")].each}
    count = len(tensors) - (method.subtracts and base is not None)
    each = [dict(own) for _ in range(count)]
    if "weight" in method.parameters:
        for table, weight in zip(each, weights or [1.0] * count, strict=True):
            table["weight"] = weight
    return blended(name, tensors, base, {key.rstrip("_"): value for key, value in one.items()}, each)


def arguments(name: str, count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    method = find(name)
    assert method is not None
    one = {"t": 0.3} if "t" in method.parameters else {}
    density = {"density": 0.5} if "density" in method.parameters else {}
    weight = {"weight": 0.5} if "weight" in method.parameters else {}
    return one, [{**weight, **density} for _ in range(count)]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 4), (4, 0), (1, 1)])
def test_tensors_of_one_element_and_of_none(name: str, shape: tuple[int, ...]) -> None:
    method = find(name)
    assert method is not None
    count = (method.donors[1] or 3) + (method.base == "required")
    tensors = [torch.full(shape, 1.0 + index) for index in range(count)]
    base = 0 if method.base in ("start", "required") else None
    one, each = arguments(name, count - (method.base == "required"))
    found = blended(name, tensors, base, one, each)
    assert found.shape == shape
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [0.0, 1.5])
def test_donors_that_all_are_one_tensor_give_it(name: str, value: float) -> None:
    method = find(name)
    assert method is not None
    count = (method.donors[1] or 3) + (method.base == "required")
    tensors = [torch.full((3, 5), value)] * count
    base = 0 if method.base in ("start", "required") else None
    one, each = arguments(name, count - (method.base == "required"))
    torch.testing.assert_close(blended(name, tensors, base, one, each), tensors[0])


def test_weights_that_sum_to_zero_are_not_normalised() -> None:
    torch.testing.assert_close(merged("linear", A, B, weights=[1, -1]), A - B)
    torch.testing.assert_close(merged("task_arithmetic", A, B, ZERO, base=2, weights=[1, -1], normalize=True), A - B)
    torch.testing.assert_close(merged("dare_linear", A, B, ZERO, base=2, weights=[1, -1], normalize=True), A - B)
    torch.testing.assert_close(merged("breadcrumbs", A, B, ZERO, base=2, weights=[1, -1], normalize=True), A - B)
    assert torch.isfinite(merged("multislerp", A, B, weights=[1, -1])).all()
    torch.testing.assert_close(
        merged("nuslerp", A, B, weights=[1, -1]), merged("nuslerp", A, B, weights=[1, 1]), msg="the middle"
    )


def test_agreeing_weights_that_sum_to_zero_do_not_divide() -> None:
    # A votes with weight 0.7, its opposite with weights of -0.3 and -0.4: all three agree, and weigh nothing together.
    found = merged("ties", A, -A, -A, ZERO, base=3, weights=[0.7, -0.3, -0.4])
    torch.testing.assert_close(found, 1.4 * A)


@pytest.mark.parametrize("name", ["ties", "dare_ties", "della", "breadcrumbs_ties"])
def test_weights_of_zero_leave_the_base(name: str) -> None:
    assert torch.equal(merged(name, A, B, base=0, weights=[0.0]), A)
    assert torch.equal(merged(name, A, B, B, base=0, weights=[0.0, 0.0], normalize=True), A)


@pytest.mark.parametrize(
    "name", ["ties", "dare_ties", "dare_linear", "della", "della_linear", "breadcrumbs", "breadcrumbs_ties"]
)
def test_density_0_keeps_nothing_and_density_1_everything(name: str) -> None:
    assert torch.equal(merged(name, A, B, base=0, density=0.0), A)
    torch.testing.assert_close(merged(name, A, B, base=0, density=1.0), B)


def test_a_density_that_is_less_than_an_element_keeps_one_of_ties_and_none_of_breadcrumbs() -> None:
    found = merged("ties", ZERO, B, base=0, density=0.001)
    assert torch.equal(found, torch.where(B == 4, B, ZERO))
    assert torch.equal(merged("breadcrumbs", ZERO, B, base=0, density=0.1, gamma=0.0), ZERO)


def test_breadcrumbs_keeps_its_density_where_gamma_would_take_more_than_there_is() -> None:
    found = merged("breadcrumbs", ZERO, B, base=0, density=0.5, gamma=0.9)
    kept = B.abs().reshape(-1).sort().values[:3]
    assert torch.equal(found.abs().reshape(-1)[found.reshape(-1) != 0].sort().values, kept)


def test_slerp_of_what_has_no_direction() -> None:
    quarter = math.pi / 4
    torch.testing.assert_close(merged("slerp", A, ZERO, base=0, t=0.5), A * math.sin(quarter))
    torch.testing.assert_close(merged("slerp", A, -A, base=0, t=0.25), A * 0.5, msg="straight through the middle")
    torch.testing.assert_close(merged("slerp", A, 2 * A, base=0, t=0.5), A * 1.5)


def test_nuslerp_of_what_has_no_direction() -> None:
    torch.testing.assert_close(merged("nuslerp", A, -A, weights=[3, 1]), A * 0.5)
    torch.testing.assert_close(merged("nuslerp", A, A, A, base=2), A)
    rows = merged("nuslerp", A, torch.stack([ZERO[0], A[1]]), nuslerp_flatten=False)
    assert torch.isfinite(rows).all()
    torch.testing.assert_close(rows[1], A[1])


def test_multislerp_of_what_has_no_direction() -> None:
    torch.testing.assert_close(merged("multislerp", A, A, A, A, base=3), A)
    torch.testing.assert_close(merged("multislerp", A, -A), ZERO)
    torch.testing.assert_close(merged("multislerp", A, -A, B, -B), ZERO)
    torch.testing.assert_close(merged("multislerp", ZERO, ZERO, eps=0), ZERO)
    torch.testing.assert_close(merged("multislerp", A, ZERO, eps=0).norm(), A.norm() / 2)


def test_karcher_of_what_has_no_direction() -> None:
    assert torch.equal(merged("karcher", ZERO, ZERO, ZERO), ZERO)
    torch.testing.assert_close(merged("karcher", A, ZERO), A / 2)
    torch.testing.assert_close(merged("karcher", A, -A), A, msg="the first: there is no mean")
    torch.testing.assert_close(merged("karcher", A, B), merged("slerp", A / A.norm(), B / B.norm(), base=0, t=0.5)
                               * (A.norm() + B.norm()) / 2)  # fmt: skip


def test_model_stock_of_what_has_no_direction() -> None:
    assert torch.equal(merged("model_stock", A, A, A, base=0), A)
    assert torch.equal(merged("model_stock", ZERO, A, -A, base=0), ZERO)
    torch.testing.assert_close(merged("model_stock", ZERO, A, A, base=0), A)
    half = torch.tensor([[1.0, 0.0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]])  # cosines of -1/2: t is infinite
    assert torch.equal(merged("model_stock", torch.zeros(2), *half, base=0), torch.zeros(2))


def test_sce_where_donors_do_not_differ() -> None:
    assert torch.equal(merged("sce", A, B, B, base=0, select_topk=0.5), A)
    torch.testing.assert_close(merged("sce", A, B, B, base=0), B)
    assert torch.equal(merged("sce", A, B, A, base=0, select_topk=0.0), A)
    assert torch.equal(merged("sce", A, B, base=0, select_topk=0.5), A)


@pytest.mark.parametrize("method", ["task_arithmetic", "dare_linear", "breadcrumbs", "ties"])
@pytest.mark.parametrize("weight", [-1.0, -0.5, 1.0])
def test_a_donor_counts_whatever_its_weight_but_zero(method: str, weight: float) -> None:
    one: dict[str, Any] = {
        "normalize": False,
        "weights": [weight, 0.0],
        **({"gamma": 0.0} if method == "breadcrumbs" else {}),
    }
    torch.testing.assert_close(merged(method, A, B, ZERO, base=0, **one), A + weight * (B - A))


@pytest.mark.parametrize(
    "method", ["ties", "breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties", "della", "della_linear"]
)
def test_a_donor_that_is_taken_away_is_masked_as_one_that_is_added(method: str) -> None:
    donors = [torch.randn(16, 32, generator=torch.Generator().manual_seed(seed)).double() for seed in (1, 2)]
    one = {"normalize": False}
    gamma = {"gamma": 0.1} if "breadcrumbs" in method else {}
    less, more = (blended(method, donors, 0, one, [{"weight": w, "density": 0.4, **gamma}]) for w in (-1.0, 1.0))
    assert 0.2 < (more != donors[0]).double().mean() < 0.6
    torch.testing.assert_close(less - donors[0], donors[0] - more)


def test_della_takes_a_density_of_none_or_all_with_any_epsilon() -> None:
    for density in (0.0, 1.0):
        found = blended("della", [A, B], 0, {"rescale": "none"}, [{"weight": 1.0, "density": density, "epsilon": 0.2}])
        torch.testing.assert_close(found, B if density else A)
    for density in (0.2, 0.8, 0.1, 0.9):
        with pytest.raises(ValueError, match="give an epsilon below"):
            blended("della", [A, B], 0, {}, [{"weight": 1.0, "density": density, "epsilon": 0.2}])


def test_rows_longer_than_what_arcee_fusion_computes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [torch.randn(6, 50, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    expected = merged("arcee_fusion", *tensors, base=0)
    for count in (1, 49, 101):
        monkeypatch.setattr(arcee_fusion, "TOGETHER", count)
        assert torch.equal(merged("arcee_fusion", *tensors, base=0), expected)


def test_arcee_fusion_takes_the_donor_where_nothing_stands_out() -> None:
    torch.testing.assert_close(merged("arcee_fusion", torch.zeros(4, 1), torch.ones(4, 1), base=0), torch.ones(4, 1))


def test_sce_counts_donors_by_their_squares_unless_these_are_next_to_nothing() -> None:
    base = torch.zeros(2, dtype=torch.float64)
    for size, shares in ((0.01, (0.2, 0.8)), (1e-4, (0.5, 0.5))):
        one, other = torch.tensor([1.0, 1.0]).double() * size, torch.tensor([2.0, 2.0]).double() * size
        torch.testing.assert_close(merged("sce", base, one, other, base=0), one * shares[0] + other * shares[1])


def test_nearswap_takes_what_is_close() -> None:
    close = torch.tensor([1e-4, -1e-4, 3e-4, -0.5])
    found = merged("nearswap", torch.zeros(4), close, base=0, t=2e-4)
    torch.testing.assert_close(found, torch.tensor([1e-4, -1e-4, 2e-4, -2e-4]))
    # Differences below 1e-6 count as this.
    torch.testing.assert_close(
        merged("nearswap", torch.zeros(1), torch.tensor([5e-7]), base=0, t=1e-7), torch.tensor([5e-8])
    )


def test_nearswap_does_not_move_for_t_of_0_or_less() -> None:
    for t in (0.0, -1.0):
        assert torch.equal(merged("nearswap", A, B, base=0, t=t), A)
    torch.testing.assert_close(merged("nearswap", A, B, base=0, t=100.0), B)


def test_zero_agrees_with_nothing() -> None:
    base = torch.zeros(3)
    one, other = torch.tensor([0.0, 2.0, 0.0]), torch.tensor([-4.0, 0.0, 0.0])
    assert torch.equal(merged("ties", base, one, other, base=0), torch.tensor([-4.0, 2.0, 0.0]))


def test_a_sum_of_zero_is_positive() -> None:
    one, other = torch.tensor([3.0, -1.0]), torch.tensor([-3.0, 1.0])
    assert torch.equal(merged("ties", torch.zeros(2), one, other, base=0), torch.tensor([3.0, 1.0]))
    # It is weighted differences that are added up.
    found = merged("ties", torch.zeros(2), one, other, base=0, weights=[-1, -1])
    assert torch.equal(found, torch.tensor([-3.0, -1.0]))


@pytest.mark.parametrize("name", ["della", "della_linear"])
@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.15), (0.15, 0.15), (0.9, 0.15), (0.5, 0.6)])
def test_probabilities_outside_0_and_1_are_said_when_the_kernel_is_made(
    name: str, density: float, epsilon: float
) -> None:
    with pytest.raises(ValueError, match=f"density {density:g} with epsilon {epsilon:g} gives .* epsilon below"):
        made(name, {}, [{"weight": 1.0, "density": density, "epsilon": epsilon}])
    made(name, {}, [{"weight": 1.0, "density": round(density), "epsilon": epsilon}])
