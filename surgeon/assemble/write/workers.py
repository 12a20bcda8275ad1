"""The workers that write the parts of the output: threads, or processes if much is computed.

Between two operations on a chunk a thread waits for Python's lock, which takes longer than most operations, so two
threads are hardly faster than one. Processes are forked after torch is imported, so that its memory is shared. They
report to the main process, which alone counts the progress and writes the journal.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing.context import ForkContext
from multiprocessing.process import BaseProcess
from typing import Any

from ...errors import SurgeonError
from ...plan.operands import Copy
from ..gpu.staging import Lane
from ..io.system_calls import end_with_parent
from ..layout import FilePart
from ..progress_tracker import Counts, Halted, Tracker
from ..resume.journal import JournalLine, Notes
from .file_part import Work, write_part

WORTH = 64 * 1024 * 1024
"""Computed bytes from which processes save more time than their start takes."""

BATCH = 4 * 1024 * 1024
"""Bytes after which a process reports its progress."""


@dataclass
class Crew:
    """Running workers.

    Attributes:
        pending: one future per part.
    """

    pending: set[Future[None]]
    _tracker: Tracker
    _relay: Relay | None = None
    _processes: Sequence[BaseProcess] = ()

    def take(self, done: Set[Future[None]]) -> None:
        """Raise the error of a failed worker: one of `write_part`, or a SurgeonError if its process has ended."""
        if self._relay and self._relay.failure:
            raise self._relay.failure
        for future in done:
            try:
                future.result()
            except BrokenProcessPool as error:
                raise _ended(self._processes) from error

    def halt(self) -> None:
        """Make every worker stop at its next piece."""
        for future in self.pending:
            future.cancel()
        # Processes are stopped through the relay, because the tracker must still count what they have reported.
        self._relay.halt() if self._relay else self._tracker.halt()


@contextlib.contextmanager
def crew(
    parts: Sequence[FilePart], work: Work, tracker: Tracker, workers: int, lanes: Sequence[Lane] = ()
) -> Iterator[Crew]:
    """Start workers that write these parts in order; all have ended at the end of the `with`.

    Args:
        parts: the parts of all files.
        work: what the workers share; its tracker and journal are used only in this process.
        tracker: counts the progress.
        workers: number of workers; the bytes do not depend on it.
        lanes: the workers' shares of GPUs; empty on the CPU.
    """
    workers = max(1, min(workers, len(parts)))
    with contextlib.ExitStack() as stack:
        relay = _relay() if workers > 1 and _may_fork(parts, work) else None
        if relay is None:
            threads = stack.enter_context(ThreadPoolExecutor(workers, thread_name_prefix="worker"))
            write = _on(lanes) if lanes else write_part
            yield Crew({threads.submit(write, part, work) for part in parts}, tracker)
            return
        far = replace(work, tracker=FarCounts(relay), journal=FarNotes(relay, work.journal))
        stack.enter_context(relay.serving(tracker, work.journal))
        pool = stack.enter_context(
            ProcessPoolExecutor(workers, relay.context, initializer=_begin, initargs=(parts, far, os.getpid()))
        )
        with _signals_held():
            # The first submit starts the processes, while this process has no other thread.
            pending = {pool.submit(_write, 0)}
            # `active_children` would omit processes that have already ended, with their exit codes.
            processes: list[BaseProcess] = list((getattr(pool, "_processes", None) or {}).values())
            try:
                pending |= {pool.submit(_write, number) for number in range(1, len(parts))}
            except BrokenProcessPool as error:
                raise _ended(processes) from error
        relay.start()
        tracker.processes = tuple(process.pid for process in processes if process.pid)
        yield Crew(pending, tracker, relay, processes)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Block signals here and in processes that are forked meanwhile, until these have set their own handlers.

    With the parent's handler, a process would treat the signal that ends it after another one's death as a user's first
    Ctrl-C and continue; the parent would wait for it for ever.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED_TO_END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on(lanes: Sequence[Lane]) -> Callable[[FilePart, Work], None]:
    """A function that writes a part on the lane that has been free longest; there is one for every thread."""
    waiting: queue.SimpleQueue[Lane] = queue.SimpleQueue()
    for lane in lanes:
        waiting.put(lane)

    def write(part: FilePart, work: Work) -> None:
        lane = waiting.get()
        try:
            with lane.working():
                write_part(part, work, lane)
        finally:
            waiting.put(lane)

    return write


def _may_fork(parts: Sequence[FilePart], work: Work) -> bool:
    """Whether processes are useful and safe: they are not with CUDA, and not in a program with other threads."""
    if not sys.platform.startswith("linux") or not _alone() or work.how.gpus:
        return False
    tensors = (placed.tensor for part in parts for placed in part.tensors)
    return sum(tensor.nbytes for tensor in tensors if not isinstance(tensor.source, Copy)) >= WORTH


def _alone() -> bool:
    """Whether this is the only thread: a lock held by another thread would stay locked for ever in a forked process."""
    return threading.active_count() == 1


def _ended(processes: Sequence[BaseProcess]) -> SurgeonError:
    """The error for a worker process that ended unexpectedly, after which the pool ended the others."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and any(process.exitcode is None for process in processes):
        time.sleep(0.01)
    codes = [process.exitcode for process in processes if process.exitcode not in (None, 0, -signal.SIGTERM)]
    code = codes[0] if codes else -signal.SIGTERM
    name = signal.Signals(-code).name if code and code < 0 else f"code {code}"
    killed = code == -signal.SIGKILL
    return SurgeonError(
        f"a worker process was ended by {name}",
        why="it was killed by a user or because the system ran out of memory" if killed else "",
        remedy="free some memory, or use fewer --workers" if killed else "use --workers 1",
    )


