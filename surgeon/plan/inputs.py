"""All files and folders that a plan reads, in whatever role: none of them may be replaced or written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .model import Donor, Plan

_MOST_LINKS = 40
_MODEL_FILES = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")
"""A folder with any of these files belongs to a model, an adapter or a tokenizer."""


@dataclass(frozen=True)
class Input:
    """A file or folder that the output is made from.

    Attributes:
        name: its role, such as `donor A`.
        path: its path, with links unresolved; a folder stands for everything in it.
    """

    name: str
    path: Path

    def places(self) -> Iterator[Path]:
        """Its resolved path and every link that leads to it; for a folder, also those of each linked entry."""
        yield from stations(self.path)
        if self.path.is_dir():
            for entry in self.path.iterdir():
                if entry.is_symlink():
                    yield from stations(entry)


def inputs(plan: Plan) -> tuple[Input, ...]:
    """Layer donors, base models, donors of stages, adapters, tokenizers, and every file that is copied."""
    found: dict[Path, Input] = {}
    donors = {f"donor {letter}": donor for letter, donor in plan.donors.items()}
    # A donor that is a single file does not make the folder around it an input.
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
    yield from sorted(path for path in files if os.path.lexists(path))  # an unwritten stage has no files


def _is_model(folder: Path) -> bool:
    return any((folder / name).exists() for name in _MODEL_FILES)


def stations(path: Path) -> Iterator[Path]:
    """Yield the path of every link that a path passes through, then the resolved path itself."""
    # The links count too, not only their targets: to replace a link breaks the path.
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
