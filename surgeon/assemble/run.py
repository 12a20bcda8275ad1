"""The plan to disk: checks, workers, small files, a look at the result, and only then its name."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, SurgeonError
from ..machine import cores
from ..plan.config.estimate import DEFAULT_SHARD
from ..plan.inputs import inputs
from ..plan.model import Plan
from ..recipe.document import fresh
from . import disk_checks, preflight
from .compute.arithmetic import Arithmetic, one_thread
from .compute.gpu_memory import check_vram, hired
from .compute.whole_model_survey import surveyed
from .files import manifest, small_files
from .files.published_texts import Published, published
from .gpu.device import blending_gpus
from .gpu.staging import PER_GPU, Lane
from .io.system_calls import shares_blocks
from .layout import OutputLayout, lay_out, parts
from .load_back import LoadBack, expectation, summary
from .progress_tracker import INTERVAL, Cancelled, Event, OnEvent, Reporter, Tracker, places
from .resume import unfinished
from .resume.fingerprint import Fingerprint, check_sources, fingerprint
from .resume.workspace import Workspace, hidden
from .write.file_part import Work
from .write.workers import crew

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
    shard_size: int | None = None,
    force: bool = False,
    resume: bool = False,
    restart: bool = False,
    workers: int | None = None,
    fsync: bool = True,
    check: bool = False,
    keep: Iterable[Path] = (),
    allow_nonfinite: bool = False,
    device: str = "cpu",
    vram: int | None = None,
    on_event: OnEvent | None = None,
    cancelled: Cancel = None,
) -> Result:
    """Write a plan's model into the folder `out`, which has it whole or is as it was.

    What is written when it ends early, whatever ends it, stays in a hidden folder beside `out` for a later run.

    Args:
        plan: must be `ok`.
        out: a new or empty folder; with `force` any that holds no donor.
        recipe: the recipe's text, to be written beside the model; by default made from the plan.
        shard_size: bytes per weight file; by default those of the run that is gone on with, or 5 GB.
        force: replace what is in `out`.
        resume: go on with what an earlier run has left, if there is any. The bytes are those of one run.
        restart: throw away what an earlier run has left.
        workers: how many write, each one part of a file at a time; by default one per core, or three per GPU. The bytes
            do not depend on it.
        fsync: return only when everything is on the disk; a power loss costs little. Without it, what a resumed run
            finds is read and held against its hashes.
        check: let transformers, in a child process, resolve the config and match every name and shape with the model
            it makes of it; what it makes different is an error. It starts before the copying and takes some seconds.
        keep: files that replacing `out` must not remove, such as the recipe's own.
        allow_nonfinite: blend NaN and infinity in donors as they come, instead of refusing them.
        device: where blends are computed: `cpu`, `cuda` (all GPUs that can be seen), `cuda:1`, or `auto`.
        vram: bytes of each GPU's memory that they may take; by default most of what is free.
        on_event: called in this thread with a dict per event: start, progress (at most 4 a second), layer, end, check
            (only waiting for it is left), done, and error or cancelled before this raises.
        cancelled: asked four times a second, and a last time before the model gets its name.

    Raises:
        InputError: the plan has errors, or `out` is refused, or an earlier run has left something and neither
            `resume` nor `restart` is given, or it cannot be gone on with.
        SurgeonError: reading or writing failed, or what was written is not what was planned.
        Cancelled: `cancelled` said so.
    """
    emit = on_event or (lambda event: None)
    try:
        how = _arithmetic(plan, allow_nonfinite, device, vram)
        options = _Options(shard_size, force, resume, restart, workers, fsync, check, tuple(keep), how)
        shown = published(plan, recipe or fresh(plan.recipe).text)
        return _assemble(_Job(plan, out, shown, options, emit, _asker(cancelled)))
    except Cancelled as error:
        _tell(emit, {"event": "cancelled", "message": error.sentence()})
        raise
    except KeyboardInterrupt:
        _tell(emit, {"event": "cancelled"})
        raise
    except SurgeonError as error:
        _tell(emit, {"event": "error", "message": error.sentence()})
        raise


@dataclass(frozen=True)
class _Options:
    shard_size: int | None
    force: bool
    resume: bool
    restart: bool
    workers: int | None
    fsync: bool
    check: bool
    keep: tuple[Path, ...]
    arithmetic: Arithmetic


@dataclass(frozen=True)
class _Job:
    plan: Plan
    out: Path
    published: Published
    options: _Options
    emit: OnEvent
    cancelled: Callable[[], bool]

    def check_cancelled(self) -> None:
        """Raises Cancelled when it is time to."""
        if self.cancelled():
            raise Cancelled


def _arithmetic(plan: Plan, allow_nonfinite: bool, device: str, vram: int | None) -> Arithmetic:
    """How blends are computed; torch is asked for a device only where there is something to compute."""
    gpus = blending_gpus(device) if device != "cpu" and plan.needs_arithmetic else ()
    if vram is not None and not gpus and (device == "cpu" or plan.needs_arithmetic):
        raise InputError(
            "--vram is of the memory of a GPU, and blends are computed on the CPU",
            remedy="leave it out" if device == "auto" else "leave it out, or give --device cuda",
        )
    if vram is not None and gpus:
        check_vram(plan, vram)
    return Arithmetic(allow_nonfinite=allow_nonfinite, gpus=gpus, vram=vram)


def _asker(cancelled: Cancel) -> Callable[[], bool]:
    if cancelled is None:
        return lambda: False
    return cancelled.is_set if isinstance(cancelled, threading.Event) else cancelled


def _tell(emit: OnEvent, event: Event) -> None:
    """Tell of a failure; that the listener has failed too must not hide it."""
    with contextlib.suppress(Exception):
        emit(event)


def _assemble(job: _Job) -> Result:
    plan, begun = job.plan, time.monotonic()
    _check_plan(plan)
    final = preflight.locate(job.out)
    tracker = Tracker(places(plan))
    try:
        if job.options.resume and _is_done(job, final):
            return _result(job, final, plan.estimates.nbytes, [path.name for path in final.iterdir()], tracker, begun)
        _check(job, final)
        disk_checks.check_sources(plan)
        with Workspace(final) as workspace:
            # A run that was killed in its last moment may have left the old folder to be put back.
            _check(job, final)
            layout, files = _in_workspace(job, workspace, tracker)
    except OSError as error:
        raise preflight.failed(error, final) from error
    return _result(job, final, layout.data_bytes, files, tracker, begun)


def _result(job: _Job, final: Path, nbytes: int, files: Iterable[str], tracker: Tracker, begun: float) -> Result:
    """What was written, told of as well."""
    result = Result(
        out=final,
        layers=len(job.plan.layers),
        parameters=sum(tensor.numel for tensor in job.plan.tensors),
        nbytes=nbytes,
        seconds=time.monotonic() - begun,
        files=tuple(sorted(files)),
        warnings=tuple(tracker.warnings),
    )
    done = {"seconds": round(result.seconds, 3), "bytes": result.nbytes, "files": list(result.files)}
    done |= {"earlier": tracker.earlier, "warnings": list(result.warnings)}
    _tell(job.emit, {"event": "done", "out": str(final), **done})
    return result


def _is_done(job: _Job, final: Path) -> bool:
    """Whether an earlier run has written this very model whole. It may have been killed before it could tidy up."""
    shown, terms = job.published, _terms(job.plan, job.options)
    if not final.is_dir() or not manifest.is_complete(final, shown.plan, shown.recipe, terms.fingerprint):
        return False
    if hidden(final).is_dir():
        with Workspace(final) as workspace:
            workspace.keep(False)
    return True


def ready(
    plan: Plan,
    out: Path,
    *,
    recipe: str | None = None,
    shard_size: int | None = None,
    force: bool = False,
    resume: bool = False,
    restart: bool = False,
    keep: Iterable[Path] = (),
    allow_nonfinite: bool = False,
    device: str = "cpu",
    vram: int | None = None,
) -> None:
    """Raises the InputError, or SurgeonError, that `assemble` with these arguments would begin with."""
    how = _arithmetic(plan, allow_nonfinite, device, vram)
    options = _Options(shard_size, force, resume, restart, None, True, False, tuple(keep), how)
    shown = published(plan, recipe or fresh(plan.recipe).text)
    job = _Job(plan, out, shown, options, lambda event: None, lambda: False)
    _check_plan(plan)
    final = preflight.locate(out)
    try:
        if resume and _is_done(job, final):
            return
        _check(job, final)
        unfinished.check(final, _terms(plan, options))
    except OSError as error:
        raise preflight.failed(error, final) from error


def _terms(plan: Plan, options: _Options) -> unfinished.Terms:
    def mark(earlier: int | None) -> Fingerprint:
        return fingerprint(plan, options.shard_size or earlier or DEFAULT_SHARD, options.arithmetic)

    return unfinished.Terms(mark, options.resume, options.restart)


def _check_plan(plan: Plan) -> None:
    if not plan.ok:
        raise InputError(" ".join(finding.sentence() for finding in plan.errors).rstrip("."))


def _check(job: _Job, final: Path) -> None:
    preflight.check(final, hidden(final), inputs(job.plan), force=job.options.force, keep=job.options.keep)


def _in_workspace(job: _Job, workspace: Workspace, tracker: Tracker) -> tuple[OutputLayout, list[str]]:
    """Write and publish the model; gives its files. What is there when that fails is kept, and told of."""
    options, plan = job.options, job.plan
    journal, begun = unfinished.begin(workspace, _terms(plan, options), options.fsync)
    layout = lay_out(plan.tensors, begun.shard_size)
    sizes = {
        shard.name: path.stat().st_size for shard in layout.shards if (path := workspace.model / shard.name).exists()
    }
    kernel = shares_blocks(workspace.folder)
    work = Work(workspace.model, tracker, journal, options.fsync, kernel, options.arithmetic, sizes)
    try:
        needed = layout.nbytes + small_files.size_of(plan, job.published.recipe)
        needed += manifest.size_of((tensor.name for tensor in plan.tensors), job.published.recipe)
        preflight.check_space(workspace.final, needed, workspace.model)
        _started(job, layout, workspace.final)
        return layout, _write(job, workspace, layout, begun, work, tracker)
    except BaseException as error:
        left = unfinished.kept(journal, layout) if workspace.journal.is_file() else ""
        workspace.keep(bool(left) and not isinstance(error, disk_checks.Mistaken))
        if isinstance(error, Cancelled):
            raise Cancelled(*filter(None, [left])) from error
        if isinstance(error, OSError):
            error = preflight.failed(error, workspace.final)
        if isinstance(error, SurgeonError) and not isinstance(error, disk_checks.Mistaken):
            raise _and_kept(error, left) from error
        raise
    finally:
        journal.close()


def _and_kept(error: SurgeonError, left: str) -> SurgeonError:
    """The error with what is left of the work."""
    remedy = "; ".join(filter(None, [error.remedy, left or "nothing was written"]))
    kind = InputError if isinstance(error, InputError) else SurgeonError
    return kind(error.what, where=error.where, why=error.why, remedy=remedy)


def _started(job: _Job, layout: OutputLayout, final: Path) -> None:
    job.emit(
        {
            "event": "start",
            "bytes": layout.data_bytes,
            "tensors": len(job.plan.tensors),
            "layers": len(job.plan.layers),
            "shards": len(layout.shards),
            "out": str(final),
        }
    )


def _write(
    job: _Job, workspace: Workspace, layout: OutputLayout, begun: Fingerprint, work: Work, tracker: Tracker
) -> list[str]:
    """Everything from the first tensor to the final name; gives the files' names."""
    plan, options = job.plan, job.options
    with _loading_back(job) as child:
        with one_thread() if plan.needs_arithmetic else contextlib.nullcontext():
            _compute(job, layout, begun, work, tracker)
        folder, flush = workspace.model, options.fsync
        shown = job.published
        small = small_files.write_companions(shown.plan, layout, folder, workspace.final.name, shown.recipe, flush)
        text = manifest.compose(shown.plan, shown.recipe, layout, work.journal.lines, begun, small)
        small_files.write_small(folder / manifest.MANIFEST, text.encode("utf-8", "backslashreplace"), flush)
        disk_checks.check_written(workspace.model, plan, workspace.final)
        if child:
            job.emit({"event": "check"})
            _await(child, workspace.final, tracker, job)
        job.check_cancelled()
        workspace.publish(replace=options.force, flush=options.fsync)
    return list(dict.fromkeys([*layout.file_names(), *small, manifest.MANIFEST]))


