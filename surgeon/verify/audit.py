"""Compare a checkpoint on disk with its config, recipe and donors, for `surgeon verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..assemble.files.published_texts import without_origins
from ..assemble.files.small_files import CONFIG
from ..assemble.io.byte_copy import BUFFER, Sources, read_exactly
from ..assemble.load_back import Mismatch, key_of
from ..assemble.progress_tracker import OnEvent, Reporter, Tracker, places
from ..checkpoint import Checkpoint, TensorEntry
from ..checkpoint.families.naming import Naming
from ..errors import SurgeonError
from ..plan.model import Donor, Plan, PlannedTensor
from ..plan.operands import Copy
from ..text import one_line, plural, ranges, size

_MISSING = 100
"""Most missing layers that are named."""


@dataclass(frozen=True)
class Problem:
    """One error, and its place: those of file, tensor, layer and config key that apply."""

    what: str
    file: str = ""
    tensor: str = ""
    layer: int | None = None
    key: str = ""

    def sentence(self) -> str:
        """The problem with its place, without control characters."""
        layer = "" if self.layer is None else f"layer {self.layer}"
        place = [part for part in (self.file, layer, self.tensor, self.key) if part]
        return one_line(": ".join([", ".join(place), self.what]) if place else self.what) + "."


@dataclass
class Audit:
    """The result of the comparisons so far.

    Attributes:
        problems: the errors.
        checked: the comparisons without errors, as sentences.
        unchecked: the comparisons that are not possible, and why.
    """

    problems: list[Problem] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def take(self, problems: Iterator[Problem], done: str) -> None:
        """Add the problems of one comparison, or `done` to `checked` if there are none."""
        before = len(self.problems)
        self.problems += problems
        if len(self.problems) == before:
            self.checked.append(done)


def table_problems(checkpoint: Checkpoint) -> Iterator[Problem]:
    """Differences between the layer table and config.json."""
    config = checkpoint.config
    if config is None or checkpoint.naming is None:
        return
    here, depth = {layer.index for layer in checkpoint.layers}, config.depth or 0
    # An untrusted config may count a billion layers, so only the first missing ones are listed.
    missing = [index for index in range(min(depth, len(here) + _MISSING)) if index not in here]
    if missing:
        what = f"config.json counts {plural(depth, 'layer')}, but the files lack layer {ranges(missing)}"
        yield Problem(what, CONFIG, layer=missing[0], key=config.depth_key or "")
    for layer in checkpoint.layers:
        for attribute, value in layer.attributes.items():
            if value is None:
                what = f"the config does not set the layer's {attribute} (is a list too short?)"
                yield Problem(what, CONFIG, layer=layer.index, key=key_of(attribute, config.text))


def plan_problems(checkpoint: Checkpoint, plan: Plan) -> Iterator[Problem]:
    """Differences from a plan in names, shapes, dtypes, layers, config and small files."""
    yield from _tensor_problems(checkpoint, plan)
    found = checkpoint.config.raw if checkpoint.config else {}
    for key, index, wanted, value in differences(plan.config or {}, found):
        what = f"it is {one_line(value)}, and by the recipe {one_line(wanted)}"
        yield Problem(what, CONFIG, layer=index, key=key)
    if checkpoint.depth == len(plan.layers):
        for have, want in zip(checkpoint.layers, plan.layers, strict=True):
            for name in sorted(have.attributes.keys() | want.attributes.keys()):
                mine, theirs = have.attributes.get(name), want.attributes.get(name)
                if mine != theirs and checkpoint.config:
                    what = f"its {name} is {one_line(mine)}, and {want.label} has {one_line(theirs)}"
                    yield Problem(what, CONFIG, layer=want.index, key=key_of(name, checkpoint.config.text))
    for name, path in plan.files.items():
        if why := _file_differs(checkpoint.folder / name, path):
            yield Problem(why, name)


def _tensor_problems(checkpoint: Checkpoint, plan: Plan) -> Iterator[Problem]:
    expected = {tensor.name: tensor for tensor in plan.tensors}
    for name, tensor in expected.items():
        layer = tensor.place.index if tensor.place.role == "layer" else None
        entry = checkpoint.tensors.get(name)
        if entry is None:
            yield Problem("it is missing", tensor=name, layer=layer)
        elif (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
            have, want = f"{entry.dtype} {list(entry.shape)}", f"{tensor.dtype} {list(tensor.shape)}"
            yield Problem(f"it is {have}, and by the recipe {want}", entry.file.name, name, layer)
    for name, entry in checkpoint.tensors.items():
        if name not in expected:
            yield Problem("the recipe has no such tensor", entry.file.name, name, layer_of(checkpoint.naming, name))


def layer_of(naming: Naming | None, name: str) -> int | None:
    """The index of a tensor's layer; None for a tensor outside the layers."""
    place = naming.place(name) if naming else None
    return place.index if place and place.role == "layer" else None


