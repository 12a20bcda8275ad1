"""Going on with an output that an earlier run has left unfinished, or refusing to, or beginning anew.

What lies there is hours of somebody's work: without being told to, a run neither goes on with it (it may be of another
recipe) nor throws it away.
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
    """An output that is not complete.

    Attributes:
        final: its folder.
        folder: the hidden one it lies in.
        tensors: how many are written, and how many there are to be.
        shard_size: bytes per file it was begun with.
        holder: who is writing it now, such as `process 4711`; empty for nobody.
    """

    final: Path
    folder: Path
    tensors: tuple[int, int]
    shard_size: int
    holder: str = ""


def look(final: Path) -> Unfinished | None:
    """What an earlier run has left of an output, or one that is at work; None where there is nothing."""
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
    """How an output is begun.

    Attributes:
        fingerprint: makes that of what is to be written, given the shard size of what is there.
        resume: go on with what an earlier run has left, if there is any.
        restart: throw it away.
    """

    fingerprint: Callable[[int | None], Fingerprint]
    resume: bool
    restart: bool


def begin(workspace: Workspace, terms: Terms, flush: bool) -> tuple[Journal, Fingerprint]:
    """The journal to go on with, or an empty one, and the fingerprint that goes with it.

    Args:
        workspace: the output's, entered.
        terms: what was asked for.
        flush: see `Journal`.

    Raises:
        InputError: there is something, and neither was asked for, or it was begun from something else.
    """
    old = _begun(workspace.begun)
    if terms.restart or old is None or not journal.read(workspace.journal):
        workspace.clear()
        old = None
    new = terms.fingerprint(old.shard_size if old else None)
    if old is not None:
        _may_go_on(workspace.final, old, new, terms.resume)
    if old != new:
        write_atomic(workspace.begun, new.dumps(), own=True)
    lines = Journal(workspace.journal, flush)
    if flush:
        sync_folder(workspace.folder)
        sync_folder(workspace.folder.parent)
    return lines, new


def check(final: Path, terms: Terms) -> None:
    """What `begin` would raise now, and InUse where another process writes the output."""
    there = look(final)
    if there is None:
        return
    if there.holder:
        raise InUse(final, there.holder)
    old = _begun(there.folder / "begun.json")
    if old is not None and not terms.restart:
        _may_go_on(final, old, terms.fingerprint(old.shard_size), terms.resume)


def _may_go_on(final: Path, old: Fingerprint, new: Fingerprint, resume: bool) -> None:
    where, differences = str(final), changes(old, new)
    if not resume:
        done = f"{len(journal.read(hidden(final) / 'journal')):,} of {len(old.tensors):,} tensors"
        anew = "write it anew with --restart"
        raise InputError(
            f"an earlier run has written {done} of this model",
            where=where,
            why=f"it was begun otherwise: {'; '.join(differences)}" if differences else "",
            remedy=anew if differences else f"go on with --resume, or {anew}",
        )
    if differences:
        raise InputError(
            "this cannot be gone on with",
            where=where,
            why="; ".join(differences),
            remedy="put that back, or write the model anew with --restart",
        )


def _begun(path: Path) -> Fingerprint | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        return Fingerprint.loads(read_bytes(path, journal.LARGEST))
    return None


def kept(lines: Journal, layout: OutputLayout) -> str:
    """What is said to a user whose run has ended early, as a clause; empty when nothing is left to go on with."""
    if not lines.lines:
        return ""
    done = sum(
        placed.tensor.nbytes for shard in layout.shards for placed in shard.tensors if placed.tensor.name in lines.lines
    )
    return (
        f"{size(done)} of {size(layout.data_bytes)} are written: go on with --resume, or write it anew with --restart"
    )
