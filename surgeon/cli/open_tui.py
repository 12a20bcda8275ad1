"""`surgeon [PATH...] [--recipe FILE]`: open the terminal interface."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..files import exists, is_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..tui.session import Session


def open_tui(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH]...", help="Checkpoints to open as donors A, B, ..., or a recipe.", show_default=False
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", "-r", metavar="FILE", help="Recipe to open, or to create."),
    ] = None,
    mouse: Annotated[
        bool | None,
        typer.Option("--mouse/--no-mouse", help="Use the mouse (default: not over SSH).", show_default=False),
    ] = None,
) -> int:
    """Open checkpoints and a recipe in the terminal interface."""
    from ..plan.donors.open_donors import located
    from ..recipe import document as documents
    from ..recipe.schema import Recipe
    from ..tui.session import Session

    paths, document = paths or [], None
    if recipe is None and len(paths) == 1 and Path(paths[0]).suffix in {".yaml", ".yml"} and is_file(paths[0]):
        recipe, paths = Path(paths[0]), []
    if recipe is not None:
        from dataclasses import replace

        document = documents.load(recipe) if exists(recipe) else replace(documents.fresh(Recipe()), path=recipe)
    folder = recipe.absolute().parent if recipe is not None else Path.cwd()
    # A path on the command line is relative to the working directory; in the recipe, to the recipe's folder.
    refs = [located(path, (), folder) for path in paths]
    session = Session(refs, document)
    for ref in refs:
        session.donors.checkpoint(ref)
    return launch(session, mouse=mouse)


def launch(session: Session, *, probes: Sequence[Path] = (), mouse: bool | None = None) -> int:
    """Run the interface and return the exit code. Over SSH it draws less often.

    Raises:
        InputError: stdin, stdout or stderr is not a terminal.
    """
    # The interface is drawn on stderr.
    if not _on_a_terminal():
        raise InputError(
            "the interface needs a terminal", remedy="use inspect, plan, edit, assemble and generate in scripts"
        )
    # textual reads these at import: no animations, and over SSH at most 15 frames per second.
    os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    if "SSH_CONNECTION" in os.environ:
        os.environ.setdefault("TEXTUAL_FPS", "15")
    from ..tui import app
    from ..tui.settings import load_settings

    return app.run(session, probes=probes, mouse=mouse, settings=load_settings())


def _on_a_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__))
