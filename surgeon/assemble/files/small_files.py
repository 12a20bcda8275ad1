"""Write the output's small files: config, tokenizer, generation config, index, recipe and model card."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from ...checkpoint.locate import INDEX
from ...errors import SurgeonError
from ...plan.model import Plan
from ...text import one_line
from ..io.byte_copy import write_all
from ..io.digest import digest
from ..layout import OutputLayout
from ..write.sink import Target
from .model_card import card
from .published_texts import without_origins
from .tokenizer_files import written

RECIPE = "surgeon_recipe.yaml"
CARD = "README.md"
CONFIG = "config.json"
_PIECE = 1024 * 1024


def size_of(plan: Plan, recipe: str) -> int:
    """An upper estimate of the size of all these files in bytes."""
    copied = sum(path.stat().st_size for path in plan.files.values() if path.is_file())
    # A tokenizer made of several is at most as large as all of them together.
    made = sum(path.stat().st_size for d in plan.donors.values() for path in d.checkpoint.tokenizer.files)
    return (
        copied + (made if plan.tokenizer else 0) + 3 * len(recipe.encode()) + 2 * len(json.dumps(plan.config)) + 200_000
    )


def write_companions(
    plan: Plan, layout: OutputLayout, folder: Path, name: str, recipe: str, flush: bool
) -> dict[str, str]:
    """Write all small files except the manifest; returns their hashes by name.

    Raises:
        SurgeonError: a file to copy is missing or is not a regular file.
        OSError: writing failed.
    """
    texts = {
        CONFIG: json.dumps(plan.config, indent=2) + "\n",
        RECIPE: recipe if recipe.endswith("\n") else recipe + "\n",
        CARD: card(plan, name, recipe),
    }
    if layout.index:
        texts[INDEX] = layout.index
    hashes = {}
    for file_name, text in texts.items():
        hashes[file_name] = write_small(folder / file_name, text.encode("utf-8", "backslashreplace"), flush)
    generated = made_files(plan)
    for file_name, data in generated.items():
        hashes[file_name] = write_small(folder / _plain(file_name), without_origins(file_name, data), flush)
    copied = [name for name in plan.files if name not in texts and name not in generated]
    for file_name in copied:
        data = without_origins(file_name, _contents(plan.files[file_name]))
        hashes[file_name] = write_small(folder / _plain(file_name), data, flush)
    return hashes


def made_files(plan: Plan) -> dict[str, bytes]:
    """Generated versions of donors' files: the tokenizer files, and a generation config with new ids."""
    files = {name: text.encode() for name, text in plan.made.items()}
    return files | (written(plan.tokenizer) if plan.tokenizer else {})


def _plain(name: str) -> str:
    if name in {"", ".", ".."} or "/" in name or "\0" in name or name.endswith(".safetensors"):
        raise SurgeonError(f"{one_line(name)!r} cannot be the name of a file in the output folder")
    return name


def _contents(path: Path) -> bytes:
    """A regular file's bytes; follows links, as in the Hub cache, but refuses pipes and devices without waiting."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SurgeonError("this is not a regular file", where=str(path), remedy="remove or replace it")
            return file.read()
    except OSError as error:
        raise SurgeonError(f"cannot read the donor's file: {error.strerror or error}", where=str(path)) from error


def write_small(path: Path, data: bytes, flush: bool) -> str:
    """Write one small file; returns its hash."""
    target, complete = Target(path, flush), False
    try:
        # An earlier run may have left a longer file.
        os.ftruncate(target.fd, 0)
        write_all(target.fd, data, 0)
        complete = True
    finally:
        target.close(flush=complete)
    return digest(data)
