"""The plan to disk: checks, workers, small files, a look at the result, and only then its name."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, SurgeonError
from ..plan.estimate import DEFAULT_SHARD
from ..plan.types import Plan
from ..recipe.document import fresh
from . import companions, destination, verify
from .compute import Arithmetic, one_thread
from .layout import Layout, lay_out
from .loadback import LoadBack, expectation, summary
from .modelsurvey import surveyed
from .shard import write_shard
from .tracker import INTERVAL, Cancelled, Event, OnEvent, Reporter, Tracker, places

Cancel = Callable[[], bool] | threading.Event | None


@dataclass(frozen=True)
class Result:
    """What was written.

    Attributes:
        out: the folder.
        layers: its layers.
        parameters: its elements.
        nbytes: bytes of its tensors.
        seconds: how long it took.
        files: names of its files.
        warnings: sentences about it that no plan could know.
    """

    out: Path
    layers: int
    parameters: int
    nbytes: int
    seconds: float
    files: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def assemble(
    plan: Plan,
    out: Path,
    *,
    recipe: str | None = None,
    shard_size: int = DEFAULT_SHARD,
    force: bool = False,
    workers: int | None = None,
    fsync: bool = True,
    check: bool = False,
    keep: Iterable[Path] = (),
    allow_nonfinite: bool = False,
    device: str = "cpu",
    on_event: OnEvent | None = None,
    cancelled: Cancel = None,
) -> Result:
    """Write a plan's model into the folder `out`, which has it whole or is as it was.

    Args:
        plan: must be `ok`.
        out: a new or empty folder; with `force` any that holds no donor.
        recipe: the recipe's text, to be written beside the model; by default made from the plan.
        shard_size: bytes per weight file.
        force: replace what is in `out`.
        workers: threads, each writing one file at a time; by default one per core. The bytes do not depend on it.
        fsync: return only when everything is on the disk.
        check: let transformers, in a child process, resolve the config and match every name and shape with the model
            it makes of it; what it makes different is an error. It starts before the copying and takes some seconds.
        keep: files that replacing `out` must not remove, such as the recipe's own.
        allow_nonfinite: blend NaN and infinity in donors as they come, instead of refusing them.
        device: where blends are computed, as torch names it.
        on_event: called in this thread with a dict per event: start, progress (at most 4 a second), layer, end, check
            (only waiting for it is left), done, and error or cancelled before this raises.
        cancelled: asked four times a second, and a last time before the model gets its name.

    Raises:
        InputError: the plan has errors, or `out` is refused.
        SurgeonError: reading or writing failed, or what was written is not what was planned.
        Cancelled: `cancelled` said so.
    """
    emit = on_event or (lambda event: None)
    try:
        return _assemble(
            _Job(
                plan,
                out,
                recipe or fresh(plan.recipe).text,
                shard_size,
                force,
                workers,
                fsync,
                check,
                tuple(keep),
                Arithmetic(allow_nonfinite=allow_nonfinite, device=device),
            ),
            emit,
            _asker(cancelled),
        )
    except (Cancelled, KeyboardInterrupt):
        _tell(emit, {"event": "cancelled"})
        raise
    except SurgeonError as error:
        _tell(emit, {"event": "error", "message": error.sentence()})
        raise


@dataclass(frozen=True)
class _Job:
    plan: Plan
    out: Path
    recipe: str
    shard_size: int
    force: bool
    workers: int | None
    fsync: bool
    check: bool
    keep: tuple[Path, ...]
    arithmetic: Arithmetic


def _asker(cancelled: Cancel) -> Callable[[], bool]:
    if cancelled is None:
        return lambda: False
    return cancelled.is_set if isinstance(cancelled, threading.Event) else cancelled


def _tell(emit: OnEvent, event: Event) -> None:
    """Tell of a failure; that the listener has failed too must not hide it."""
    with contextlib.suppress(Exception):
        emit(event)


def _assemble(job: _Job, emit: OnEvent, cancelled: Callable[[], bool]) -> Result:
    plan, begun = job.plan, time.monotonic()
    if not plan.ok:
        raise InputError(" ".join(finding.sentence() for finding in plan.errors).rstrip("."))
    final = destination.locate(job.out)
    layout = lay_out(plan.tensors, job.shard_size)
    _check(job, final, layout)
    emit(
        {
            "event": "start",
            "bytes": layout.data_bytes,
            "tensors": len(plan.tensors),
            "layers": len(plan.layers),
            "shards": len(layout.shards),
            "out": str(final),
        }
    )
    tracker = Tracker(places(plan))
    files = _write(job, final, layout, tracker, emit, cancelled)
    result = Result(
        out=final,
        layers=len(plan.layers),
        parameters=sum(tensor.numel for tensor in plan.tensors),
        nbytes=layout.data_bytes,
        seconds=time.monotonic() - begun,
        files=tuple(sorted(files)),
        warnings=tuple(tracker.warnings),
    )
    done = {"seconds": round(result.seconds, 3), "bytes": result.nbytes, "files": list(result.files)}
    _tell(emit, {"event": "done", "out": str(final), **done})
    return result


def _check(job: _Job, final: Path, layout: Layout) -> None:
    try:
        destination.sweep(final)
        destination.check(final, job.plan.donors.values(), force=job.force, keep=job.keep)
        verify.check_sources(job.plan)
        destination.check_space(final, layout.nbytes + companions.size_of(job.plan, job.recipe))
    except OSError as error:
        raise destination.failed(error, final) from error


def _write(
    job: _Job, final: Path, layout: Layout, tracker: Tracker, emit: OnEvent, cancelled: Callable[[], bool]
) -> list[str]:
    try:
        with destination.Workspace(final) as workspace, _loading_back(job) as child:
            workers = max(1, min(job.workers or _cores(), len(layout.shards)))
            with one_thread() if job.plan.needs_arithmetic else contextlib.nullcontext():
                how = surveyed(job.plan, job.arithmetic, cancelled)
                _fill(layout, workspace.folder, workers, job.fsync, how, tracker, emit, cancelled)
            names = companions.write_companions(job.plan, layout, workspace.folder, final.name, job.recipe, job.fsync)
            verify.check_written(workspace.folder, job.plan)
            if child:
                emit({"event": "check"})
                _await(child, final, tracker, cancelled)
            if cancelled():
                raise Cancelled
            workspace.publish(replace=job.force, flush=job.fsync)
    except OSError as error:
        raise destination.failed(error, final) from error
    return list(dict.fromkeys([*layout.file_names(), *names]))


def _loading_back(job: _Job) -> contextlib.AbstractContextManager[LoadBack | None]:
    """The load-back check, started before the copying that it works beside."""
    if not job.check or job.plan.config is None:
        return contextlib.nullcontext()
    return LoadBack(job.plan.config, expectation(job.plan))


def _await(child: LoadBack, final: Path, tracker: Tracker, cancelled: Callable[[], bool]) -> None:
    """Take the check's outcome; SurgeonError when the output would not be the model that was planned."""

    def pause() -> None:
        if cancelled():
            raise Cancelled

    outcome = child.outcome(pause)
    for warning in outcome.warnings:
        tracker.warn(warning)
    if outcome.errors:
        raise SurgeonError(
            f"the written model is not what was planned: {summary(outcome.errors)}",
            where=str(final),
            remedy="this is a mistake in surgeon; nothing was written, please report it (--no-check writes it anyway)",
        )


def _fill(
    layout: Layout,
    folder: Path,
    workers: int,
    flush: bool,
    how: Arithmetic,
    tracker: Tracker,
    emit: OnEvent,
    cancelled: Callable[[], bool],
) -> None:
    """Let the workers write every shard; whatever ends it early also ends them."""
    reporter = Reporter(tracker, layout.data_bytes, emit)
    with ThreadPoolExecutor(workers, thread_name_prefix="shard") as pool:
        pending: set[Future[None]] = set()
        try:
            pending = {pool.submit(write_shard, shard, folder, tracker, flush, how) for shard in layout.shards}
            while pending:
                done, pending = wait(pending, timeout=INTERVAL, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                reporter.tick(last=not pending)
                if cancelled():
                    raise Cancelled
        except BaseException:
            tracker.halt()
            for future in pending:
                future.cancel()
            raise


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
