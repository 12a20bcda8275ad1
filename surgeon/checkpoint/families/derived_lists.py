"""The per-layer lists that transformers derives for a config that omits them, for model types with special defaults.

Source: transformers 5.23. A test compares the results at several depths and with the keys that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .layer_rules import ATTENTION_NAMES, Formed, Indexed, Listed, Prefixed, Rule, Sparse, Text, Values, natural

Kind = Callable[[Text, int, int], Any]
"""(text config, layer index, depth) -> the attribute of the layer."""

LIST = Listed()
MLP_LIST = Listed("mlp", ("mlp_layer_types",), {"dense": "dense", "sparse": "experts"})
_INDEXED = "indexed_attention"
_INDEXED_LIST = Listed(words={**ATTENTION_NAMES, "full_attention": _INDEXED, _INDEXED: _INDEXED})
"""For checkpoints that write `full_attention` for layers whose attention has an indexer."""


def _attention(kind: Kind, *keys: str, listed: Rule = LIST) -> tuple[Rule, ...]:
    return (listed, Formed("attention", kind, keys))


def _mlp(kind: Kind, *keys: str) -> tuple[Rule, ...]:
    return (MLP_LIST, Formed("mlp", kind, keys))


def dense_first(count: int, key: str = "first_k_dense_replace") -> tuple[Rule, ...]:
    """Rules for a list of MLP kinds, or, if it is absent, the number of leading dense layers."""
    return (MLP_LIST, Prefixed("mlp", key, "dense", "experts", count))


def _all(kind: str) -> Kind:
    return lambda text, index, depth: kind


def _full(where: Callable[[int, int], bool], outside: str = "sliding") -> Kind:
    return lambda text, index, depth: "full" if where(index, depth) else outside


def _upper(window: int | None, first: int, *, switch: bool = False) -> Kind:
    """Layers slide from `max_window_layers` on, if a window is set and, with `switch`, `use_sliding_window` is true."""

    def kind(text: Text, index: int, depth: int) -> str:
        windowed = text.get("sliding_window", window) is not None and (
            not switch or bool(text.get("use_sliding_window"))
        )
        boundary = natural(text.get("max_window_layers"), first) or 0
        return "sliding" if windowed and index >= boundary else "full"

    return kind


def _by_period(key: str, period: int, inside: str, outside: str) -> Kind:
    return lambda text, index, depth: inside if (index + 1) % (natural(text.get(key), period) or 1) == 0 else outside


def _moe_by_frequency(text: Text, index: int, depth: int) -> str:
    """`first_k_dense_replace` dense layers, then experts by `moe_layer_freq`: a period, or a list of flags."""
    frequency = text.get("moe_layer_freq")
    if isinstance(frequency, list):
        sparse = index < len(frequency) and bool(frequency[index])
    else:
        sparse = index % (natural(frequency, 1) or 1) == 0
    return "experts" if sparse and index >= (natural(text.get("first_k_dense_replace"), 1) or 0) else "dense"


@dataclass(frozen=True)
class _Kimi:
    """A list, or else indices from 1 in a nested table. Writing updates the table too, as other programs read it."""

    attribute: str = "attention"
    keys: tuple[str, ...] = ("layer_types",)

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        listed = LIST.read(text, depth, known)
        table = _kimi_table(text)
        if listed is not None or table is None:
            return listed
        kinds = {index: word for word, key in _KIMI_KEYS.items() for index in table[key] if type(index) is int}
        return [kinds.get(index + 1) for index in range(depth)]

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        patch = LIST.write(values, text)
        table = _kimi_table(text)
        if patch is None or table is None:
            return patch
        places = {key: [i + 1 for i, value in enumerate(values) if value == word] for word, key in _KIMI_KEYS.items()}
        return {**patch, "linear_attn_config": {**table, **places}}


_KIMI_KEYS = {"full": "full_attn_layers", "linear": "kda_layers"}


def _kimi_table(text: Text) -> Mapping[str, Any] | None:
    table = text.get("linear_attn_config")
    whole = isinstance(table, dict) and all(isinstance(table.get(key), list) for key in _KIMI_KEYS.values())
    return table if whole else None


def _dots3(text: Text, index: int, depth: int) -> str | None:
    """Old configs write `full_attention` for layers with an indexer, and `use_dsa: false` if layers have none."""
    listed = text.get("layer_types")
    indexed = text.get("use_dsa", None if "per_layer_config" in text else True)
    if isinstance(listed, list):
        kind = str(listed[index]) if index < len(listed) else ""
        renamed = {("full_attention", True): _INDEXED, (_INDEXED, False): "full_attention"}
        kind = kind if indexed is None else renamed.get((kind, bool(indexed)), kind)
        return ATTENTION_NAMES.get(kind, kind) or None
    if not text.get("use_sliding_window", True) or index < 2 or index % 4 == 1:
        return "full" if indexed is False else _INDEXED
    return "sliding"


def _cohere2_moe(text: Text, index: int, depth: int) -> str:
    """The dense layers have their own pattern; the pattern of the others starts after them."""
    dense = min(natural(text.get("first_k_dense_replace"), 0) or 0, depth)
    if index < dense:
        period = natural(text.get("prefix_dense_sliding_window_pattern"), 1)
    else:
        period, index = natural(text.get("sliding_window_pattern"), 4), index - dense
    return "full" if (index + 1) % (period or 1) == 0 else "sliding"


def _glm_indexers(text: Text, depth: int) -> list[str]:
    pattern = text.get("index_topk_pattern")
    if isinstance(pattern, (str, list)):
        return [{"F": "full", "S": "shared"}.get(str(kind), str(kind)) for kind in pattern]
    period = natural(text.get("index_topk_freq"), 1) or 1
    skipped = natural(text.get("index_skip_topk_offset"), 2) or 0
    return ["shared" if max(index - skipped + 1, 0) % period else "full" for index in range(depth)]


FILLED_VALUES: Mapping[tuple[str, str], tuple[Callable[[Text, int], list[Any]], tuple[str, ...]]] = {
    ("glm_moe_dsa", "indexer_types"): (
        _glm_indexers,
        ("index_topk_pattern", "index_topk_freq", "index_skip_topk_offset"),
    ),
    ("hy_v4", "indexer_types"): (
        lambda text, depth: ["shared" if index and (index - 1) % 4 else "full" for index in range(depth)],
        (),
    ),
}
"""(model type, key) -> the value of another per-layer list if it is absent, and the keys it is derived from."""


_INKLING = _by_period("", 6, "hybrid", "hybrid_sliding")
_ONE_DENSE = _mlp(lambda text, index, depth: "experts" if index else "dense")
_EVERY_INDEXED = _attention(_all(_INDEXED))
_EVERY_FOURTH = _attention(_full(lambda index, depth: index % 4 == 0))

_TEXT: Mapping[str, tuple[Rule, ...]] = {
    "axk1": _mlp(_moe_by_frequency, "first_k_dense_replace", "moe_layer_freq"),
    "axk2": (*_EVERY_INDEXED, *_mlp(_moe_by_frequency, "first_k_dense_replace", "moe_layer_freq")),
    "cohere2_moe": (
        *_attention(_cohere2_moe, "prefix_dense_sliding_window_pattern", "sliding_window_pattern"),
        *dense_first(0),
    ),
    "cohere_compass_text": _attention(_all("full")),
    "cwm": _EVERY_FOURTH,
    "deepseek_v32": (*_EVERY_INDEXED, *dense_first(3)),
    "dots3_note_text": (
        Formed("attention", _dots3, ("layer_types", "use_dsa", "use_sliding_window")),
        *_mlp(_moe_by_frequency, "first_k_dense_replace", "moe_layer_freq"),
    ),
    "dots1": (
        *_attention(_upper(4096, 62), "max_window_layers"),
        Prefixed("mlp", "first_k_dense_replace", "dense", "experts", 0),
    ),
    "exaone_moe": (
        *_attention(_by_period("sliding_window_pattern", 4, "full", "sliding"), "sliding_window_pattern"),
        *dense_first(1),
    ),
    "glm_moe_dsa": (*_EVERY_INDEXED, *dense_first(3)),
    "hy_v4": (*_EVERY_INDEXED, *_ONE_DENSE),
    "flint": (
        *_attention(_full(lambda index, depth: index < 2 or index % 4 == 1 or index == depth - 1)),
        Sparse("mlp", dense=(0, 1), experts=256),
    ),
    "glm4_moe_lite": _ONE_DENSE,
    "hy_v3": _ONE_DENSE,
    "inkling2_text": _attention(_INKLING),
    "inkling_text": (
        LIST,
        Indexed("attention", "local_layer_ids", "hybrid_sliding", "hybrid"),
        Formed("attention", _INKLING),
        *dense_first(0, "dense_mlp_idx"),
    ),
    "kimi_linear": (
        *_attention(_full(lambda index, depth: index > 0 and index % 4 == 0, "linear"), listed=_Kimi()),
        *dense_first(1),
    ),
    "kolibri1": _attention(_by_period("", 5, "full", "sliding")),
    "laguna": (*_attention(_all("full")), *_ONE_DENSE),
    "lfm3": _attention(
        lambda text, index, depth: (
            "full" if index % 4 == 2 else "sliding" if index % 4 == 0 and index > 0 else "conv"
        )
    ),
    "mellum": (*_attention(_all("full")), *_mlp(_all("experts"))),
    "mimo_v2_flash": (
        *_attention(_full(lambda index, depth: index == 0 or (index + 1) % 6 == 0)),
        *_ONE_DENSE,
    ),
    "minimax": _attention(_full(lambda index, depth: (index + 1) % 2 == 1, "linear")),
    "ministral": _attention(
        lambda text, index, depth: "sliding" if text.get("sliding_window", 4096) is not None else "full"
    ),
    "modernbert-decoder": _attention(
        lambda text, index, depth: (
            "sliding" if index % (natural(text.get("global_attn_every_n_layers"), 3) or 1) else "full"
        ),
        "global_attn_every_n_layers",
    ),
    "olmo_hybrid": _attention(
        _full(lambda index, depth: index % 4 == 3 or (depth < 4 and index == depth - 1), "linear")
    ),
    "qwen4_exp_text": _attention(
        _by_period("full_attention_interval", 4, _INDEXED, "linear"), "full_attention_interval", listed=_INDEXED_LIST
    ),
    "vaultgemma": _attention(_by_period("", 2, "full", "sliding")),
    "zaya": _attention(_all("hybrid")),
}  # fmt: skip

_SWITCHED = _attention(_upper(4096, 80, switch=True), "max_window_layers")

FILLED_RULES: Mapping[str, tuple[Rule, ...]] = {
    **_TEXT,
    **dict.fromkeys(("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"), _SWITCHED),
    **{outer: _TEXT[f"{outer}_text"] for outer in ("cohere_compass", "dots3_note", "inkling2", "qwen4_exp")},
}
"""Model type -> rules as in `type_rules`; a nested text model may omit its type."""
