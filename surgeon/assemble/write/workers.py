"""Who writes the parts of the output: threads, or, where much is computed, processes.

Between two operations on a chunk a thread waits for Python's lock, which takes longer than most of the operations: two
threads were hardly faster than one. Processes are forked once torch is there, so that all of it is in memory once, and
tell the first process what they do; it alone counts, and writes the journal.
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
"""Computed bytes from which on processes gain more than it takes to start them."""

BATCH = 4 * 1024 * 1024
"""Bytes after which a process tells how far it is."""


@dataclass
class Crew:
    """Workers, at work.

    Attributes:
        pending: one future per part.
    """

    pending: set[Future[None]]
    _tracker: Tracker
    _relay: Relay | None = None
    _processes: Sequence[BaseProcess] = ()

    def take(self, done: Set[Future[None]]) -> None:
        """Raises what made a worker fail: what `write_part` does, or a SurgeonError where its process has ended."""
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
        # Those that are processes are asked by the relay; what they have already told is still to be counted.
        self._relay.halt() if self._relay else self._tracker.halt()


@contextlib.contextmanager
def crew(
    parts: Sequence[FilePart], work: Work, tracker: Tracker, workers: int, lanes: Sequence[Lane] = ()
) -> Iterator[Crew]:
    """Workers who write these parts in their order; at the end of the `with` all have ended.

    Args:
        work: what they share; its tracker and journal are used in this process only.
        workers: how many at once; the bytes do not depend on it.
        lanes: on GPUs, what each of the workers has of one.
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
            # The first of them starts the processes, while this one still has no other thread.
            pending = {pool.submit(_write, 0)}
            # Not `active_children`, which forgets those that have ended already, and how.
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
    """Keep signals waiting, here and in processes that are forked meanwhile until they have begun.

    One that is ended because another was killed must not take that for the first Ctrl-C of a user, as its parent's
    handler would: nobody would end it again, and it would be waited for without end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED_TO_END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _on(lanes: Sequence[Lane]) -> Callable[[FilePart, Work], None]:
    """Writes a part on the lane that has waited longest; there are at least as many as threads."""
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
    """Whether processes are worth it, and safe: not with CUDA, not from a program that has threads of its own."""
    if not sys.platform.startswith("linux") or not _alone() or work.how.gpus:
        return False
    tensors = (placed.tensor for part in parts for placed in part.tensors)
    return sum(tensor.nbytes for tensor in tensors if not isinstance(tensor.source, Copy)) >= WORTH


def _alone() -> bool:
    """Whether this is the only thread: a lock that another one holds would be held for ever in a process forked now."""
    return threading.active_count() == 1


def _ended(processes: Sequence[BaseProcess]) -> SurgeonError:
    """A worker process has ended without a word; the others were ended because of it."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and any(process.exitcode is None for process in processes):
        time.sleep(0.01)
    codes = [process.exitcode for process in processes if process.exitcode not in (None, 0, -signal.SIGTERM)]
    code = codes[0] if codes else -signal.SIGTERM
    name = signal.Signals(-code).name if code and code < 0 else f"code {code}"
    killed = code == -signal.SIGKILL
    return SurgeonError(
        f"a worker process was ended by {name}",
        why="somebody has killed it, or the system has run out of memory" if killed else "",
        remedy="free some memory, or use fewer --workers" if killed else "use --workers 1",
    )


def _relay() -> Relay | None:
    """What processes report by; None where the system cannot have any."""
    with contextlib.suppress(OSError, ImportError, ValueError):
        return Relay(multiprocessing.get_context("fork"))
    return None


class Relay:
    """Carries what worker processes tell to the process that started them, in the order of each one's telling.

    Attributes:
        context: how its processes are started.
        failure: what taking it up there failed with.
    """

    def __init__(self, context: ForkContext) -> None:
        self.context = context
        self.failure: BaseException | None = None
        self._reader, self._writer = context.Pipe(duplex=False)
        self._turn = context.Lock()
        self._stop = mmap.mmap(-1, 1)

    def tell(self, *message: Any) -> None:
        """In a worker: (tracker or journal, its method, arguments)."""
        with self._turn:
            self._writer.send(message)

    def check(self) -> None:
        """In a worker: raises Halted when it is time to stop."""
        if self._stop[0]:
            raise Halted

    def halt(self) -> None:
        """Make every worker stop at its next piece."""
        self._stop[0] = 1

    @contextlib.contextmanager
    def serving(self, tracker: Tracker, journal: Notes) -> Iterator[None]:
        """From `start` on take up what is told; at the end of the `with` everything is taken."""
        self._thread = threading.Thread(target=self._serve, args=(tracker, journal), name="relay", daemon=True)
        try:
            yield
        finally:
            # The processes have ended, so this is the last who could write. To tell anything now could take for ever:
            # one that was killed may have had its turn.
            self._writer.close()
            if self._thread.is_alive():
                self._thread.join(_PATIENCE)
            self._reader.close()
        if self.failure:
            raise self.failure

    def start(self) -> None:
        """Begin to take up what is told: not before the processes are forked."""
        self._thread.start()

    def _serve(self, tracker: Tracker, journal: Notes) -> None:
        targets = {"tracker": tracker, "journal": journal}
        # A process that was killed while it told something may have told half of it, which ends as nothing does.
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
"""Seconds that ended processes are waited for, and what they have told."""


class FarCounts(Counts):
    """In a worker process: a tracker that is somewhere else."""

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
            self._relay.tell("tracker", "advance", count, self._file)

    def _tell(self, method: str, *arguments: Any) -> None:
        self._flush()
        self._relay.tell("tracker", method, *arguments)

    def open(self, file: str, total: int, parts: int) -> None:
        self._tell("open", file, total, parts)

    def close(self, file: str) -> None:
        self._tell("close", file)

    def begin(self, name: str) -> None:
        self._tell("begin", name)

    def finish(self, name: str) -> None:
        self._tell("finish", name)

    def skip(self, name: str, count: int, file: str) -> None:
        self._tell("skip", name, count, file)

    def warn(self, sentence: str) -> None:
        self._tell("warn", sentence)


class FarNotes(Notes):
    """In a worker process: a journal that is somewhere else, with what an earlier run has noted."""

    def __init__(self, relay: Relay, earlier: Notes) -> None:
        self._relay, self.lines, self.marked = relay, dict(earlier.lines), set(earlier.marked)

    def add(self, line: JournalLine) -> None:
        self._relay.tell("journal", "add", line)

    def void(self, tensor: str) -> None:
        del self.lines[tensor]
        self._relay.tell("journal", "void", tensor)

    def mark(self, tensors: Sequence[str]) -> None:
        self._relay.tell("journal", "mark", list(tensors))


_job: tuple[Sequence[FilePart], Work]
"""In a worker process: all parts, and how to write them."""


def _begin(parts: Sequence[FilePart], work: Work, parent: int) -> None:
    """A worker process begins: how it ends is its parent's to say."""
    global _job
    end_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED_TO_END)
    # Looking for garbage among what the parent has made would copy the memory that it is in.
    gc.freeze()
    _job = parts, work


def _write(number: int) -> None:
    parts, work = _job
    write_part(parts[number], work)
