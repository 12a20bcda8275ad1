"""`surgeon demo [DIR]`: tiny trained checkpoints to operate on, without a download."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, SurgeonError
from ..text import number, plural, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..probe.score import ProbeSet
    from ..probe.subject import Subject

EXAMPLE = "demo-splice.yml"


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Where to copy it (default: a folder in your data directory)."),
    ] = None,
    no_tui: Annotated[
        bool, typer.Option("--no-tui", help="Assemble the example, generate from it, print the scores, and end.")
    ] = False,
) -> None:
    """Copy the demo checkpoints somewhere and open them, or run them without the interface."""
    if folder is None:
        from platformdirs import user_data_path

        folder = user_data_path("surgeon", appauthor=False) / "demo"
    place(folder)
    if no_tui:
        _run(folder)
        return
    from ..recipe import document as documents
    from ..tui.session import Session
    from .open_tui import launch

    document = documents.load(folder / EXAMPLE)
    named = {ref.removeprefix("./") for ref in document.recipe.model_refs()}
    others = [f"./{path.name}" for path in checkpoints(folder) if path.name not in named]
    launch(Session(others, document), probes=probe_files(folder))


def place(target: Path) -> None:
    """Copy checkpoints, probe sets and recipes to `target`; files that are there already stay as they are.

    Raises:
        InputError: `target` is a file.
        SurgeonError: it cannot be written.
    """
    from .. import data

    source = data.folder("demo")
    if target.exists() and not target.is_dir():
        raise InputError("the demo needs a folder", where=str(target), why="this is a file")
    wanted = [(path, target / path.relative_to(source)) for path in sorted(source.rglob("*")) if path.is_file()]
    wanted += [(path, target / path.name) for path in sorted(data.folder("recipes").glob("demo*.yml"))]
    try:
        for path, copy in wanted:
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    except OSError as error:
        raise SurgeonError(f"cannot copy the demo: {error.strerror or error}", where=str(target)) from error


def checkpoints(folder: Path) -> list[Path]:
    """The demo's checkpoints, the base first."""
    from .. import data

    names = sorted(path.parent.name for path in data.folder("demo").glob("*/config.json"))
    return [folder / name for name in sorted(names, key=lambda name: (name != "base", name))]


def probe_files(folder: Path) -> list[Path]:
    """The demo's probe sets."""
    return sorted((folder / "probes").glob("*.jsonl"))


def _run(folder: Path) -> None:
    """Assemble the example and print what donors and result score."""
    from ..assemble import assemble
    from ..checkpoint import open_checkpoint
    from ..probe.generate import Run, pieces
    from ..probe.score import read_probes
    from ..probe.subject import from_checkpoint
    from .common import load_plan, refuse

    recipe = folder / EXAMPLE
    document, plan = load_plan(recipe)
    refuse(plan, str(recipe))
    out = folder / "out" / recipe.stem
    result = assemble(plan, out, recipe=document.text, force=True)
    print(
        f"assembled {recipe.name}: {plural(result.layers, 'layer')}, {number(result.parameters)} parameters, "
        f"{size(result.nbytes)}, written to {out}"
    )
    sets = [read_probes(path) for path in probe_files(folder)]
    subjects = {path.name: from_checkpoint(open_checkpoint(str(path)), "cpu") for path in [*checkpoints(folder), out]}
    prompt = sets[0].probes[0].prompt
    text = "".join(pieces(subjects[out.name], subjects[out.name].encode(prompt), 16, Run()))
    print(f"prompt: {prompt}\nanswer: {text.strip()}\n")
    _print_scores(subjects, sets)


def _print_scores(subjects: dict[str, Subject], sets: Sequence[ProbeSet]) -> None:
    """A table of exact-match shares, a row a model."""
    from ..probe.score import score

    width = max(map(len, subjects)) + 2
    print(" " * width + "".join(f"{probes.name:>10}" for probes in sets))
    for name, subject in subjects.items():
        shares = [sum(outcome.right for outcome in score(subject, probes)) / len(probes.probes) for probes in sets]
        print(f"{name:<{width}}" + "".join(f"{share:>10.2f}" for share in shares), flush=True)
