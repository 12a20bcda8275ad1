"""`cp`, surgeon and a peer in turn, again and again, on one method and one set of donors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import open_checkpoint
from ..errors import SurgeonError
from ..machine import cores
from ..methods import Method
from ..text import size
from . import memory_state, recipes
from .figures import COPY, OWN, TimedCell
from .made_donors import NAMES, MadeDonors
from .process_measure import measure

OnEvent = Callable[[dict[str, Any]], object]

SPARE = 1_000_000_000
"""Bytes of memory and of disk that are left to everything else, and that are used and freed beyond an output's."""

_FLUSHED = 'out="$1"; shift; "$@" && find "$out" -type f -exec sync {} +'
"""A command, and then all that it wrote to a folder brought to the disk."""


@dataclass(frozen=True)
class Settings:
    """What is to be measured, and how.

    Attributes:
        sizes: bytes per donor, about.
        methods: what to merge by.
        runs: how often each.
        folder: where donors stay; None for a folder that goes when all is done.
        shard_size: bytes per file of the outputs.
        workers: of surgeon and of the peer; None for one per core.
        device: what surgeon and the peer compute on.
        vram: bytes of each GPU that surgeon may take; None for what is free.
        peer: the path of mergekit's command, or None.
        fsync: wait for the disk, all tools alike.
        check: let surgeon hold the result against what transformers makes of it.
        cold: read donors from the disk instead of from memory.
    """

    sizes: tuple[int, ...]
    methods: tuple[Method, ...]
    runs: int = 5
    folder: Path | None = None
    shard_size: int = 500_000_000
    workers: int | None = None
    device: str = "cpu"
    vram: int | None = None
    peer: str | None = None
    fsync: bool = False
    check: bool = False
    cold: bool = False

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of what is measured."""
        return (COPY, OWN, *([Path(self.peer).name] if self.peer else []))


def contest(settings: Settings, donors: MadeDonors, method: Method, on_event: OnEvent) -> Iterator[TimedCell]:
    """A cell for every tool. Tells of each run before it begins.

    Raises:
        SurgeonError: `cp` or surgeon failed, or wrote what it should not. That of the peer is put down instead.
    """
    out, recipe = donors.folder / "out", donors.folder / f"{method.name}.yaml"
    recipe.write_text(recipes.recipe(method, donors), encoding="utf-8")
    cells = [TimedCell(donors.shape.nbytes, method.name, tool) for tool in settings.tools]
    try:
        for number in range(1, settings.runs + 1):
            for cell in cells:
                if not cell.failure:
                    about = {"bytes": cell.nbytes, "method": method.name, "tool": cell.tool, "number": number}
                    on_event({"event": "run", "of": settings.runs, **about})
                    _once(settings, donors, method, cell, recipe, out)
    finally:
        memory_state.remove(out)
        recipe.unlink(missing_ok=True)
    yield from cells


def _once(settings: Settings, donors: MadeDonors, method: Method, cell: TimedCell, recipe: Path, out: Path) -> None:
    own = cell.tool in (COPY, OWN)
    files = donors.files(NAMES[0]) if cell.tool == COPY else recipes.files_read(method, donors)
    memory_state.prepare(donors.path(NAMES[0]), out, files, donors.shape.nbytes + SPARE, cold=settings.cold)
    try:
        sample = measure(_command(settings, cell.tool, donors, recipe, out))
        _check(out, donors)
    except SurgeonError as error:
        if own:
            raise
        cell.failure = error.sentence()
    else:
        cell.samples.append(sample)


def _command(settings: Settings, tool: str, donors: MadeDonors, recipe: Path, out: Path) -> list[str]:
    if tool == OWN:
        return _own(settings, recipe, out)
    found = ["cp", "-r", str(donors.path(NAMES[0])), str(out)] if tool == COPY else _peers(settings, recipe, out)
    return ["sh", "-c", _FLUSHED, "sh", str(out), *found] if settings.fsync else found


def _own(settings: Settings, recipe: Path, out: Path) -> list[str]:
    found = [sys.executable, "-m", "surgeon", "assemble", str(recipe), str(out), "--quiet"]
    found += ["--shard-size", str(settings.shard_size)]
    found += [] if settings.fsync else ["--no-fsync"]
    found += [] if settings.check else ["--no-check"]
    found += ["--workers", str(settings.workers)] if settings.workers else []
    found += ["--vram", str(settings.vram)] if settings.vram is not None else []
    return found + (["--device", settings.device] if settings.device != "cpu" else [])


def _peers(settings: Settings, recipe: Path, out: Path) -> list[str]:
    """mergekit with the options that make it fastest."""
    threads = str(settings.workers or cores())
    found = [str(settings.peer), str(recipe), str(out), "--quiet", "--async-write", "--write-threads", threads]
    found += ["--out-shard-size", f"{max(1, settings.shard_size // 1_000_000)}M"]
    return found + ([] if settings.device == "cpu" else ["--device", settings.device])


def _check(out: Path, donors: MadeDonors) -> None:
    """SurgeonError when an output has not the tensors that it should."""
    written = open_checkpoint(str(out))
    expected = donors.shape.tensors()
    if {name: entry.shape for name, entry in written.tensors.items()} != expected or (
        written.nbytes != donors.shape.nbytes
    ):
        raise SurgeonError(
            f"the output has {len(written.tensors)} tensors of {size(written.nbytes)}, and should have "
            f"{len(expected)} of {size(donors.shape.nbytes)}",
            where=str(out),
        )


def memory_needed(settings: Settings, every: Sequence[MadeDonors]) -> int:
    """Bytes that donors and outputs take in memory at most, if all are to be there."""
    return SPARE + max(
        (recipes.bytes_read(method, donors) + donors.shape.nbytes for donors in every for method in settings.methods),
        default=0,
    )


def disk_needed(settings: Settings, every: Sequence[MadeDonors]) -> int:
    """Bytes that donors that are not there yet and outputs take on the disk at most."""
    missing = [donors.missing for donors in every]
    donors = sum(missing) if settings.folder else max(missing, default=0)
    return SPARE + donors + max((donors.shape.nbytes for donors in every), default=0)
