"""The results file beside the recipes: one line of JSON per model that was evaluated or tried.

Rows are appended under a lock and synchronised, so none is lost by a crash; a line that a crash cut off is ignored and
removed by the next append. The file is private to the user. When it is read, it is untrusted.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, SurgeonError
from ..files import home
from ..statefile import StateRecord, open_regular, parse, rest
from .measures import Measure

NAME = "surgeon-results.jsonl"
VERSION = 1
MAX_BYTES = 500_000_000
MAX_LINE = 8_000_000
_MAX_RECIPE = 1_000_000
_MAX_TEXT = 100_000


def results_file(recipes: Sequence[Path]) -> Path:
    """The results file beside the first recipe; in the working directory without one."""
    return (recipes[0].parent if recipes else Path()) / NAME


def row(
    what: str,
    name: str,
    file: Path,
    *,
    path: Path | None = None,
    recipe: str | None = None,
    measures: Sequence[Measure] = (),
    **more: Any,
) -> dict[str, Any]:
    """A row of the file.

    Args:
        what: `evaluated` or `tried`.
        name: the model's name.
        file: the results file, to which paths are made relative.
        path: the recipe's file or the checkpoint.
        recipe: the recipe's text.
        measures: scores; every item is kept.
        more: further values, such as `prompt` and `answer`.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    made: dict[str, Any] = {"version": VERSION, "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"), "what": what, "name": name}
    if path is not None:
        made["path"] = _nameless(path, file)
    if recipe is not None and len(recipe) <= _MAX_RECIPE:
        made["recipe"] = recipe
    if recipe is not None:
        made["recipe_sha256"] = hashlib.sha256(recipe.encode()).hexdigest()
    made["measures"] = {
        one.name: {"value": _json(one.value), "better": one.better, "kind": one.kind, "items": len(one.units)}
        for one in measures
    }
    made["items"] = {one.name: _items(one) for one in measures}
    return {**made, **more}


def _items(measure: Measure) -> dict[str, list[Any]]:
    units = measure.units
    found: dict[str, list[Any]] = {
        "name": [unit.name for unit in units],
        "value": [_json(unit.value) for unit in units],
    }
    if any(unit.weight != 1 for unit in units):
        found["weight"] = [unit.weight for unit in units]
    if any(unit.cluster != unit.name for unit in units):
        found["cluster"] = [unit.cluster for unit in units]
    return found


def _json(value: float) -> float | None:
    """A number for JSON, which has neither NaN nor infinity."""
    return round(value, 6) if value == value and abs(value) != float("inf") else None


def _nameless(path: Path, file: Path) -> str:
    """A path relative to the results file, in which no name of a user occurs that the file's own place has not."""
    full, own = Path(os.path.realpath(path)), Path(os.path.realpath(file)).parent
    base = home()
    if base is not None and full.is_relative_to(base) and not own.is_relative_to(base):
        return str(Path("~") / full.relative_to(base))
    return os.path.relpath(full, own)


def append(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to a results file, which is made if it does not exist.

    Raises:
        SurgeonError: the file cannot be written, or is not a regular file.
    """
    data = b"".join(json.dumps(one, allow_nan=False).encode() + b"\n" for one in rows)
    if any(len(line) > MAX_LINE for line in data.splitlines()):
        raise SurgeonError("a row of the results is too long to be kept", where=str(file))
    try:
        _append(file, data)
    except OSError as error:
        raise SurgeonError(
            f"cannot write the results: {error.strerror or error}", where=str(file), remedy="use --no-results"
        ) from error


def _append(file: Path, data: bytes) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(file, flags, 0o600)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("it is not a regular file")
        new = os.fstat(fd).st_size == 0
        _lock(fd)
        _remove_torn_line(fd)
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    if new:
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _lock(fd: int) -> None:
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(fd, fcntl.LOCK_EX)


def _remove_torn_line(fd: int) -> None:
    """Cut off a last line without a line end: its row was never written in full."""
    end = os.fstat(fd).st_size
    tail = os.pread(fd, MAX_LINE + 1, max(0, end - MAX_LINE - 1))
    if not tail or tail.endswith(b"\n"):
        return
    torn = len(tail) - (tail.rfind(b"\n") + 1)
    if torn > MAX_LINE:
        raise OSError("it is not a results file")
    os.ftruncate(fd, end - torn)


@dataclass(frozen=True)
class Row:
    """A row that was read; `values` has it as it is in the file."""

    number: int
    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """A text of limited length; empty if it is missing or of another type."""
        return (StateRecord(self.values).text(key) or "")[:_MAX_TEXT]

    @property
    def recipe(self) -> str | None:
        """The recipe's text."""
        text = StateRecord(self.values).text("recipe")
        return text if text is not None and len(text) <= _MAX_RECIPE else None

    @property
    def measures(self) -> dict[str, float]:
        """Name -> value of every measure that has one."""
        found = self.values.get("measures")
        if not isinstance(found, dict):
            return {}
        values = {name: StateRecord(one).number("value") for name, one in found.items()}
        return {name: value for name, value in values.items() if value is not None}

    def shown(self, name: str) -> str:
        """Text of one measure: perplexities for losses."""
        import math

        value = self.measures.get(name)
        if value is None:
            return "-"
        kind = StateRecord(self.values["measures"].get(name)).text("kind")
        if kind == "loss":
            return f"{math.exp(min(value, 700)):.4g}"
        return f"{value:.3f}"


def read_results(file: Path) -> tuple[list[Row], int]:
    """The rows of a results file, numbered from 1 by their lines, and the number of lines that cannot be read.

    A last line without a line end is ignored, because it is not written in full yet.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open_regular(file, follow=True) as stream:
            data = rest(stream, MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read the results: {error.strerror or error}", where=str(file)) from error
    if len(data) > MAX_BYTES:
        raise InputError("the file is too large to be a results file", where=str(file))
    rows, bad = [], 0
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        value: Any = None
        if len(line) <= MAX_LINE:
            try:
                value = parse(line)
            except ValueError:
                value = None
        if isinstance(value, dict) and value.get("version") == VERSION:
            rows.append(Row(number, value))
        elif line.strip():
            bad += 1
    return rows, bad
