"""Config keys with an entry per layer, gathered in the output's order: lists, tables of indices, lists of indices."""

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
KEEP = "keep the layers of this family in their own order and number, or leave this donor out"
"""The remedy for what a config cannot express."""


def cannot(what: str, why: str, layers: tuple[int, ...] = (), remedy: str = KEEP) -> Finding:
    """An error about what the config of the output cannot say."""
    return Finding(
        "error",
        "config",
        f"The output's config.json cannot express {what}",
        why,
        remedy,
        layers,
    )


def borrowed(text: Mapping[str, Any]) -> Iterator[Finding]:
    """A layer that takes the indices of the one before it cannot come first."""
    kinds = text.get("indexer_types")
    if isinstance(kinds, list) and kinds[:1] == ["shared"]:
        why = "it takes the tokens that the indexer of the layer before it has chosen, and there is none"
        yield cannot("a first layer whose indexer is shared", why, (0,))


def gather_lists(config: ModelConfig, layers: Sequence[SourceLayer]) -> None:
    """Lists that every donor has, if only by default; without one of them the list is left out."""
    text = config.text
    for key in LISTS:
        gathered: list[Any] = []
        lists = {id(donor): _listed(donor.config, key, donor.depth) for donor, _ in layers if donor.config}
        for donor, index in layers:
            values = lists.get(id(donor))
            if values is None or index >= len(values):
                text.pop(key, None)
                break
            gathered.append(values[index])
        else:
            if _listed(config, key, len(layers)) not in (None, gathered):
                text[key] = gathered
                for said in FILLED_VALUES.get((config.model_type, key), (None, ()))[1]:
                    text.pop(said, None)


def _listed(config: ModelConfig, key: str, depth: int) -> list[Any] | None:
    """A list of the config, or what it is where the config leaves it out; None where that is not known."""
    values = config.text.get(key)
    if not isinstance(values, list) and (config.model_type, key) in FILLED_VALUES:
        return FILLED_VALUES[config.model_type, key][0](config.text, depth)
    return values if isinstance(values, list) else None


def gather_values(text: dict[str, Any], layers: Sequence[SourceLayer]) -> Iterator[Finding]:
    """Lists of plain values, of which every donor has one or none has."""
    for key in VALUE_LISTS:
        values = [donor.config.text.get(key) if donor.config else None for donor, _ in layers]
        listed = [value for value in values if isinstance(value, list)]
        if not listed and not isinstance(text.get(key), list):
            continue
        if len(listed) == len(layers) and all(
            index < len(value) for value, (_, index) in zip(listed, layers, strict=True)
        ):
            text[key] = [value[index] for value, (_, index) in zip(listed, layers, strict=True)]
        else:
            yield cannot(f"what `{key}` says of each layer", "not every layer has an entry in its donor's list")


def gather_table(text: dict[str, Any], layers: Sequence[SourceLayer]) -> Iterator[Finding]:
    """Settings by layer index, of which every donor has a table or none has."""
    tables = [donor.config.text.get(TABLE) if donor.config else None for donor, _ in layers]
    if not any(tables) and not text.get(TABLE):
        return
    gathered = {}
    for place, (table, (_, index)) in enumerate(zip(tables, layers, strict=True)):
        if not isinstance(table, dict) or not all(str(key).isdecimal() for key in table):
            yield cannot(f"what `{TABLE}` says of each layer", "not every donor has such a table of layer indices")
            return
        own = {int(key): value for key, value in table.items()}
        if index in own:
            gathered[str(place)] = own[index]
    text[TABLE] = gathered


def gather_indices(text: dict[str, Any], layers: Sequence[SourceLayer]) -> Iterator[Finding]:
    """Lists of the layers that have tables of n-grams: the n-th such layer must be the n-th in its donor."""
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
            why = "the sizes and hashes of such tables depend on how many layers with tables come before"
            yield cannot(f"the tables of n-grams of layer {ranges(wrong)}", why, wrong)


def _ranks(config: ModelConfig | None, key: str) -> dict[int, int]:
    """The indices in a list of the config, each with how many smaller ones there are."""
    listed = config.text.get(key) if config else None
    indices = {index for index in listed if type(index) is int} if isinstance(listed, list) else set()
    return {index: rank for rank, index in enumerate(sorted(indices))}