def _loading_back(job: _Job) -> contextlib.AbstractContextManager[LoadBack | None]:
    """The load-back check, started before the copying that it works beside."""
    if not job.options.check or job.plan.config is None:
        return contextlib.nullcontext()
    return LoadBack(job.plan.config, expectation(job.plan))


def _await(child: LoadBack, final: Path, tracker: Tracker, job: _Job) -> None:
    """Take the check's outcome; SurgeonError when the output would not be the model that was planned."""
    outcome = child.outcome(job.check_cancelled)
    for warning in outcome.warnings:
        tracker.warn(warning)
    if outcome.errors:
        raise SurgeonError(
            f"the written model is not what was planned: {summary(outcome.errors)}",
            where=str(final),
            remedy="this is a mistake in surgeon, please report it (--no-check writes it anyway)",
        )


def _compute(job: _Job, layout: OutputLayout, begun: Fingerprint, work: Work, tracker: Tracker) -> None:
    """Everything that the workers do, and what must be known before."""
    how = work.how
    workers = job.options.workers or PER_GPU * len(how.gpus) or cores()
    with hired(how, job.plan, workers) as lanes:
        how = surveyed(job.plan, how, job.cancelled, lanes[0] if lanes else None)
        _fill(job, layout, begun, replace(work, how=how), tracker, len(lanes) or workers, lanes)


def _fill(
    job: _Job,
    layout: OutputLayout,
    begun: Fingerprint,
    work: Work,
    tracker: Tracker,
    workers: int,
    lanes: Sequence[Lane],
) -> None:
    """Let the workers write every part; whatever ends it early also ends them."""
    reporter = Reporter(tracker, layout.data_bytes, job.emit)
    with crew(parts(layout, workers), work, tracker, workers, lanes) as working:
        pending = working.pending
        try:
            while pending:
                done, pending = wait(pending, timeout=INTERVAL, return_when=FIRST_COMPLETED)
                working.take(done)
                if done:
                    check_sources(begun)
                reporter.tick()
                job.check_cancelled()
        except BaseException:
            working.halt()
            raise
    reporter.tick(last=True)
