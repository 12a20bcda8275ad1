"""`surgeon assemble RECIPE OUT`: the model of a recipe, written to disk."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, SurgeonError
from ..text import duration, number, one_line, plural, size
from .common import JsonOption, SetOption, bytes_option, load_plan, print_findings, refuse

if TYPE_CHECKING:
    from ..assemble import Result
    from ..plan import Plan

Event = dict[str, Any]
Show = Callable[[Event], None]

PLAIN_INTERVAL = 30.0
"""Seconds between two lines of progress where no bar can be drawn."""


def assemble(
    recipe: Annotated[Path, typer.Argument(help="The recipe to write.", metavar="RECIPE")],
    out: Annotated[Path, typer.Argument(help="The folder of the new model.", metavar="OUT")],
    sets: SetOption = None,
    shard_size: Annotated[str, typer.Option(help="Bytes per weight file.", metavar="SIZE")] = "5GB",
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it holds something.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what an earlier run has left, if there is any.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an earlier run has left.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")] = False,
    as_json: JsonOption = False,
    events: Annotated[bool, typer.Option("--events", help="Print each event as a line of JSON.")] = False,
    no_fsync: Annotated[bool, typer.Option("--no-fsync", help="Do not wait until all is on the disk.")] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not hold the config against what transformers makes of it.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Files written at a time; by default one per core.")
    ] = None,
    allow_nonfinite: Annotated[
        bool, typer.Option("--allow-nonfinite", help="Blend NaN and infinity in donors as they come.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where blends are computed: cpu, cuda, cuda:N, mps or auto.")] = "cpu",
) -> None:
    """Write the model of a recipe to disk."""
    from ..assemble import Cancelled
    from ..assemble import assemble as write

    if resume and restart:
        raise InputError("--resume goes on with what is there and --restart throws it away", remedy="give one of them")
    show = _emit_json if events else None
    try:
        document, plan = load_plan(recipe, sets, shard_size=bytes_option(shard_size))
        _print_findings(plan, str(recipe), quiet)
    except SurgeonError as error:
        if show:
            show({"event": "error", "message": error.sentence()})
        raise
    except KeyboardInterrupt:
        raise Cancelled from None
    silent = quiet or as_json or events
    with _stop_signals() as stop, _progress(show, silent, len(plan.layers)) as on_event:
        result = write(
            plan,
            out,
            recipe=document.text,
            shard_size=bytes_option(shard_size),
            force=force,
            resume=resume,
            restart=restart,
            workers=workers,
            fsync=not no_fsync,
            check=not no_check,
            keep=(recipe,),
            allow_nonfinite=allow_nonfinite,
            device=picked_device(device, plan),
            on_event=_stopping(on_event, stop),
            cancelled=stop,
        )
    _print_result(result, plan, quiet=quiet or events, as_json=as_json and not events)


def picked_device(wanted: str, plan: Plan) -> str:
    """The device asked for, as torch names it; torch is asked only where something is computed.

    Raises:
        InputError: there is no such device here.
    """
    if wanted == "cpu" or not plan.needs_arithmetic:
        return "cpu"
    from ..probe.environment import pick_device

    return pick_device(wanted)


def _print_findings(plan: Plan, where: str, quiet: bool) -> None:
    if plan.ok and quiet:
        print_findings([finding for finding in plan.findings if finding.severity != "note"], where=where)
    else:
        refuse(plan, where)


def _print_result(result: Result, plan: Plan, *, quiet: bool, as_json: bool) -> None:
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        from dataclasses import asdict

        found = [asdict(finding) for finding in plan.findings]
        found += [{"severity": "warning", "code": "result", "what": warning} for warning in result.warnings]
        values = {
            "out": str(result.out),
            "layers": result.layers,
            "parameters": result.parameters,
            "bytes": result.nbytes,
            "seconds": round(result.seconds, 3),
            "files": list(result.files),
            "findings": found,
        }
        print(json.dumps(values, indent=2))
    elif not quiet:
        print(
            f"{one_line(result.out)}: {plural(result.layers, 'layer')}, {number(result.parameters)} parameters, "
            f"{size(result.nbytes)} in {duration(result.seconds)}"
        )


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C, a termination or a lost terminal sets, instead of ending the program half way.

    A second signal of the same kind does what it always does: a hidden folder it leaves is removed by the next run.
    """
    stop = threading.Event()
    previous: dict[int, Any] = {}

    def handler(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, previous[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup and background jobs of a shell ignore some of these, and so do we then.
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.getsignal(number)
                signal.signal(number, handler)
    try:
        yield stop
    finally:
        for which, old in previous.items():
            signal.signal(which, old)


def _stopping(show: Show, stop: threading.Event) -> Show:
    """`show`, or a cancel when nobody is there any more to be shown anything."""

    def shown(event: Event) -> None:
        try:
            show(event)
        except OSError:
            stop.set()

    return shown


def _emit_json(event: Event) -> None:
    print(json.dumps(event), flush=True)


@contextlib.contextmanager
def _progress(show: Show | None, silent: bool, layers: int) -> Iterator[Show]:
    """What shows the events: lines of JSON, nothing, a bar, or now and then a line."""
    if show:
        yield show
    elif silent:
        yield lambda event: None
    elif sys.stderr.isatty():
        with bar(layers) as shown:
            yield shown
    else:
        yield _lines(layers)


@contextlib.contextmanager
def bar(layers: int) -> Iterator[Show]:
    """A bar on stderr that shows progress events; gives what shows one."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    text = TextColumn("{task.fields[text]}", markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(None), TaskProgressColumn(), text)
    # Refreshed by events alone: what has not changed need not cross an SSH connection again.
    progress = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False, expand=True)

    def show(event: Event) -> None:
        if event["event"] == "progress":
            where, amount = _where(event["layer"], layers), _amount(event)
            progress.update(
                task, completed=event["bytes"], total=event["total"], description=where, text=amount, refresh=True
            )
        elif event["event"] == "check":
            progress.update(task, description="checking the config", text="", refresh=True)

    with progress:
        task = progress.add_task("starting", total=None, text="")
        yield show


def _lines(layers: int) -> Show:
    shown = time.monotonic()

    def show(event: Event) -> None:
        nonlocal shown
        if event["event"] == "start":
            files = plural(event["shards"], "file")
            print(f"writing {plural(event['layers'], 'layer')}, {size(event['bytes'])} in {files}", file=sys.stderr)
        elif event["event"] == "progress" and time.monotonic() - shown >= PLAIN_INTERVAL:
            shown = time.monotonic()
            print(f"{_where(event['layer'], layers)}: {_amount(event)}", file=sys.stderr)

    return show


def _where(where: int | str | None, layers: int) -> str:
    if isinstance(where, int):
        return f"layer {where} of 0-{layers - 1}"
    return (where or "starting").replace("_", " ")


def _amount(event: Event) -> str:
    text = f"{size(event['bytes'])} of {size(event['total'])}, {size(event['rate'])}/s"
    return text if event["eta"] is None else f"{text}, {duration(event['eta'])} left"