def _relay() -> Relay | None:
    """The relay for worker processes; None if the system cannot start any."""
    with contextlib.suppress(OSError, ImportError, ValueError):
        return Relay(multiprocessing.get_context("fork"))
    return None


class Relay:
    """Carries the reports of worker processes to the main process, in the order in which each process sends them.

    Attributes:
        context: the start method of its processes.
        failure: the error that handling a report has raised; None without one.
    """

    def __init__(self, context: ForkContext) -> None:
        self.context = context
        self.failure: BaseException | None = None
        self._reader, self._writer = context.Pipe(duplex=False)
        self._turn = context.Lock()
        self._stop = mmap.mmap(-1, 1)

    def send(self, *message: Any) -> None:
        """In a worker: send (`tracker` or `journal`, its method, arguments)."""
        with self._turn:
            self._writer.send(message)

    def check(self) -> None:
        """In a worker: raise Halted if it must stop."""
        if self._stop[0]:
            raise Halted

    def halt(self) -> None:
        """Make every worker stop at its next piece."""
        self._stop[0] = 1

    @contextlib.contextmanager
    def serving(self, tracker: Tracker, journal: Notes) -> Iterator[None]:
        """Handle reports from `start` on; all are handled at the end of the `with`."""
        self._thread = threading.Thread(target=self._serve, args=(tracker, journal), name="relay", daemon=True)
        try:
            yield
        finally:
            # The processes have ended, so closing this last writer ends the pipe. A message would not be safe: a killed
            # process may still hold the lock.
            self._writer.close()
            if self._thread.is_alive():
                self._thread.join(_PATIENCE)
            self._reader.close()
        if self.failure:
            raise self.failure

    def start(self) -> None:
        """Start handling reports; to be called after the processes are forked."""
        self._thread.start()

    def _serve(self, tracker: Tracker, journal: Notes) -> None:
        targets = {"tracker": tracker, "journal": journal}
        # A process that was killed while sending may have sent an incomplete message, which also ends the pipe.
        with contextlib.suppress(EOFError, OSError):
            while True:
                target, method, *arguments = self._reader.recv()
                try:
                    if self.failure is None:
                        getattr(targets[target], method)(*arguments)
                except BaseException as error:
                    self.failure = error
                    self.halt()


_ASKED_TO_END = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

_PATIENCE = 5.0
"""Seconds to wait for ended processes and for their last reports."""


class FarCounts(Counts):
    """In a worker process: forwards calls to the tracker of the main process."""

    def __init__(self, relay: Relay) -> None:
        self._relay, self._count, self._file = relay, 0, ""

    def check(self) -> None:
        self._relay.check()

    def advance(self, count: int, file: str = "") -> None:
        self.check()
        self._count, self._file = self._count + count, file
        if self._count >= BATCH:
            self._flush()

    def _flush(self) -> None:
        count, self._count = self._count, 0
        if count:
            self._relay.send("tracker", "advance", count, self._file)

    def _send(self, method: str, *arguments: Any) -> None:
        self._flush()
        self._relay.send("tracker", method, *arguments)

    def open(self, file: str, total: int, parts: int) -> None:
        self._send("open", file, total, parts)

    def close(self, file: str) -> None:
        self._send("close", file)

    def begin(self, name: str) -> None:
        self._send("begin", name)

    def finish(self, name: str) -> None:
        self._send("finish", name)

    def skip(self, name: str, count: int, file: str) -> None:
        self._send("skip", name, count, file)

    def warn(self, sentence: str) -> None:
        self._send("warn", sentence)


class FarNotes(Notes):
    """In a worker process: forwards calls to the journal of the main process, and has an earlier run's lines."""

    def __init__(self, relay: Relay, earlier: Notes) -> None:
        self._relay, self.lines, self.marked = relay, dict(earlier.lines), set(earlier.marked)

    def add(self, line: JournalLine) -> None:
        self._relay.send("journal", "add", line)

    def void(self, tensor: str) -> None:
        del self.lines[tensor]
        self._relay.send("journal", "void", tensor)

    def mark(self, tensors: Sequence[str]) -> None:
        self._relay.send("journal", "mark", list(tensors))


_job: tuple[Sequence[FilePart], Work]
"""In a worker process: all parts, and what the workers share."""


def _begin(parts: Sequence[FilePart], work: Work, parent: int) -> None:
    """Initialise a worker process; only its parent ends it."""
    global _job
    end_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED_TO_END)
    # Garbage collection of the parent's objects would copy their memory pages.
    gc.freeze()
    _job = parts, work


def _write(number: int) -> None:
    parts, work = _job
    write_part(parts[number], work)
