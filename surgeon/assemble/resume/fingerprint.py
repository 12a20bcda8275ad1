"""What an unfinished output was begun from, so that it is gone on with from that and nothing else.

The same tensors at the same places from the same bytes by the same program: each is named when it is not so.
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
"""Changes of one kind that are named."""


@dataclass(frozen=True)
class Fingerprint:
    """What the bytes of an output depend on.

    Attributes:
        programs: versions of what makes them: surgeon, and torch and numpy where tensors are computed.
        shard_size: bytes per file.
        device: what blends are computed on, GPUs by their model: the bytes of one model are those of the next but for
            the last place. How many there are, or which of them, makes no difference.
        allow_nonfinite: whether NaN and infinity in donors are taken as they come.
        sources: every donor's file that a tensor is made of.
        tensors: a hash per output tensor of its dtype, shape and all that it is made of and by.
        companions: a hash of the config and of what the other small files are made of.
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
            raise TypeError("this is no fingerprint")
        return found


def fingerprint(plan: Plan, shard_size: int, how: Arithmetic) -> Fingerprint:
    """The fingerprint of a plan, its donors' files as they are now.

    Raises:
        SurgeonError: one of them cannot be read.
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
    """The versions of all that a plan's bytes depend on, by name."""
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
    """SurgeonError naming the first donor's file that is not any more what the fingerprint says, by size and time."""
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
                remedy="leave donors alone during assembly",
            )


def changes(old: Fingerprint, new: Fingerprint) -> list[str]:
    """What is different, as clauses; none when the one can be gone on with as the other."""
    found = [
        f"{name} was {one_line(old.programs.get(name, 'not used'))} and is {new.programs.get(name, 'not used')}"
        for name in sorted(old.programs.keys() | new.programs.keys())
        if old.programs.get(name) != new.programs.get(name)
    ]
    if old.shard_size != new.shard_size:
        found.append(f"the shard size was {size(old.shard_size)} and is {size(new.shard_size)}")
    if old.device != new.device:
        found.append(
            f"blends were computed on {one_line(old.device or 'nothing')} and now on {new.device or 'nothing'}"
        )
    if old.allow_nonfinite and not new.allow_nonfinite:
        found.append("it was begun with --allow-nonfinite")
    found += _several(
        f"the donor {one_line(name)} changed ({_what_changed(old.sources[name], new.sources[name])})"
        for name in sorted(old.sources.keys() & new.sources.keys())
        if old.sources[name] != new.sources[name]
    )
    found += _tensor_changes(old, new)
    if not found and old.companions != new.companions:
        found.append("the config or a tokenizer file is another")
    return found


def _tensor_changes(old: Fingerprint, new: Fingerprint) -> list[str]:
    """Changes of the recipe, as they show in the tensors."""
    mine, theirs = old.tensors, new.tensors
    if gone := sorted(mine.keys() - theirs.keys()):
        return [f"by the recipe there is no {one_line(gone[0])} any more{_more(gone)}"]
    if fresh := sorted(theirs.keys() - mine.keys()):
        return [f"by the recipe there is {one_line(fresh[0])} now{_more(fresh)}"]
    if other := [name for name in mine if mine[name] != theirs[name]]:
        return [f"by the recipe {one_line(other[0])} is made of something else{_more(other)}"]
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
    return "its header is another" if old.header != new.header else "it was written to since"
