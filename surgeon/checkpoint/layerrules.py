"""How configs say what each layer is, as data: by list, index list, prefix, period, runs or letters.

`RULES` has, for each model type that says it in a way of its own, the rules in the order in which transformers heeds
them. Each can read an attribute of all layers and write it back, if it can say it at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

ATTENTION_NAMES = {
    "attention": "full",
    "mamba": "linear",
    "full_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
}
"""What a `layer_types` list says, in one word; older spellings before the ones they became."""

Text = Mapping[str, Any]
Values = Sequence[Any]


class Rule(Protocol):
    """One way to say one attribute of every layer."""

    @property
    def attribute(self) -> str:
        """`attention`, `mlp` or `rope`."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The config keys it reads."""

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        """The attribute of each layer, or None where the config does not say it in this way."""

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        """The keys that say `values`, or None where they cannot be said in this way."""


def _natural(value: Any, default: int | None) -> int | None:
    return value if type(value) is int and value >= 0 else default


@dataclass(frozen=True)
class Listed:
    """One entry per layer; `words` turns the config's entries into surgeon's."""

    attribute: str = "attention"
    keys: tuple[str, ...] = ("layer_types", "layers_block_type")
    words: Mapping[Any, Any] = field(default_factory=lambda: ATTENTION_NAMES)

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        listed = next((text[key] for key in self.keys if isinstance(text.get(key), list) and text[key]), None)
        if listed is None:
            return None
        own = [self.words.get(value, value) if isinstance(value, (str, int)) else None for value in listed[:depth]]
        return own + [None] * (depth - len(own))

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        long = {short: name for name, short in self.words.items()}
        key = next((key for key in self.keys if key in text), self.keys[0])
        return None if None in values else {key: [long.get(value, value) for value in values]}


@dataclass(frozen=True)
class Indexed:
    """The indices of the layers that are `inside`; `absent`: what a missing list means (None: nothing)."""

    attribute: str
    key: str
    inside: Any
    outside: Any
    absent: Any = None

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        listed = text.get(self.key)
        if not isinstance(listed, list):
            return None if self.absent is None else [self.absent] * depth
        return [self.inside if index in listed else self.outside for index in range(depth)]

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        return {self.key: [index for index, value in enumerate(values) if value == self.inside]}


@dataclass(frozen=True)
class Prefixed:
    """The first layers are `before`, the others `after`."""

    attribute: str
    key: str
    before: Any
    after: Any
    absent: int

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        count = _natural(text.get(self.key), self.absent) or 0
        return [self.before if index < count else self.after for index in range(depth)]

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        return {self.key: sum(value == self.before for value in values)}


@dataclass(frozen=True)
class Periodic:
    """Layers whose index is `offset` modulo a period are `inside`.

    Without an `offset_key` it is the last of each period.
    """

    attribute: str
    period_key: str
    inside: Any
    outside: Any
    period: int
    offset_key: str = ""
    offset: int = 0

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.period_key, self.offset_key) if self.offset_key else (self.period_key,)

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        period = _natural(text.get(self.period_key), self.period) or 1
        offset = _natural(text.get(self.offset_key), self.offset) if self.offset_key else period - 1
        return [self.inside if index % period == offset else self.outside for index in range(depth)]

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        places = [index for index, value in enumerate(values) if value == self.inside]
        for period in range(1, len(values) + 2):
            for offset in range(period) if self.offset_key else (period - 1,):
                if places == [index for index in range(len(values)) if index % period == offset]:
                    return {self.period_key: period} | ({self.offset_key: offset} if self.offset_key else {})
        return None


@dataclass(frozen=True)
class Repeated:
    """A list that repeats from the first layer on."""

    attribute: str
    key: str
    words: Mapping[str, str]
    absent: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        listed = text.get(self.key) or self.absent
        if not isinstance(listed, (list, tuple)):
            return None
        return [self.words.get(str(listed[index % len(listed)])) for index in range(depth)]

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        long = {short: name for name, short in self.words.items()}
        return {self.key: [long[value] for value in values]} if all(value in long for value in values) else None


@dataclass(frozen=True)
class Runs:
    """`[[[kind, ...], times], ...]`, as gpt_neo has it."""

    attribute: str
    key: str
    words: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        out: list[Any] = []
        try:
            for kinds, times in text.get(self.key) or ():
                out += [self.words.get(str(kind)) for kind in kinds] * min(int(times), depth)
        except (TypeError, ValueError):
            return None
        return (out + [None] * depth)[:depth] if out else None

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        long = {short: name for name, short in self.words.items()}
        return {self.key: [[[long[value] for value in values], 1]]} if all(value in long for value in values) else None


@dataclass(frozen=True)
class Letters:
    """A letter per layer in one string."""

    attribute: str
    key: str
    words: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        pattern = text.get(self.key)
        if not isinstance(pattern, str) or not pattern:
            return None
        return [self.words.get(pattern[index]) if index < len(pattern) else None for index in range(depth)]

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        long = {short: letter for letter, short in self.words.items()}
        return {self.key: "".join(long[value] for value in values)} if all(value in long for value in values) else None


