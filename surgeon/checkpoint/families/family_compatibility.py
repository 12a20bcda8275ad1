"""Which model types compute the same, so that layers of one work in the other, and under which conditions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...text import one_line
from .model_config import ModelConfig

_BIASES = ("attention_bias", "mlp_bias")


@dataclass(frozen=True)
class Kinship:
    """The compatibility of two configs.

    Attributes:
        same: layers of one compute the same in the other.
        classes: the two have different model classes, which the user is informed about.
        why_not: the reason if they do not compute the same.
    """

    same: bool
    classes: bool = False
    why_not: str = ""


_ONE_TEXT_MODEL = ({"gemma3", "gemma3_text"},)
"""Model types with the same layers: a text model, and the same text model inside a vision model."""

_PLAIN_DECODERS = frozenset({"llama", "mistral"})
"""Types that compute the same if no window and no bias is set. A test runs the layers of one in the other."""

_DIFFER = {
    frozenset({"llama", "qwen2"}): "qwen2 has biases on queries, keys and values, llama on none or on the output too",
    frozenset({"mistral", "qwen2"}): "qwen2 has biases on queries, keys and values, mistral has none",
    frozenset({"mistral", "mixtral"}): "mixtral has experts where mistral has one MLP",
    frozenset({"llama", "mixtral"}): "mixtral has experts where llama has one MLP",
    frozenset({"qwen2", "qwen3"}): "qwen3 norms queries and keys and has no biases, qwen2 has biases and no such norms",
    frozenset({"llama", "qwen3"}): "qwen3 norms queries and keys, llama does not",
    frozenset({"gemma", "gemma2"}): "gemma2 has norms after attention and MLP too",
    frozenset({"llama", "gemma"}): "gemma's norms multiply by 1 plus their weight, llama's by their weight",
}


def kinship(one: ModelConfig, other: ModelConfig) -> Kinship:
    """Whether layers of `one` compute the same in a model of `other`."""
    kinds = {one.model_type, other.model_type}
    if len(kinds) == 1 or any(kinds <= group for group in _ONE_TEXT_MODEL):
        return Kinship(True)
    if kinds <= _PLAIN_DECODERS:
        why = next((why for config in (one, other) for why in _not_plain(config)), "")
        return Kinship(not why, True, why)
    why = _DIFFER.get(frozenset(kinds), "layers of one architecture do not compute the same in another")
    return Kinship(False, True, why)


def _not_plain(config: ModelConfig) -> Iterator[str]:
    """Reasons why a decoder is not a plain one."""
    kind = one_line(config.model_type)
    if config.window is not None:
        yield f"the {kind} has a sliding window of {config.window:,} tokens (sliding_window: null would remove it)"
    for key in _BIASES:
        if config.get(key):
            yield f"the {kind} sets {key}, which the other does not support"
