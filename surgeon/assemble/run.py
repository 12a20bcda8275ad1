"""Write a plan to disk: checks, workers, small files, checks of the result, and then the final name."""

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
from .options import AssembleOptions
from .progress_tracker import INTERVAL, Cancelled, Event, OnEvent, Reporter, Tracker, places
from .resume import unfinished
from .resume.fingerprint import Fingerprint, check_sources, fingerprint
from .resume.workspace import Workspace, hidden
from .write.file_part import Work
from .write.workers import crew

Cancel = Callable[[], bool] | threading.Event | None


@dataclass(frozen=True)
class Result:
    """A written model.

    Attributes:
        out: the folder.
        layers: number of layers.
        parameters: number of elements.
        nbytes: bytes of its tensors.
        seconds: duration of the run.
        files: names of its files.
        warnings: sentences about facts that a plan cannot know.
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
    options: AssembleOptions | None = None,
    *,
    recipe: str | None = None,
    on_event: OnEvent | None = None,
    cancelled: Cancel = None,
) -> Result:
    """Write a plan's model into the folder `out`, which afterwards has the whole model or is unchanged.

    If the run ends early, what it has written stays in a hidden folder next to `out` and can be resumed.

    Args:
        plan: the plan, which must be `ok`.
        out: a new or empty folder; with `options.force` any folder that contains no donor.
        options: how to write it.
        recipe: the recipe's text, to write next to the weights; by default made from the plan.
        on_event: called in this thread with a dict per event: start, progress (at most 4 per second), layer, end, check
            (everything is written; the load-back check is still running), done, and error or cancelled before this
            raises.
        cancelled: an event or function, checked four times per second and before the model gets its name.

    Raises:
        InputError: the plan has errors, `out` is refused, or an unfinished run exists that cannot be resumed or for
            which neither `resume` nor `restart` is set.
        SurgeonError: reading or writing failed, or the written model differs from the plan.
        Cancelled: the run was cancelled.
    """
    emit = on_event or _ignored
    try:
        run = AssemblyRun(plan, out, options or AssembleOptions(), recipe, emit, _asker(cancelled))
        return run.result()
    except Cancelled as error:
        _report(emit, {"event": "cancelled", "message": error.sentence()})
        raise
    except KeyboardInterrupt:
        _report(emit, {"event": "cancelled"})
        raise
    except SurgeonError as error:
        _report(emit, {"event": "error", "message": error.sentence()})
        raise


def ready(plan: Plan, out: Path, options: AssembleOptions | None = None, *, recipe: str | None = None) -> None:
    """Raise the InputError or SurgeonError that `assemble` would raise before writing, if any."""
    AssemblyRun(plan, out, options or AssembleOptions(), recipe, _ignored, _never).check()


class AssemblyRun:
    """One run of `assemble`: the plan, the output folder, and the state while the output is written."""

    def __init__(
        self,
        plan: Plan,
        out: Path,
        options: AssembleOptions,
        recipe: str | None,
        emit: OnEvent,
        cancelled: Callable[[], bool],
    ) -> None:
        self.plan, self.out, self.options = plan, out, options
        self._emit, self._cancelled = emit, cancelled
        self._arithmetic = _arithmetic(plan, options)
        self._published: Published = published(plan, recipe or fresh(plan.recipe).text)
        self._terms = unfinished.Terms(self._fingerprint, options.resume, options.restart)
        self._tracker = Tracker(places(plan))
        self._begun = time.monotonic()

    # -- before anything is written

    def check(self) -> None:
        """Raise the error that `result` would raise before writing, if any."""
        final = self._located()
        try:
            if self.options.resume and self._is_done(final):
                return
            self._check_output(final)
            unfinished.check(final, self._terms)
        except OSError as error:
            raise preflight.failed(error, final) from error

    def _located(self) -> Path:
        if not self.plan.ok:
            raise InputError(" ".join(finding.sentence() for finding in self.plan.errors).rstrip("."))
        return preflight.locate(self.out)

    def _check_output(self, final: Path) -> None:
        options = self.options
        preflight.check(final, hidden(final), inputs(self.plan), force=options.force, keep=options.keep)

    def _is_done(self, final: Path) -> bool:
        """Whether an earlier run has completely written this model; it may have been killed before its clean-up."""
        public = self._published
        if not final.is_dir() or not manifest.is_complete(final, public.plan, public.recipe, self._fingerprint):
            return False
        if hidden(final).is_dir():
            with Workspace(final) as workspace:
                workspace.keep(False)
        return True

    def _fingerprint(self, earlier: int | None) -> Fingerprint:
        return fingerprint(self.plan, self.options.shard_size or earlier or DEFAULT_SHARD, self._arithmetic)

    # -- writing

    def result(self) -> Result:
        """Write the model."""
        final = self._located()
        try:
            if self.options.resume and self._is_done(final):
                return self._done(final, self.plan.estimates.nbytes, [path.name for path in final.iterdir()])
            self._check_output(final)
            disk_checks.check_sources(self.plan)
            with Workspace(final) as workspace:
                # Entering the workspace may restore the old folder, if a run was killed between its two renames.
                self._check_output(final)
                layout, files = self._in_workspace(workspace)
        except OSError as error:
            raise preflight.failed(error, final) from error
        return self._done(final, layout.data_bytes, files)

    def _done(self, final: Path, nbytes: int, files: Iterable[str]) -> Result:
        """Report and return the result."""
        result = Result(
            out=final,
            layers=len(self.plan.layers),
            parameters=sum(tensor.numel for tensor in self.plan.tensors),
            nbytes=nbytes,
            seconds=time.monotonic() - self._begun,
            files=tuple(sorted(files)),
            warnings=tuple(self._tracker.warnings),
        )
        done = {"seconds": round(result.seconds, 3), "bytes": result.nbytes, "files": list(result.files)}
        done |= {"earlier": self._tracker.earlier, "warnings": list(result.warnings)}
        _report(self._emit, {"event": "done", "out": str(final), **done})
        return result

    def _in_workspace(self, workspace: Workspace) -> tuple[OutputLayout, list[str]]:
        """Write and publish the model; returns its files. On failure, keep what is written and name it in the error."""
        plan, final = self.plan, workspace.final
        journal, begun = unfinished.begin(workspace, self._terms, self.options.fsync)
        layout = lay_out(plan.tensors, begun.shard_size)
        paths = {shard.name: workspace.model / shard.name for shard in layout.shards}
        sizes = {name: path.stat().st_size for name, path in paths.items() if path.exists()}
        kernel = shares_blocks(workspace.folder)
        work = Work(workspace.model, self._tracker, journal, self.options.fsync, kernel, self._arithmetic, sizes)
        try:
            needed = layout.nbytes + small_files.size_of(plan, self._published.recipe)
            needed += manifest.size_of((tensor.name for tensor in plan.tensors), self._published.recipe)
            preflight.check_space(final, needed, workspace.model)
            self._report_start(layout, final)
            return layout, self._write(workspace, layout, begun, work)
        except BaseException as error:
            left = unfinished.kept(journal, layout) if workspace.journal.is_file() else ""
            workspace.keep(bool(left) and not isinstance(error, disk_checks.NotAsPlanned))
            if isinstance(error, Cancelled):
                raise Cancelled(*filter(None, [left])) from error
            if isinstance(error, OSError):
                error = preflight.failed(error, final)
            if isinstance(error, SurgeonError) and not isinstance(error, disk_checks.NotAsPlanned):
                raise _and_kept(error, left) from error
            raise
        finally:
            journal.close()

    def _report_start(self, layout: OutputLayout, final: Path) -> None:
        self._emit(
            {
                "event": "start",
                "bytes": layout.data_bytes,
                "tensors": len(self.plan.tensors),
                "layers": len(self.plan.layers),
                "shards": len(layout.shards),
                "out": str(final),
            }
        )

    def _write(self, workspace: Workspace, layout: OutputLayout, begun: Fingerprint, work: Work) -> list[str]:
        """Write everything, check it, and give it the final name; returns the files' names."""
        plan, options = self.plan, self.options
        with self._loading_back() as child:
            with one_thread() if plan.needs_arithmetic else contextlib.nullcontext():
                self._write_tensors(layout, begun, work)
            small = self._write_small(workspace, layout, begun, work)
            disk_checks.check_written(workspace.model, plan, workspace.final)
            if child:
                self._emit({"event": "check"})
                self._await(child, workspace.final)
            self._check_cancelled()
            workspace.publish(replace=options.force, flush=options.fsync)
        return list(dict.fromkeys([*layout.file_names(), *small, manifest.MANIFEST]))

    def _write_small(
        self, workspace: Workspace, layout: OutputLayout, begun: Fingerprint, work: Work
    ) -> dict[str, str]:
        """Write the files other than weights; returns their hashes by name, without the manifest's."""
        public, folder, flush = self._published, workspace.model, self.options.fsync
        small = small_files.write_companions(public.plan, layout, folder, workspace.final.name, public.recipe, flush)
        text = manifest.compose(public.plan, public.recipe, layout, work.journal.lines, begun, small)
        small_files.write_small(folder / manifest.MANIFEST, text.encode("utf-8", "backslashreplace"), flush)
        return small

    def _loading_back(self) -> contextlib.AbstractContextManager[LoadBack | None]:
        """The load-back check, which runs in parallel with the copying; None if it is not wanted."""
        if not self.options.check or self.plan.config is None:
            return contextlib.nullcontext()
        return LoadBack(self.plan.config, expectation(self.plan))

    def _await(self, child: LoadBack, final: Path) -> None:
        """Wait for the check's outcome; raise SurgeonError if the output is not the planned model."""
        outcome = child.outcome(self._check_cancelled)
        for warning in outcome.warnings:
            self._tracker.warn(warning)
        if outcome.errors:
            raise SurgeonError(
                f"the written model is not what was planned: {summary(outcome.errors)}",
                where=str(final),
                remedy="this is a bug in surgeon, please report it (--no-check writes the model anyway)",
            )

    def _write_tensors(self, layout: OutputLayout, begun: Fingerprint, work: Work) -> None:
        """Survey the whole model if a method needs it, then let the workers write all tensors."""
        how = work.how
        workers = self.options.workers or PER_GPU * len(how.gpus) or cores()
        with hired(how, self.plan, workers) as lanes:
            how = surveyed(self.plan, how, self._cancelled, lanes[0] if lanes else None)
            self._run_workers(layout, begun, replace(work, how=how), len(lanes) or workers, lanes)

    def _run_workers(
        self, layout: OutputLayout, begun: Fingerprint, work: Work, workers: int, lanes: Sequence[Lane]
    ) -> None:
        """Let the workers write every part; stop them if an error or a cancel ends this early."""
        reporter = Reporter(self._tracker, layout.data_bytes, self._emit)
        with crew(parts(layout, workers), work, self._tracker, workers, lanes) as working:
            pending = working.pending
            try:
                while pending:
                    done, pending = wait(pending, timeout=INTERVAL, return_when=FIRST_COMPLETED)
                    working.take(done)
                    if done:
                        check_sources(begun)
                    reporter.tick()
                    self._check_cancelled()
            except BaseException:
                working.halt()
                raise
        reporter.tick(last=True)

    def _check_cancelled(self) -> None:
        if self._cancelled():
            raise Cancelled


