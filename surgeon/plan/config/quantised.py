"""Quantised donors: their bytes are copied unchanged, and config entries that name a layer move with it.

A quantisation config is a tree in which lists of names (`ignore`, `modules_to_not_convert`, `targets`) and keys of
tables (`dynamic`, `extra_config`) may name a layer by its index. The same rule holds for all formats: an entry that
names one layer follows it, an entry that names none stays, and an entry that names several is refused. Patterns come
from untrusted files, so they are analysed and never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...checkpoint import Checkpoint
from ...checkpoint.families.model_config import ModelConfig
from ...text import one_line, plural
from ..findings import Finding
from ..model import Donor, PlannedLayer, PlannedTensor
from ..operands import Copy

KEYS = ("quantization_config", "compression_config")
REMEDY = "dequantise first: load each donor with transformers, save it in bfloat16, and splice those"

_ABOUT = frozenset({
    "meta", "global_compression_ratio", "damp_percent", "damp_auto_increment", "dataset", "tokenizer",
    "model_name_or_path", "autoround_version",
})  # fmt: skip
"""Keys about how a model was quantised, which do not matter for reading it."""

_CONTAINER = r"(?:layers?|h|blocks?)"
_DECODER = frozenset({
    "", "*", "model", "language_model", "text_model", "transformer", "decoder", "backbone", "gpt_neox", "llm",
})  # fmt: skip
_ELSEWHERE = re.compile(r"vis|audio|image|tower|speech|mtp|project|resampl")
_ORDERED = "dynamic"
"""A table of patterns in which the first match counts."""

_LONGEST = 1000
_DOT = r"(?:\\\.|\[\.\]|\.)"
_EVERY = re.compile(
    r"(?:\((?:\?:)?)?(?:\\d[+*]|\[0-9\][+*]|\[\^\.\][+*]|\[\^\\\.\][+*]|\.[*+]\??|\\w[+*]|\*)\)?(?=$|[^0-9])"
)
_PLAIN_AFTER = re.compile(rf"{_DOT}(?![*+?{{])|\\b|\$$")


class _Unclear(ValueError):
    """A name or pattern that may name several layers and so cannot be moved; the text is the reason."""


Span = tuple[int, int]
"""Start and stop of the digits of a layer's index in a name or pattern."""

_SEVERAL = "it is a pattern over several layers"


def layer_in(name: str, pattern: bool) -> Span | None:
    """The span of the layer's index in a name of a quantisation config; None if it names no single layer.

    Args:
        name: a module's name, a glob, or a regular expression.
        pattern: whether it is a regular expression.

    Raises:
        _Unclear: it may name several layers.
    """
    if len(name) > _LONGEST:
        raise _Unclear(f"it is longer than {_LONGEST} characters")
    return _in_pattern(name) if pattern else _in_name(name)


def _in_name(name: str) -> Span | None:
    for match in re.finditer(rf"(?:^|\.){_CONTAINER}\.", name):
        rest, before = name[match.end() :], name[: match.start()].split(".")
        digits = re.match(r"\d+", rest)
        if any(_ELSEWHERE.search(part) for part in before):
            return None
        if _EVERY.match(rest) or not (digits or re.match(r"[*?\[{(\\]", rest)):
            continue
        if not digits or rest[digits.end() : digits.end() + 1] not in ("", "."):
            raise _Unclear(_SEVERAL)
        if not set(before) <= _DECODER:
            raise _Unclear("it may mean layers outside the decoder")
        return match.end(), match.end() + digits.end()
    if re.match(r"\d+\.[A-Za-z_]", name):
        raise _Unclear("it begins with a number that may be a layer's index")
    return None


