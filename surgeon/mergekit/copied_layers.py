"""Copied layers in a recipe of a blend method: parameters with which the method returns a donor's exact bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..recipe.schema import Slice, Source
from .facts import WEIGHTED_DELTAS
from .refusal import Refusal
from .written_parameters import with_default

Partner = Callable[[str, int], Source]
"""(donor, number of layers) -> a source of another donor with that many layers, which is listed without effect."""


def copied(source: Source, scale: Any, method: str, partner: Partner) -> Slice:
    """A slice of `method` that copies a range of one donor.

    Args:
        source: the donor and its range, without parameters.
        scale: the factor on the copy, as a setting; None without one.
        partner: finds a second donor for methods that need one.

    Raises:
        Refusal: no parameters of the method give a copy.
    """
    if method == "passthrough":
        return Slice(sources=(_with(source, {} if scale is None else {"scale": scale}),))
    scale = None if scale == 1 else scale
    if method == "linear":
        weight = 1 if scale is None else with_default(scale, 1)
        part = Slice(sources=(_with(source, {"weight": weight}),))
        return part if scale is None else part.model_copy(update={"parameters": {"normalize": False}})
    if scale is not None:
        raise Refusal(f"{method} cannot multiply a copied layer")
    length = _length(source)
    if method in ("slerp", "nearswap"):
        return Slice(sources=(source, partner(source.model, length)), base_model=source.model, parameters={"t": 0})
    if method in WEIGHTED_DELTAS:
        other = _with(partner(source.model, length), {"weight": 0, "density": 1})
        return Slice(sources=(source, other), base_model=source.model)
    raise Refusal(f"no parameters of {method} copy a layer exactly")


def _with(source: Source, parameters: Mapping[str, Any]) -> Source:
    return source.model_copy(update={"parameters": dict(parameters)}) if parameters else source


def _length(source: Source) -> int:
    assert source.layer_range is not None
    return source.layer_range[1] - source.layer_range[0]
