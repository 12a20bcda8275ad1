"""What is known of model families, as data: how tensors are named, and what a config leaves unsaid.

A `Layout` says which names are layers and which are the ends of the network. A `Family` says what transformers
fills in for keys that a config of that `model_type` omits (read off transformers 5.23; a test compares them).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Role = Literal["layer", "embeddings", "final_norm", "lm_head", "other"]
END_ROLES: tuple[Role, ...] = ("embeddings", "final_norm", "lm_head")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor belongs: its role, the layer index (-1 outside the layers), and its name within that place."""

    role: Role
    index: int
    suffix: str


@dataclass(frozen=True)
class Layout:
    """Tensor names of a decoder, relative to a base such as `model.`; `bases` are tried in order."""

    bases: tuple[str, ...]
    layers: str
    embeddings: tuple[str, ...]
    final_norm: tuple[str, ...]
    lm_head: tuple[str, ...] = ("lm_head.",)


LAYOUTS = (
    Layout(
        ("model.language_model.", "language_model.model.", "model.", ""),
        "layers.",
        ("embed_tokens.",),
        ("norm.", "final_layernorm."),
    ),
    Layout(("gpt_neox.",), "layers.", ("embed_in.",), ("final_layer_norm.",), ("embed_out.",)),
    Layout(
        ("transformer.", ""),
        "h.",
        ("wte.", "wpe.", "word_embeddings.", "word_embeddings_layernorm."),
        ("ln_f.",),
    ),
    Layout(("transformer.", ""), "blocks.", ("wte.", "wpe.", "emb_norm."), ("norm_f.",)),
    Layout(
        ("model.decoder.", "decoder."),
        "layers.",
        ("embed_tokens.", "embed_positions.", "project_in."),
        ("final_layer_norm.", "project_out."),
    ),
    Layout(("backbone.", ""), "layers.", ("embeddings.", "embedding."), ("norm_f.",)),
)


@dataclass(frozen=True)
class Naming:
    """A layout at one base: turns a tensor's name into its place, and a place back into a name."""

    layout: Layout
    base: str

    @property
    def prefix(self) -> str:
        """What every layer tensor's name begins with, for instance `model.layers.`."""
        return self.base + self.layout.layers

    @property
    def _head_base(self) -> str:
        return "language_model." if self.base == "language_model.model." else ""

    def place(self, name: str) -> Place:
        """The place of a tensor; role `other` for what this layout does not know."""
        if match := re.match(re.escape(self.prefix) + r"(\d{1,5})\.(.+)", name, re.DOTALL):
            return Place("layer", int(match[1]), match[2])
        if name.startswith(self._head_base):
            suffix = name[len(self._head_base) :]
            if suffix.startswith(self.layout.lm_head):
                return Place("lm_head", -1, suffix)
        if name.startswith(self.base):
            suffix = name[len(self.base) :]
            if suffix.startswith(self.layout.embeddings):
                return Place("embeddings", -1, suffix)
            if suffix.startswith(self.layout.final_norm):
                return Place("final_norm", -1, suffix)
        return Place("other", -1, name)

    def name(self, place: Place) -> str:
        """The tensor name of a place."""
        if place.role == "layer":
            return f"{self.prefix}{place.index}.{place.suffix}"
        if place.role == "lm_head":
            return self._head_base + place.suffix
        return place.suffix if place.role == "other" else self.base + place.suffix

    def head_for(self, embedding_suffix: str) -> Place:
        """The head that an embedding stands for in a tied model: `embed_tokens.weight` -> `lm_head.weight`."""
        return Place("lm_head", -1, self.layout.lm_head[0] + embedding_suffix.rsplit(".", 1)[-1])


def find_naming(names: Iterable[str]) -> Naming | None:
    """The naming whose layers occur among `names`, or None when no known prefix does."""
    names = list(names)
    for layout in LAYOUTS:
        for base in layout.bases:
            pattern = re.compile(re.escape(base + layout.layers) + r"\d+\.")
            # A bare `layers.` or `h.` says little by itself: the embeddings tell whose it is.
            own = base or any(name.startswith(layout.embeddings) for name in names)
            if own and any(pattern.match(name) for name in names):
                return Naming(layout, base)
    return None


@dataclass(frozen=True)
class Family:
    """What transformers assumes for one `model_type` where its config is silent.

    Attributes:
        tied: `tie_word_embeddings` when absent.
        period: every `period`-th layer has full attention and the others slide, when nothing else says so.
        window: `sliding_window` when absent.
        slides: what a set `sliding_window` means without lists or periods: `all` layers, or (`upper`) those from
            `max_window_layers` on, and for both only if `use_sliding_window` is not false where that key exists.
        explicit: the config class reads an explicit `layer_types` list.
        rope_interval: every n-th layer has no rope, when `no_rope_layers` is absent.
    """

    tied: bool = False
    period: int | None = None
    window: int | None = None
    slides: Literal["all", "upper"] = "all"
    explicit: bool = False
    rope_interval: int | None = None


_PLAIN = Family()
_TIED = Family(tied=True)

FAMILIES: dict[str, Family] = {
    "apertus": _PLAIN,
    "arcee": _PLAIN,
    "cohere": _TIED,
    "cohere2": Family(tied=True, period=4, window=4096, explicit=True),
    "ernie4_5": _TIED,
    "exaone4": Family(period=4, window=4096, explicit=True),
    "falcon": _TIED,
    "gemma": _TIED,
    "gemma2": Family(tied=True, period=2, window=4096, explicit=True),
    "gemma3": Family(tied=True, period=6, window=4096, explicit=True),
    "gemma3_text": Family(tied=True, period=6, window=4096, explicit=True),
    "glm": _PLAIN,
    "glm4": _PLAIN,
    "gpt2": _TIED,
    "gpt_neox": _PLAIN,
    "gpt_oss": Family(period=2, window=128, explicit=True),
    "granite": _PLAIN,
    "granitemoe": _PLAIN,
    "helium": _PLAIN,
    "llama": _PLAIN,
    "mistral": Family(window=4096),
    "mixtral": _PLAIN,
    "nemotron": _PLAIN,
    "olmo": _PLAIN,
    "olmo2": _PLAIN,
    "olmo3": Family(period=4, window=4096, explicit=True),
    "olmoe": _PLAIN,
    "opt": _TIED,
    "phi": _PLAIN,
    "phi3": _PLAIN,
    "qwen2": Family(slides="upper", explicit=True),
    "qwen2_moe": Family(slides="upper", explicit=True),
    "qwen3": Family(slides="upper", explicit=True),
    "qwen3_moe": _PLAIN,
    "seed_oss": _PLAIN,
    "smollm3": Family(tied=True, slides="upper", explicit=True, rope_interval=4),
    "stablelm": _PLAIN,
    "starcoder2": _TIED,
}
"""Decoders whose every layer-indexed config key surgeon knows. Others are refused where one is in doubt."""
