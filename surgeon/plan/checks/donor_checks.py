"""Check that the donors fit together: shapes, tensor names, and the global config settings that layers depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...checkpoint.families.family_compatibility import Kinship, kinship
from ...checkpoint.layer_weights import Shapes
from ...recipe.schema import End
from ...text import one_line
from ..config.scalars import compare_settings
from ..ends.end_owners import Owners
from ..findings import Finding
from ..model import Donor, PlannedLayer

_SAME_TENSORS = frozenset({"full", "sliding", "chunked"})
"""Kinds of attention whose layers have the same tensors."""


def compare(
    donors: Sequence[Donor],
    template: Donor,
    layers: Sequence[PlannedLayer],
    *,
    lines: Mapping[str, int | None],
    dtype: str | None,
) -> Iterator[Finding]:
    """Compare every donor of layers or ends with the donor of the config.

    Args:
        donors: the donors that the output uses.
        template: the donor of the config.
        layers: the output's layers.
        lines: by letter, the line of the recipe that names the donor first.
        dtype: the dtype that the recipe sets; None for none.
    """
    used = {d.letter: tuple(layer.index for layer in layers if _uses(layer, d.letter)) for d in donors}
    for donor in donors:
        config, base = donor.checkpoint.config, template.checkpoint.config
        if donor.letter == template.letter or config is None or base is None:
            continue
        here = (used[donor.letter], lines.get(donor.letter))
        kin = kinship(config, base)
        if kin.classes:
            yield _classes(donor, template, kin, *here)
        if not kin.same:
            continue
        yield from _widths(donor, template, *here)
        if used[donor.letter]:
            yield from _rope(donor, template, *here)
        yield from compare_settings(donor, template, *here)
    family = [donor for donor in donors if _same_family(donor, template)]
    yield from _tensor_sets(family, template, layers, lines)
    yield from _dtypes(donors, used, dtype)


def _uses(layer: PlannedLayer, letter: str) -> bool:
    return any(source == letter for source, _ in layer.sources)


def _same_family(donor: Donor, template: Donor) -> bool:
    one, other = donor.checkpoint.config, template.checkpoint.config
    return one is not None and other is not None and kinship(one, other).same


def _classes(donor: Donor, template: Donor, kin: Kinship, layers: tuple[int, ...], line: int | None) -> Finding:
    one, other = donor.checkpoint.config, template.checkpoint.config
    assert one and other
    what = f"{donor.letter} is {one_line(one.model_type) or 'unknown'} and {template.letter} is " + (
        one_line(other.model_type) or "unknown"
    )
    if not kin.same:
        return Finding("error", "architecture", what, kin.why_not, "use donors of one architecture", layers, line)
    return Finding(
        "note",
        "other-class",
        what,
        f"with these settings both classes compute the same; the output's class is "
        f"{one_line(other.architecture or other.model_type)}, that of {template.letter}",
        "set base_model to choose the other class",
        layers,
        line,
    )


def _widths(donor: Donor, template: Donor, layers: tuple[int, ...], line: int | None) -> Iterator[Finding]:
    one, other = donor.checkpoint.config, template.checkpoint.config
    assert one and other
    pairs = (
        ("hidden-size", "hidden size", one.hidden_size, other.hidden_size),
        ("heads", "number of attention heads", one.heads, other.heads),
        ("kv-heads", "number of KV heads", one.kv_heads, other.kv_heads),
        ("head-dim", "head width", one.head_dim, other.head_dim),
        ("intermediate-size", "intermediate size", one.intermediate_size, other.intermediate_size),
        ("experts", "number of experts", one.experts, other.experts),
    )
    for code, name, mine, theirs in pairs:
        if mine != theirs and (layers or code == "hidden-size"):
            yield Finding(
                "error",
                code,
                f"The {name} of {donor.letter} is {mine}, that of {template.letter} is {theirs}",
                "one value holds for all layers of a model",
                f"use donors with the same {name}",
                layers,
                line,
            )


def _rope(donor: Donor, template: Donor, layers: tuple[int, ...], line: int | None) -> Iterator[Finding]:
    one, other = donor.checkpoint.config, template.checkpoint.config
    assert one and other
    if one.rope != other.rope:
        yield Finding(
            "warning",
            "rope",
            f"The rotary settings of {donor.letter} ({_short(one.rope)}) differ from those of {template.letter} "
            f"({_short(other.rope)})",
            f"the output has only {template.letter}'s settings, so {donor.letter}'s layers see other positions than "
            "in training",
            f"set base_model to the donor whose settings the output needs, or remove {donor.letter}",
            layers,
            line,
        )
    elif one.context and other.context and one.context != other.context:
        yield Finding(
            "note",
            "context",
            f"The output's config has {template.letter}'s context of {other.context:,} tokens",
            f"{donor.letter} has a context of {one.context:,} tokens",
            layers=layers,
            line=line,
        )


def _short(value: Mapping[str, Any]) -> str:
    return one_line(", ".join(f"{key} {item}" for key, item in value.items()) or "none")[:120]


def _shapes(donor: Donor, index: int) -> dict[str, tuple[int, ...]]:
    return {name: entry.shape for name, entry in donor.checkpoint.weights(index).tensors.items()}


def _same(one: Shapes, other: Shapes) -> bool:
    return one is other or one == other


def _type(donor: Donor) -> str:
    return donor.checkpoint.config.model_type if donor.checkpoint.config else ""


def _tensor_sets(
    donors: Sequence[Donor], template: Donor, layers: Sequence[PlannedLayer], lines: Mapping[str, int | None]
) -> Iterator[Finding]:
    """Check that each layer has the tensors of the config donor's layer at that index, or of one of the same kind.

    In some families the first or last layer differs from the others, so one kind has several sets of tensors.
    """
    by_letter = {donor.letter: donor for donor in donors}
    reference: dict[tuple[Any, ...], list[tuple[Donor, int, Shapes]]] = {}

    # Only in gemma4 do sliding layers have another head width than full ones.
    apart = {donor.letter for donor in (template, *donors) if _type(donor).startswith("gemma4")}

    def kind(donor: Donor, index: int) -> tuple[Any, ...]:
        attributes = donor.checkpoint.layers[index].attributes
        # A quantised checkpoint may keep some layers unquantised, so the same weight exists in two forms.
        form = donor.checkpoint.weights(index).packed if donor.checkpoint.quantisation else None
        attention = str(attributes.get("attention"))
        alike = attention in _SAME_TENSORS and donor.letter not in apart
        return attributes.get("mlp"), "full" if alike else attention, form

    own = [template.checkpoint.weights(index).shapes for index in range(template.checkpoint.depth)]
    for index, shapes in enumerate(own):
        known = reference.setdefault(kind(template, index), [])
        if not any(_same(shapes, other) for _, _, other in known):
            known.append((template, index, shapes))
    done: set[tuple[str, int, bool]] = set()
    reported: set[str] = set()
    for planned in layers:
        for letter, index in planned.sources:
            donor, here = by_letter.get(letter), index == planned.index
            if donor is None or letter in reported or (letter, index, here) in done:
                continue
            if not 0 <= index < donor.checkpoint.depth:
                continue
            done.add((letter, index, here))
            mine = donor.checkpoint.weights(index).shapes
            known = reference.setdefault(kind(donor, index), [(donor, index, mine)])
            if any(letter == other.letter or _same(mine, theirs) for other, _, theirs in known):
                continue
            if here and index < len(own) and _same(mine, own[index]):
                continue
            reported.add(letter)
            where = tuple(layer.index for layer in layers if _uses(layer, letter))
            other, first, _ = known[0]
            yield _tensor_difference(
                letter, _shapes(donor, index), other.letter, _shapes(other, first), where, lines.get(letter)
            )


def _tensor_difference(
    letter: str,
    mine: Mapping[str, tuple[int, ...]],
    other: str,
    theirs: Mapping[str, tuple[int, ...]],
    layers: tuple[int, ...],
    line: int | None,
) -> Finding:
    extra, missing = sorted(set(mine) - set(theirs)), sorted(set(theirs) - set(mine))
    if extra or missing:
        parts = [f"{letter} has {_some(extra)}"] if extra else []
        parts += [f"{letter} lacks {_some(missing)}"] if missing else []
        kinds = {
            "biases" if name.endswith("bias") else "norms" if "norm" in name else "tensors" for name in extra + missing
        }
        return Finding(
            "error",
            "tensor-set",
            f"The layers of {letter} and {other} do not have the same {' and '.join(sorted(kinds))}",
            "; ".join(parts) + "; one config describes all layers",
            "use donors whose layers have the same tensors",
            layers,
            line,
        )
    name = next(name for name in mine if mine[name] != theirs[name])
    return Finding(
        "error",
        "shape",
        f"{one_line(name)} is {list(mine[name])} in {letter} and {list(theirs[name])} in {other}",
        "all layers of a model have the same shapes",
        "use donors of the same size",
        layers,
        line,
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return one_line(", ".join(names[:3])) + more


def _dtypes(donors: Sequence[Donor], used: Mapping[str, tuple[int, ...]], dtype: str | None) -> Iterator[Finding]:
    held = {d.letter: next(iter(d.checkpoint.dtypes)) for d in donors if used.get(d.letter)}
    if len(set(held.values())) < 2:
        return
    parts = ", ".join(f"{letter} {code}" for letter, code in held.items())
    if dtype is not None:
        what = f"The donors have different dtypes ({parts})"
        yield Finding("note", "dtype-mixed", what, f"all tensors are written as {dtype}")
        return
    yield Finding(
        "warning",
        "dtype-mixed",
        f"The donors have different dtypes ({parts})",
        "the recipe sets no dtype, so each tensor keeps its own, but a model is loaded in only one",
        "set dtype in the recipe",
    )


def compare_ends(who: Owners, template: Donor) -> Iterator[Finding]:
    """Check that the ends have the same tensors as the template, whose config the output has.

    The shapes must be the same too, except for the number of token rows.
    """
    ends: tuple[End, ...] = ("embeddings", "final_norm")
    for role, donor in ((end, donor) for end in ends for donor in who.of(end).donors):
        if donor.letter == template.letter:
            continue
        table = donor.checkpoint.token_embedding
        mine = {name: e.shape[1:] if e is table else e.shape for name, e in donor.checkpoint.ends[role].items()}
        table = template.checkpoint.token_embedding
        theirs = {name: e.shape[1:] if e is table else e.shape for name, e in template.checkpoint.ends[role].items()}
        if mine != theirs:
            name = next(name for name in (*mine, *theirs) if mine.get(name) != theirs.get(name))
            yield Finding(
                "error",
                "end-shape",
                f"The tensors of {role} of {donor.letter} do not fit the config of {template.letter}",
                f"{one_line(name)} is {list(mine.get(name, ())) or 'missing'} in {donor.letter} and "
                f"{list(theirs.get(name, ())) or 'missing'} in {template.letter}",
                f"take {role} and the config from the same donor",
            )
