"""Suites: what models are evaluated on. A YAML file, or options of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import is_dir
from ..probe.probe_set import ProbeSet, read_probes
from ..probe.requests import Text, text_in
from ..recipe.yaml.nodes import TextError, build, lines, plain
from ..statefile import open_regular
from ..text import nearest, one_line
from .bundled import bundled
from .split import SPLITS, split_sets, split_text

MAX_BYTES = 1_000_000
KEYS = ("texts", "probes", "bundled", "lm_eval", "limit", "split")


@dataclass(frozen=True)
class Suite:
    """What models are evaluated on.

    Attributes:
        texts: texts for loss and perplexity.
        probes: probe sets.
        bundled: names of bundled probe sets.
        lm_eval: tasks of lm-evaluation-harness.
        limit: most items of each set and task; None for all.
        split: `held-out`, `working` or `all`. Tasks of lm-evaluation-harness are never split.
    """

    texts: tuple[Path, ...] = ()
    probes: tuple[Path, ...] = ()
    bundled: tuple[str, ...] = ()
    lm_eval: tuple[str, ...] = ()
    limit: int | None = None
    split: str = "held-out"

    def load(self) -> LoadedSuite:
        """Read and split everything.

        Raises:
            InputError: a file is unreadable or wrong, or a half of it is empty.
        """
        sets = _named([*(read_probes(path) for path in self.probes), *bundled(self.bundled)])
        halves = split_sets(list(sets.values()), self.split, self.limit)
        texts: dict[str, list[str]] = {}
        for path in self.texts:
            text: Text = text_in(path)
            try:
                passages = split_text(text.text, self.split)
            except InputError as error:
                raise InputError(error.what, where=str(path), remedy=error.remedy) from error
            texts[_unused(path.stem, texts)] = passages
        if not sets and not texts and not self.lm_eval:
            raise InputError("there is nothing to evaluate on", remedy="name a --text, a --probe or a --bundled set")
        return LoadedSuite(dict(zip(sets, halves, strict=True)), texts, self.lm_eval, self.limit, self.split)


@dataclass(frozen=True)
class LoadedSuite:
    """A suite with the chosen half of each set and text, by name."""

    sets: Mapping[str, ProbeSet]
    texts: Mapping[str, list[str]]
    lm_eval: tuple[str, ...]
    limit: int | None
    split: str


def _named(sets: list[ProbeSet]) -> dict[str, ProbeSet]:
    found: dict[str, ProbeSet] = {}
    for probes in sets:
        found[_unused(probes.name, found)] = probes
    return found


def _unused(name: str, used: Mapping[str, Any]) -> str:
    names = (name, *(f"{name} ({number})" for number in range(2, len(used) + 3)))
    return next(one for one in names if one not in used)


def default_suite(folder: Path) -> Suite:
    """All bundled sets, the texts in `texts/` and the probe sets in `probes/` of a folder."""
    return Suite(
        texts=tuple(_files(folder / "texts", {".txt", ".md"})),
        probes=tuple(_files(folder / "probes", {".jsonl", ".yml", ".yaml"})),
        bundled=("all",),
    )


def _files(folder: Path, suffixes: set[str]) -> list[Path]:
    if not is_dir(folder):
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())


def read_suite(path: Path) -> Suite:
    """Read a suite file; its paths are relative to its folder.

    Raises:
        InputError: the file is unreadable, no YAML, or has an unknown key or a wrong value; with the line.
    """
    try:
        with open_regular(path, follow=True) as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise InputError("the file is too large to be a suite", where=str(path))
        trees = build(raw.decode("utf-8-sig"))
        data = plain(trees[0]) if trees else {}
        places = dict(lines(trees[0])) if trees else {}
    except TextError as error:
        place = f"{path}, line {error.line}" if error.line else str(path)
        raise InputError("this is not valid YAML", where=place, why=one_line(error)) from error
    except UnicodeDecodeError as error:
        raise InputError("the suite is not UTF-8 text", where=str(path)) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read the suite: {why}", where=str(path)) from error
    if len(trees) > 1 or not isinstance(data, dict):
        raise InputError(f"a suite is one table with the keys {', '.join(KEYS)}", where=str(path))

    def where(*place: str | int) -> str:
        return f"{path}, line {places.get(place, 1)}"

    for key in data:
        if key not in KEYS:
            meant = nearest(key, KEYS)
            remedy = f"did you mean {meant}?" if meant else f"a suite has the keys {', '.join(KEYS)}"
            raise InputError(f"{one_line(key)!r} is not a key of a suite", where=where(key), remedy=remedy)
    names = {key: _names(data, key, where) for key in ("texts", "probes", "bundled", "lm_eval")}
    limit, split = data.get("limit"), data.get("split", "held-out")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InputError("limit is not a whole number of 1 or more", where=where("limit"))
    if split not in SPLITS:
        raise InputError(f"split is not one of {', '.join(SPLITS)}", where=where("split"))
    try:
        bundled(names["bundled"])
    except InputError as error:
        raise InputError(error.what, where=where("bundled"), remedy=error.remedy) from error
    return Suite(
        texts=tuple(path.parent / name for name in names["texts"]),
        probes=tuple(path.parent / name for name in names["probes"]),
        bundled=names["bundled"],
        lm_eval=names["lm_eval"],
        limit=limit,
        split=split,
    )


def _names(data: Mapping[str, Any], key: str, where: Any) -> tuple[str, ...]:
    """A text or a list of texts."""
    value = data.get(key)
    value = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(value, list):
        raise InputError(f"{key} is not a list", where=where(key))
    for index, item in enumerate(value):
        if not isinstance(item, str) or not item or "\0" in item:
            raise InputError(f"an entry of {key} is not text", where=where(key, index), remedy="put it in quotes")
    return tuple(value)
