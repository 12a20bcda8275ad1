"""A whole benchmark: all sizes and methods, and a report with the machine it ran on."""

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
    """The figures, the settings and the machine.

    Attributes:
        machine: its state before the first run.
        torch: version of torch that surgeon computes with.
        file_system: type of the file system of donors and outputs.
        settings: the settings of the benchmark.
        shapes: shapes of the donors, one per size.
        cells: the figures.
    """

    machine: Machine
    torch: str
    file_system: str
    settings: Settings
    shapes: tuple[Shape, ...]
    cells: tuple[TimedCell, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
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
    """Make donors and measure. Temporary files are removed even after an error.

    Args:
        settings: what to measure.
        on_event: called before each step: `donor` with name and bytes, `run` with bytes, method, tool and number.

    Raises:
        InputError: there is too little memory or disk.
        SurgeonError: surgeon or `cp` failed, or the output has the wrong tensors.
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
    """Compile surgeon and load torch once, so that the first run finds them in the page cache like any later one."""
    for words in (["-m", "compileall", "-q", str(Path(surgeon.__file__).parent)], ["-c", "import torch"]):
        subprocess.run([sys.executable, *words], check=False, stderr=subprocess.DEVNULL, env=environment())


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


@contextlib.contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    """The folder of donors: `chosen`, created if it is missing, or a temporary one that is removed at the end."""
    try:
        if chosen is not None:
            chosen.mkdir(parents=True, exist_ok=True)
            yield chosen
            return
        temporary = tempfile.TemporaryDirectory(prefix="surgeon-bench-")
    except OSError as error:
        raise SurgeonError(
            f"cannot create the folder: {error.strerror or error}", where=str(chosen or tempfile.gettempdir())
        ) from error
    with temporary as made:
        yield Path(made)


def _check_room(settings: Settings, every: list[MadeDonors], folder: Path) -> None:
    needed, free = disk_needed(settings, every), shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"donors and an output take {size(needed)}, but only {size(free)} of disk is free",
            where=str(folder),
            remedy="choose a smaller --size, or a folder on another disk with --keep",
        )
    needed, (_, available) = memory_needed(settings, every), memory()
    if available is not None and available < needed and not settings.cold:
        raise InputError(
            f"donors and an output take {size(needed)} of memory, but only {size(available)} is available",
            why="the disk would be measured instead of the tools",
            remedy="choose a smaller --size, fewer --methods, or let all tools read from the disk with --cold",
        )