def _in_pattern(text: str) -> Span | None:
    start = re.match(r"re:|[+-]:|", text)
    first = start.end() if start else 0
    body = text[first:]
    places = [match.end() for match in re.finditer(rf"(?<![A-Za-z_]){_CONTAINER}{_DOT}", body)]
    spans = []
    for place in places:
        if any(_ELSEWHERE.search(part) for part in re.split(r"\W+", body[:place])):
            return None
        if _EVERY.match(body, place):
            continue
        digits = re.compile(r"\d+").match(body, place)
        if not digits or not _PLAIN_AFTER.match(body, digits.end()):
            raise _Unclear(_SEVERAL)
        spans.append(digits.span())
    if not places:
        spans = [match.span(1) for match in re.finditer(rf"{_DOT}(\d+)(?={_DOT}(?![*+?{{])|$)", body)]
    rest = re.sub(r"[A-Za-z_][A-Za-z_0-9]*", "", _EVERY.sub("", _without(body, spans)))
    if not places and re.search(r"\d", rest):
        raise _Unclear(_SEVERAL)
    if len(spans) > 1 or (spans and (_splits(body) or "(?!" in body or "(?<!" in body)):
        raise _Unclear(_SEVERAL)
    return (spans[0][0] + first, spans[0][1] + first) if spans else None


def _without(text: str, spans: Sequence[Span]) -> str:
    for start, stop in reversed(spans):
        text = text[:start] + text[stop:]
    return text


def _splits(pattern: str) -> bool:
    """Whether a pattern has alternatives outside groups, so that only some of them may name the layer."""
    depth = 0
    for char in re.sub(r"\\.|\[[^\]]*\]", "", pattern):
        depth += (char == "(") - (char == ")")
        if char == "|" and depth == 0:
            return True
    return False


def _is_pattern(name: str, key: str) -> bool:
    return name.startswith(("re:", "+:", "-:")) or key == _ORDERED


def settings(config: ModelConfig | None) -> dict[str, Any] | None:
    """The quantisation config of a checkpoint; None without one."""
    for level in (config.raw, config.text) if config else ():
        for key in KEYS:
            if isinstance(value := level.get(key), dict) and value:
                return value
    return None


def compare(donors: Sequence[Donor], template: Donor, lines: Mapping[str, int | None]) -> Iterator[Finding]:
    """Errors for donors whose quantisation differs from the template's, except in entries for single layers."""
    base = settings(template.checkpoint.config)
    for donor in donors:
        own = settings(donor.checkpoint.config)
        if donor.letter == template.letter or (own is None and base is None):
            continue
        if own is None or base is None:
            one, other = (template, donor) if own is None else (donor, template)
            yield Finding(
                "error",
                "quantised-mixed",
                f"{one.letter} is quantised ({one_line(one.checkpoint.quantisation)}), but {other.letter} is not",
                "a model has one quantisation for all its layers",
                REMEDY,
                line=lines.get(donor.letter),
            )
            continue
        difference = next(_differences(_common(own), _common(base)), None)
        if difference is not None:
            key, mine, theirs = difference
            yield Finding(
                "error",
                "quantised-differs",
                f"{donor.letter} and {template.letter} are quantised differently: {one_line(key)} is "
                f"{one_line(_short(mine))} in {donor.letter} and {one_line(_short(theirs))} in {template.letter}",
                "the output's config.json describes one format, and bytes of another would be misread",
                f"use donors with the same quantisation, or {REMEDY}",
                line=lines.get(donor.letter),
            )


