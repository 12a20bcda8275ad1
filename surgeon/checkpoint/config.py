"""config.json under one roof: aliases, nested text configs, and each layer's own attributes made explicit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .families import FAMILIES, Family

NESTED = ("text_config", "llm_config", "language_config")
DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_DEFAULT_QWEN_WINDOW_LAYERS = 28

ATTENTION_NAMES = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
    "mamba": "linear",
}


@dataclass(frozen=True)
class ModelConfig:
    """A config as read: `raw` is the whole JSON object, `nest` the key its text model's settings lie under, or None."""

    raw: dict[str, Any]
    nest: str | None

    @classmethod
    def of(cls, raw: dict[str, Any]) -> ModelConfig:
        """The config around a JSON object."""
        return cls(raw, next((key for key in NESTED if isinstance(raw.get(key), dict)), None))

    @property
    def text(self) -> dict[str, Any]:
        """The settings of the text model."""
        return self.raw[self.nest] if self.nest else self.raw

    def get(self, *names: str) -> Any:
        """The first of `names` that is set and not null."""
        return next((self.text[name] for name in names if self.text.get(name) is not None), None)

    def natural(self, *names: str) -> int | None:
        """The first of `names` that is a whole number >= 0 (configs are untrusted: anything else is as if absent)."""
        value = self.get(*names)
        return value if type(value) is int and value >= 0 else None

    @property
    def model_type(self) -> str:
        """The text model's type, such as `llama`; empty when the config does not say."""
        return str(self.text.get("model_type") or self.raw.get("model_type") or "")

    @property
    def architecture(self) -> str:
        """The class that wrote the checkpoint, such as `LlamaForCausalLM`."""
        names = self.raw.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""

    @property
    def family(self) -> Family | None:
        """What is known of the model type, or None."""
        return FAMILIES.get(self.model_type)

    @property
    def depth_key(self) -> str | None:
        """The key this JSON uses for the number of layers."""
        return next((key for key in DEPTH_KEYS if type(self.text.get(key)) is int), None)

    @property
    def depth(self) -> int | None:
        """The number of layers the config states."""
        return self.natural(*DEPTH_KEYS)

    @property
    def hidden_size(self) -> int | None:
        """Width of the residual stream."""
        return self.natural("hidden_size", "n_embd", "d_model")

    @property
    def heads(self) -> int | None:
        """Query heads."""
        return self.natural("num_attention_heads", "n_head", "n_heads")

    @property
    def kv_heads(self) -> int | None:
        """Key and value heads, with falcon's multi-query rule."""
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
        """Rows of the embedding, as the config has it."""
        return self.natural("vocab_size")

    @property
    def context(self) -> int | None:
        """Positions the model was made for."""
        return self.natural("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")

    @property
    def experts(self) -> int | None:
        """Experts per sparse layer."""
        return self.natural("num_local_experts", "num_experts", "n_routed_experts")

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding, by the config or else by the family's default."""
        for level in (self.raw, self.text):
            if isinstance(level.get("tie_word_embeddings"), bool):
                return bool(level["tie_word_embeddings"])
        return bool(self.family and self.family.tied)

    @property
    def says_tied(self) -> bool:
        """Whether tying is known at all: stated by the config, or a known family."""
        return "tie_word_embeddings" in self.raw or "tie_word_embeddings" in self.text or self.family is not None

    @property
    def rope(self) -> dict[str, Any]:
        """Rotary settings in one form: `theta` (or per attention kind) and any scaling; {} without rope."""
        parameters = self.get("rope_parameters")
        if isinstance(parameters, dict):
            found = _flat_rope(parameters)
        else:
            scaling = self.get("rope_scaling")
            found = _flat_rope(scaling) if isinstance(scaling, dict) else {}
        for key, source in (
            ("theta", ("rope_theta", "rotary_emb_base")),
            ("local_theta", ("rope_local_base_freq",)),
        ):
            value = self.get(*source)
            if value is not None and key not in found and not any(isinstance(v, dict) for v in found.values()):
                found[key] = value
        return found

    @property
    def quantisation(self) -> str | None:
        """The name of the quantisation method, or None."""
        for level in (self.raw, self.text):
            settings = level.get("quantization_config") or level.get("compression_config")
            if isinstance(settings, dict):
                bits = settings.get("bits") or (4 if settings.get("load_in_4bit") else None)
                name = str(settings.get("quant_method") or settings.get("format") or "unknown")
                return f"{name} {bits}-bit" if bits else name
        return None

    @property
    def dtype(self) -> str | None:
        """The dtype the config states, as torch names it."""
        value = self.get("dtype", "torch_dtype") or self.raw.get("dtype") or self.raw.get("torch_dtype")
        return str(value).removeprefix("torch.") if isinstance(value, str) else None


