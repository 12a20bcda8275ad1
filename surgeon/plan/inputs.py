"""Everything on disk that a plan was made from, whatever part it plays: none of it may be replaced or written into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .model import Donor, Plan

_MOST_LINKS = 40
_MODEL_FILES = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")
"""Any of these makes the folder around a file that is read a folder of a model, an adapter or a tokenizer."""


@dataclass(frozen=True)
class Input:
    """A file or folder that the output is made from.

    Attributes:
        name: what it is, such as `donor A`.
        path: as it was found; a folder means all that is in it.
    """

    name: str
    path: Path

    def places(self) -> Iterator[Path]:
        """Where it really lies: itself, every link on the way to it, and the same of every entry of a folder."""
        yield from stations(self.path)
        if self.path.is_dir():
            for entry in self.path.iterdir():
                if entry.is_symlink():
                    yield from stations(entry)


def inputs(plan: Plan) -> tuple[Input, ...]:
    """Layer donors, bases, stages' donors, adapters, tokenizers, and every file that is copied along."""
    found: dict[Path, Input] = {}
    donors = {f"donor {letter}": donor for letter, donor in plan.donors.items()}
    # A lone file may lie in any folder, which is not a donor's then.
    whole = {d.checkpoint.path for d in donors.values() if d.checkpoint.path.is_dir()}
    loose = {d.checkpoint.folder for d in donors.values()} - whole

    def add(name: str, path: Path) -> None:
        found.setdefault(path, Input(name, path))
        if not path.is_dir() and path.parent not in loose and _is_model(path.parent):
            found.setdefault(path.parent, Input(name, path.parent))

    for name, donor in donors.items():
        for path in _of_donor(donor):
            add(name, path)
    tokenizer = plan.tokenizer
    for path in [*tokenizer.source.files, *tokenizer.merges] if tokenizer else []:
        add("the tokenizer", path)
    for path in plan.files.values():
        add(path.name, path)
    for file in {entry.file for tensor in plan.tensors for entry in tensor.source.entries()}:
        add(f"the weights {file.name}", file)
    return tuple(found.values())


def _of_donor(donor: Donor) -> Iterator[Path]:
    checkpoint = donor.checkpoint
    yield checkpoint.path
    files = {*checkpoint.files, *checkpoint.tokenizer.files, checkpoint.folder / "config.json"}
    files |= {entry.file for operand in donor.overlay.values() for entry in operand.entries()}
    yield from sorted(path for path in files if os.path.lexists(path))  # an unwritten stage lies nowhere


def _is_model(folder: Path) -> bool:
    return any((folder / name).exists() for name in _MODEL_FILES)


def stations(path: Path) -> Iterator[Path]:
    """A path with the links in its folders resolved, and that of every link that it leads over."""
    # What a link is called matters, not only what it leads to: whoever removes it breaks the way.
    waiting = list(Path(os.path.abspath(path)).parts)[::-1]  # noqa: PTH100 - resolved here, link by link
    done = Path(waiting.pop())
    links = 0
    while waiting:
        part = waiting.pop()
        if part == "..":
            done = done.parent
            continue
        here = done / part
        if here.is_symlink() and links < _MOST_LINKS:
            links += 1
            yield here
            target = Path(os.readlink(here))  # noqa: PTH115 - a path's own rules are not wanted
            if target.is_absolute():
                done = Path(target.anchor)
            waiting += list(target.parts[1:] if target.is_absolute() else target.parts)[::-1]
        else:
            done = here
    yield done