def arithmetic(template: Donor, layers: Sequence[PlannedLayer], outer: Sequence[PlannedTensor]) -> Iterator[Finding]:
    """Errors for tensors of a quantised output that the recipe would cast, scale or blend.

    Args:
        template: the donor of the config.
        layers: the output's layers.
        outer: its tensors outside them.
    """
    if settings(template.checkpoint.config) is None:
        return
    inner = [(tensor, len(group), layer.index) for layer in layers for tensor, group in layer.groups]
    made = [item for item in [*inner, *((tensor, 1, -1) for tensor in outer)] if not isinstance(item[0].source, Copy)]
    cast = [item for item in made if item[0].dtype != item[0].entry.dtype]
    kept = [item for item in made if item[0].dtype == item[0].entry.dtype]
    scaled = [item for item in kept if item[2] >= 0 or not _is_plain(item[0].name, layers, outer)]
    for found, code, what in ((cast, "quantised-dtype", "cast"), (scaled, "quantised-scale", "scaled")):
        if found:
            entry = found[0][0].entry
            yield Finding(
                "error",
                code,
                f"{plural(sum(count for _, count, _ in found), 'tensor')} of a quantised model would be {what}, for "
                f"instance {one_line(entry.name)} ({entry.dtype})",
                "quantised weights and their scales can only be copied",
                f"remove {'dtype' if what == 'cast' else 'the scale'} from the recipe, or {REMEDY}",
                tuple(dict.fromkeys(index for _, _, index in found if index >= 0)),
            )


def _is_plain(name: str, layers: Sequence[PlannedLayer], outer: Sequence[PlannedTensor]) -> bool:
    """Whether a tensor's module has only a weight and a bias, and is therefore not quantised."""
    module = name.rpartition(".")[0] + "."
    names = [*(tensor.name for tensor in outer), *(layer.name_of(first) for layer in layers for first in layer.firsts)]
    held = {other.removeprefix(module) for other in names if other.startswith(module)}
    return held <= {"weight", "bias"}


def reindex(
    config: ModelConfig, template: Checkpoint, layers: Sequence[tuple[Checkpoint, int]], still: bool
) -> list[Finding]:
    """Rewrite the output's quantisation config so that entries for a layer follow it from its donor.

    Args:
        config: the output's config, a copy of the template's; changed in place.
        template: the donor of the config.
        layers: for each output layer its donor and its index in the donor.
        still: whether every layer keeps its index.

    Returns:
        Errors for entries that cannot be moved.
    """
    donors = {id(donor): donor for donor in (template, *(donor for donor, _ in layers))}
    stated = {key: settings(donor.config) for key, donor in donors.items()}
    if stated[id(template)] is None or None in stated.values() or (still and len(donors) == 1):
        return []  # `compare` reports a mixture of quantised and other donors.
    work = _Reindexer(id(template), [(id(donor), index) for donor, index in layers], template.depth if still else None)
    made = work.node(stated)
    for level in (config.raw, config.text):
        for key in KEYS:
            if isinstance(level.get(key), dict) and level[key]:
                level[key] = made
    return [] if still else [_refused(name, why) for name, why in work.unclear.items()]


def _refused(name: str, why: str) -> Finding:
    return Finding(
        "error",
        "quantised-entry",
        f"{one_line(name[:120])!r} in the quantisation config cannot be moved with its layers",
        why,
        f"replace it by one entry for each layer, or {REMEDY}",
    )


