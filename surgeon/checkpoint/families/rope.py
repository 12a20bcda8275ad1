"""Rotary settings in a uniform form, so that two configs with the same meaning compare equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .naming import Family

KINDS = ("full_attention", "sliding_attention")
_LOCAL_THETA = 10_000.0
_EXTENDED = {"llama3", "yarn", "longrope"}


def resolved_rope(text: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The rope of a text config as transformers resolves it, without defaults (type `default`, all of a head rotated).

    Older configs have the keys `rope_theta`, `rope_scaling` and `partial_rotary_factor`. Newer ones have all of them in
    `rope_parameters`, with a table per kind of attention if the kinds differ.
    """
    if family.rope == "none" or text.get("alibi") is True:
        return {}
    given = next((value for key in ("rope_scaling", "rope_parameters") if isinstance(value := text.get(key), dict)), {})
    nested = [key for key in given if isinstance(given[key], dict)]
    if family.rope == "kinds":
        scaling = given if not nested else {}
        theta = _first(text, "rope_theta") or family.theta
        local = _first(text, "rope_local_base_freq") or (_LOCAL_THETA if family.period_key else family.theta)
        full, sliding = (given[kind] if kind in nested else {} for kind in KINDS)
        return {
            KINDS[0]: _one({**scaling, **full}, text, family, theta),
            KINDS[1]: _one(sliding, text, family, local),
        }
    theta = _first(text, "rope_theta", "rotary_emb_base") or family.theta
    if nested:
        return {key: _one(given[key], text, family, theta) for key in nested}
    return _one(given, text, family, theta)


def _first(text: Mapping[str, Any], *names: str) -> Any:
    return next((text[name] for name in names if text.get(name) is not None), None)


def _one(given: Mapping[str, Any], text: Mapping[str, Any], family: Family, theta: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"theta": theta}
    for key, value in given.items():
        if value is not None:
            out[{"rope_theta": "theta", "rope_type": "type"}.get(key, key)] = value
    if out.get("type") == "default":
        del out["type"]
    rotated = _first(text, "partial_rotary_factor", "rotary_pct")
    out.setdefault("partial_rotary_factor", family.rotated if rotated is None else rotated)
    if out["partial_rotary_factor"] == 1.0:
        del out["partial_rotary_factor"]
    if out.get("type") in _EXTENDED:
        trained = _first(text, "original_max_position_embeddings")
        if trained is not None:
            out["original_max_position_embeddings"] = trained
        elif context := _first(text, "max_position_embeddings"):
            out.setdefault("original_max_position_embeddings", context)
    return {key: value for key, value in out.items() if value is not None}
