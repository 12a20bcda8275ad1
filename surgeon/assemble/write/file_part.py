"""A worker's job: write one part of an output file, and mark it in the journal when it is on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..compute.arithmetic import PLAIN, Arithmetic, Computer
from ..gpu.staging import Lane
from ..io.byte_copy import OpenFile, Sources, copy_range, write_all
from ..io.digest import digest_range
from ..layout import ByteRun, FilePart, steps
from ..progress_tracker import Counts
from ..resume.journal import Notes
from .sink import Sink, Target


@dataclass(frozen=True)
class Work:
    """Settings and state that all workers share.

    Attributes:
        folder: the folder of the weight files.
        tracker: counts the progress.
        journal: records finished tensors, including those of an earlier run.
        flush: flush everything to the disk.
        kernel: let the kernel copy if it can.
        how: how blends are computed.
        found: sizes in bytes of the files that an earlier run has left, by name.
    """

    folder: Path
    tracker: Counts
    journal: Notes
    flush: bool
    kernel: bool = False
    how: Arithmetic = PLAIN
    found: Mapping[str, int] = field(default_factory=dict)


def write_part(part: FilePart, work: Work, lane: Lane | None = None) -> None:
    """Write the tensors of a part, except those that an earlier run has written; `lane` is the worker's GPU share.

    Raises:
        Halted: the tracker was halted.
        SurgeonError: a source differs from its header.
        OSError: reading or writing failed.
    """
    shard, sources = part.shard, Sources(work.kernel)
    target = Target(work.folder / shard.name, work.flush, shard.nbytes, part.start)
    work.tracker.open(shard.name, sum(placed.tensor.nbytes for placed in shard.tensors), part.count)
    computer = Computer(sources, work.how, lane)
    try:
        if part.number == 0:
            write_all(target.fd, shard.header, 0)
        _recheck(part, target, sources.buffer, work)
        for step in steps(part.tensors, work.journal.lines):
            if isinstance(step, ByteRun):
                _copy(step, target, sources, work)
            else:
                sink = Sink(target, (step,), work.tracker, work.journal)
                for piece in computer.run(step.tensor):
                    sink.write(piece)
                sink.finish(computer.warning(step.tensor))
        target.sync(part.tensors[-1].stop, work.journal)
    finally:
        sources.close()
        target.close(flush=False)
    work.tracker.close(shard.name)


def _copy(run: ByteRun, target: Target, sources: Sources, work: Work) -> None:
    sink = Sink(target, run.tensors, work.tracker, work.journal)
    source = sources.get(run.file)
    for piece in copy_range(source, target.fd, run.start, run.offset, run.nbytes, sources.buffer):
        sink.took(piece)
    sink.finish()


def _recheck(part: FilePart, target: Target, buffer: memoryview, work: Work) -> None:
    """Count the tensors that an earlier run has written.

    A tensor that is not marked as being on the disk is read and compared with its hash, because a power loss may have
    destroyed it; if it differs, it is written again.
    """
    journal, here = work.journal, OpenFile(target.path, target.fd)
    found = work.found.get(part.shard.name, 0)
    for placed in part.tensors:
        name, count = placed.tensor.name, placed.tensor.nbytes
        line = journal.lines.get(name)
        if line is None:
            continue
        marked = name in journal.marked
        if found < placed.stop or (
            not marked and digest_range(here, placed.offset, count, buffer, work.tracker.check) != line.hash
        ):
            journal.void(name)
            continue
        if not marked:
            target.whole.append(name)
        work.tracker.skip(name, count, part.shard.name)
        if line.warning:
            work.tracker.warn(line.warning)
