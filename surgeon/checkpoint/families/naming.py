"""Facts about model families, as data: tensor names, and defaults of config keys.

A `Naming` maps tensor names to layers and to the ends of the network. A `Family` holds the values that transformers
uses for keys that a config of a `model_type` omits (source: transformers 5.23; a test compares them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from .layouts import LAYOUTS, Layout

Role = Literal["layer", "embeddings", "final_norm", "lm_head", "other"]
END_ROLES: tuple[Role, ...] = ("embeddings", "final_norm", "lm_head")

TOKEN_EMBEDDINGS = (
    "embed_tokens.",
    "embed_in.",
    "wte.",
    "word_embeddings.",
    "embeddings.weight",
    "embeddings.word_embeddings.",
    "embeddings.tok_embeddings.",
    "word_embedding.",
    "embedding.",
    "tokens_embed.",
    "w.",
    "shared.",
    "embed.",
    "input_embedding.",
    "local_encoder.embed_tokens.",
)
"""Prefixes of the table with one row per token (other embeddings are positions, projections and norms)."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a tensor: its role, the layer index (-1 outside the layers), and its name within that place."""

    role: Role
    index: int
    suffix: str


@dataclass(frozen=True)
class Naming:
    """A layout with one base. It maps a tensor's name to its place, and a place to its name."""

    layout: Layout
    base: str

    @cached_property
    def prefix(self) -> str:
        """The prefix of every layer tensor's name, for instance `model.layers.`."""
        return self.base + self.layout.layers

    @cached_property
    def _head_base(self) -> str:
        if self.layout.head_inside:
            return self.base
        return self.base.removesuffix("model.") if self.base in {"language_model.model.", "text_model.model."} else ""

    def place(self, name: str) -> Place:
        """The place of a tensor; its role is `other` if this layout does not know the name."""
        if name.startswith(self.base):
            suffix = name[len(self.base) :]
            if suffix.startswith(self.layout.embeddings):
                return Place("embeddings", -1, suffix)
            if place := self._in_a_layer(suffix):
                return place
            if suffix.startswith(self.layout.final_norm):
                return Place("final_norm", -1, suffix)
        if name.startswith(self.layout.after):
            return Place("final_norm", -1, name)
        if name.startswith(self._head_base):
            suffix = name[len(self._head_base) :]
            if suffix.startswith(self.layout.lm_head):
                return Place("lm_head", -1, suffix)
        return Place("other", -1, name)

    def _in_a_layer(self, name: str) -> Place | None:
        """The place of a name without the base; None if it does not belong to a layer."""
        layout = self.layout
        if name.startswith(layout.layers):
            number, dot, suffix = name[len(layout.layers) :].partition(".")
            # Two tensors must not share a place: a suffix with such a prefix is not a layer tensor.
            taken = suffix.startswith(tuple(before[:-1] for before, _ in layout.extra_prefixes))
            return Place("layer", int(number), suffix) if dot and suffix and _is_index(number) and not taken else None
        for before, first in layout.extra_prefixes:
            if name.startswith(before):
                number, dot, suffix = name[len(before) :].partition(".")
                return Place("layer", int(number) + first, before[:-1] + dot + suffix) if _is_index(number) else None
        return None

    def name(self, place: Place) -> str:
        """The tensor name of a place."""
        if place.role == "layer":
            for before, first in self.layout.extra_prefixes:
                if place.suffix == before[:-1] or place.suffix.startswith(before):
                    return f"{self.base}{before}{place.index - first}{place.suffix[len(before) - 1 :]}"
            return f"{self.prefix}{place.index}.{place.suffix}"
        if place.role == "lm_head":
            return self._head_base + place.suffix
        whole = place.role == "other" or (place.role == "final_norm" and place.suffix.startswith(self.layout.after))
        return place.suffix if whole else self.base + place.suffix

    def head_for(self, embedding_suffix: str) -> Place:
        """The place of the head that is tied to an embedding: `embed_tokens.weight` -> `lm_head.weight`."""
        return Place("lm_head", -1, self.layout.lm_head[0] + embedding_suffix.rsplit(".", 1)[-1])


def _is_index(text: str) -> bool:
    """Whether a text is an index in its only valid form: `03` or non-ASCII digits would give two tensors one place."""
    return text.isascii() and text.isdigit() and len(text) < 6 and (text == "0" or text[0] != "0")


def find_naming(names: Iterable[str], model_type: str = "") -> Naming | None:
    """The naming whose layers occur in `names`; None if no known layer prefix occurs.

    Several layouts share a prefix. Layouts whose embeddings occur too are preferred; among those, one of the model
    type, then one whose head occurs, then the one that knows most names.
    """
    names = list(names)
    first: Naming | None = None
    found: list[tuple[tuple[bool, bool, int], Naming]] = []
    for layout in LAYOUTS:
        for base in layout.bases:
            naming = Naming(layout, base)
            if not any(name.startswith(naming.prefix) and naming.place(name).role == "layer" for name in names):
                continue
            roles = [naming.place(name).role for name in names]
            if "embeddings" in roles:
                found.append(((model_type in layout.kinds, "lm_head" in roles, -roles.count("other")), naming))
            # A bare `layers.` or `h.` is ambiguous without embeddings.
            elif base and first is None:
                first = naming
    return max(found, key=lambda each: each[0])[1] if found else first