class _Reindexer:
    """Walks the quantisation configs of all donors in parallel, and rewrites the template's."""

    def __init__(self, base: int, layers: Sequence[tuple[int, int]], depth: int | None) -> None:
        """`depth` is the template's if no layer moves; entries for layers beyond it are then kept too."""
        self.base, self.layers, self.depth = base, layers, depth
        self.unclear: dict[str, str] = {}

    def node(self, nodes: Mapping[int, Any], key: str = "") -> Any:
        """The output's value, made from each donor's value (None if a donor has none)."""
        kinds = {type(value) for value in nodes.values() if value is not None}
        base = nodes[self.base]
        if kinds == {dict}:
            return self._table({donor: value or {} for donor, value in nodes.items()}, key)
        if kinds == {list} and all(isinstance(item, str) for value in nodes.values() for item in value or ()):
            lists = {donor: dict.fromkeys(value or ()) for donor, value in nodes.items()}
            return list(self._merged(lists, key)) if base is not None or any(lists.values()) else None
        if isinstance(base, list) and base:
            if all(isinstance(item, int) and not isinstance(item, bool) for item in base) and "layer" in key:
                self.unclear[key] = "it lists numbers that may be those of layers"
            same = all(isinstance(value, list) and len(value) == len(base) for value in nodes.values())
            pieces = [
                {donor: value[i] if same else base[i] for donor, value in nodes.items()} for i in range(len(base))
            ]
            return [self.node(piece, key) for piece in pieces]
        if isinstance(base, str) and (self._span(base, key) is not None):
            self.unclear[base] = "it is a single value, but the output may repeat the layer at several indices"
        return base

    def _table(self, tables: Mapping[int, dict[str, Any]], key: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, values in self._merged(tables, key).items():
            value = self.node(values, name)
            emptied = isinstance(value, dict) and value.get("targets") == [] and self._had_targets(values)
            if not emptied and (value is not None or name in tables[self.base]):
                made[name] = value
        return made

    @staticmethod
    def _had_targets(values: Mapping[int, Any]) -> bool:
        return any(isinstance(value, dict) and value.get("targets") for value in values.values())

    def _span(self, name: str, key: str) -> Span | None:
        try:
            return layer_in(name, _is_pattern(name, key))
        except _Unclear as error:
            self.unclear[name] = str(error)
            return None

    def _merged(self, tables: Mapping[int, Mapping[str, Any]], key: str) -> dict[str, dict[int, Any]]:
        """The names of the output in order, each with every donor's value of it.

        Names without an index keep their order, because in some formats the first match counts. Names with an index
        keep their position between these.
        """
        common: list[str] = []
        indexed: dict[tuple[int, int, int], list[tuple[str, Span, Any]]] = {}
        for donor, table in tables.items():
            number = 0
            for name, value in table.items():
                span = self._span(name, key)
                if span is None:
                    number += 1
                    if name not in common:
                        common.append(name)
                else:
                    index = int(name[span[0] : span[1]])
                    indexed.setdefault((donor, index, number), []).append((name, span, value))
        made: dict[str, dict[int, Any]] = {}
        for number in range(len(common) + 1):
            for position, (donor, index) in enumerate(self.layers):
                for name, (start, stop), value in indexed.get((donor, index, number), ()):
                    made[f"{name[:start]}{position}{name[stop:]}"] = dict.fromkeys(tables, value)
            if self.depth is not None:
                beyond = [names for (donor, index, at), names in indexed.items()
                          if donor == self.base and at == number and index >= self.depth]  # fmt: skip
                made |= {name: dict.fromkeys(tables, value) for names in beyond for name, _, value in names}
            if number < len(common):
                made[common[number]] = {donor: table.get(common[number]) for donor, table in tables.items()}
        return made


def _common(value: Any, key: str = "") -> Any:
    """The part of a quantisation config that applies to all layers, in a normal form; None if nothing is left."""
    if isinstance(value, dict):
        skip = _ABOUT | ({"version"} if value.get("quant_method") == "compressed-tensors" else set())
        kept: dict[str, Any] = {}
        for name, item in value.items():
            # In a table of modules, a name with an empty value is an entry too.
            left = item if key and item == {} else _common(item, name)
            if left is not None and name not in skip and not _names_layer(name, key):
                kept[name] = left
        return (list(map(list, kept.items())) if key == _ORDERED else kept) or None
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return sorted(item for item in value if not _names_layer(item, key)) or None
        return [_common(item, key) for item in value]
    return value


def _names_layer(name: str, key: str) -> bool:
    try:
        return layer_in(name, _is_pattern(name, key)) is not None
    except _Unclear:
        return False


def _differences(one: Any, other: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys((*one, *other)):
            yield from _differences(one.get(name), other.get(name), f"{key}.{name}" if key else name)
    elif isinstance(one, list) and isinstance(other, list) and all(isinstance(item, str) for item in (*one, *other)):
        if one != other:
            yield key, [item for item in one if item not in other], [item for item in other if item not in one]
    elif one != other:
        yield key or "quantization_config", one, other


def _short(value: Any) -> str:
    text = "not stated" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
