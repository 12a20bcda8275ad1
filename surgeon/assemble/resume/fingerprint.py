"""Identifies the inputs of an unfinished run; resume is refused if they changed.

The tensors, their places, the donors' bytes and the programs must be the same; each difference is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import SurgeonError
from ...plan.model import Plan
from ...statefile import is_count, parse
from ...text import one_line, plural, size
from ..compute.arithmetic import Arithmetic
from ..io.digest import FileMark, digest_of

_NAMED = 3
"""Most changes of one kind that are named."""


@dataclass(frozen=True)
class Fingerprint:
    """Everything that the bytes of an output depend on.

    Attributes:
        programs: versions of surgeon, and of torch and numpy if tensors are computed.
        shard_size: bytes per file.
        device: the device of blends, with the models of GPUs: different models give results that differ in the last
            place. The number and choice of GPUs makes no difference.
        allow_nonfinite: whether NaN and infinity in donors are blended.
        sources: every donor's file that a tensor is made from, by path.
        tensors: by output tensor, a hash of its dtype, shape and source.
        companions: a hash of the config and of the inputs of the other small files.
    """

    programs: Mapping[str, str]
    shard_size: int
    device: str
    allow_nonfinite: bool
    sources: Mapping[str, FileMark]
    tensors: Mapping[str, str]
    companions: str

    def dumps(self) -> str:
        """The fingerprint as JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def loads(cls, text: str | bytes) -> Fingerprint:
        """The fingerprint from JSON; ValueError, TypeError, KeyError or AttributeError for anything else."""
        values: dict[str, Any] = parse(text)
        values["sources"] = {name: FileMark(**mark) for name, mark in values["sources"].items()}
        found = cls(**values)
        words = [*found.programs.values(), *found.tensors.values(), found.device, found.companions]
        marks = found.sources.values()
        if (
            not all(isinstance(word, str) for word in (*words, *(mark.header for mark in marks)))
            or not all(is_count(number) for mark in marks for number in (mark.size, mark.modified))
            or not (is_count(found.shard_size) and found.shard_size > 0)
            or not isinstance(found.allow_nonfinite, bool)
        ):
            raise TypeError("this is not a fingerprint")
        return found


def fingerprint(plan: Plan, shard_size: int, how: Arithmetic) -> Fingerprint:
    """The fingerprint of a plan, with the donors' files as they are now.

    Raises:
        SurgeonError: a donor's file cannot be read.
    """
    tensors, files = {}, set()
    for tensor in plan.tensors:
        tensors[tensor.name] = digest_of((tensor.dtype, tensor.shape, tensor.source))[:16]
        files |= {entry.file for entry in tensor.source.entries()}
    return Fingerprint(
        programs=programs(plan),
        shard_size=shard_size,
        device=how.device if plan.needs_arithmetic else "",
        allow_nonfinite=how.allow_nonfinite,
        sources={str(path): _mark(path) for path in sorted(files)},
        tensors=tensors,
        companions=digest_of((plan.config, dict(plan.made), plan.tokenizer, sorted(_small_files(plan)))),
    )


def programs(plan: Plan) -> dict[str, str]:
    """The versions of all programs that a plan's bytes depend on, by name."""
    found = {"surgeon": __version__}
    if plan.needs_arithmetic:
        from importlib.metadata import version

        found |= {name: version(name) for name in ("torch", "numpy")}
    return found


def _small_files(plan: Plan) -> Iterator[tuple[str, str, int, int]]:
    paths = list(plan.files.items())
    if plan.tokenizer:
        used = (*plan.tokenizer.source.files, *plan.tokenizer.merges)
        paths += [(f"tokenizer {number}", path) for number, path in enumerate(used)]
    for name, path in paths:
        if path.is_file():
            state = path.stat()
            yield name, str(path), state.st_size, state.st_mtime_ns


def _mark(path: Path) -> FileMark:
    try:
        return FileMark.of(path)
    except OSError as error:
        raise SurgeonError(f"cannot read the donor: {error.strerror or error}", where=str(path)) from error


def check_sources(mark: Fingerprint) -> None:
    """Raise SurgeonError for the first donor's file whose size or modification time differs from the fingerprint."""
    for name, old in mark.sources.items():
        try:
            state = Path(name).stat()
        except OSError as error:
            raise SurgeonError(f"cannot read the donor: {error.strerror or error}", where=name) from error
        if (state.st_size, state.st_mtime_ns) != (old.size, old.modified):
            raise SurgeonError(
                "the donor changed while the model was being written",
                where=name,
                why=_what_changed(old, FileMark(state.st_size, state.st_mtime_ns, old.header)),
                remedy="do not change donors during assembly",
            )


def changes(old: Fingerprint, new: Fingerprint) -> list[str]:
    """The differences as clauses; none if a run with `old` can be resumed with `new`."""
    found = [
        f"{name} was {one_line(old.programs.get(name, 'not used'))} and is {new.programs.get(name, 'not used')}"
        for name in sorted(old.programs.keys() | new.programs.keys())
        if old.programs.get(name) != new.programs.get(name)
    ]
    if old.shard_size != new.shard_size:
        found.append(f"the shard size was {size(old.shard_size)} and is {size(new.shard_size)}")
    if old.device != new.device:
        found.append(f"the device of blends was {one_line(old.device or 'not used')} and is {new.device or 'not used'}")
    if old.allow_nonfinite and not new.allow_nonfinite:
        found.append("it was started with --allow-nonfinite")
    found += _several(
        f"the donor {one_line(name)} changed ({_what_changed(old.sources[name], new.sources[name])})"
        for name in sorted(old.sources.keys() & new.sources.keys())
        if old.sources[name] != new.sources[name]
    )
    found += _tensor_changes(old, new)
    if not found and old.companions != new.companions:
        found.append("the config or a tokenizer file changed")
    return found


def _tensor_changes(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Changes of the recipe, found by its tensors."""
    mine, theirs = old.tensors, new.tensors
    if gone := sorted(mine.keys() - theirs.keys()):
        return [f"the recipe no longer makes {one_line(gone[0])}{_more(gone)}"]
    if fresh := sorted(theirs.keys() - mine.keys()):
        return [f"the recipe now makes {one_line(fresh[0])} too{_more(fresh)}"]
    if other := [name for name in mine if mine[name] != theirs[name]]:
        return [f"the recipe makes {one_line(other[0])} from something else{_more(other)}"]
    return [] if list(mine) == list(theirs) else ["the recipe has the tensors in another order"]


def _more(names: list[str]) -> str:
    return f" (and {plural(len(names) - 1, 'other tensor')})" if len(names) > 1 else ""


def _several(clauses: Iterable[str]) -> list[str]:
    found = list(clauses)
    rest = len(found) - _NAMED
    return found if rest <= 0 else [*found[:_NAMED], f"{rest} more donor files changed"]


def _what_changed(old: FileMark, new: FileMark) -> str:
    if old.size != new.size:
        return f"it had {old.size:,} bytes and has {new.size:,}"
    return "its header changed" if old.header != new.header else "it was written to since"