@dataclass(frozen=True)
class Family:
    """The defaults of transformers for one `model_type`.

    Attributes:
        tied: `tie_word_embeddings` if absent.
        explicit: the model reads a `layer_types` list, which overrides `slides`.
        slides: which layers use a sliding window without such a list. `no`: none. `all`: all, if a window is set.
            `period`: all but every `period`-th. `upper`: those from `max_window_layers` on. `alternate`: the even ones
            below `max_window_layers`. `nope`: those without rope.
        switch: a window is used only if `use_sliding_window` is true (absent: false).
        window: `sliding_window` if absent.
        period: see `slides`.
        period_key: `sliding_window_pattern` in the config replaces `period`.
        rope_interval: every n-th layer has no rope, if `no_rope_layers` is absent.
        experts: experts per sparse layer if the config does not state it.
        rope: `one` rope for all layers, `kinds`: one per kind of attention, or `none`.
        theta: `rope_theta` if absent.
        rotated: `partial_rotary_factor` if absent.
        defaults: other keys that published configs of the family omit.
    """

    tied: bool = False
    explicit: bool = False
    slides: Literal["no", "all", "period", "upper", "alternate", "nope"] = "no"
    switch: bool = False
    window: int | None = None
    period: int | None = None
    period_key: bool = False
    rope_interval: int | None = None
    experts: int | None = None
    rope: Literal["one", "kinds", "none"] = "one"
    theta: float | None = 10_000.0
    rotated: float = 1.0
    defaults: Mapping[str, int] = field(default_factory=dict)


UNKNOWN = Family(explicit=True, slides="all", period_key=True, theta=None)
"""The rules for a `model_type` that is not in `FAMILIES`: only the config counts, without defaults."""

_PLAIN = Family()
_TIED = Family(tied=True)
_HALF_ROTATED = Family(rotated=0.5)
_QWEN = Family(explicit=True, slides="upper", switch=True, window=4096)
_GEMMA3 = Family(
    tied=True, explicit=True, slides="period", period=6, period_key=True, window=4096, rope="kinds", theta=1_000_000.0,
    defaults={
        "num_hidden_layers": 26, "hidden_size": 2304, "intermediate_size": 9216, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262_208, "max_position_embeddings": 131_072,
    },
)  # fmt: skip
_LLAMA = Family(
    defaults={
        "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 11_008, "num_attention_heads": 32,
        "vocab_size": 32_000, "max_position_embeddings": 2048,
    }
)  # fmt: skip

_ENCODERS = (
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip
_SECOND_STACKS = (
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart",
    "prophetnet", "trocr", "whisper",
)  # fmt: skip
_NO_ROPE = Family(tied=True, rope="none")

FAMILIES: dict[str, Family] = {
    "apertus": Family(theta=12_000_000.0),
    "arcee": _PLAIN,
    "cohere": Family(tied=True, theta=500_000.0),
    "cohere2": Family(tied=True, explicit=True, slides="period", period=4, period_key=True, window=4096),
    "ernie4_5": Family(tied=True, theta=500_000.0, defaults={"head_dim": 128}),
    "exaone4": Family(explicit=True, slides="period", period=4, period_key=True, window=4096),
    "falcon": _TIED,
    "gemma": Family(tied=True, defaults={"head_dim": 256}),
    "gemma2": Family(tied=True, explicit=True, slides="period", period=2, window=4096, defaults={"head_dim": 256}),
    "gemma3": _GEMMA3,
    "gemma3_text": _GEMMA3,
    "glm": Family(rotated=0.5, defaults={"head_dim": 128}),
    "glm4": Family(rotated=0.5, defaults={"head_dim": 128}),
    "gpt2": Family(tied=True, rope="none"),
    "gpt_neox": Family(rotated=0.25),
    "gpt_oss": Family(
        explicit=True, slides="period", period=2, window=128, experts=128, theta=150_000.0, defaults={"head_dim": 64}
    ),
    "granite": _PLAIN,
    "granitemoe": Family(experts=8),
    "helium": Family(theta=100_000.0, defaults={"head_dim": 128}),
    "llama": _LLAMA,
    "mistral": Family(slides="all", window=4096),
    "mixtral": Family(slides="all", experts=8, theta=1_000_000.0),
    "nemotron": _HALF_ROTATED,
    "olmo": _PLAIN,
    "olmo2": _PLAIN,
    "olmo3": Family(explicit=True, slides="period", period=4, window=4096, rope="kinds", theta=500_000.0),
    "olmoe": Family(experts=64),
    "opt": Family(tied=True, rope="none"),
    "phi": _HALF_ROTATED,
    "phi3": Family(slides="all"),
    "qwen2": _QWEN,
    "qwen2_moe": Family(explicit=True, slides="alternate", switch=True, window=4096, experts=60),
    "qwen3": replace(_QWEN, defaults={"head_dim": 128}),
    "qwen3_moe": Family(slides="all", switch=True, window=4096, experts=128),
    "seed_oss": Family(defaults={"head_dim": 128}),
    "smollm3": Family(tied=True, explicit=True, slides="nope", switch=True, rope_interval=4, theta=2_000_000.0),
    "stablelm": Family(rotated=0.25),
    "starcoder2": Family(tied=True, slides="all"),
    **dict.fromkeys(_ENCODERS, _NO_ROPE),
    **dict.fromkeys(_SECOND_STACKS, _NO_ROPE),
    "xlm": _NO_ROPE,
    "xlnet": _NO_ROPE,
    "rembert": Family(rope="none"),
    "git": Family(rope="none"),
}
"""Model types for which surgeon knows every layer-indexed config key. Others are refused if a key is in doubt."""
