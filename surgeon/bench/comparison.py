"""A whole comparison: donors of every size, every method, and a report of where it was measured."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import surgeon

from ..errors import InputError, SurgeonError
from ..machine import Machine, cores, file_system, memory
from ..text import size
from .contest import OnEvent, Settings, contest, disk_needed, memory_needed
from .figures import TimedCell, ratio, slopes
from .made_donors import MadeDonors, Shape
from .process_measure import environment


@dataclass(frozen=True)
class BenchReport:
    """What was measured, how, and where.

    Attributes:
        machine: as it was before.
        torch: version of torch that surgeon computes with.
        file_system: where donors and outputs lay.
        settings: what was asked for.
        shapes: the donors'.
        cells: the figures.
    """

    machine: Machine
    torch: str
    file_system: str
    settings: Settings
    shapes: tuple[Shape, ...]
    cells: tuple[TimedCell, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        chosen = self.settings
        return {
            "machine": {**asdict(self.machine), "torch": self.torch, "file_system": self.file_system},
            "settings": {
                "runs": chosen.runs,
                "shard_size": chosen.shard_size,
                "workers": chosen.workers or (cores() if chosen.device == "cpu" else None),
                "device": chosen.device,
                "vram": chosen.vram,
                "peer": chosen.peer,
                "fsync": chosen.fsync,
                "check": chosen.check,
                "cold": chosen.cold,
            },
            "donors": [{**asdict(shape), "bytes": shape.nbytes} for shape in self.shapes],
            "cells": [self._cell(cell) for cell in self.cells],
            "slopes": [asdict(slope) for slope in slopes(self.cells)],
        }

    def _cell(self, cell: TimedCell) -> dict[str, Any]:
        against = ratio(cell, self.cells)
        return {**cell.to_dict(), "ratio": asdict(against) if against else None}


def run(settings: Settings, on_event: OnEvent) -> BenchReport:
    """Make donors, measure, and tidy up, whatever happens.

    Args:
        settings: what to measure.
        on_event: told of what comes next: `donor` with its name and bytes, `run` with bytes, method, tool, number.

    Raises:
        InputError: memory or disk do not suffice.
        SurgeonError: surgeon or `cp` failed, or wrote what it should not.
    """
    machine, shapes = Machine.here(), tuple(Shape.near(nbytes) for nbytes in settings.sizes)
    cells: list[TimedCell] = []
    with _folder(settings.folder) as folder:
        every = [MadeDonors(folder / f"llama-{shape.layers}x{shape.hidden}", shape) for shape in shapes]
        _check_room(settings, every, folder)
        _warm()
        for donors in every:
            donors.make(on_event)
            for method in settings.methods:
                cells += contest(settings, donors, method, on_event)
            if settings.folder is None:
                shutil.rmtree(donors.folder)
        kind = file_system(folder)
    return BenchReport(machine, _torch(), kind, settings, shapes, tuple(cells))


def _warm() -> None:
    """Bring into memory what surgeon loads, compiled, as it is for whoever runs it a second time."""
    for words in (["-m", "compileall", "-q", str(Path(surgeon.__file__).parent)], ["-c", "import torch"]):
        subprocess.run([sys.executable, *words], check=False, stderr=subprocess.DEVNULL, env=environment())


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


@contextlib.contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    """The folder of donors, made if it is missing; a temporary one is gone afterwards."""
    try:
        if chosen is not None:
            chosen.mkdir(parents=True, exist_ok=True)
            yield chosen
            return
        temporary = tempfile.TemporaryDirectory(prefix="surgeon-bench-")
    except OSError as error:
        raise SurgeonError(
            f"cannot make the folder: {error.strerror or error}", where=str(chosen or tempfile.gettempdir())
        ) from error
    with temporary as made:
        yield Path(made)


def _check_room(settings: Settings, every: list[MadeDonors], folder: Path) -> None:
    needed, free = disk_needed(settings, every), shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"donors and an output take {size(needed)}, and the disk has {size(free)} free",
            where=str(folder),
            remedy="choose a smaller --size, or a folder on another disk with --keep",
        )
    needed, (_, available) = memory_needed(settings, every), memory()
    if available is not None and available < needed and not settings.cold:
        raise InputError(
            f"donors and an output take {size(needed)} of memory, and {size(available)} are available",
            why="what is measured would be the disk",
            remedy="choose a smaller --size, fewer --methods, or measure the disk for all alike with --cold",
        )
