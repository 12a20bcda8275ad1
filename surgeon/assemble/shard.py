"""One worker's job: one output file, from its header to the mark in the journal that all of it is on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .compute import PLAIN, Arithmetic, Computer
from .copy import Source, Sources, copy_range, write_all
from .digest import digest_range
from .journal import Journal
from .layout import Run, Shard, steps
from .sink import Sink, Target
from .tracker import Tracker


@dataclass(frozen=True)
class Work:
    """What all workers share.

    Attributes:
        folder: where the files go.
        tracker: counts what they do.
        journal: notes what they have done, and what an earlier run had.
        flush: bring everything to the disk.
        kernel: let the kernel copy where it can.
        how: blends are computed.
    """

    folder: Path
    tracker: Tracker
    journal: Journal
    flush: bool
    kernel: bool = False
    how: Arithmetic = PLAIN


def write_shard(shard: Shard, work: Work) -> None:
    """Write one file, but for the tensors that an earlier run has written.

    Raises:
        Halted: the tracker was halted.
        SurgeonError: a source is not what its header says.
        OSError: reading or writing failed.
    """
    sources = Sources(work.kernel)
    target = Target(work.folder / shard.name, work.flush, shard.nbytes)
    work.tracker.open(shard.name, sum(placed.tensor.nbytes for placed in shard.tensors))
    computer = Computer(sources, work.how)
    try:
        write_all(target.fd, shard.header, 0)
        _recheck(shard, target, sources.buffer, work)
        for step in steps(shard, work.journal.lines):
            if isinstance(step, Run):
                _copy(step, target, sources, work)
            else:
                sink = Sink(target, (step,), work.tracker, work.journal)
                for piece in computer.run(step.tensor):
                    sink.write(piece)
                sink.finish(computer.warning(step.tensor))
        target.sync(shard.nbytes)
        work.journal.mark(shard.name)
    finally:
        sources.close()
        target.close(flush=False)
    work.tracker.close(shard.name)


def _copy(run: Run, target: Target, sources: Sources, work: Work) -> None:
    sink = Sink(target, run.tensors, work.tracker, work.journal)
    source = sources.get(run.file)
    for piece in copy_range(source, target.fd, run.start, run.offset, run.nbytes, sources.buffer):
        sink.took(piece)
    sink.finish()


def _recheck(shard: Shard, target: Target, buffer: memoryview, work: Work) -> None:
    """Count what an earlier run has written. What is not marked as being on the disk is read and held against its hash,
    and written again where it differs: there may have been a power loss since."""
    journal, here = work.journal, Source(target.path, target.fd)
    for placed in shard.tensors:
        name, count = placed.tensor.name, placed.tensor.nbytes
        line = journal.lines.get(name)
        if line is None:
            continue
        if target.found < placed.stop or (
            name not in journal.marked
            and digest_range(here, placed.offset, count, buffer, work.tracker.check) != line.hash
        ):
            journal.void(name)
            continue
        work.tracker.skip(name, count, shard.name)
        if line.warning:
            work.tracker.warn(line.warning)
