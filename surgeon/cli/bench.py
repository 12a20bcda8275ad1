"""`surgeon bench`: measure the speed of surgeon, `cp` and, if it is installed, mergekit on this machine."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..text import nearest, one_line, plural, size
from .bench_interface import bench_interface
from .common import JsonOption, bytes_option
from .table import say

if TYPE_CHECKING:
    from ..bench.comparison import BenchReport
    from ..bench.figures import TimedCell
    from ..methods import Method

PEER = "mergekit-yaml"
DEFAULT_METHODS = "passthrough,linear,slerp,task_arithmetic,dare_ties,ties"


def bench(
    sizes: Annotated[
        str,
        typer.Option("--size", help="Bytes per donor; several sizes give the time per GB.", metavar="SIZE[,SIZE]"),
    ] = "2.2GB",
    methods: Annotated[str, typer.Option(help="Merge methods, or `all`.", metavar="METHOD[,METHOD]")] = DEFAULT_METHODS,
    device: Annotated[str, typer.Option(help="Where surgeon and mergekit compute, such as cuda.")] = "cpu",
    vram: Annotated[
        str | None, typer.Option(help="Memory that surgeon uses on each GPU.", metavar="SIZE", show_default=False)
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each tool.")] = 5,
    workers: Annotated[int | None, typer.Option(min=1, help="Workers; by default one per core.")] = None,
    shard_size: Annotated[str, typer.Option(help="Bytes per weight file of the outputs.", metavar="SIZE")] = "500MB",
    peer: Annotated[
        str | None,
        typer.Option(help=f"mergekit's command; by default {PEER} if it is installed; '' for none.", metavar="COMMAND"),
    ] = None,
    fsync: Annotated[bool, typer.Option("--fsync", help="Wait until the files are on the disk, for cp too.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Include surgeon's load-back check.")] = False,
    cold: Annotated[bool, typer.Option("--cold", help="Read donors from the disk, not from the page cache.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Make the donors there once and keep them.", metavar="DIR")] = None,
    interface: Annotated[
        bool, typer.Option("--interface", help="Measure keys of the interface instead: CPU time and bytes written.")
    ] = False,
    donors: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="With --interface: two more checkpoints to measure with.", metavar="A B", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the speed of surgeon, `cp` and, if it is installed, mergekit on this machine."""
    if donors is not None and not interface:
        raise InputError("--donors needs --interface", why="other measurements make their own donors")
    if interface:
        with _terminated_like_interrupted():
            bench_interface(donors, runs, as_json)
        return
    from ..bench.comparison import run
    from ..bench.contest import Settings

    settings = Settings(
        sizes=tuple(sorted({bytes_option(part) for part in sizes.split(",")})),
        methods=_methods(methods),
        runs=runs,
        folder=keep,
        shard_size=bytes_option(shard_size),
        workers=workers,
        device=device,
        vram=bytes_option(vram) if vram else None,
        peer=_peer(peer),
        fsync=fsync,
        check=check,
        cold=cold,
    )
    with _terminated_like_interrupted():
        report = run(settings, _tell)
    if as_json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        for line in lines(report):
            say(line)


