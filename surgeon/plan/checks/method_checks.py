"""Check a recipe's methods: their names, numbers of donors, base models, unknown parameters, and edge policies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...methods.catalogue import every, suggestion
from ...recipe.document import Document
from ...recipe.schema import ENDS
from ...text import nearest, one_line, plural
from ..findings import Finding
from ..layers.blending import counted
from ..planned_slices import PlannedSlice, SliceRow, used_tables


def methods(
    document: Document, planned: Sequence[PlannedSlice], stack: Sequence[SliceRow], names: Mapping[str, str]
) -> Iterator[Finding]:
    """Run all checks of methods.

    Args:
        document: the recipe.
        planned: its slices with their methods.
        stack: the output's layers.
        names: letters of the donors, by reference.
    """
    by_slice: dict[int, list[int]] = {}
    for row in stack:
        if row.part is planned[row.slice_index]:
            by_slice.setdefault(row.slice_index, []).append(row.index)
    layers = {number: tuple(indices) for number, indices in by_slice.items()}
    yield from _unknown(document, planned, layers)
    for part in planned:
        if part.method is not None:
            yield from _arity(document, part, layers.get(part.number, ()), names)
    yield from _parameters(document, planned)
    yield from _edges(document, len(stack))


def _line(document: Document, part: PlannedSlice) -> int | None:
    return document.line("slices", part.number) or document.line("models") or document.line("merge_method")


def _unknown(
    document: Document, planned: Sequence[PlannedSlice], layers: Mapping[int, tuple[int, ...]]
) -> Iterator[Finding]:
    asked: dict[tuple[str, int | None], list[int]] = {}
    for part in planned:
        if part.method is None:
            own = ("slices", part.number, "merge_method") if part.slice.merge_method else ("merge_method",)
            asked.setdefault((part.name, document.line(*own)), []).extend(layers.get(part.number, ()))
    for (name, line), here in asked.items():
        guess = suggestion(name)
        yield Finding(
            "error",
            "method",
            f"There is no method {one_line(name)!r}",
            "merge_method must be the name of one of surgeon's methods",
            f"did you mean `{guess}`?" if guess else "see `surgeon methods`",
            tuple(here),
            line,
        )


def _arity(
    document: Document, part: PlannedSlice, here: tuple[int, ...], names: Mapping[str, str]
) -> Iterator[Finding]:
    method, line = part.method, _line(document, part)
    assert method is not None
    count = len(part.sources) - (method.subtracts and part.base is not None)
    low, high = method.donors
    base = names.get(part.base_ref or "", "?")
    if part.only_base:
        yield Finding(
            "note",
            "only-base",
            f"{part.only_base} has only the base model {base} and no other donor",
            "the base model is copied, because there is no task vector to add",
            layers=here,
            line=line,
        )
    if method.base == "required" and part.base is None:
        if part.base_ref is None:
            what, why = f"{part.name} has no base_model", "it works on the donors' differences from a base model"
            remedy = "set base_model to the model that the donors were trained from"
        else:
            what = f"The slice does not determine which layers of the base model {base} to use"
            why = "its sources have different ranges, and the base model is not among them"
            remedy = "list the base model as a source of the slice, with its own layer_range"
        yield Finding("error", "base-missing", what, why, remedy, here, line)
    if part.name == "passthrough" and count > 1:
        yield Finding(
            "error",
            "sources",
            f"A slice of passthrough has {count} sources",
            "passthrough copies each layer from exactly one donor",
            "write one slice for each range, or set merge_method to a method that blends",
            here,
            line,
        )
    elif count < low or (high is not None and count > high):
        with_base = ""
        if method.base != "none" and part.base is not None:
            with_base = f" besides the base {base}" if method.subtracts else f", the base {base} among them"
        yield Finding(
            "error",
            "donors",
            f"{part.name} takes {counted(method.donors)}{with_base}, and the slice has {count}",
            method.summary.rstrip(".")[:1].lower() + method.summary.rstrip(".")[1:],
            "give the slice that many sources, or choose another method",
            here,
            line,
        )
    if method.base in ("member", "none") and part.base_ref is not None and document.recipe.models is not None:
        listed = [entry.model for entry in document.recipe.models]
        if part.base_ref not in listed and any(source.model == part.base_ref for source in part.sources):
            yield Finding(
                "note",
                "base-member",
                f"{part.name} uses the base model {base} as one more donor",
                "it subtracts no base model; mergekit does the same",
                f"remove base_model from the recipe to leave {base} out",
                here,
                line,
            )
    twice = sorted(ref for ref, count in Counter(source.model for source in part.sources).items() if count > 1)
    if twice and part.base_ref in twice and part.base is not None and method.base != "none":
        yield Finding(
            "note",
            "base-first",
            f"The first source that is {names.get(twice[0], '?')} is used as the base model",
            "the slice names the base model more than once",
            layers=here,
            line=line,
        )


def _parameters(document: Document, planned: Sequence[PlannedSlice]) -> Iterator[Finding]:
    """Parameters that no method at their place has: a warning if another method has it, otherwise an error."""
    recipe = document.recipe
    places: list[tuple[Mapping[str, Any], tuple[str | int, ...], list[PlannedSlice]]] = list(
        used_tables(recipe, planned)
    )
    for end in ENDS:
        value = recipe.end(end)
        if value is not None:
            outer = planned[0 if end == "embeddings" else -1 :][:1]
            places.append((value.parameters, (end, "parameters"), [] if value.model else list(outer)))
    known_anywhere = {name for method in every().values() for name in method.parameters}
    for table, place, where in places:
        # A table without slices belongs to a single donor, which passthrough copies.
        found = [every().get(part.only_base, part.method) for part in where] if where else [every()["passthrough"]]
        if any(method is None for method in found):
            continue
        known = {name for method in found if method for name in method.parameters}
        names = sorted({method.name for method in found if method})
        for name in table:
            if name in known:
                continue
            guess = nearest(name, known)
            elsewhere = name in known_anywhere or name in _FORMER_PARAMETERS
            yield Finding(
                "warning" if elsewhere else "error",
                "parameter",
                f"{' and '.join(names)} {'have' if len(names) > 1 else 'has'} no parameter `{one_line(name)}`",
                "it has no effect" if elsewhere else "no method has it",
                f"did you mean `{guess}`?" if guess else "remove it",
                line=document.line(*place, name),
            )


_FORMER_PARAMETERS = frozenset({"embed_slerp"})
"""Parameters of earlier versions of mergekit that published recipes still have."""


def _edges(document: Document, depth: int) -> Iterator[Finding]:
    recipe = document.recipe
    edges = [(key, edge) for key in ("first_layers", "last_layers") if (edge := getattr(recipe, key)) is not None]
    if depth and sum(edge.count for _, edge in edges) > depth:
        yield Finding(
            "error",
            "edges",
            f"{' and '.join(key for key, _ in edges)} ask for {plural(sum(edge.count for _, edge in edges), 'layer')}",
            f"the stack has {plural(depth, 'layer')}",
            "set a smaller count",
            line=document.line(edges[0][0]),
        )
    for key, edge in edges:
        if edge.model is None and not edge.parameters:
            yield Finding(
                "error",
                "edges",
                f"{key} has no effect",
                "it has neither a model nor parameters",
                "set `model: ...` to take one donor's layers, or `parameters: {...}` to blend them differently",
                line=document.line(key),
            )
        elif edge.model is not None and edge.taper:
            yield Finding(
                "error",
                "edges",
                f"{key} has both a taper and a model",
                "a taper interpolates between two sets of parameters",
                "remove model, and set the parameters of the outermost layer",
                line=document.line(key, "taper"),
            )
