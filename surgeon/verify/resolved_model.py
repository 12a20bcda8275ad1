"""A model as transformers resolves its config, layer by layer, without a weight in memory.

Families describe layers in many ways. Three views of a layer are read: a few attributes by name, every list of the
config with an entry per layer, and every plain value in the layer's modules. The last two need no knowledge of the
family; they serve to compare a layer with its donor's.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..checkpoint.dtypes import TORCH_NAMES
from ..checkpoint.families.model_config import ATTENTION_NAMES
from ..checkpoint.families.naming import find_naming
from ..checkpoint.families.type_rules import DEPTHS
from ..probe.load import from_pretrained, model_class

Row = dict[str, Any]

_KINDS = ("layer_types", "layers_block_type", "attention_layers")
"""Attributes of config objects that name each layer's kind; the first existing one counts."""

_PER_LAYER = re.compile(r"layer|types|window|block|pattern|sparsity|intermediate|heads|experts|theta|rope|kv|limit")
_PLACE = re.compile(r"idx|index|layer_id|block_id|layer_number")


@dataclass(frozen=True)
class Resolved:
    """The model that transformers builds from a config.

    Attributes:
        depth: the number of layers; None if the config object does not state it.
        rows: each layer's attributes in surgeon's terms, as far as known: `attention`, `window`, `rope`, `mlp`.
        lists: config attribute -> its entries, one per layer.
        facts: each layer's plain values by module path and name; `CLASS` is the name of a module's class.
    """

    depth: int | None
    rows: tuple[Row, ...] = ()
    lists: Mapping[str, list[Any]] = field(default_factory=dict)
    facts: tuple[Mapping[str, Any], ...] = ()


CLASS = "class"


@contextlib.contextmanager
def _meta_only() -> Iterator[dict[str, str]]:
    """Context in which `from_pretrained` can load onto the meta device; yields conversion errors by name.

    transformers requires accelerate if a device is named, although the meta device does not need it. It raises
    conversion errors as a table of text without the tensors' names, so they are collected here instead.
    """
    from transformers import modeling_utils
    from transformers.integrations import accelerate

    conversion = sys.modules.get("transformers.core_model_loading")
    materialize = getattr(conversion, "spawn_materialize", None)

    errors: dict[str, str] = {}

    def collect(*_: Any, loading_info: Any, **__: Any) -> None:
        errors.update(getattr(loading_info, "conversion_errors", {}))

    def stay(pool: Any, tensor: Any, device: Any, *rest: Any, **more: Any) -> Any:
        # qwen4_exp's tables are otherwise built in CPU memory, whatever the device.
        return materialize(pool, tensor, "meta", *rest, **more) if materialize else None

    with contextlib.ExitStack() as stack:
        for owner, name, value in (
            (conversion, "spawn_materialize", stay),
            (accelerate, "is_accelerate_available", lambda *_: True),
            (modeling_utils, "log_state_dict_report", collect),
        ):
            if hasattr(owner, name):
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
        yield errors


@dataclass(frozen=True)
class Loaded:
    """A model on the meta device, with transformers' loading info.

    Attributes:
        model: the model.
        missing: names in the model without a tensor.
        unexpected: names of tensors that the model does not have.
        mismatched: name -> (given shape, shape in the model).
        broken: name -> why it cannot be combined from its parts.
    """

    model: Any
    missing: frozenset[str]
    unexpected: frozenset[str]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    broken: Mapping[str, str]


def load_on_meta(config: Any, tensors: Mapping[str, tuple[str, tuple[int, ...]]], where: str) -> Loaded:
    """Load tensors with these names, dtypes and shapes with `from_pretrained`, without memory for their data.

    Args:
        config: a config object of transformers.
        tensors: name -> (safetensors code, shape).
        where: the place for error messages.

    Raises:
        InputError: transformers has no model for the config.
        SurgeonError: transformers cannot build or load the model.
    """
    import torch

    meta = torch.device("meta")
    state = {
        name: torch.empty(shape, dtype=getattr(torch, TORCH_NAMES.get(code, "uint8"), torch.uint8), device=meta)
        for name, (code, shape) in tensors.items()
    }
    with _meta_only() as broken:
        model, info = from_pretrained(
            model_class(config, where),
            None,
            where,
            config=config,
            state_dict=state,
            device_map={"": meta},
            ignore_mismatched_sizes=True,
        )
    return Loaded(
        model,
        frozenset(info["missing_keys"]) - broken.keys(),
        frozenset(info["unexpected_keys"]),
        {name: (tuple(given), tuple(place)) for name, given, place in info["mismatched_keys"]},
        dict(broken),
    )


def text_of(config: Any) -> Any:
    """The text model's part of a config object."""
    # blt has no text model; its layers are in its global transformer.
    return getattr(config, "global_config", None) or config.get_text_config()


def depth_of(config: Any) -> int | None:
    """The number of layers of a config object's text model."""
    text = text_of(config)
    own = DEPTHS.get(text.model_type)
    value = getattr(text, own.key if own else "num_hidden_layers", None)
    return value if type(value) is int else None


def resolve(config: Any, model: Any) -> Resolved:
    """All views of a model, from its config object and its modules on any device."""
    depth = depth_of(config)
    if depth is None:
        return Resolved(None)
    layers = _layers(model, depth)
    text = text_of(config)
    return Resolved(
        depth,
        tuple(_rows(text, depth, layers)),
        dict(_lists(text, depth)),
        tuple(dict(_facts(layer)) for layer in layers),
    )


def _layers(model: Any, depth: int) -> list[Any]:
    """The decoder's layers; [] if they cannot be identified."""
    naming = find_naming(model.state_dict())
    if naming is None:
        return []
    stack = dict(model.named_modules()).get(naming.prefix.rstrip("."))
    return list(stack) if stack is not None and hasattr(stack, "__len__") and len(stack) == depth else []


def _rows(text: Any, depth: int, layers: list[Any]) -> Iterator[Row]:
    kinds = next(
        (list(value) for name in _KINDS if isinstance(value := getattr(text, name, None), (list, tuple))), None
    )
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) is not False else None
    rope = getattr(text, "no_rope_layers", None)
    for index in range(depth):
        row: Row = {"attention": "sliding" if window else "full"}
        if kinds is not None:
            kind = str(kinds[index]) if index < len(kinds) else None
            row["attention"] = ATTENTION_NAMES.get(kind, kind) if kind else None
        if row["attention"] == "sliding":
            row["window"] = getattr(text, "sliding_window", None)
        if isinstance(rope, list) and rope:
            row["rope"] = bool(rope[index]) if index < len(rope) else None
        if layers:
            names = [name for name, _ in layers[index].named_parameters()]
            row["mlp"] = "experts" if any(re.search(r"expert|moe", name) for name in names) else "dense"
        yield row


def _lists(text: Any, depth: int) -> Iterator[tuple[str, list[Any]]]:
    for name, value in text.to_dict().items():
        if not isinstance(value, (list, tuple)) or len(value) != depth or not _PER_LAYER.search(name):
            continue
        # A list of layer indices may name all layers, but is not a list of values.
        if list(value) != list(range(depth)):
            yield name, list(value)


def _facts(layer: Any) -> Iterator[tuple[str, Any]]:
    for path, module in layer.named_modules():
        prefix = f"{path}." if path else ""
        yield prefix + CLASS, type(module).__name__
        for name, value in vars(module).items():
            if name.startswith("_") or name == "training" or _PLACE.search(name):
                continue
            if value is None or isinstance(value, (bool, int, float, str)):
                yield prefix + name, value
