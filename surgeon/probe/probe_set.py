"""Probe sets: prompts with expected answers, and how an answer is judged."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..statefile import is_number, open_regular
from ..text import nearest, one_line

MAX_BYTES = 20_000_000
KINDS = ("exact", "choice", "contains", "regex", "numeric")
_KEYS = ("prompt", "expected", "pattern", "choices", "tolerance", "tokens", "group")
_SETTINGS = ("chat", "system", "kind")
"""Keys of a probe, or of the file for all its probes."""
_ONLY = {"choices": ("choice",), "pattern": ("regex",), "tolerance": ("numeric",)}
"""Keys that belong to some kinds only."""
ANSWER_TOKENS = 32
"""Default maximum of tokens of a generated answer."""
MOST_TOKENS = 1024
MOST_CHOICES = 64
_LONGEST_PATTERN = 1000


@dataclass(frozen=True)
class Probe:
    """A prompt and how its answer is judged.

    Attributes:
        expected: the expected answer; surrounding whitespace does not count. For `regex` the pattern.
        line: its line in the file, from 1.
        chat: whether the prompt is a user's message in the tokenizer's chat template; else it is raw text.
        system: the system's message of a chat; None for none.
        kind: `exact`: the greedy answer is `expected`. `choice`: `expected` is the likeliest of `choices`. `contains`,
            `regex`: the greedy answer contains `expected`, or a match of it. `numeric`: the first number of the greedy
            answer is `expected` within `tolerance`.
        choices: the answers that a `choice` compares, the right one among them.
        tolerance: largest absolute difference of a `numeric` answer.
        tokens: most tokens of the answer of `contains`, `regex` and `numeric`.
        group: name of the item if it is asked in several wordings; they are kept and resampled together.
    """

    prompt: str
    expected: str
    line: int
    chat: bool = False
    system: str | None = None
    kind: str = "exact"
    choices: tuple[str, ...] = ()
    tolerance: float = 0.0
    tokens: int = ANSWER_TOKENS
    group: str | None = None


@dataclass(frozen=True)
class ProbeSet:
    """A file of probes."""

    path: Path
    probes: tuple[Probe, ...]

    @property
    def name(self) -> str:
        """The file's name without its extension."""
        return self.path.stem


def read_probes(path: Path) -> ProbeSet:
    """Read a probe set: a list in a `.yml` or `.yaml` file, one JSON object per line in any other file.

    Settings of all probes (`chat`, `system`) are the first line of JSON, or in YAML keys next to `probes`.

    Raises:
        InputError: the file is unreadable, or an entry is not {prompt, expected}; names the file and the line.
    """
    try:
        with open_regular(path, follow=True) as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise InputError("the file is too large to be a probe set", where=str(path))
        text = raw.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError("the probe set is not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot read the probe set: {error.strerror or error}", where=str(path)) from error
    settings, entries = (_yaml if path.suffix.lower() in {".yml", ".yaml"} else _json)(text, path)
    probes = tuple(_probe(value, f"{path}, line {line}", line, settings) for line, value in entries)
    if not probes:
        raise InputError("the probe set is empty", where=str(path))
    return ProbeSet(path, probes)


_Entries = Iterable[tuple[int, Any]]
"""Probes that are not checked yet, with their lines."""


def _json(text: str, path: Path) -> tuple[dict[str, Any], _Entries]:
    entries = _json_lines(text, path)
    first = next(entries, None)
    if first is None:
        return {}, ()
    line, value = first
    if isinstance(value, dict) and value and value.keys() <= set(_SETTINGS):
        return _settings(value, f"{path}, line {line}", {}), entries
    return {}, itertools.chain([first], entries)


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                yield line, json.loads(content)
            except (ValueError, RecursionError) as error:
                raise InputError("this is not JSON", where=f"{path}, line {line}", why=str(error)) from error


def _yaml(text: str, path: Path) -> tuple[dict[str, Any], _Entries]:
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        # The round-trip loader builds only plain data, and records the lines.
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError("this is not valid YAML", where=f"{path}, line {line}", why=one_line(error.problem)) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError("this is not valid YAML", where=str(path), why=one_line(error)) from error
    settings: dict[str, Any] = {}
    if isinstance(tree, CommentedMap) and "probes" in tree:
        _known(tree, ("probes", *_SETTINGS), "probe set", str(path))
        settings, tree = _settings(tree, str(path), {}), tree["probes"]
    if not isinstance(tree, CommentedSeq):
        raise InputError("a probe set in YAML is a list of {prompt, expected}", where=str(path))
    return settings, [(tree.lc.item(index)[0] + 1, value) for index, value in enumerate(tree)]


def _settings(value: Mapping[str, Any], where: str, inherited: Mapping[str, Any]) -> dict[str, Any]:
    """`chat`, `system` and `kind` of a probe or a file, checked, over those of the file."""
    chat, system, kind = (value.get(key, inherited.get(key)) for key in _SETTINGS)
    if chat is not None and not isinstance(chat, bool):
        raise InputError("chat is not true or false", where=where)
    if system is not None and not isinstance(system, str):
        raise InputError("system is not text", where=where, remedy="put it in quotes")
    if value.get("system") is not None and not chat:
        raise InputError("system has no meaning without a chat", where=where, remedy="add chat: true")
    if kind is not None and kind not in KINDS:
        raise InputError(f"{one_line(kind)!r} is not a kind of probe", where=where, remedy=f"use {', '.join(KINDS)}")
    return {"chat": bool(chat), "system": system if chat else None, "kind": kind or "exact"}


