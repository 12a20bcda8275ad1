"""`surgeon assemble RECIPE OUT`: write the model of a recipe to disk."""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, SurgeonError
from ..text import duration, number, one_line, plural, size
from .common import JsonOption, SetOption, bytes_option, print_findings, refuse
from .progress import Event, Show, shown
from .streams import lost

if TYPE_CHECKING:
    from ..assemble import Result
    from ..plan import Plan
    from ..recipe.document import Document


ShardSize = Annotated[
    str | None, typer.Option(help="Bytes per weight file; 5GB by default.", metavar="SIZE", show_default=False)
]
Resume = Annotated[bool, typer.Option("--resume", help="Resume an unfinished run of OUT, if there is one.")]
Detach = Annotated[bool, typer.Option("--detach", help="Write in the background, as a job; see jobs, attach, cancel.")]
NoCheck = Annotated[bool, typer.Option("--no-check", help="Skip the load-back check with transformers.")]
AllowNonfinite = Annotated[bool, typer.Option("--allow-nonfinite", help="Allow NaN and infinity in blended donors.")]
Device = Annotated[
    str,
    typer.Option(
        help="Where blends are computed: cpu, cuda (every GPU that CUDA_VISIBLE_DEVICES leaves), cuda:N, or auto "
        "(cuda if there is one, else cpu)."
    ),
]
Vram = Annotated[
    str | None,
    typer.Option(
        help="Memory to use on each GPU, in addition to what CUDA itself uses; by default most of what is free.",
        metavar="SIZE",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of workers; by default one per core, or three per GPU.")
]
Roots = Annotated[
    list[Path] | None,
    typer.Option("--root", help="Resolve relative paths from there instead of from the recipe's folder.", hidden=True),
]


def assemble(
    recipe: Annotated[Path, typer.Argument(help="The recipe to write.", metavar="RECIPE")],
    out: Annotated[Path, typer.Argument(help="The folder of the new model.", metavar="OUT")],
    sets: SetOption = None,
    shard_size: ShardSize = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is not empty.")] = False,
    resume: Resume = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete an unfinished run of OUT, if there is one.")
    ] = False,
    detach: Detach = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings and errors only.")] = False,
    as_json: JsonOption = False,
    events: Annotated[bool, typer.Option("--events", help="Print each event as a line of JSON.")] = False,
    no_fsync: Annotated[bool, typer.Option("--no-fsync", help="Do not wait until the files are on the disk.")] = False,
    no_check: NoCheck = False,
    allow_nonfinite: AllowNonfinite = False,
    device: Device = "cpu",
    vram: Vram = None,
    workers: Workers = None,
    roots: Roots = None,
) -> None:
    """Write the model of a recipe to disk."""
    from ..assemble import AssembleOptions, ready
    from ..assemble import assemble as write
    from .jobs import detached

    if resume and restart:
        raise InputError("--resume keeps an unfinished run and --restart deletes it", remedy="give one of them")
    options = AssembleOptions(
        shard_size=bytes_option(shard_size) if shard_size else None,
        force=force,
        resume=resume,
        restart=restart,
        workers=workers,
        fsync=not no_fsync,
        check=not no_check,
        allow_nonfinite=allow_nonfinite,
        device=device,
        vram=bytes_option(vram) if vram else None,
        keep=(recipe,),
    )
    document, plan = _planned(recipe, sets, options.shard_size, roots, quiet=quiet, events=events)
    if detach:
        ready(plan, out, options, recipe=document.text)
        detached(document, plan, out, options, as_json=as_json, quiet=quiet)
        return
    progress = contextlib.nullcontext(_emit_json) if events else shown(len(plan.layers), quiet or as_json)
    with _stop_signals() as stop, progress as show:
        show = _stopping(show, stop)
        result = write(plan, out, options, recipe=document.text, on_event=show, cancelled=stop)
    _print_result(result, plan, quiet=quiet or events, as_json=as_json and not events)


def _planned(
    recipe: Path, sets: list[str] | None, shard_size: int | None, roots: list[Path] | None, *, quiet: bool, events: bool
) -> tuple[Document, Plan]:
    """Load the recipe, plan it and print the findings.

    Raises:
        SurgeonError: the recipe cannot be read, or the plan has errors.
    """
    from ..assemble import Cancelled
    from ..plan.load import load_plan

    try:
        document, plan = load_plan(recipe, sets, shard_size=shard_size, roots=roots)
        _print_findings(plan, str(recipe), quiet)
    except SurgeonError as error:
        if events:
            _emit_json({"event": "error", "message": error.sentence()})
        raise
    except KeyboardInterrupt:
        raise Cancelled from None
    return document, plan


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
    """An event that SIGINT, SIGTERM and SIGHUP set, so that the run ends between two writes.

    A second signal of the same kind has its usual effect. The run can be resumed after that too.
    """
    stop = threading.Event()
    previous: dict[int, Any] = {}

    def handler(number: int, _frame: object) -> None:
        stop.set()
        signal.signal(number, previous[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup and shells ignore some of these for background jobs; they stay ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.getsignal(number)
                signal.signal(number, handler)
    try:
        yield stop
    finally:
        for which, old in previous.items():
            signal.signal(which, old)


_READER_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of a stream whose reader is gone."""


def _stopping(show: Show, stop: threading.Event) -> Show:
    """`show`, which also sets `stop` when the reader of the output is gone; a full disk does not stop the run."""

    def show_or_stop(event: Event) -> None:
        try:
            show(event)
        except OSError as error:
            if error.errno in _READER_GONE:
                stop.set()
        if (failed := lost(sys.stderr)) is not None and failed.errno in _READER_GONE:
            stop.set()

    return show_or_stop


def _emit_json(event: Event) -> None:
    print(json.dumps(event), flush=True)
