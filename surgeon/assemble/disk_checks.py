"""Check files on disk: the donors before they are read, and the output before it gets its final name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import TensorEntry, open_checkpoint, read_header
from ..errors import SurgeonError
from ..plan.ends.token_rows import is_part
from ..plan.model import Plan
from ..text import one_line


def check_sources(plan: Plan) -> None:
    """Check that every source tensor is at the same place as when the plan was made.

    Raises:
        SurgeonError: a donor's file has changed since.
        InputError: a donor's file is missing, or no longer a safetensors file.
    """
    headers: dict[Path, dict[str, TensorEntry]] = {}
    for tensor in plan.tensors:
        for entry in tensor.source.entries():
            _check_source(entry, headers)


def _check_source(entry: TensorEntry, headers: dict[Path, dict[str, TensorEntry]]) -> None:
    if entry.file not in headers:
        headers[entry.file] = {found.name: found for found in read_header(entry.file)[0]}
    here = headers[entry.file].get(entry.name)
    if here is None or not is_part(entry, here):
        raise SurgeonError(
            f"tensor {one_line(entry.name)!r} is not where it was",
            where=str(entry.file),
            why="the file has changed since the plan was made",
            remedy="make the plan again",
        )


class NotAsPlanned(SurgeonError):
    """The written model differs from the plan, and would differ again after a restart."""


def check_written(folder: Path, plan: Plan, final: Path) -> None:
    """Open the output like any checkpoint, and compare names, shapes, dtypes, layers and attributes with the plan.

    Args:
        folder: the folder that it is in now.
        plan: the plan.
        final: the output folder, named in errors.

    Raises:
        Mistaken: they differ.
    """
    written = open_checkpoint(str(folder))
    expected = {tensor.name: (tensor.dtype, tensor.shape) for tensor in plan.tensors}
    found = {name: (entry.dtype, entry.shape) for name, entry in written.tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise _wrong(f"tensor {one_line(name)!r}", found.get(name), expected.get(name))
    if written.problems:
        raise NotAsPlanned("the written model cannot be loaded", where=str(final), why=written.problems[0])
    if written.depth != len(plan.layers):
        raise _wrong("the number of layers", written.depth, len(plan.layers))
    for have, want in zip(written.layers, plan.layers, strict=True):
        if not _same(have.attributes, want.attributes):
            raise _wrong(f"layer {want.index}", dict(have.attributes), dict(want.attributes))
    if (tied := written.tied or written.head_differs) != plan.tied:
        raise _wrong("a tied head", tied, plan.tied)


def _same(have: Mapping[str, Any], want: Mapping[str, Any]) -> bool:
    return all(have.get(key) == want.get(key) for key in have.keys() | want.keys())


def _wrong(what: str, found: object, expected: object) -> NotAsPlanned:
    return NotAsPlanned(
        f"the written model is not what was planned: {what} is {found} and should be {expected}",
        remedy="this is a bug in surgeon and nothing was written; please report it",
    )
