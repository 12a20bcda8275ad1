"""`surgeon edit RECIPE --op '...'`: change a recipe with the same edits as the TUI."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..files import exists
from ..text import plural
from .common import SetOption
from .table import say, wrap

if TYPE_CHECKING:
    from ..plan import Donors
    from ..recipe.document import Document
    from ..recipe.saving import Seen
    from ..recipe.schema import Recipe

_STDOUT = Path("-")
_WIDTH = 80
_GRAMMAR = (
    "Ranges are inclusive (8-23), or half-open as in files ([8,24)); both count from 0. A donor is a letter, the name "
    "of its folder, or a path. Edits are applied in the order given."
)


def edit(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe; it is created if it does not exist.")] = None,
    ops: Annotated[
        list[str] | None, typer.Option("--op", metavar="EDIT", help="An edit such as 'delete 4-7'; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="OUT", help="Write there instead (- for stdout).")
    ] = None,
    donors: Annotated[
        list[str] | None, typer.Option("--donor", metavar="PATH", help="Add a donor; it gets the next letter.")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(metavar="NAME", help="Edit this stage of a recipe in stages, not its result.")
    ] = None,
    sets: SetOption = None,
    list_edits: Annotated[bool, typer.Option("--list", help="List all edits.")] = False,
) -> None:
    """Change a recipe with named edits. Comments in the file are kept."""
    if list_edits:
        _print_edits()
        return
    if recipe is None:
        raise InputError("no recipe is named", remedy="write `surgeon edit RECIPE --op EDIT`, or --list for the edits")
    if not ops and not sets:
        raise InputError("no edit is given", remedy="give some with --op; --list shows them")
    from ..recipe.document_stages import RESULT, model_refs, with_stage
    from ..recipe.saving import Seen

    seen = Seen.at(recipe)
    document = _open(recipe, sets)
    part = _edited_part(document, stage)
    before = _depth(part.recipe, part)
    changed = with_stage(document, stage or RESULT, _edited(part, model_refs(document), ops or (), donors or ()))
    _write(changed, seen, recipe if out is None else out)
    part = _edited_part(changed, stage)
    after = _depth(part.recipe, part)
    was = f" (was {before})" if before is not None and before != after else ""
    count = "" if after is None else f"{plural(after, 'layer')}{was}, "
    print(f"{count}{plural(len(ops or ()), 'edit')}", file=sys.stderr)


def _print_edits() -> None:
    from ..recipe.edits import EDITS

    for kind in EDITS:
        say(kind.usage)
        for line in wrap(kind.help, _WIDTH - 4):
            say(f"    {line}")
    say("")
    for line in wrap(_GRAMMAR, _WIDTH):
        say(line)


def _open(recipe: Path, sets: Sequence[str] | None) -> Document:
    from ..plan.load import load_document
    from ..recipe.document import fresh
    from ..recipe.schema import Recipe

    if exists(recipe) or sets:
        return load_document(recipe, sets)
    return replace(fresh(Recipe()), path=recipe)


def _edited_part(document: Document, stage: str | None) -> Document:
    """The document of a recipe that is edited: a stage, or the result."""
    from ..recipe.document_stages import RESULT, edited_document, stage_names

    if stage is not None and stage not in stage_names(document):
        known = ", ".join(stage_names(document)) or "none"
        raise InputError(f"there is no stage {stage}", where=str(document.path), remedy=f"its stages are: {known}")
    return edited_document(document, stage or RESULT)


def _edited(document: Document, models: list[str], ops: Sequence[str], donors: Sequence[str]) -> Recipe:
    """The recipe after all edits. Donors keep their letters, in the order of `models`; new donors get the next ones."""
    from ..plan.donors.open_donors import located
    from ..plan.layers.block_expansion import completed
    from ..recipe.edits import grammar

    assert document.path is not None
    folder = document.path.absolute().parent
    known = _planned(document)
    # A path on the command line is relative to the working directory; in the recipe, to the recipe's folder.
    models = list(dict.fromkeys([*models, *(located(path, (), folder) for path in donors)]))
    recipe = document.recipe
    for text in ops:
        typed = grammar.parse(text, models)
        change = grammar.renamed(typed, partial(_localised, models, folder))
        try:
            recipe = completed(change, recipe, known).apply(recipe, known.depth)
        except InputError as error:
            where = f"edit {text!r}" + (f", {error.where}" if error.where else "")
            raise InputError(error.what, where=where, why=error.why, remedy=error.remedy) from error
        models = list(dict.fromkeys([*models, *recipe.model_refs()]))
    return recipe


def _planned(document: Document) -> Donors:
    """The donors of a recipe; its stages are among them, which must be planned for that."""
    from ..plan import Donors, resolve

    donors: Donors = Donors(document.roots)
    if document.stages:
        resolve(document, donors)
    return donors


def _localised(models: Sequence[str], folder: Path, ref: str) -> str:
    from ..plan.donors.open_donors import located

    return ref if ref in models else located(ref, (), folder)


def _depth(recipe: Recipe, document: Document) -> int | None:
    """The number of layers of the stack; None if a donor whose depth is needed cannot be opened."""
    from ..recipe import stack

    try:
        return stack.depth(recipe.explicit(_planned(document).depth))
    except InputError:
        return None


def _write(document: Document, seen: Seen, target: Path) -> None:
    from ..plan.donors.open_donors import rebased

    if target == _STDOUT:
        sys.stdout.write(document.text)
        return
    # A file given with -o is replaced without a question.
    seen.write(target, rebased(document, document.roots, target).text, over=not seen.is_own(target))
