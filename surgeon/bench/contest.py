"""Time `cp`, surgeon and mergekit (the peer) in alternation, for one method and one set of donors."""

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
"""Bytes of memory and disk kept free for other use, and touched in addition to the size of an output before a run."""

_FLUSHED = 'out="$1"; shift; "$@" && find "$out" -type f -exec sync {} +'
"""Shell code: run a command, then sync all files of the output folder `$1` to the disk."""


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
        sizes: approximate bytes per donor.
        methods: the merge methods.
        runs: number of runs per tool, method and size.
        folder: where donors are kept; None for a temporary folder.
        shard_size: bytes per file of the outputs.
        workers: number of workers of surgeon and threads of the peer; None for one per core.
        device: what surgeon and the peer compute on.
        vram: bytes that surgeon may use on each GPU; None for what is free.
        peer: the path of mergekit's command, or None.
        fsync: wait for the disk, with all tools.
        check: include surgeon's load-back check.
        cold: read donors from the disk instead of from the page cache.
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
        """The names of the tools that are measured."""
        return (COPY, OWN, *([Path(self.peer).name] if self.peer else []))


def contest(settings: Settings, donors: MadeDonors, method: Method, on_event: OnEvent) -> Iterator[TimedCell]:
    """Measure every tool; yields a cell for each. `on_event` is called before each run.

    Raises:
        SurgeonError: `cp` or surgeon failed, or its output has the wrong tensors. A failure of the peer is recorded in
            its cell instead.
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
    """mergekit's command, with its fastest options."""
    threads = str(settings.workers or cores())
    found = [str(settings.peer), str(recipe), str(out), "--quiet", "--async-write", "--write-threads", threads]
    found += ["--out-shard-size", f"{max(1, settings.shard_size // 1_000_000)}M"]
    return found + ([] if settings.device == "cpu" else ["--device", settings.device])


def _check(out: Path, donors: MadeDonors) -> None:
    """Raise SurgeonError unless an output has the expected tensors."""
    written = open_checkpoint(str(out))
    expected = donors.shape.tensors()
    if {name: entry.shape for name, entry in written.tensors.items()} != expected or (
        written.nbytes != donors.shape.nbytes
    ):
        raise SurgeonError(
            f"the output has {len(written.tensors)} tensors of {size(written.nbytes)} instead of "
            f"{len(expected)} of {size(donors.shape.nbytes)}",
            where=str(out),
        )


def memory_needed(settings: Settings, every: Sequence[MadeDonors]) -> int:
    """Maximum bytes of memory that donors and an output take in the page cache."""
    return SPARE + max(
        (recipes.bytes_read(method, donors) + donors.shape.nbytes for donors in every for method in settings.methods),
        default=0,
    )


def disk_needed(settings: Settings, every: Sequence[MadeDonors]) -> int:
    """Maximum bytes of disk that the missing donors and an output take."""
    missing = [donors.missing for donors in every]
    donors = sum(missing) if settings.folder else max(missing, default=0)
    return SPARE + donors + max((donors.shape.nbytes for donors in every), default=0)
