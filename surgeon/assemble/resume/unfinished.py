"""Resume an unfinished run, refuse to, or start from scratch.

An unfinished output may be the result of hours of work. Without --resume or --restart a run neither resumes it, because
it may belong to another recipe, nor removes it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...files import is_dir, is_link, write_atomic
from ...statefile import read_bytes
from ...text import size
from ..io.system_calls import sync_folder
from ..layout import OutputLayout
from . import journal
from .fingerprint import Fingerprint, changes
from .journal import Journal
from .workspace import InUse, Workspace, hidden, holder_of


@dataclass(frozen=True)
class Unfinished:
    """An unfinished output.

    Attributes:
        final: the output folder.
        folder: the hidden folder with its files.
        tensors: number of written tensors, and of all tensors.
        shard_size: bytes per file.
        holder: the process that is writing it now, such as `process 4711`; empty without one.
    """

    final: Path
    folder: Path
    tensors: tuple[int, int]
    shard_size: int
    holder: str = ""


def look(final: Path) -> Unfinished | None:
    """The unfinished output of an earlier or a running process; None if there is none."""
    folder = hidden(final)
    if is_link(folder):
        return None
    holder = holder_of(final)
    lines = journal.read(folder / "journal") if is_dir(folder / "model") else {}
    begun = _begun(folder / "begun.json")
    if begun is None or not (lines or holder):
        return None
    return Unfinished(final, folder, (len(lines), len(begun.tensors)), begun.shard_size, holder)


@dataclass(frozen=True)
class Terms:
    """How to start an output.

    Attributes:
        fingerprint: returns the fingerprint of the new output, given the shard size of the unfinished one.
        resume: resume the unfinished output, if there is one.
        restart: remove it.
    """

    fingerprint: Callable[[int | None], Fingerprint]
    resume: bool
    restart: bool


def begin(workspace: Workspace, terms: Terms, flush: bool) -> tuple[Journal, Fingerprint]:
    """The journal to resume or an empty one, and the fingerprint of the run.

    Args:
        workspace: the output's workspace, entered.
        terms: how to start.
        flush: see `Journal`.

    Raises:
        InputError: there is an unfinished output, and neither option is set or its inputs changed.
    """
    old = _begun(workspace.begun)
    if terms.restart or old is None or not journal.read(workspace.journal):
        workspace.clear()
        old = None
    new = terms.fingerprint(old.shard_size if old else None)
    if old is not None:
        _check_resumable(workspace.final, old, new, terms.resume)
    if old != new:
        write_atomic(workspace.begun, new.dumps(), own=True)
    lines = Journal(workspace.journal, flush)
    if flush:
        sync_folder(workspace.folder)
        sync_folder(workspace.folder.parent)
    return lines, new


def check(final: Path, terms: Terms) -> None:
    """Raise the error that `begin` would raise now, or InUse if another process is writing the output."""
    there = look(final)
    if there is None:
        return
    if there.holder:
        raise InUse(final, there.holder)
    old = _begun(there.folder / "begun.json")
    if old is not None and not terms.restart:
        _check_resumable(final, old, terms.fingerprint(old.shard_size), terms.resume)


def _check_resumable(final: Path, old: Fingerprint, new: Fingerprint, resume: bool) -> None:
    where, differences = str(final), changes(old, new)
    if not resume:
        done = f"{len(journal.read(hidden(final) / 'journal')):,} of {len(old.tensors):,} tensors"
        restart = "start from scratch with --restart"
        raise InputError(
            f"an earlier run has written {done} of this model",
            where=where,
            why=f"its inputs were different: {'; '.join(differences)}" if differences else "",
            remedy=restart if differences else f"resume with --resume, or {restart}",
        )
    if differences:
        raise InputError(
            "the run cannot be resumed",
            where=where,
            why="; ".join(differences),
            remedy="restore the previous inputs, or start from scratch with --restart",
        )


def _begun(path: Path) -> Fingerprint | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        return Fingerprint.loads(read_bytes(path, journal.LARGEST))
    return None


def kept(lines: Journal, layout: OutputLayout) -> str:
    """A clause for the user of a run that ended early; empty if there is nothing to resume."""
    if not lines.lines:
        return ""
    done = sum(
        placed.tensor.nbytes for shard in layout.shards for placed in shard.tensors if placed.tensor.name in lines.lines
    )
    return f"{size(done)} of {size(layout.data_bytes)} are written: resume with --resume, or restart with --restart"
