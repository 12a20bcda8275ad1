"""The methods' formulas on whole tensors in float64, written down as the papers (and mergekit) state them.

`blend` is what the product is compared with. It shares no code with it; only random masks come from its generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from surgeon.methods.random_masks import Lanes
from surgeon.methods.rank_masks import LANES

Tensors = Sequence[torch.Tensor]
ORACLES: dict[str, Callable[..., torch.Tensor]] = {}


def oracle(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    ORACLES[function.__name__] = function
    return function


def blend(
    name: str,
    tensors: Tensors,
    base: int | None,
    one: Mapping[str, Any],
    each: Sequence[Mapping[str, Any]],
    seeds: Sequence[int] = (),
) -> torch.Tensor:
    """The float64 result. `each` is per donor, without a base that is subtracted."""
    wide = [tensor.double() for tensor in tensors]
    origin = None if base is None else wide[base]
    others = [tensor for index, tensor in enumerate(wide) if index != base]
    arguments = {"weights": [table["weight"] for table in each]} if each and "weight" in each[0] else {}
    if name in ("passthrough", "linear", "karcher"):
        return ORACLES[name](wide, one=one, each=each, **arguments)
    if name == "slerp":
        assert base is not None
        return ORACLES[name](wide[base], wide[1 - base], one["t"])
    if name == "arcee_fusion":
        return ORACLES[name](origin, others[0], narrow=all(tensor.itemsize <= 2 for tensor in tensors))
    if name in ("nuslerp", "multislerp"):
        return ORACLES[name](origin, others, one=one, **arguments)
    drawn = [seed for index, seed in enumerate(seeds) if index != base]
    return ORACLES[name](origin, [other - origin for other in others], one=one, each=each, seeds=drawn, **arguments)  # type: ignore[operator]


def added(terms: Tensors) -> torch.Tensor:
    total = torch.zeros_like(terms[0])
    for term in terms:
        total = total + term
    return total


def norm(vector: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(vector))


@oracle
def passthrough(tensors: Tensors, *, one: Any, each: Any) -> torch.Tensor:
    return tensors[0] * each[0]["scale"]


@oracle
def linear(tensors: Tensors, *, one: Any, each: Any, weights: Sequence[float]) -> torch.Tensor:
    whole = sum(weights)
    total = added([weight * tensor for weight, tensor in zip(weights, tensors, strict=True)])
    return total / whole if one["normalize"] and abs(whole) >= 1e-8 else total


def arc(first: torch.Tensor, second: torch.Tensor, t: float, smallest: float, straight: float) -> torch.Tensor:
    """Slerp of two vectors; straight where 1 - cos^2 is at most `straight`."""
    lengths = [norm(vector) if norm(vector) > smallest else 1.0 for vector in (first, second)]
    cosine = min(1.0, max(-1.0, float((first * second).sum()) / lengths[0] / lengths[1]))
    if 1 - cosine * cosine <= straight:
        return (1 - t) * first + t * second
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * first + math.sin(t * angle) * second) / math.sin(angle)


@oracle
def slerp(first: torch.Tensor, second: torch.Tensor, t: float) -> torch.Tensor:
    return arc(first, second, t, 1e-8, 1 - 0.9995**2)


@oracle
def nuslerp(base: torch.Tensor | None, others: Tensors, *, one: Any, weights: Sequence[float]) -> torch.Tensor:
    first, second = others if base is None else (other - base for other in others)
    t = weights[1] / sum(weights) if abs(sum(weights)) >= 1e-6 else 0.5
    columns = first.shape[-1] if first.ndim and not one["nuslerp_flatten"] else first.numel()
    # With columns for vectors (`row_wise`, as mergekit names it) a tensor of one dimension still is one vector.
    turned = one["nuslerp_row_wise"] and 0 < columns < first.numel()
    a, b = (vector.reshape(-1, max(columns, 1)) for vector in (first, second))
    a, b = (a.T, b.T) if turned else (a, b)
    lines = [arc(x, y, t, 1e-7, 1e-12) for x, y in zip(a, b, strict=True)]
    found = torch.stack(lines) if lines else a
    found = (found.T if turned else found).reshape(first.shape)
    return found if base is None else base + found


@oracle
def multislerp(base: torch.Tensor | None, others: Tensors, *, one: Any, weights: Sequence[float]) -> torch.Tensor:
    vectors = [other if base is None else other - base for other in others]
    whole, eps = sum(weights), one["eps"]
    if one["normalize_weights"] and abs(whole) >= 1e-8:
        weights = [weight / whole for weight in weights]
    units = [vector / (norm(vector) + eps) if norm(vector) + eps else vector for vector in vectors]
    mean = added([weight * unit for weight, unit in zip(weights, units, strict=True)])
    if norm(mean) < max(eps, 1e-6):
        found = added([weight * vector for weight, vector in zip(weights, vectors, strict=True)])
    else:
        mean = mean / norm(mean)
        tangent = added([w * (unit - (unit * mean).sum() * mean) for w, unit in zip(weights, units, strict=True)])
        turn = norm(tangent) + eps
        length = sum(weight * norm(vector) for weight, vector in zip(weights, vectors, strict=True))
        found = (mean * math.cos(turn) + tangent * (math.sin(turn) / turn if turn else 1.0)) * length
    return found if base is None else base + found


@oracle
def karcher(tensors: Tensors, *, one: Any, each: Any) -> torch.Tensor:
    tol = one["tol"]
    valid = [tensor / norm(tensor) for tensor in tensors if norm(tensor) > tol]
    if not valid:
        return torch.zeros_like(tensors[0])
    mean = added(valid) / len(valid)
    mean = mean / norm(mean) if norm(mean) >= tol else valid[0]
    for _ in range(one["max_iter"]):
        step = torch.zeros_like(mean)
        for unit in valid:
            cosine = min(1.0, max(-1.0, float((mean * unit).sum())))
            angle = math.acos(cosine)
            if angle >= tol and math.pi - angle > 1e-7:
                step = step + angle / math.sin(angle) * (unit - cosine * mean) / len(valid)
        if norm(step) < tol:
            break
        mean = mean * math.cos(norm(step)) + step * (math.sin(norm(step)) / norm(step))
        mean = mean / norm(mean)
    return mean * (sum(map(norm, tensors)) / len(tensors))


@oracle
def model_stock(base: torch.Tensor, deltas: Tensors, *, one: Any, each: Any, seeds: Any) -> torch.Tensor:
    k = len(deltas)
    columns = base.shape[-1] if one["filter_wise"] and base.ndim else base.numel()
    out = base.reshape(-1, max(columns, 1)).clone()
    for row, *parts in zip(out, *(delta.reshape(-1, max(columns, 1)) for delta in deltas), strict=True):
        pairs = [(a, b) for index, a in enumerate(parts) for b in parts[:index]]
        cosines = [float((a * b).sum()) / max(norm(a) * norm(b), 1e-6) for a, b in pairs]
        cosine = sum(min(1.0, max(-1.0, value)) for value in cosines) / len(pairs)
        if abs(1 + (k - 1) * cosine) >= 1e-6:
            row += k * cosine / (1 + (k - 1) * cosine) * added(parts) / k
    return out.reshape(base.shape)


# Task vectors


def largest(values: torch.Tensor, k: int) -> torch.Tensor:
    """Which are the k largest magnitudes (as float32): of equal ones those of lower index."""
    order = np.argsort(-values.reshape(-1).abs().float().numpy(), kind="stable")
    mask = torch.zeros(values.numel(), dtype=torch.bool)
    mask[torch.from_numpy(order[: max(k, 0)].copy())] = True
    return mask.view(values.shape)


def top(delta: torch.Tensor, density: float) -> torch.Tensor:
    if density <= 0 or delta.numel() == 0:
        return torch.zeros_like(delta)
    return delta * largest(delta, max(1, int(density * delta.numel())))


def band(delta: torch.Tensor, density: float, gamma: float) -> torch.Tensor:
    if density >= 1:
        return delta
    n, kept = delta.numel(), int(density * delta.numel())
    bottom = max(0, n - kept - int(gamma * n))
    return delta * (largest(delta, n - bottom) & ~largest(delta, n - bottom - kept))


def chance(delta: torch.Tensor, density: float, seed: int, paper: bool) -> torch.Tensor:
    if density <= 0 or density >= 1:
        return delta * (density > 0)
    limit = min(max(round(density * LANES), 1), LANES - 1)
    stays = Lanes(seed).read(0, delta.numel()) < limit
    return delta * torch.from_numpy(stays).view(delta.shape) * (LANES / limit if paper else 1)


def ranked(delta: torch.Tensor, density: float, epsilon: float, seed: int, paper: bool) -> torch.Tensor:
    if density <= 0 or density >= 1:
        return delta * (density > 0)
    n = max(1, delta.shape[-1]) if delta.ndim else 1
    lanes = Lanes(seed).read(0, delta.numel()).reshape(-1, n)
    out = delta.reshape(-1, n).clone()

    def limit(rank: int) -> int:
        share = rank / (n - 1) if n > 1 else 0.5
        return min(max(round((density - epsilon + 2 * epsilon * share) * LANES), 1), LANES - 1)

    halfway = [(limit(rank) + limit(rank + 1) + 1) // 2 for rank in range(n - 1)]
    for row, drawn in zip(out, lanes, strict=True):
        sizes = row.abs().float().nan_to_num(nan=float("inf"), posinf=float("inf"))
        for place, lane in enumerate(drawn.tolist()):
            lowest = int((sizes < sizes[place]).sum())
            highest = lowest + int((sizes == sizes[place]).sum()) - 1
            nearest = sum(cut <= lane for cut in halfway)
            stays = nearest < lowest or (nearest <= highest and lane < limit(nearest))
            row[place] *= stays * (2 * LANES / (limit(lowest) + limit(highest)) if paper else 1)
    return out.view(delta.shape)


def combined(
    base: torch.Tensor, deltas: Tensors, masked: Tensors, one: Any, weights: Sequence[float], elect: bool
) -> torch.Tensor:
    if one["rescale"] == "l1":
        sums = [(float(d.abs().sum()), float(m.abs().sum())) for d, m in zip(deltas, masked, strict=True)]
        masked = [m * (a / b) if min(a, b) >= 1e-7 else m for m, (a, b) in zip(masked, sums, strict=True)]
    terms = [delta * weight for delta, weight in zip(masked, weights, strict=True)]
    if elect:
        majority = torch.where(added(terms) >= 0, 1.0, -1.0)
        agree = [(term.sign() == majority).double() for term in terms]
        total = added([term * mask for term, mask in zip(terms, agree, strict=True)])
        divisor = added([mask * weight for mask, weight in zip(agree, weights, strict=True)])
        divisor = torch.where(divisor.abs() < 1e-8, 1.0, divisor)
    else:
        total = added(terms)
        divisor = torch.tensor(sum(weights) if abs(sum(weights)) >= 1e-8 else 1.0)
    return base + one["lambda"] * (total / divisor if one["normalize"] else total)


def family(elect: bool, mask: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(base: torch.Tensor, deltas: Tensors, *, one: Any, each: Any, weights: Any, seeds: Any) -> torch.Tensor:
        rows = zip(deltas, each, seeds or [0] * len(deltas), strict=True)
        masked = [mask(delta, table, seed, one["rescale"] == "paper") for delta, table, seed in rows]
        return combined(base, deltas, masked, one, weights, elect)

    return run


ORACLES["task_arithmetic"] = family(False, lambda d, table, seed, paper: d)
for _suffix, _elect in (("", True), ("_linear", False)):
    ORACLES[f"della{_suffix}"] = family(
        _elect, lambda d, table, seed, paper: ranked(d, table["density"], table["epsilon"], seed, paper)
    )
for _suffix, _elect in (("_ties", True), ("_linear", False)):
    ORACLES[f"dare{_suffix}"] = family(_elect, lambda d, table, seed, paper: chance(d, table["density"], seed, paper))
ORACLES["ties"] = family(True, lambda d, table, seed, paper: top(d, table["density"]))
for _suffix, _elect in (("_ties", True), ("", False)):
    ORACLES[f"breadcrumbs{_suffix}"] = family(
        _elect, lambda d, table, seed, paper: band(d, table["density"], table["gamma"])
    )


@oracle
def sce(base: torch.Tensor, deltas: Tensors, *, one: Any, each: Any, seeds: Any) -> torch.Tensor:
    if one["select_topk"] < 1:
        single = [delta.float() for delta in deltas]
        if len(single) == 2:
            variance = ((single[0] - single[1]) / 2) ** 2
        else:
            mean = added(single) / len(single)
            variance = torch.zeros_like(mean)
            for delta in single:
                variance = torch.addcmul(variance, delta - mean, delta - mean)
            variance = variance / len(single)
        taken = largest(variance, int(one["select_topk"] * int((variance != 0).sum())))
        deltas = [delta * taken for delta in deltas]
    majority = torch.where(added(deltas) >= 0, 1.0, -1.0)
    agree = [(delta.sign() == majority).double() for delta in deltas]
    squares = [float((delta * delta).sum()) / max(delta.numel(), 1) for delta in deltas]
    whole = sum(squares)
    weights = [square / whole if whole >= 1e-6 else 1 / len(deltas) for square in squares]
    total = added([d * mask * weight for d, mask, weight in zip(deltas, agree, weights, strict=True)])
    divisor = added([mask * weight for mask, weight in zip(agree, weights, strict=True)])
    return base + total / divisor.clamp(min=1e-6)


@oracle
def arcee_fusion(base: torch.Tensor, donor: torch.Tensor, *, narrow: bool) -> torch.Tensor:
    if base.numel() == 0:
        return base
    dtype = torch.float64 if narrow else torch.float32
    old, new = (tensor.reshape(-1, base.shape[-1] if base.ndim else 1).to(dtype) for tensor in (base, donor))
    p, q = torch.softmax(new, -1) + 1e-8, torch.softmax(old, -1) + 1e-8
    divergence = (p * (p / q).log()).sum(-1, keepdim=True).clamp(min=0)
    importance = ((new - old).abs() * divergence).float().view(base.shape)
    order = importance.reshape(-1).sort().values
    low, middle, high = (order[int(share * (len(order) - 1))] for share in (0.25, 0.5, 0.75))
    return torch.where(importance >= middle + 1.5 * (high - low), donor, base)


@oracle
def nearswap(base: torch.Tensor, deltas: Tensors, *, one: Any, each: Any, seeds: Any) -> torch.Tensor:
    share = (one["t"] / deltas[0].abs().clamp(min=1e-6)).clamp(0, 1)
    return share * (base + deltas[0]) + (1 - share) * base


def reinforced(base: torch.Tensor, deltas: Tensors, epsilon: float, r: float, alpha: float) -> torch.Tensor:
    active = [delta.abs() > epsilon for delta in deltas]
    count = added([mask.double() for mask in active])
    out = base
    for delta, mask in zip(deltas, active, strict=True):
        alone, shared = int((mask & (count == 1)).sum()), int((mask & (count > 1)).sum())
        factor = 1 + r * min(max(shared / max(alone, epsilon or 1e-300), 0.0), alpha)
        out = out + delta * (mask & (count == 1)) * factor + delta * (mask & (count > 1)) / count.clamp(min=1)
    return out


@oracle
def ram(base: torch.Tensor, deltas: Tensors, *, one: Any, each: Any, seeds: Any) -> torch.Tensor:
    return reinforced(base, deltas, one["epsilon"], 0.0, 0.0)


@oracle
def ramplus_tl(base: torch.Tensor, deltas: Tensors, *, one: Any, each: Any, seeds: Any) -> torch.Tensor:
    return reinforced(base, deltas, one["epsilon"], one["r"], one["alpha"])