@dataclass(frozen=True)
class Between:
    """Experts from a start to an end index, both counted, at the last layer of each interval (ernie4_5_moe)."""

    attribute: str
    start: str
    end: str
    interval: str
    absent: tuple[int, int, int] = (1, -1, 1)

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.start, self.end, self.interval)

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        first = _natural(text.get(self.start), self.absent[0]) or 0
        last = _natural(text.get(self.end), None)
        step = _natural(text.get(self.interval), self.absent[2]) or 1
        last = depth - 1 if last is None else last
        return ["experts" if (i + 1) % step == 0 and first <= i <= last else "dense" for i in range(depth)]

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        places = [index for index, value in enumerate(values) if value == "experts"]
        first, last = (places[0], places[-1]) if places else (len(values), len(values) - 1)
        for step in range(1, len(values) + 1):
            if places == [index for index in range(first, last + 1) if (index + 1) % step == 0]:
                return {self.start: first, self.end: last, self.interval: step}
        return None


@dataclass(frozen=True)
class Following:
    """The attribute follows another one."""

    attribute: str
    other: str
    words: Mapping[Any, Any]
    keys: tuple[str, ...] = ()

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        return [self.words.get(value) for value in known[self.other]] if self.other in known else None

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        return None


@dataclass(frozen=True)
class Uniform:
    """All layers are the same, whatever the config says."""

    attribute: str
    value: Any
    keys: tuple[str, ...] = ()

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        return [self.value] * depth

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        return {}


_LIST = Listed()
_DENSE = Uniform("mlp", "dense")


def _dense_first(key: str, count: int) -> Prefixed:
    return Prefixed("mlp", key, "dense", "experts", count)


def _every(key: str, inside: str, outside: str, period: int) -> Periodic:
    return Periodic("attention", key, inside, outside, period)


_QWEN_NEXT = (_LIST, _every("full_attention_interval", "full", "linear", 4))
_GRANITE_HYBRID = (_LIST, Uniform("attention", "linear"))
_LLAMA4 = (
    Listed("rope", ("no_rope_layers",), {1: True, 0: False}),
    Periodic("rope", "no_rope_layer_interval", False, True, 4),
    _LIST,
    Following("attention", "rope", {True: "chunked", False: "full"}),
    Indexed("mlp", "moe_layers", "experts", "dense"),
    Periodic("mlp", "interleave_moe_layer_step", "experts", "dense", 1),
)
_NEMOTRON_KINDS = {"M": "linear", "*": "full", "-": "mlp", "E": "moe"}

RULES: Mapping[str, tuple[Rule, ...]] = {
    "afmoe": (_LIST, _every("global_attn_every_n_layers", "full", "sliding", 4), _dense_first("num_dense_layers", 1)),
    "bamba": (Indexed("attention", "attn_layer_indices", "full", "linear", absent="linear"), _DENSE),
    "deepseek_v2": (_dense_first("first_k_dense_replace", 0),),
    "deepseek_v3": (_dense_first("first_k_dense_replace", 3),),
    "dots1": (_dense_first("first_k_dense_replace", 0),),
    "ernie4_5_moe": (Between("mlp", "moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"),),
    "glm4_moe": (_dense_first("first_k_dense_replace", 1),),
    "gpt_neo": (Runs("attention", "attention_types", {"global": "full", "local": "sliding"}), _DENSE),
    "granitemoehybrid": _GRANITE_HYBRID,
    "jamba": (
        Periodic("attention", "attn_layer_period", "full", "linear", 8, "attn_layer_offset", 4),
        Periodic("mlp", "expert_layer_period", "experts", "dense", 2, "expert_layer_offset", 1),
    ),
    "lfm2": (_LIST, Indexed("attention", "full_attn_idxs", "full", "conv", absent="full"), _DENSE),
    "lfm2_moe": (_LIST, _dense_first("num_dense_layers", 2)),
    "llama4": _LLAMA4,
    "llama4_text": _LLAMA4,
    "nemotron_h": (
        Listed(keys=("layers_block_type", "layer_types")),
        Letters("attention", "hybrid_override_pattern", _NEMOTRON_KINDS),
        Following("mlp", "attention", {"moe": "experts", "mlp": "dense", "full": "none", "linear": "none"}),
    ),
    "qwen3_next": _QWEN_NEXT,
    "qwen3_5_text": (*_QWEN_NEXT, _DENSE),
    "qwen3_5_moe_text": (*_QWEN_NEXT, Uniform("mlp", "experts")),
    "recurrent_gemma": (
        Repeated(
            "attention",
            "block_types",
            {"recurrent": "linear", "attention": "sliding"},
            ("recurrent", "recurrent", "attention"),
        ),
        _DENSE,
    ),
}
"""By model type, the first rule for an attribute that reads one counts, and the first that can say it writes."""