def _flat_rope(parameters: dict[str, Any]) -> dict[str, Any]:
    """Rope parameters with one spelling: `rope_theta` -> `theta`, `rope_type` or `type` -> `type`, defaults dropped."""
    out: dict[str, Any] = {}
    for key, value in parameters.items():
        name = {"rope_theta": "theta", "rope_type": "type"}.get(key, key)
        if name == "type" and value == "default":
            continue
        if isinstance(value, dict):
            value = _flat_rope(value)
        if value is not None:
            out[name] = value
    return out


def layer_attributes(config: ModelConfig, depth: int) -> list[dict[str, Any]]:
    """Every layer's own attributes, one dict per layer, each a plain value.

    Keys: `attention` (full, sliding, ...), `window` (tokens, only where it slides), `rope` (False where a layer has
    none), `mlp` (dense or experts). Lists in the config that are too short leave the attribute `None`.
    """
    attention = list(_attention(config, depth))
    rope = _rope_layers(config, depth)
    mlp = list(_mlp(config, depth))
    window = config.natural("sliding_window") or (config.family.window if config.family else None)
    rows: list[dict[str, Any]] = []
    for index in range(depth):
        row: dict[str, Any] = {"attention": attention[index], "mlp": mlp[index]}
        if attention[index] == "sliding":
            row["window"] = window
        if rope is not None:
            row["rope"] = rope[index]
        rows.append(row)
    return rows


def _attention(config: ModelConfig, depth: int) -> Iterator[str | None]:
    if isinstance(kinds := config.get("layer_types"), list):
        for index in range(depth):
            kind = kinds[index] if index < len(kinds) else None
            yield ATTENTION_NAMES.get(str(kind), str(kind)) if kind is not None else None
        return
    period = config.get("sliding_window_pattern", "_sliding_window_pattern")
    if isinstance(period, str) and period:
        for index in range(depth):
            yield "sliding" if period[index % len(period)] == "L" and index != depth - 1 else "full"
        return
    family = config.family or Family()
    if type(period) is not int:
        period = family.period
    if period:
        for index in range(depth):
            yield "sliding" if (index + 1) % period else "full"
        return
    first = _first_sliding(config, family, depth)
    for index in range(depth):
        yield "sliding" if index >= first else "full"


def _first_sliding(config: ModelConfig, family: Family, depth: int) -> int:
    window = config.text.get("sliding_window", family.window)
    if not window:
        return depth
    if family.slides == "upper":
        if not config.text.get("use_sliding_window", False):
            return depth
        upper = config.natural("max_window_layers")
        return _DEFAULT_QWEN_WINDOW_LAYERS if upper is None else upper
    return 0 if config.text.get("use_sliding_window", True) else depth


def _rope_layers(config: ModelConfig, depth: int) -> list[bool | None] | None:
    listed = config.get("no_rope_layers")
    if isinstance(listed, list) and listed:
        return [bool(listed[index]) if index < len(listed) else None for index in range(depth)]
    interval = config.natural("no_rope_layer_interval") or (config.family.rope_interval if config.family else None)
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
