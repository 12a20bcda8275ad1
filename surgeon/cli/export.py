"""`surgeon export RECIPE --mergekit`: write a recipe in the form that mergekit runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..files import write_atomic
from .common import SetOption, refuse

_STDOUT = Path("-")


def export(
    recipe: Annotated[Path, typer.Argument(help="The recipe to write for another program.", metavar="RECIPE")],
    mergekit: Annotated[bool, typer.Option("--mergekit", help="For mergekit 0.1.5.")] = False,
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="Write there (- for stdout, the default).")
    ] = _STDOUT,
    sets: SetOption = None,
) -> None:
    """Write a recipe with which another program makes the same tensors, or report what that program cannot express."""
    from ..mergekit import export as exported
    from ..mergekit import localised
    from ..plan import Donors, resolve

    if not mergekit:
        raise InputError("no program to export for is named", remedy="write `surgeon export RECIPE --mergekit`")
    from ..plan.load import load_document

    document = localised(load_document(recipe, sets), Path.cwd())
    donors: Donors = Donors(document.roots)
    plan = resolve(document, donors)
    if not plan.ok:
        refuse(plan, str(recipe))
    made = exported(document, donors)
    if out == _STDOUT:
        sys.stdout.write(made.document.text)
    else:
        write_atomic(out, made.document.text)
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