def _arithmetic(plan: Plan, options: AssembleOptions) -> Arithmetic:
    """How blends are computed; torch is imported for a device only if there is something to compute."""
    device, vram = options.device, options.vram
    gpus = blending_gpus(device) if device != "cpu" and plan.needs_arithmetic else ()
    if vram is not None and not gpus and (device == "cpu" or plan.needs_arithmetic):
        raise InputError(
            "--vram limits the memory of a GPU, but blends are computed on the CPU",
            remedy="remove it" if device == "auto" else "remove it, or add --device cuda",
        )
    if vram is not None and gpus:
        check_vram(plan, vram)
    return Arithmetic(allow_nonfinite=options.allow_nonfinite, gpus=gpus, vram=vram)


def _and_kept(error: SurgeonError, left: str) -> SurgeonError:
    """The error, with what is kept of the work in its remedy."""
    remedy = "; ".join(filter(None, [error.remedy, left or "nothing was written"]))
    kind = InputError if isinstance(error, InputError) else SurgeonError
    return kind(error.what, where=error.where, why=error.why, remedy=remedy)


def _asker(cancelled: Cancel) -> Callable[[], bool]:
    if cancelled is None:
        return _never
    return cancelled.is_set if isinstance(cancelled, threading.Event) else cancelled


def _never() -> bool:
    return False


def _ignored(event: Event) -> None:
    """Drop an event."""


def _report(emit: OnEvent, event: Event) -> None:
    """Report the end of a run; an error of the listener must not hide it."""
    with contextlib.suppress(Exception):
        emit(event)
