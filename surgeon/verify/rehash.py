"""Compare an output's bytes with the hashes in its manifest, to find bit rot, swapped files and other changes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from math import isfinite
from pathlib import Path

from ..assemble.compute.arithmetic import one_thread
from ..assemble.files.manifest import MANIFEST, Manifest, ManifestRecord
from ..assemble.files.small_files import CARD, RECIPE
from ..assemble.io.byte_copy import Sources, read_pieces
from ..assemble.io.digest import FileMark, Hasher, digest
from ..assemble.progress_tracker import INTERVAL, OnEvent, Reporter, Tracker
from ..checkpoint import Checkpoint, TensorEntry
from ..checkpoint.dtypes import TORCH_NAMES
from ..errors import SurgeonError
from ..machine import cores
from ..plan.model import Plan
from ..statefile import read_bytes
from ..text import one_line
from .audit import Problem, layer_of

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

_LARGEST = 1_000_000_000
"""Most bytes of a file without weights; the largest tokenizers have a twentieth of it."""

_OTHERS_OWN = frozenset({CARD, RECIPE})
"""Files that users may edit."""


def file_problems(checkpoint: Checkpoint, manifest: Manifest) -> Iterator[Problem]:
    """Weight files and small files that are missing or differ from those that were written."""
    headers = {shard.header: shard.name for shard in manifest.shards}
    for shard in manifest.shards:
        path = checkpoint.folder / shard.name
        try:
            mark = FileMark.of(path)
        except OSError as error:
            yield Problem(f"it cannot be read: {error.strerror or error}", shard.name)
            continue
        if shard.matches(mark):
            continue
        if (other := headers.get(mark.header, shard.name)) != shard.name:
            yield Problem(f"it is {other} under another name", shard.name)
        elif mark.header != shard.header:
            yield Problem("its header is not the one that was written", shard.name)
        else:
            yield Problem(f"it has {mark.size:,} bytes, but {shard.size:,} were written", shard.name)
    for name, expected in manifest.files.items():
        if name not in _OTHERS_OWN and (why := _differs(checkpoint.folder / name, expected)):
            yield Problem(why, name)


def _differs(path: Path, expected: str) -> str:
    try:
        return "" if digest(read_bytes(path, _LARGEST, follow=True)) == expected else "it is not what was written"
    except (OSError, ValueError) as error:
        return f"it cannot be read: {getattr(error, 'strerror', None) or error}"


def name_problems(checkpoint: Checkpoint, manifest: Manifest) -> Iterator[Problem]:
    """Tensors that are missing, and tensors that surgeon did not write."""
    for name in manifest.tensors.keys() - checkpoint.tensors.keys():
        yield Problem("it is missing", tensor=name, layer=layer_of(checkpoint.naming, name))
    for name in checkpoint.tensors.keys() - manifest.tensors.keys():
        file = checkpoint.tensors[name].file.name
        yield Problem(f"{MANIFEST} has no such tensor", file, name, layer_of(checkpoint.naming, name))


def hash_problems(
    checkpoint: Checkpoint, manifest: Manifest, on_event: OnEvent = lambda event: None, workers: int | None = None
) -> Iterator[Problem]:
    """Tensors whose bytes differ from those that were written, and computed tensors with non-finite values.

    Args:
        checkpoint: the checkpoint on disk.
        manifest: its manifest.
        on_event: receives the progress.
        workers: number of threads, each of which reads one file at a time; None uses one per core.
    """
    files: dict[Path, list[TensorEntry]] = {}
    for name, entry in sorted(checkpoint.tensors.items(), key=lambda item: item[1].offset):
        if name in manifest.tensors:
            files.setdefault(entry.file, []).append(entry)
    layers = {name: layer_of(checkpoint.naming, name) for name in checkpoint.tensors}
    tracker = Tracker({name: "other" if layer is None else layer for name, layer in layers.items()})
    reporter = Reporter(tracker, sum(entry.nbytes for group in files.values() for entry in group), on_event)
    computed = any(record.source is None for record in manifest.tensors.values()) and not manifest.lenient
    with (
        one_thread() if computed else nullcontext(),
        ThreadPoolExecutor(workers or cores(), thread_name_prefix="verify") as pool,
    ):
        futures = [pool.submit(_look_at, files[path], manifest, tracker) for path in sorted(files)]
        pending: set[Future[list[tuple[TensorEntry, str]]]] = set(futures)
        try:
            while pending:
                _, pending = wait(pending, timeout=INTERVAL, return_when=FIRST_COMPLETED)
                reporter.tick(last=not pending)
        except BaseException:
            tracker.halt()
            raise
        for future in futures:
            for entry, what in future.result():
                yield Problem(what, entry.file.name, entry.name, layers[entry.name])


def _look_at(entries: list[TensorEntry], manifest: Manifest, tracker: Tracker) -> list[tuple[TensorEntry, str]]:
    """The wrong tensors of one file, each with its error."""
    sources, found = Sources(), []
    try:
        for entry in entries:
            tracker.begin(entry.name)
            try:
                what = _wrong(entry, manifest.tensors[entry.name], manifest.lenient, sources, tracker)
            except SurgeonError as error:
                what = error.sentence().rstrip(".")
            if what:
                found.append((entry, what))
    finally:
        sources.close()
    return found


def _wrong(entry: TensorEntry, record: ManifestRecord, lenient: bool, sources: Sources, tracker: Tracker) -> str:
    hasher, finite = Hasher(), True
    look = record.source is None and not lenient and entry.dtype in _FLOATS
    for piece in read_pieces(sources.get(entry.file), entry.offset, entry.nbytes, sources.buffer):
        hasher.update(piece)
        finite = finite and (not look or _finite(piece, entry.dtype))
        tracker.advance(len(piece))
    if hasher.hexdigest() != record.hash:
        return f"its bytes are not those that were written (their hash is not that of {MANIFEST})"
    return "" if finite else "it holds NaN or infinity, although it was computed"


def _finite(piece: memoryview, code: str) -> bool:
    import torch

    values = torch.frombuffer(piece, dtype=getattr(torch, TORCH_NAMES[code]))
    # The sum is not finite if an element is not, or if the sum overflows; only then all elements are checked.
    wide = torch.float64 if code == "F64" else torch.float32
    return isfinite(values.sum(dtype=wide).item()) or bool(values.isfinite().all())


def changed_sources(manifest: Manifest, plan: Plan) -> dict[Path, str]:
    """Donors' files that changed since the output was written, by header and size, each with a reason."""
    found: dict[Path, str] = {}
    seen: dict[Path, FileMark | None] = {}
    for tensor in plan.tensors:
        record = manifest.tensors.get(tensor.name)
        if record is None or record.source is None:
            continue
        path = tensor.entry.file
        if path not in seen:
            try:
                seen[path] = FileMark.of(path)
            except OSError:
                seen[path] = None
        mark = seen[path]
        if mark is None or not manifest.sources[record.source].matches(mark):
            found[path] = f"{one_line(path)} is not the file that was read then"
    return found
