"""`surgeon demo [DIR]`: tiny trained checkpoints to try surgeon with, without a download."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, SurgeonError
from ..files import exists, user_folder
from ..text import number, plural, size

EXAMPLE = "demo-splice.yml"


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Where to copy it (default: a folder in your data directory)."),
    ] = None,
    no_tui: Annotated[
        bool, typer.Option("--no-tui", help="Assemble the example, generate from it, print the scores, and end.")
    ] = False,
) -> int:
    """Copy the demo checkpoints to a folder and open them, or run them without the interface."""
    if folder is None:
        data = user_folder("data")
        if data is None:
            raise InputError("there is no folder for the demo", why="the user has no home", remedy="name one")
        folder = data / "demo"
    place(folder)
    if no_tui:
        _run(folder)
        return 0
    from ..recipe import document as documents
    from ..tui.session import Session
    from .open_tui import launch

    document = documents.load(folder / EXAMPLE)
    named = {ref.removeprefix("./") for ref in document.recipe.model_refs()}
    others = [f"./{path.name}" for path in checkpoints(folder) if path.name not in named]
    return launch(Session(others, document), probes=probe_files(folder))


def place(target: Path) -> None:
    """Copy checkpoints, probe sets and recipes to `target`; existing files are not changed.

    Raises:
        InputError: `target` is a file.
        SurgeonError: `target` cannot be written.
    """
    from .. import data

    source = data.folder("demo")
    if exists(target) and not target.is_dir():
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


def last(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The final event of a request."""
    return deque(events, maxlen=1)[0]


def _run(folder: Path) -> None:
    """Assemble the example and print the scores of donors and result."""
    from ..assemble import AssembleOptions, assemble
    from ..checkpoint import open_checkpoint
    from ..plan.load import load_plan
    from ..probe import requests
    from ..probe.probe_set import read_probes
    from ..probe.subject import from_checkpoint
    from .common import refuse

    recipe = folder / EXAMPLE
    document, plan = load_plan(recipe)
    refuse(plan, str(recipe))
    out = folder / "out" / recipe.stem
    result = assemble(plan, out, AssembleOptions(force=True, restart=True, check=True), recipe=document.text)
    print(
        f"assembled {recipe.name}: {plural(result.layers, 'layer')}, {number(result.parameters)} parameters, "
        f"{size(result.nbytes)}, written to {out}"
    )
    sets = tuple(read_probes(path) for path in probe_files(folder))
    models = [*checkpoints(folder), out]
    subjects = {path.name: from_checkpoint(open_checkpoint(str(path)), "cpu") for path in models}
    prompt = sets[0].probes[0].prompt
    done = last(requests.run(subjects[out.name], requests.Request(prompt=prompt, n=16)))
    print(f"prompt: {prompt}\nanswer: {done['text'].strip()}\n")
    print(f"share of the {len(sets[0].probes)} held-out prompts per skill that are answered exactly:")
    width = max(map(len, subjects)) + 2
    print(" " * width + "".join(f"{probes.name:>10}" for probes in sets))
    for name, subject in subjects.items():
        done = last(requests.run(subject, requests.Request(probes=sets)))
        print(f"{name:<{width}}" + "".join(f"{probe['score']:>10.2f}" for probe in done["probes"]), flush=True)
