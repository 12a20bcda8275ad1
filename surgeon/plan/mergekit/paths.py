"""Donors as mergekit finds them: it looks from the working directory alone, and tells them apart by their spelling."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import InputError
from ...files import exists, expanded
from ...recipe.document import Document
from ...recipe.schema import Recipe, Slice, Source
from ...text import one_line
from .precision import said
from .refusal import Refusal


def localised(document: Document, folder: Path) -> Document:
    """The document with donors as they are found from `folder`, as whole paths where they are not found there.

    Raises:
        InputError: mergekit cannot read the name of one.
    """
    rename = {}
    for ref in (*document.model_refs, *document.tokenizer_refs):
        name = _localised(ref, document.roots, folder)
        if name != ref:
            rename[ref] = name
    return replace(document.with_models(rename), key_problems=document.key_problems) if rename else document


def _localised(ref: str, roots: Sequence[Path], folder: Path) -> str:
    found = _folder(ref, roots, folder)
    if found is None:
        base, plus, adapter = ref.partition("+")
        return f"{_localised(base, roots, folder)}+{_localised(adapter, roots, folder)}" if plus and adapter else ref
    if set(ref) & set("+@"):
        raise InputError(
            f"the name of {one_line(ref)} cannot be written for mergekit",
            why="it takes what follows + for an adapter and what follows @ for a revision",
            remedy="rename the folder, or make a link to it",
        )
    here = folder / ref
    if exists(here) and here.samefile(found):
        return ref
    return os.path.normpath(found.absolute())


def _folder(ref: str, roots: Sequence[Path], folder: Path) -> Path | None:
    """The folder that a reference names; None where it is a Hub id."""
    plain = expanded(ref)
    places = [plain] if plain.is_absolute() else [*(root / plain for root in roots), folder / plain]
    return next((place for place in places if exists(place)), None)


def respelled(recipe: Recipe) -> Recipe:
    """The recipe in which a donor that a slice takes several times has a spelling for each time.

    mergekit refuses a model that a slice names twice, and tells models apart by how their paths are written.
    """
    if recipe.models is not None:
        refs = _spellings([entry.model for entry in recipe.models], ("models",))
        models = tuple(
            entry.model_copy(update={"model": ref}) if entry.model != ref else entry
            for entry, ref in zip(recipe.models, refs, strict=True)
        )
        return said(recipe, {"models": models})
    slices = tuple(_distinct(part, number) for number, part in enumerate(recipe.slices or ()))
    return said(recipe, {"slices": slices}) if slices != recipe.slices else recipe


def _distinct(part: Slice, number: int) -> Slice:
    refs = _spellings([source.model for source in part.sources], ("slices", number))
    sources: list[Source] = [
        source.model_copy(update={"model": ref}) if source.model != ref else source
        for source, ref in zip(part.sources, refs, strict=True)
    ]
    return part.model_copy(update={"sources": tuple(sources)})


def _spellings(refs: Sequence[str], place: tuple[str | int, ...]) -> list[str]:
    found: list[str] = []
    for ref in refs:
        name = ref
        while name in found:
            name = _other_spelling(name, place)
        found.append(name)
    return found


def _other_spelling(ref: str, place: tuple[str | int, ...]) -> str:
    path = Path(ref)
    if "+" in ref or not (path.is_absolute() or exists(path)):
        raise Refusal(
            f"a slice takes {one_line(ref)} twice, which mergekit refuses, and only a folder's path can be spelled in "
            "two ways",
            *place,
            remedy="give the donor by its folder, or a copy of it",
        )
    return f"/.{ref}" if path.is_absolute() else f"./{ref}"
