"""The forms in which configs describe each layer: list, index list, prefix, period, runs or letters.

Each rule reads an attribute of all layers, and writes it back if its form can express the values. `type_rules` maps
model types to rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
"""An entry of `layer_types` -> surgeon's word for it; older spellings come before the present ones."""

Text = Mapping[str, Any]
Values = Sequence[Any]


class Rule(Protocol):
    """One form in which a config states one attribute of every layer."""

    @property
    def attribute(self) -> str:
        """`attention`, `mlp` or `rope`."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The config keys it reads."""

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        """The attribute of each layer; None if the config does not use this form."""

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        """The config keys that state `values`; None if this form cannot express them."""


def natural(value: Any, default: int | None) -> int | None:
    """`value` if it is a whole number >= 0, else `default`."""
    return value if type(value) is int and value >= 0 else default


@dataclass(frozen=True)
class Listed:
    """One entry per layer; `words` maps the config's entries to surgeon's words."""

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
    """The indices of the layers that are `inside`; a missing list means that all are `absent` (None: unknown)."""

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
        places = {index for index in listed if type(index) is int}
        return [self.inside if index in places else self.outside for index in range(depth)]

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
        count = natural(text.get(self.key), self.absent) or 0
        return [self.before if index < count else self.after for index in range(depth)]

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        return {self.key: sum(value == self.before for value in values)}


@dataclass(frozen=True)
class Periodic:
    """Layers whose index is `offset` modulo a period are `inside`; without an `offset_key`, the last of each period."""

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
        period = natural(text.get(self.period_key), self.period) or 1
        offset = natural(text.get(self.offset_key), self.offset) if self.offset_key else period - 1
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
    """A list of kinds that repeats from the first layer on."""

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
    """`[[[kind, ...], times], ...]`, as in gpt_neo."""

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
    """A string with a letter per layer."""

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
    """Experts from a start to an end index (both included), at the last layer of each interval (ernie4_5_moe)."""

    attribute: str
    start: str
    end: str
    interval: str
    absent: tuple[int, int, int] = (1, -1, 1)

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.start, self.end, self.interval)

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        first = natural(text.get(self.start), self.absent[0]) or 0
        last = natural(text.get(self.end), None)
        step = natural(text.get(self.interval), self.absent[2]) or 1
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
    """The attribute is derived from another attribute; it is never written."""

    attribute: str
    other: str
    words: Mapping[Any, Any]
    keys: tuple[str, ...] = ()

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        return [self.words.get(value) for value in known[self.other]] if self.other in known else None

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        return None


@dataclass(frozen=True)
class Formed:
    """Each layer by a formula of the config, its index and the depth; it is never written."""

    attribute: str
    kind: Callable[[Text, int, int], Any]
    keys: tuple[str, ...] = ()

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        return [self.kind(text, index, depth) for index in range(depth)]

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        return None


@dataclass(frozen=True)
class Uniform:
    """All layers have the same value, whatever the config contains."""

    attribute: str
    value: Any
    keys: tuple[str, ...] = ()

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        return [self.value] * depth

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        return {}


@dataclass(frozen=True)
class Sparse:
    """Experts at the last layer of each `decoder_sparse_step`, except in `mlp_only_layers`.

    Attributes:
        dense: `mlp_only_layers` if absent.
        experts: `num_experts` if absent.
    """

    attribute: str
    dense: tuple[int, ...]
    experts: int
    keys: tuple[str, ...] = ("mlp_only_layers", "decoder_sparse_step")

    def read(self, text: Text, depth: int, known: Mapping[str, Values]) -> list[Any] | None:
        listed = text.get("mlp_only_layers")
        dense = listed if isinstance(listed, list) else self.dense
        step = natural(text.get("decoder_sparse_step"), 1) or 1
        some = bool(natural(text.get("num_experts"), self.experts))
        return ["experts" if some and i not in dense and (i + 1) % step == 0 else "dense" for i in range(depth)]

    def write(self, values: Values, text: Text) -> dict[str, Any] | None:
        step = {"decoder_sparse_step": 1} if "decoder_sparse_step" in text else {}
        return {"mlp_only_layers": [index for index, value in enumerate(values) if value == "dense"], **step}
