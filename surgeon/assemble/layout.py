"""The place of every byte of the output: shards, headers and offsets, all known before the first write."""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from pathlib import Path

from ..checkpoint.dtypes import BITS
from ..checkpoint.locate import INDEX, SINGLE
from ..plan.config.estimate import split
from ..plan.model import PlannedTensor
from ..plan.operands import Copy

PARTS = 8
"""Parts per worker: enough that no worker waits long for the last part."""

SMALLEST, LARGEST = 64 * 1024 * 1024, 512 * 1024 * 1024
"""Limits of a part's size in bytes; each part is flushed to the disk at its end."""

DATA_ALIGNMENT = 4096
"""The data starts at a multiple of this number of bytes, so that file systems can share blocks between files."""


@dataclass(frozen=True)
class Placed:
    """A tensor and its offset in its shard, in bytes."""

    tensor: PlannedTensor
    offset: int

    @property
    def stop(self) -> int:
        """The offset after its last byte."""
        return self.offset + self.tensor.nbytes


@dataclass(frozen=True)
class Shard:
    """One output file: `header` includes the eight bytes of its length; tensors are in the order of their offsets."""

    name: str
    header: bytes
    tensors: tuple[Placed, ...]

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return self.tensors[-1].stop if self.tensors else len(self.header)


@dataclass(frozen=True)
class FilePart:
    """Consecutive tensors of a shard, which one worker writes at a time.

    Attributes:
        shard: the file.
        tensors: the tensors, in the order of their offsets.
        number: index of the part in the file.
        count: number of parts of the file.
    """

    shard: Shard
    tensors: tuple[Placed, ...]
    number: int = 0
    count: int = 1

    @property
    def start(self) -> int:
        """Its offset in the file; the header belongs to the first part."""
        return self.tensors[0].offset if self.number else 0

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(placed.tensor.nbytes for placed in self.tensors)


@dataclass(frozen=True)
class OutputLayout:
    """All weight files; `index` is the text of the index file; None for a single shard."""

    shards: tuple[Shard, ...]
    index: str | None

    @property
    def nbytes(self) -> int:
        """Size of all files together."""
        return sum(shard.nbytes for shard in self.shards) + len(self.index or "")

    @property
    def data_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(placed.tensor.nbytes for shard in self.shards for placed in shard.tensors)

    def file_names(self) -> list[str]:
        """Names of all files, the index last."""
        return [shard.name for shard in self.shards] + ([INDEX] if self.index else [])


@dataclass(frozen=True)
class ByteRun:
    """Bytes that are adjacent in a source file and in the output, so one copy serves several tensors."""

    file: Path
    start: int
    tensors: tuple[Placed, ...]

    @property
    def offset(self) -> int:
        """Its offset in the shard."""
        return self.tensors[0].offset

    @property
    def stop(self) -> int:
        """The offset in the shard after its last byte."""
        return self.tensors[-1].stop

    @property
    def nbytes(self) -> int:
        """Bytes to copy."""
        return self.stop - self.offset


Step = ByteRun | Placed
"""A step of a worker: copy a run of bytes, or compute one tensor."""


def lay_out(tensors: Sequence[PlannedTensor], shard_size: int) -> OutputLayout:
    """The layout of `tensors` in shards of at most `shard_size` bytes; a larger tensor gets a shard alone."""
    parts = split(tensors, shard_size)
    if len(parts) == 1:
        return OutputLayout((_shard(SINGLE, parts[0]),), None)
    shards = tuple(
        _shard(f"model-{number:05d}-of-{len(parts):05d}.safetensors", part)
        for number, part in enumerate(parts, start=1)
    )
    return OutputLayout(shards, _index(shards))


def parts(layout: OutputLayout, workers: int) -> list[FilePart]:
    """The shards in parts, several per worker, in the order in which to start them.

    Consecutive parts belong to different files, because workers that write to the same file wait for each other. A part
    that is much larger than the others, a single tensor, comes first, so that it does not keep one worker busy at the
    end.
    """
    goal = min(max(layout.data_bytes // (PARTS * workers), SMALLEST), LARGEST)
    cut = [_cut(shard, goal) for shard in layout.shards]
    found: list[FilePart] = []
    # The last files are too few to give every worker one, so they join the group before them.
    groups = max(len(cut) // workers, 1)
    for number in range(groups):
        last = (number + 1) * workers if number + 1 < groups else None
        for row in zip_longest(*cut[number * workers : last]):
            found += [part for part in row if part]
    return sorted(found, key=lambda part: part.nbytes <= 2 * goal)


def _cut(shard: Shard, goal: int) -> list[FilePart]:
    groups = split([placed.tensor for placed in shard.tensors], goal)
    ends = list(accumulate(map(len, groups)))
    return [
        FilePart(shard, shard.tensors[end - len(group) : end], number, len(groups))
        for number, (group, end) in enumerate(zip(groups, ends, strict=True))
    ]


def steps(tensors: Sequence[Placed], done: Container[str] = ()) -> list[Step]:
    """The steps to write tensors in the order of their offsets; joins adjacent copies and skips `done` tensors."""
    found: list[Step] = []
    for placed in tensors:
        source = placed.tensor.source
        if placed.tensor.name in done:
            continue
        if not isinstance(source, Copy):
            found.append(placed)
            continue
        last, entry = found[-1] if found else None, source.entry
        here, there = placed.offset, (entry.file, entry.offset)
        if isinstance(last, ByteRun) and here == last.stop and there == (last.file, last.start + last.nbytes):
            found[-1] = ByteRun(last.file, last.start, (*last.tensors, placed))
        else:
            found.append(ByteRun(entry.file, entry.offset, (placed,)))
    return found


def _shard(name: str, tensors: Sequence[PlannedTensor]) -> Shard:
    ordered = _aligned(tensors)
    table: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts = []
    position = 0
    for tensor in ordered:
        starts.append(position)
        position += tensor.nbytes
        table[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [starts[-1], position],
        }
    text = json.dumps(table, separators=(",", ":")).encode()
    # The format allows trailing spaces in the header; they align the data so that blocks can be shared.
    text += b" " * (-(8 + len(text)) % DATA_ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    placed = tuple(Placed(tensor, len(header) + start) for tensor, start in zip(ordered, starts, strict=True))
    return Shard(name, header, placed)


def _aligned(tensors: Sequence[PlannedTensor]) -> list[PlannedTensor]:
    """The given order, or the widest dtypes first if the given order would misalign an element.

    The format has no gaps, and torch cannot view an element whose offset is not a multiple of its width.
    """
    position = 0
    for tensor in tensors:
        if position % _width(tensor):
            return sorted(tensors, key=_width, reverse=True)
        position += tensor.nbytes
    return list(tensors)


def _width(tensor: PlannedTensor) -> int:
    return max(1, BITS[tensor.dtype] // 8)


def _index(shards: Sequence[Shard]) -> str:
    placed = [(item.tensor, shard.name) for shard in shards for item in shard.tensors]
    document = {
        "metadata": {
            "total_parameters": sum(tensor.numel for tensor, _ in placed),
            "total_size": sum(tensor.nbytes for tensor, _ in placed),
        },
        "weight_map": {tensor.name: name for tensor, name in sorted(placed, key=lambda item: item[0].name)},
    }
    return json.dumps(document, indent=2) + "\n"
