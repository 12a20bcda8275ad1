"""A uniform view of config.json: aliases, nested text configs, and explicit attributes of each layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .layer_rules import ATTENTION_NAMES, natural
from .naming import FAMILIES, UNKNOWN, Family
from .rope import resolved_rope
from .type_rules import DEPTHS, UNTIED, WINDOW_KEYS, attributes_by_rules

__all__ = ["ATTENTION_NAMES", "DEPTH_KEYS", "NESTED", "ModelConfig", "layer_attributes"]

NESTED = ("text_config", "llm_config", "language_config", "global_config")
DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_DEPTH_BY = ("layers_block_type", "layer_types", "hybrid_override_pattern")
"""Lists whose length is the depth of nemotron_h."""
_MAX_WINDOW_LAYERS = 28
_HEADLESS = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|RewardModel|TextEmbedding)"
    r"|RewardModel|(?<!LMHead)(?<!DoubleHeads)(?<!MarianMT)Model$"
)


@dataclass(frozen=True)
class ModelConfig:
    """A config: `raw` is the whole JSON object; `nest` is the key of the text model's settings, or None."""

    raw: dict[str, Any]
    nest: str | None

    @classmethod
    def of(cls, raw: dict[str, Any]) -> ModelConfig:
        """The config of a JSON object."""
        return cls(raw, next((key for key in NESTED if isinstance(raw.get(key), dict)), None))

    @property
    def text(self) -> dict[str, Any]:
        """The settings of the text model."""
        return self.raw[self.nest] if self.nest else self.raw

    def get(self, *names: str) -> Any:
        """The value of the first of `names` that is set and not null."""
        return next((self.text[name] for name in names if self.text.get(name) is not None), None)

    def natural(self, *names: str) -> int | None:
        """The value of the first of `names` that is set, or the family's default, if it is a whole number >= 0.

        Configs are untrusted: any other value counts as absent.
        """
        value = self.get(*names)
        if value is None and self.family:
            value = next((self.family.defaults[name] for name in names if name in self.family.defaults), None)
        return value if type(value) is int and value >= 0 else None

    @property
    def model_type(self) -> str:
        """The text model's type, such as `llama`; empty if the config does not state it."""
        return next((kind for level in (self.text, self.raw) if isinstance(kind := level.get("model_type"), str)), "")

    @property
    def architecture(self) -> str:
        """The class that wrote the checkpoint, such as `LlamaForCausalLM`."""
        names = self.raw.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""

    @property
    def family(self) -> Family | None:
        """The family of the model type; None if it is unknown."""
        return FAMILIES.get(self.model_type)

    @property
    def depth_key(self) -> str | None:
        """The key of the number of layers in this config."""
        return next((key for key in self._depth_keys if type(self.text.get(key)) is int), None)

    @property
    def _depth_keys(self) -> tuple[str, ...]:
        own = DEPTHS.get(self.model_type)
        return (own.key, *DEPTH_KEYS) if own else DEPTH_KEYS

    @property
    def depth(self) -> int | None:
        """The number of layers that the config states."""
        stated = self.natural(*self._depth_keys)
        if stated is None and self.model_type == "nemotron_h":
            given = self.get(*_DEPTH_BY)
            return len(given) if isinstance(given, (list, str)) else None
        return stated

    @property
    def hidden_size(self) -> int | None:
        """Width of the residual stream."""
        return self.natural("hidden_size", "n_embd", "d_model")

    @property
    def heads(self) -> int | None:
        """Number of query heads."""
        return self.natural("num_attention_heads", "n_head", "n_heads")

    @property
    def kv_heads(self) -> int | None:
        """Number of key and value heads; falcon has its own rule for multi-query attention."""
        if self.model_type == "falcon" and not self.text.get("new_decoder_architecture"):
            return 1 if self.text.get("multi_query", True) else self.heads
        return self.natural("num_key_value_heads", "num_kv_heads", "n_head_kv") or self.heads

    @property
    def head_dim(self) -> int | None:
        """Width of one head."""
        if given := self.natural("head_dim"):
            return given
        return self.hidden_size // self.heads if self.hidden_size and self.heads else None

    @property
    def intermediate_size(self) -> int | None:
        """Inner width of the MLP."""
        given = self.natural("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
        if given is None and self.model_type in {"gpt2", "falcon"} and self.hidden_size:
            return 4 * self.hidden_size
        return given

    @property
    def vocab_size(self) -> int | None:
        """Number of embedding rows in the config."""
        stated = self.natural("vocab_size")
        return natural(self.raw.get("vocab_size"), None) if stated is None else stated

    @property
    def context(self) -> int | None:
        """Number of positions that the model supports."""
        return self.natural("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")

    @property
    def experts(self) -> int | None:
        """Number of experts per sparse layer."""
        stated = self.natural("num_local_experts", "num_experts", "n_routed_experts")
        return stated if stated is not None or self.family is None else self.family.experts

    @property
    def window(self) -> int | None:
        """Size of the sliding window in tokens; None if no window is in use."""
        family = self.family or UNKNOWN
        if family.switch and self.text.get("use_sliding_window") is not True:
            return None
        if self.model_type in WINDOW_KEYS:
            key, absent = WINDOW_KEYS[self.model_type]
            return self.natural(key) if key in self.text else absent
        return self.natural("sliding_window") if "sliding_window" in self.text else family.window

    @property
    def tied(self) -> bool:
        """Whether the head is tied to the embedding, by the config or else by the family's default."""
        if self.model_type in UNTIED:
            return False
        for level in (self.raw, self.text):
            if isinstance(level.get("tie_word_embeddings"), bool):
                return bool(level["tie_word_embeddings"])
        return bool(self.family and self.family.tied)

    @property
    def headless(self) -> bool:
        """Whether its class has no language-model head: a bare model, a classifier, a reward model."""
        return bool(_HEADLESS.search(self.architecture))

    @property
    def says_tied(self) -> bool:
        """Whether tying is known: the config states it, or the family has a default.

        In a nested config only the outer level counts, as in transformers, and the family's default does not apply.
        """
        return (
            self.model_type in UNTIED
            or isinstance(self.raw.get("tie_word_embeddings"), bool)
            or (not self.nest and self.family is not None)
        )

    @property
    def rope(self) -> dict[str, Any]:
        """Rotary settings in a uniform form; {} without rope.

        The form is `theta`, `type` and the settings of that type, or such a dict for each of `full_attention` and
        `sliding_attention`.
        """
        return resolved_rope(self.text, self.family or UNKNOWN)

    @property
    def quantisation(self) -> str | None:
        """The name of the quantisation method, or None."""
        for level in (self.raw, self.text):
            settings = level.get("quantization_config") or level.get("compression_config")
            if isinstance(settings, dict):
                loads = {"load_in_4bit": 4, "load_in_8bit": 8}
                bits = settings.get("bits") or next((bits for key, bits in loads.items() if settings.get(key)), None)
                name = str(settings.get("quant_method") or settings.get("format") or "unknown")
                return f"{name} {bits}-bit" if type(bits) is int else name
        return None

    @property
    def dtype(self) -> str | None:
        """The dtype that the config states, by its torch name."""
        value = self.get("dtype", "torch_dtype") or self.raw.get("dtype") or self.raw.get("torch_dtype")
        return str(value).removeprefix("torch.") if isinstance(value, str) else None


def layer_attributes(config: ModelConfig, depth: int) -> list[dict[str, Any]]:
    """The attributes of every layer, one dict of plain values per layer.

    Keys: `attention` (full, sliding, ...), `window` (tokens, only of sliding layers), `rope` (False if a layer has
    none), `mlp` (dense or experts). If a list in the config is too short, the attribute of the other layers is None.
    """
    known = attributes_by_rules(config.model_type, config.text, depth)
    rope = known.get("rope") or _rope_layers(config, depth)
    attention = known.get("attention") or list(_attention(config, depth, rope))
    mlp = known.get("mlp") or list(_mlp(config, depth))
    rows: list[dict[str, Any]] = []
    for index in range(depth):
        row: dict[str, Any] = {"attention": attention[index]}
        if attention[index] == "sliding":
            row["window"] = config.window
        if rope is not None:
            row["rope"] = rope[index]
        row["mlp"] = mlp[index]
        rows.append(row)
    return rows


def _attention(config: ModelConfig, depth: int, rope: Sequence[bool | None] | None) -> Iterator[str | None]:
    family = config.family or UNKNOWN
    if family.explicit and isinstance(kinds := config.get("layer_types"), list):
        for index in range(depth):
            kind = kinds[index] if index < len(kinds) else None
            yield ATTENTION_NAMES.get(str(kind), str(kind)) if kind is not None else None
        return
    slides = _sliding(config, family, depth, rope)
    for index in range(depth):
        yield "sliding" if slides(index) else "full"


def _sliding(
    config: ModelConfig, family: Family, depth: int, rope: Sequence[bool | None] | None
) -> Callable[[int], bool]:
    """Whether a layer slides, by the family's rule (see `Family.slides`)."""
    pattern = config.get("sliding_window_pattern") if family.period_key else None
    if isinstance(pattern, str) and pattern:
        return lambda index: pattern[index % len(pattern)] == "L" and index != depth - 1
    period = pattern if type(pattern) is int else family.period
    # In exaone4, a window of null means that no layer slides.
    if period and not (family.period_key and "sliding_window" in config.text and config.window is None):
        return lambda index: (index + 1) % period != 0
    if not config.window or family.slides in {"no", "period"}:
        return lambda index: False
    if family.slides == "nope":
        return lambda index: rope is not None and rope[index] is False
    stated = config.natural("max_window_layers")
    boundary = _MAX_WINDOW_LAYERS if stated is None else stated
    if family.slides == "alternate":
        return lambda index: index % 2 == 0 and index < boundary
    first = boundary if family.slides == "upper" else 0
    return lambda index: index >= first


def _rope_layers(config: ModelConfig, depth: int) -> list[bool | None] | None:
    family = config.family or UNKNOWN
    if config.family and not family.rope_interval:
        return None
    listed = config.get("no_rope_layers")
    if isinstance(listed, list) and listed:
        return [bool(listed[index]) if index < len(listed) else None for index in range(depth)]
    interval = config.natural("no_rope_layer_interval") or family.rope_interval
    if interval:
        return [(index + 1) % interval != 0 for index in range(depth)]
    return None


def _mlp(config: ModelConfig, depth: int) -> Iterator[str | None]:
    if isinstance(kinds := config.get("mlp_layer_types"), list):
        for index in range(depth):
            kind = kinds[index] if index < len(kinds) else None
            yield {"sparse": "experts"}.get(str(kind), str(kind)) if kind is not None else None
        return
    experts = config.experts or 0
    dense_only = config.get("mlp_only_layers") or []
    dense = {index for index in dense_only if type(index) is int} if isinstance(dense_only, list) else set()
    step = config.natural("decoder_sparse_step") or 1
    prefix = config.natural("first_k_dense_replace") or 0
    for index in range(depth):
        sparse = experts > 0 and index >= prefix and index not in dense and (index + 1) % step == 0
        yield "experts" if sparse else "dense"