WINDOW_KEYS: Mapping[str, tuple[str, int]] = {
    "gpt_neo": ("window_size", 256),
    "recurrent_gemma": ("attention_window_size", 2048),
}
"""Model types whose sliding window has another name: the key, and the window when it is absent."""

VALUE_LISTS = (
    "layer_rope_theta", "num_attention_heads_per_layer", "num_key_value_heads_per_layer", "activation_sparsity_pattern",
    "intermediate_size", "moe_topk", "num_experts", "attention_window", "swiglu_limits", "swiglu_limits_shared",
    "attention_layers", "num_query_heads", "num_kv_heads", "ffn_multipliers", "block_configs",
)  # fmt: skip
"""Keys that hold, where they hold a list, a value for each layer that goes along with it."""

NEEDED: Mapping[str, tuple[str, ...]] = {"olmo_hybrid": ("linear", "full")}
"""Kinds of attention of which a model type must have at least one layer."""

FILLED: Mapping[str, tuple[str, ...]] = {
    "layer_types": tuple(
        """
        axk2 bailing_hybrid beam cohere2_moe cohere_compass cohere_compass_text cwm deepseek_v32 deepseek_v4
        diffusion_gemma diffusion_gemma_text dots1 dots3_note dots3_note_text embedding_gemma2 embedding_gemma2_text
        exaone4_5 exaone_moe flint gemma3n gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text glm5_next
        glm5_next_text glm_moe_dsa granite_swa granitemoe_swa hy_v4 inkling2 inkling2_text inkling_text kimi_linear
        kolibri1 laguna lfm3 mellum mimo_v2_flash minimax minimax_m3_vl minimax_m3_vl_text ministral
        mistral_large4 mistral_large4_text modernbert modernbert-decoder muse_glimmer muse_glimmer_text muse_spark
        muse_spark_text neomme olmo_hybrid qwen2_5_omni_text qwen2_5_vl qwen2_5_vl_text qwen2_vl qwen2_vl_text
        qwen4_exp qwen4_exp_text step3p5 step3p7 t5gemma t5gemma2 t5gemma2_text t5gemma2_decoder t5gemma2_encoder
        ultrabert unlimited_ocr unlimited_ocr_text vaultgemma zaya
        """.split()
    ),
    "mlp_layer_types": tuple(
        """
        axk1 axk2 bailing_hybrid beam cohere2_moe deepseek_v32 deepseek_v4 dots3_note dots3_note_text ernie4_5_vl_moe
        ernie4_5_vl_moe_text exaone_moe glm4_moe_lite glm5_next glm5_next_text glm_moe_dsa hy_v3 hy_v4 inkling_text
        kimi_linear laguna mellum mimo_v2_flash minimax_m3_vl minimax_m3_vl_text mistral_large4 mistral_large4_text
        muse_spark muse_spark_text step3p5 step3p7 unlimited_ocr unlimited_ocr_text
        """.split()
    ),
    "layer_rope_theta": tuple(
        "granite_swa granitemoe_swa muse_glimmer muse_glimmer_text muse_spark muse_spark_text".split()
    ),
}
"""Lists that transformers fills in for model types of which surgeon knows no rule: without them it cannot tell."""


def rules(model_type: str) -> tuple[Rule, ...]:
    """The rules of a model type, () for most."""
    return RULES.get(model_type, ())


def rule_keys(model_type: str) -> frozenset[str]:
    """Every config key that a model type's rules read and write."""
    return frozenset(key for rule in rules(model_type) for key in rule.keys)


def ruled(model_type: str, text: Text, depth: int) -> dict[str, list[Any]]:
    """The attributes that rules say, one list per attribute with an entry per layer."""
    known: dict[str, list[Any]] = {}
    for rule in rules(model_type):
        if rule.attribute not in known and (values := rule.read(text, depth, known)) is not None:
            known[rule.attribute] = values
    return known


def write_rules(model_type: str, text: dict[str, Any], wanted: Mapping[str, Values]) -> None:
    """Make `text` say `wanted` of each layer, by the first rule of each attribute that can; periods go with it."""
    for attribute in dict.fromkeys(rule.attribute for rule in rules(model_type)):
        values = list(wanted[attribute])
        mine = [rule for rule in rules(model_type) if rule.attribute == attribute]
        for number, rule in enumerate(mine):
            patch = rule.write(values, text)
            if patch is None:
                continue
            others = _keys(mine[number + 1 :]) - _keys(mine[: number + 1])
            trial = {key: value for key, value in text.items() if key not in others} | patch
            if ruled(model_type, trial, len(values)).get(attribute) == values:
                for key in others:
                    text.pop(key, None)
                text.update(patch)
                break


def _keys(group: Iterable[Rule]) -> frozenset[str]:
    return frozenset(key for rule in group for key in rule.keys)