def differences(wanted: Any, found: Any, key: str = "") -> Iterator[tuple[str, int | None, Any, Any]]:
    """Differences of two JSON values: dotted key, index in a list of equal length or None, wanted and found value."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for name in dict.fromkeys((*wanted, *found)):
            yield from differences(wanted.get(name), found.get(name), f"{key}.{name}" if key else str(name))
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for index, (one, other) in enumerate(zip(wanted, found, strict=True)):
            if one != other:
                yield key, index, one, other
    elif wanted != found:
        yield key, None, wanted, found


def _file_differs(mine: Path, theirs: Path) -> str | None:
    """How a small file differs from its donor's; None if it does not, or if the donor's file is gone."""
    if not theirs.is_file():
        return None
    if not mine.is_file():
        return f"it is missing, although {theirs} exists"
    try:
        have, wanted = mine.read_bytes(), theirs.read_bytes()
        return None if have in (wanted, without_origins(mine.name, wanted)) else f"it differs from {theirs}"
    except OSError as error:
        return f"it cannot be compared with {theirs}: {error.strerror or error}"


def copied(checkpoint: Checkpoint, plan: Plan) -> list[tuple[PlannedTensor, TensorEntry]]:
    """The copied tensors with their entries in the checkpoint, in the order of their offsets."""
    pairs = [
        (tensor, entry)
        for tensor in plan.tensors
        if isinstance(tensor.source, Copy) and (entry := checkpoint.tensors.get(tensor.name)) is not None
    ]
    pairs = [(tensor, entry) for tensor, entry in pairs if entry.nbytes == tensor.entry.nbytes]
    return sorted(pairs, key=lambda pair: (pair[1].file, pair[1].offset))


def byte_problems(
    pairs: list[tuple[PlannedTensor, TensorEntry]], plan: Plan, on_event: OnEvent = lambda event: None
) -> Iterator[Problem]:
    """Copied tensors whose bytes differ from their donor's, read in pieces; `on_event` receives the progress."""
    tracker = Tracker(places(plan))
    reporter = Reporter(tracker, sum(entry.nbytes for _, entry in pairs), on_event)
    compare = _Comparison(tracker, reporter)
    try:
        for tensor, entry in pairs:
            tracker.begin(tensor.name)
            layer = tensor.place.index if tensor.place.role == "layer" else None
            theirs = tensor.entry
            try:
                at = compare.first_difference(entry, theirs)
            except SurgeonError as error:
                yield Problem(error.sentence().rstrip("."), entry.file.name, tensor.name, layer)
                continue
            if at is not None:
                donor = _named(plan.donors[tensor.donor], theirs)
                what = f"byte {at:,} of {entry.nbytes:,} is not that of {donor}"
                yield Problem(what, entry.file.name, tensor.name, layer)
        reporter.tick(last=True)
    finally:
        compare.close()


def _named(donor: Donor, entry: TensorEntry) -> str:
    return f"{donor.letter} ({donor.ref}), {entry.name} in {entry.file.name}"


class _Comparison:
    """Compares tensors of two files, with two buffers and the open files."""

    def __init__(self, tracker: Tracker, reporter: Reporter) -> None:
        self._sources = Sources(), Sources()
        self._buffers = bytearray(BUFFER), bytearray(BUFFER)
        self._tracker, self._reporter = tracker, reporter

    def first_difference(self, one: TensorEntry, other: TensorEntry) -> int | None:
        """Offset in the tensor of the first different byte; None without one. SurgeonError if a file is unreadable."""
        mine, theirs = self._buffers
        for start in range(0, one.nbytes, BUFFER):
            count = min(BUFFER, one.nbytes - start)
            for entry, sources, buffer in zip((one, other), self._sources, self._buffers, strict=True):
                read_exactly(sources.get(entry.file), memoryview(buffer)[:count], entry.offset + start)
            self._tracker.advance(count)
            self._reporter.tick()
            # Comparing whole bytearrays is as fast as memory; slices would be copied.
            same = mine == theirs if count == BUFFER else mine[:count] == theirs[:count]
            if not same:
                return start + next(index for index in range(count) if mine[index] != theirs[index])
        return None

    def close(self) -> None:
        """Close all files."""
        for sources in self._sources:
            sources.close()


def computed(plan: Plan) -> str | None:
    """A clause about the tensors that are computed and so cannot be compared; None without any."""
    count = sum(not isinstance(tensor.source, Copy) for tensor in plan.tensors)
    if not count:
        return None
    return f"the values of {plural(count, 'tensor')} that are computed (scaled, cast or blended), not copied"


def load_problems(mismatches: tuple[Mismatch, ...], known: list[Problem], naming: Naming | None) -> Iterator[Problem]:
    """The mismatches of the load-back check that are not reported yet."""
    reported = {problem.tensor for problem in known if problem.tensor}
    reported_keys = {(problem.layer, problem.key) for problem in known if problem.key}
    for item in mismatches:
        layer = item.layer
        if item.key in reported or (layer, item.key) in reported_keys:
            continue
        is_tensor = layer_of(naming, item.key) is not None or item.key.endswith((".weight", ".bias"))
        yield Problem(
            item.message,
            "" if is_tensor else CONFIG,
            item.key if is_tensor else "",
            layer,
            "" if is_tensor else item.key,
        )


def summary(checkpoint: Checkpoint) -> str:
    """The checkpoint's size in one line."""
    return (
        f"{plural(checkpoint.depth, 'layer')}, {plural(len(checkpoint.tensors), 'tensor')}, {size(checkpoint.nbytes)}"
    )
