"""The parameters of a blended layer: the main one in a few characters for the stack, all of them for the inspector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ...methods.registry import Word
from ...plan import Plan, PlannedLayer, PlannedTensor
from ...plan.layers.value_text import spoken
from ...plan.model import Donor, Value
from ...text import one_line

_MAIN = ("t", "weight")
_SHORT = {"weight": "w"}


def short_number(value: Word) -> str:
    """A number in as few characters as two decimals need: `.35`, `1`, `-.5`, `2e-05`."""
    if isinstance(value, (bool, str)):
        return str(value).lower()
    if value and abs(value) < 0.005:
        return f"{value:.0e}"
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def is_blend(layer: PlannedLayer) -> bool:
    """Whether a layer is computed from several donors' (or is meant to be)."""
    return len(layer.sources) > 1 or layer.method != "passthrough"


def main_value(layer: PlannedLayer) -> str:
    """The method's main parameter over all tensors of a layer: `t.35`, `t0-.5` where filters differ, `w.7/.3`."""
    values = [value for tensor in layer.firsts for value in tensor.values]
    name = next((name for name in _MAIN if any(value.name == name for value in values)), None)
    if name is None:
        return ""
    donors: dict[int | None, list[float]] = {}
    for value in values:
        if value.name == name and not isinstance(value.value, str):
            donors.setdefault(value.donor, []).append(float(value.value))
    return _SHORT.get(name, name) + "/".join(_span(found) for found in donors.values())


def _span(found: Sequence[float]) -> str:
    low, high = short_number(min(found)), short_number(max(found))
    return low if low == high else f"{low}-{high}"


def value_lines(tensors: Sequence[PlannedTensor], letters: Sequence[str]) -> Iterator[str]:
    """Every parameter of a layer's or end's tensors and where it is set; tensors with the same parameters together."""
    groups: dict[str, list[PlannedTensor]] = {}
    for tensor in tensors:
        if tensor.values:
            groups.setdefault(spoken(tensor.values, letters), []).append(tensor)
    common = _common([group[0].values for group in groups.values()])
    for number, group in enumerate(groups.values()):
        own = [value for value in group[0].values if value not in common]
        if own:
            yield f"{_names(group, tensors)}: {spoken(own, letters)}"
        elif not number and not common:
            yield _names(group, tensors)
    if common:
        head = "" if len(groups) == 1 else "all: "
        said = sorted(common, key=lambda value: value.origin == "default")
        yield from (f"{head}{part}" for part in spoken(said, letters).split("; "))


def _common(tables: Sequence[Sequence[Value]]) -> list[Value]:
    """The values that every tensor has."""
    return [value for value in tables[0] if all(value in table for table in tables)] if tables else []


def _names(group: Sequence[PlannedTensor], every: Iterable[PlannedTensor]) -> str:
    """Names a group of tensors by the shortest parts that no other tensor has: `self_attn, input_layernorm`."""
    here = {tensor.place.suffix for tensor in group}
    others = {tensor.place.suffix.partition(".")[0] for tensor in every if tensor.place.suffix not in here}
    names = (suffix if suffix.partition(".")[0] in others else suffix.partition(".")[0] for suffix in sorted(here))
    return one_line(", ".join(dict.fromkeys(name.removesuffix(".weight") for name in names)))


def source_lines(plan: Plan, layer: PlannedLayer) -> Iterator[str]:
    """Each source of a blend with its donor; the base is marked."""
    for number, (letter, index) in enumerate(layer.sources):
        donor = plan.donors.get(letter)
        base = " (base)" if number == layer.base else ""
        yield f"{letter}{index:02d} {donor_layer(donor, index) if donor else 'not found'}{base}"


def donor_layer(donor: Donor, index: int) -> str:
    """The donor's name; for a stage also the sources of the layer: `two-skills: B16~C16`."""
    name = one_line(donor.ref)
    return f"{name}: {donor.layer_labels[index]}" if index < len(donor.layer_labels) else name
