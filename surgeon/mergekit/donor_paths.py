"""References of donors for mergekit, which searches only in the working directory and compares donors by spelling."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..checkpoint.adapter.lora import is_adapter, open_adapter
from ..checkpoint.locate import weight_files
from ..errors import InputError
from ..files import exists, expanded, is_dir, is_file
from ..recipe.document import Document
from ..recipe.schema import Recipe, Slice, Source
from ..text import one_line
from .precision import with_keys
from .refusal import Refusal


def localised(document: Document, folder: Path) -> Document:
    """The document with references that mergekit finds from `folder`: absolute paths where relative ones do not work.

    Raises:
        InputError: mergekit cannot read the reference of a donor.
    """
    rename: dict[str, str] = {}
    for recipe in (document.recipe, *(stage.recipe for stage in document.stages)):
        for ref in (*recipe.model_refs(), *recipe.tokenizer_refs()):
            if ref not in document.model_refs and ref not in document.tokenizer_refs:
                continue
            name = _on_base(ref, recipe.base_model, document.roots, folder)
            if rename.setdefault(ref, name) != name:
                raise InputError(
                    f"the adapter {one_line(ref)} has base {one_line(rename[ref].partition('+')[0])} in one document "
                    f"and base {one_line(name.partition('+')[0])} in another",
                    remedy="write BASE+ADAPTER in each document",
                )
    rename = {ref: name for ref, name in rename.items() if name != ref}
    return replace(document.with_models(rename), key_problems=document.key_problems) if rename else document


def _on_base(ref: str, base_model: str | None, roots: Sequence[Path], folder: Path) -> str:
    """A reference for mergekit; a lone adapter becomes BASE+ADAPTER, because mergekit would open it as a model."""
    found = _folder(ref, roots, folder)
    if found is None or not is_dir(found) or not is_adapter(found):
        return _localised(ref, roots, folder)
    base = base_model if base_model and base_model != ref else open_adapter(found).base
    if not base:
        return _localised(ref, roots, folder)  # The plan reports that it has no base.
    name = _localised(base, roots, folder)
    if "+" in name:
        raise InputError(
            f"{one_line(ref)} is an adapter on {one_line(base)}, which already has an adapter",
            why="mergekit supports one adapter per model",
            remedy="assemble the base first, and use the result as the base",
        )
    return f"{name}+{_localised(ref, roots, folder)}"


def _localised(ref: str, roots: Sequence[Path], folder: Path) -> str:
    found = _folder(ref, roots, folder)
    if found is None:
        base, plus, adapter = ref.partition("+")
        return f"{_localised(base, roots, folder)}+{_localised(adapter, roots, folder)}" if plus and adapter else ref
    if set(ref) & set("+@"):
        raise InputError(
            f"mergekit cannot read the name {one_line(ref)}",
            why="for mergekit, + precedes an adapter and @ precedes a revision",
            remedy="rename the folder, or make a link to it",
        )
    if is_file(found):
        return _localised(os.path.normpath(_folder_of(ref, found)), (), folder)
    here = folder / ref
    if exists(here) and here.samefile(found):
        return ref
    return os.path.normpath(found.absolute())


def _folder_of(ref: str, file: Path) -> Path:
    """The folder whose only weights are this file: mergekit reads folders only."""
    with contextlib.suppress(InputError):
        if weight_files(file.parent).weights == (file.parent / file.name,):
            return file.parent.absolute()
    raise InputError(
        f"mergekit reads folders, and {one_line(ref)} is one file of several in its folder",
        remedy="move it into a separate folder with its config.json",
    )


def _folder(ref: str, roots: Sequence[Path], folder: Path) -> Path | None:
    """The folder or file of a reference; None for a Hub id."""
    plain = expanded(ref)
    places = [plain] if plain.is_absolute() else [*(root / plain for root in roots), folder / plain]
    return next((place for place in places if exists(place)), None)


def respelled(recipe: Recipe) -> Recipe:
    """The recipe with a different spelling for each repeated use of a donor in a slice.

    mergekit refuses a model that a slice names twice, and compares models by the spelling of their paths.
    """
    if recipe.models is not None:
        refs = _spellings([entry.model for entry in recipe.models], ("models",))
        models = tuple(
            entry.model_copy(update={"model": ref}) if entry.model != ref else entry
            for entry, ref in zip(recipe.models, refs, strict=True)
        )
        return with_keys(recipe, {"models": models})
    slices = tuple(_distinct(part, number) for number, part in enumerate(recipe.slices or ()))
    return with_keys(recipe, {"slices": slices}) if slices != recipe.slices else recipe


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
            f"a slice uses {one_line(ref)} twice, which mergekit refuses, and only the path of a folder has two "
            "spellings",
            *place,
            remedy="name the donor by its folder, or use a copy of it",
        )
    return f"/.{ref}" if path.is_absolute() else f"./{ref}"