def _known(value: Mapping[Any, Any], keys: Sequence[str], kind: str, where: str) -> None:
    """Raise InputError for a key that is not one of `keys`."""
    for key in value:
        if key not in keys:
            meant = nearest(str(key), keys)
            remedy = f"did you mean {meant}?" if meant else f"a {kind} has the keys {', '.join(keys)}"
            raise InputError(f"{one_line(key)!r} is not a key of a {kind}", where=where, remedy=remedy)


def _probe(value: Any, where: str, line: int, inherited: Mapping[str, Any]) -> Probe:
    if not isinstance(value, dict):
        raise InputError("a probe is {prompt: ..., expected: ...}", where=where)
    _known(value, (*_KEYS, *_SETTINGS), "probe", where)
    settings = _settings(value, where, inherited)
    kind = settings["kind"]
    answer = "pattern" if kind == "regex" else "expected"
    for key in ("prompt", answer):
        if key not in value:
            raise InputError(f"the probe has no {key}", where=where)
        # A bare number in YAML may be meant as an answer of digits, but 007 and 1e3 would change.
        if not isinstance(value[key], str):
            raise InputError(f"{key} is not text", where=where, remedy="put it in quotes")
    if not value["prompt"] or not value[answer].strip():
        raise InputError(f"prompt and {answer} may not be empty", where=where)
    for key, kinds in _ONLY.items():
        if key in value and kind not in kinds:
            raise InputError(f"{key} has no meaning for a probe of kind {kind}", where=where, remedy="leave it out")
    if kind == "regex" and "expected" in value:
        raise InputError("expected has no meaning for a probe of kind regex", where=where, remedy="leave it out")
    if "tokens" in value and kind in ("exact", "choice"):
        raise InputError(f"tokens has no meaning for a probe of kind {kind}", where=where, remedy="leave it out")
    group = value.get("group")
    if group is not None and not isinstance(group, str):
        raise InputError("group is not text", where=where, remedy="put it in quotes")
    probe = Probe(
        value["prompt"],
        value[answer],
        line,
        **settings,
        choices=_choices(value, where) if kind == "choice" else (),
        tolerance=_tolerance(value, where),
        tokens=_tokens(value, where),
        group=group,
    )
    _check_answer(probe, where)
    return probe


def _choices(value: Mapping[str, Any], where: str) -> tuple[str, ...]:
    found = value.get("choices")
    if not isinstance(found, list) or not 2 <= len(found) <= MOST_CHOICES:
        raise InputError(f"choices is not a list of 2 to {MOST_CHOICES} answers", where=where)
    if not all(isinstance(choice, str) and choice.strip() for choice in found):
        raise InputError("a choice is not text, or is empty", where=where, remedy="put it in quotes")
    choices = tuple(str(choice).strip() for choice in found)
    if len(set(choices)) < len(choices):
        raise InputError("a choice occurs twice", where=where)
    if value["expected"].strip() not in choices:
        raise InputError("expected is not one of the choices", where=where)
    return choices


def _tolerance(value: Mapping[str, Any], where: str) -> float:
    tolerance = value.get("tolerance", 0.0)
    if not is_number(tolerance) or tolerance < 0:
        raise InputError("tolerance is not a number of 0 or more", where=where)
    return float(tolerance)


def _tokens(value: Mapping[str, Any], where: str) -> int:
    tokens = value.get("tokens", ANSWER_TOKENS)
    if type(tokens) is not int or not 1 <= tokens <= MOST_TOKENS:
        raise InputError(f"tokens is not a whole number from 1 to {MOST_TOKENS}", where=where)
    return tokens


def _check_answer(probe: Probe, where: str) -> None:
    """Raise InputError if no answer could be judged."""
    if probe.kind == "numeric" and first_number(probe.expected) is None:
        raise InputError("expected is not a number", where=where)
    if probe.kind == "regex":
        try:
            if len(probe.expected) > _LONGEST_PATTERN:
                raise ValueError(f"it is longer than {_LONGEST_PATTERN} characters")
            re.compile(probe.expected)
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            raise InputError("pattern is not a regular expression", where=where, why=one_line(error)) from error
    if probe.kind == "choice" and not probe.chat and probe.prompt[-1] in " \t":
        raise InputError(
            "the prompt of a choice ends in a space",
            where=where,
            why="a tokenizer joins the space with the first word of the answer",
            remedy="leave the space out",
        )


_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|[-+]?\.\d+")


def first_number(text: str) -> float | None:
    """The first number in a text, with or without thousands separators; None if there is none."""
    match = _NUMBER.search(text[:10_000])
    if match is None:
        return None
    value = float(match[0].replace(",", ""))
    return value if math.isfinite(value) else None