def _methods(names: str) -> tuple[Method, ...]:
    from ..methods.catalogue import every

    known = every()
    if names.strip() == "all":
        return tuple(known.values())
    chosen = list(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in chosen:
        if name not in known:
            guess = nearest(name, known)
            raise InputError(
                f"there is no method {name!r}", remedy=f"try {guess}" if guess else "see `surgeon methods`"
            )
    return tuple(known[name] for name in chosen)


def _peer(command: str | None) -> str | None:
    """The path of mergekit's command; None if it is not wanted, or not named and not installed."""
    found = shutil.which(PEER if command is None else command) if command != "" else None
    if command and not found:
        raise InputError(f"there is no command {command!r}", remedy="give mergekit's path, or leave --peer out")
    return found


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that temporary files are removed."""

    def handler(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _tell(event: dict[str, Any]) -> None:
    """Print the next step."""
    if event["event"] == "donor":
        text = f"making {event['name']}, {size(event['bytes'])}"
    else:
        text = f"{size(event['bytes'])} {event['method']}: {event['tool']}, run {event['number']} of {event['of']}"
    print(text, file=sys.stderr, flush=True)


def lines(report: BenchReport) -> Iterator[str]:
    """The report as text of at most 80 columns."""
    yield from _about(report)
    for shape in report.shapes:
        yield ""
        depth = plural(shape.layers, "layer")
        yield f"donors of {size(shape.nbytes)} in bfloat16: {depth}, hidden size {shape.hidden:,}"
        yield from _table([cell for cell in report.cells if cell.nbytes == shape.nbytes])
    yield from _slopes(report)


def _about(report: BenchReport) -> Iterator[str]:
    machine, chosen = report.machine, report.settings
    held = f", {size(machine.memory)}" if machine.memory else ""
    yield f"{one_line(machine.cpu)}, {plural(machine.cores, 'core')}{held}, {report.file_system or 'unknown disk'}"
    yield f"{machine.system}, Python {machine.python}, torch {report.torch}"
    others = [sample.others for cell in report.cells for sample in cell.samples if sample.others is not None]
    load = "unknown" if machine.load is None else f"{machine.load:.2f}"
    busy = f"; other processes kept {sum(others) / len(others):.2f} cores busy meanwhile" if others else ""
    yield f"load before: {load}{busy}"
    yield (
        f"{plural(chosen.runs, 'run')} each in turn, donors {'on disk' if chosen.cold else 'in memory'}, "
        f"{'with' if chosen.fsync else 'no'} fsync, {'with' if chosen.check else 'no'} load-back check"
    )
    where = f"{chosen.workers or machine.cores} workers"
    if chosen.device != "cpu":
        where = f"{plural(chosen.workers, 'worker') if chosen.workers else 'workers by default'}, {chosen.device}"
    yield f"outputs in files of {size(chosen.shard_size)}, {where}"


def _table(cells: list[TimedCell]) -> Iterator[str]:
    from ..bench.figures import ratio

    yield f"{'':<17}{'wall s':>15}{'CPU s':>16}{'peak MB':>16}{'times cp':>16}"
    yield f"{'':<17}{'best':>7}{'median':>8}{'user':>8}{'sys':>8}{'all':>8}{'anon':>8}{'best':>8}{'median':>8}"
    method = ""
    for cell in cells:
        if cell.method != method:
            method = cell.method
            yield method
        if cell.samples:
            against = ratio(cell, cells)
            ratios = f"{against.best:>8.2f}{against.median:>8.2f}" if against else ""
            yield (
                f"  {cell.tool:<15}{_seconds(cell.best):>7}{_seconds(cell.median):>8}"
                f"{_seconds(cell.middle('user')):>8}{_seconds(cell.middle('system')):>8}"
                f"{cell.peak / 1e6:>8.0f}{cell.anonymous / 1e6:>8.0f}{ratios}"
            )
        if cell.failure:
            yield f"  {cell.tool}: {one_line(cell.failure)}"


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _slopes(report: BenchReport) -> Iterator[str]:
    from ..bench.figures import COPY, slopes

    found = list(slopes(report.cells))
    if not found:
        return
    yield ""
    yield "a line through the best times of all sizes"
    yield f"{'':<17}{'s per GB':>10}{'s fixed':>10}{'times cp per GB':>18}"
    copies = {slope.method: slope.per_gb for slope in found if slope.tool == COPY}
    method = ""
    for slope in found:
        if slope.method != method:
            method = slope.method
            yield method
        times = f"{slope.per_gb / copies[method]:>18.2f}" if copies.get(method, 0) > 0 else ""
        yield f"  {slope.tool:<15}{slope.per_gb:>10.2f}{slope.fixed:>10.2f}{times}"
