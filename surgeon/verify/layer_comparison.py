"""Compare the planned layers with those that transformers builds: every layer must be as in its donor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..assemble.load_back import Mismatch, key_of
from ..text import one_line, ranges
from .resolved_model import CLASS, Resolved

_LABELS = {"attention": "attention", "window": "sliding window", "rope": "rope", "mlp": "MLP"}

_DECISIVE = re.compile(rf"(^|\.)({CLASS}|\w*(sliding|window|rope|attention_type|layer_type|block_type|cross)\w*)$")
"""Values in modules that change what a layer computes; a difference in any other value is only a warning."""

_ABSENT = "absent"

Layers = Sequence[Mapping[str, Any]]
"""The `layers` of an expectation."""


@dataclass(frozen=True)
class _Column:
    """One value for each layer of a donor, and for each layer of the output (None if the output does not have it)."""

    name: str
    theirs: Sequence[Any]
    ours: Sequence[Any] | None
    severity: str


def compare(
    out: Resolved, layers: Layers, donors: Mapping[str, Resolved], base: str | None, text: Mapping[str, Any]
) -> list[Mismatch]:
    """The differences, errors first.

    Args:
        out: the output as transformers resolves it, with the planned number of layers.
        layers: the planned layers.
        donors: by letter, the donors that transformers can resolve, resolved in the same way.
        base: letter of the config's donor.
        text: the text model's part of the written config, for the names of its keys.
    """
    found = list(_named(out, layers, donors, text))
    reported = {item.layer for item in found}
    for letter, donor in donors.items():
        mine = [(index, layer["layer"]) for index, layer in enumerate(layers) if layer.get("donor") == letter]
        for column in _columns(out, donor):
            for item in _differs(column, mine, letter, foreign=letter != base):
                # A wrong kind of layer differs in many values, but is reported once.
                if item.layer is None or item.layer not in reported:
                    found.append(item)
                    reported |= {item.layer} if item.severity == "error" else set()
    return sorted(found, key=lambda item: (item.severity != "error", -1 if item.layer is None else item.layer))


def _named(
    out: Resolved, layers: Layers, donors: Mapping[str, Resolved], text: Mapping[str, Any]
) -> Iterator[Mismatch]:
    """Differences in named attributes, which must be as planned or as resolved in the donor."""
    for index, (row, layer) in enumerate(zip(out.rows, layers, strict=True)):
        theirs = _donor_row(layer, donors)
        for name, label in _LABELS.items():
            wanted, have = layer["attributes"].get(name), row.get(name)
            if wanted is None or name not in row or have in (wanted, theirs.get(name, wanted)):
                continue
            wanted = theirs.get(name, wanted)
            message = f"the {label} should be {_word(wanted)}, but transformers makes it {_word(have)}"
            yield Mismatch(index, key_of(name, text), wanted, have, message)


def _donor_row(layer: Mapping[str, Any], donors: Mapping[str, Resolved]) -> Mapping[str, Any]:
    donor = donors.get(layer.get("donor", ""))
    return donor.rows[layer["layer"]] if donor and layer["layer"] < len(donor.rows) else {}


def _columns(out: Resolved, donor: Resolved) -> Iterator[_Column]:
    """The lists of the config, then the classes of modules, then their other values."""
    for name, theirs in donor.lists.items():
        yield _Column(name, theirs, out.lists.get(name), "error")
    if not donor.facts or not out.facts:
        return
    names = dict.fromkeys(name for facts in (*donor.facts, *out.facts) for name in facts)
    for name in sorted(names, key=lambda name: not name.endswith(CLASS)):
        theirs = [facts.get(name, _ABSENT) for facts in donor.facts]
        ours = [facts.get(name, _ABSENT) for facts in out.facts]
        yield _Column(name, theirs, ours, "error" if _DECISIVE.search(name) else "warning")


def _differs(column: _Column, mine: Sequence[tuple[int, int]], letter: str, *, foreign: bool) -> Iterator[Mismatch]:
    """Differences between the output's layers and one donor's.

    A value that is the same in all layers of the donor, and in all of the output, is a setting of the whole model,
    which the plan reports. With `foreign` a value may differ if every occurrence differs in the same way.
    """
    name, theirs, ours = column.name, column.theirs, column.ours
    if ours is None:
        if len(set(map(repr, theirs))) > 1:
            what = f"{letter} sets it for each of its {len(theirs)} layers, but the output for none or too few"
            yield Mismatch(None, name, list(theirs), None, what, column.severity)
        return
    wrong = [(index, entry) for index, entry in mine if not _same(ours[index], theirs[entry])]
    if not wrong or _settings(theirs, ours) or (foreign and _renamed(theirs, ours, mine)):
        return
    index, entry = wrong[0]
    more = f"; layer {ranges(other for other, _ in wrong[1:])} too" if len(wrong) > 1 else ""
    what = f"layer {entry} of {letter} has {_word(theirs[entry])}, but transformers makes it {_word(ours[index])}{more}"
    yield Mismatch(index, name, theirs[entry], ours[index], what, column.severity)


def _same(one: Any, other: Any) -> bool:
    if type(one) is float and type(other) is float:
        return abs(one - other) <= 1e-6 * max(abs(one), abs(other)) or one != one != other
    return bool(one == other)


def _settings(theirs: Sequence[Any], ours: Sequence[Any]) -> bool:
    return len(set(map(repr, theirs))) == 1 and len(set(map(repr, ours))) == 1


def _renamed(theirs: Sequence[Any], ours: Sequence[Any], mine: Sequence[tuple[int, int]]) -> bool:
    """Whether each of the donor's values is consistently replaced by one other, as a class name or a size may be."""
    became: dict[str, set[str]] = {}
    for index, entry in mine:
        pair = ours[index], theirs[entry]
        if not all(type(value) in (int, float, str) for value in pair):
            return False
        became.setdefault(repr(pair[1]), set()).add(repr(pair[0]))
    return all(len(values) == 1 for values in became.values())


def _word(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {True: "on", False: "off", None: "none"}[value]
    return one_line(value)
