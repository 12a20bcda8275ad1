"""Gather config keys with an entry per layer in the output's order: lists, tables by index, and lists of indices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...checkpoint import Checkpoint
from ...checkpoint.families.derived_lists import FILLED_VALUES
from ...checkpoint.families.model_config import ModelConfig
from ...checkpoint.families.type_rules import INDEX_LISTS, VALUE_LISTS
from ...text import ranges
from ..findings import Finding
from .layer_bound_keys import LISTS, TABLE

SourceLayer = tuple[Checkpoint, int]
KEEP = "keep the order and number of this family's layers, or remove this donor"
"""The remedy if a config cannot express the output."""


def cannot(what: str, why: str, layers: tuple[int, ...] = (), remedy: str = KEEP) -> Finding:
    """An error: the output's config cannot express `what`."""
    return Finding(
        "error",
        "config",
        f"The output's config.json cannot express {what}",
        why,
        remedy,
        layers,
    )


def borrowed(text: Mapping[str, Any]) -> Iterator[Finding]:
    """An error if the first layer needs the token indices of the layer before it."""
    kinds = text.get("indexer_types")
    if isinstance(kinds, list) and kinds[:1] == ["shared"]:
        why = "it uses the tokens chosen by the indexer of the layer before it, and there is no such layer"
        yield cannot("a first layer whose indexer is shared", why, (0,))


def gather_lists(config: ModelConfig, layers: Sequence[SourceLayer]) -> None:
    """Gather the lists that every donor has, at least by default; remove a list that any donor lacks."""
    text, donors = config.text, {id(donor): donor for donor, _ in layers}
    for key in LISTS:
        gathered: list[Any] = []
        lists = {name: _listed(donor.config, key, donor.depth) for name, donor in donors.items() if donor.config}
        for donor, index in layers:
            values = lists.get(id(donor))
            if values is None or index >= len(values):
                text.pop(key, None)
                break
            gathered.append(values[index])
        else:
            if _listed(config, key, len(layers)) not in (None, gathered):
                text[key] = gathered
                for other in FILLED_VALUES.get((config.model_type, key), (None, ()))[1]:
                    text.pop(other, None)


def _listed(config: ModelConfig, key: str, depth: int) -> list[Any] | None:
    """A list of the config, or its default if the config leaves it out; None if the default is unknown."""
    values = config.text.get(key)
    if not isinstance(values, list) and (config.model_type, key) in FILLED_VALUES:
        return FILLED_VALUES[config.model_type, key][0](config.text, depth)
    return values if isinstance(values, list) else None


def gather_values(text: dict[str, Any], layers: Sequence[SourceLayer]) -> Iterator[Finding]:
    """Gather the lists of plain values; an error if only some layers have an entry."""
    texts = {id(donor): donor.config.text if donor.config else {} for donor, _ in layers}
    for key in VALUE_LISTS:
        if not any(key in own for own in (text, *texts.values())):
            continue
        values = [texts[id(donor)].get(key) for donor, _ in layers]
        listed = [value for value in values if isinstance(value, list)]
        if not listed and not isinstance(text.get(key), list):
            continue
        if len(listed) == len(layers) and all(
            index < len(value) for value, (_, index) in zip(listed, layers, strict=True)
        ):
            text[key] = [value[index] for value, (_, index) in zip(listed, layers, strict=True)]
        else:
            yield cannot(f"the meaning of `{key}` for each layer", "not every layer has an entry in its donor's list")


def gather_table(text: dict[str, Any], layers: Sequence[SourceLayer]) -> Iterator[Finding]:
    """Gather the table of settings by layer index; an error if only some donors have one."""
    tables = [donor.config.text.get(TABLE) if donor.config else None for donor, _ in layers]
    if not any(tables) and not text.get(TABLE):
        return
    gathered = {}
    for place, (table, (_, index)) in enumerate(zip(tables, layers, strict=True)):
        if not isinstance(table, dict) or not all(str(key).isdecimal() for key in table):
            yield cannot(f"the meaning of `{TABLE}` for each layer", "not every donor has such a table by layer index")
            return
        own = {int(key): value for key, value in table.items()}
        if index in own:
            gathered[str(place)] = own[index]
    text[TABLE] = gathered


def gather_indices(text: dict[str, Any], layers: Sequence[SourceLayer]) -> Iterator[Finding]:
    """Gather the lists of layers with n-gram tables; the n-th such layer must be the n-th in its donor too."""
    for key, first in INDEX_LISTS.items():
        ranks = {id(donor): _ranks(donor.config, key) for donor, _ in layers}
        held = [
            (place, ranks[id(donor)][index + first])
            for place, (donor, index) in enumerate(layers)
            if index + first in ranks[id(donor)]
        ]
        if held or text.get(key):
            text[key] = [place + first for place, _ in held]
        if wrong := tuple(place for rank, (place, number) in enumerate(held) if number != rank):
            why = "the sizes and hashes of such tables depend on the number of layers with tables before them"
            yield cannot(f"the tables of n-grams of layer {ranges(wrong)}", why, wrong)


def _ranks(config: ModelConfig | None, key: str) -> dict[int, int]:
    """The indices in a list of the config, each with its rank: the number of smaller ones."""
    listed = config.text.get(key) if config else None
    indices = {index for index in listed if type(index) is int} if isinstance(listed, list) else set()
    return {index: rank for rank, index in enumerate(sorted(indices))}
