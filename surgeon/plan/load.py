"""From a recipe file to its plan, with donors replaced as `--set` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..files import exists, expanded
from ..recipe import document as documents
from ..recipe.document import Document
from ..recipe.letters import letters, named
from .config.estimate import DEFAULT_SHARD
from .donors.open_donors import Donors
from .model import Plan
from .resolve import resolve


def is_recipe(target: str) -> bool:
    """Whether a target is a recipe, judged by its suffix; else it is a checkpoint."""
    return Path(target).suffix.lower() in {".yml", ".yaml"}


def load_document(recipe: Path, sets: Sequence[str] | None = None) -> Document:
    """The recipe file, with donors replaced as `--set` says.

    Raises:
        InputError: the file is not a recipe, or a `--set` names no donor of it.
    """
    document = documents.load(recipe)
    if not sets:
        return document
    models = document.model_refs
    rename = {}
    for text in sets:
        name, equals, path = text.partition("=")
        model = named(name, models)
        if not equals or not path or model is None:
            known = ", ".join(f"{letter} {ref}" for ref, letter in letters(models).items())
            raise InputError(f"--set {text} names no donor of the recipe", remedy=f"write DONOR=PATH; donors: {known}")
        if model in rename:
            raise InputError(f"--set names {model} twice", remedy="give one of the two")
        # A path typed on the command line is meant from the working directory, not from the recipe's folder.
        rename[model] = str(expanded(path).absolute()) if exists(expanded(path)) else path
    changed = document.with_models(rename)
    return replace(changed, key_problems=document.key_problems)


def load_plan(
    recipe: Path,
    sets: Sequence[str] | None = None,
    *,
    shard_size: int | None = None,
    roots: Sequence[Path] | None = None,
) -> tuple[Document, Plan]:
    """The recipe file and its plan; findings are in the plan, whatever they are.

    Args:
        roots: folders that relative paths are looked for in, instead of the recipe's own.
    """
    document = load_document(recipe, sets)
    donors: Donors = Donors(document.roots if roots is None else roots)
    return document, resolve(document, donors, shard_size=shard_size or DEFAULT_SHARD)
