"""Probe sets: prompts with expected answers, and a model's score on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..text import nearest, one_line
from .generate import Generation, pieces
from .subject import Subject

MAX_BYTES = 20_000_000
_KEYS = ("prompt", "expected")
_SPARE_TOKENS = 4
"""Tokens that an answer may have in addition to the expected one's, for spaces and the end of the line."""


@dataclass(frozen=True)
class Probe:
    """A prompt and the expected answer without surrounding whitespace; `line` is its line in the file, from 1."""

    prompt: str
    expected: str
    line: int


@dataclass(frozen=True)
class ProbeSet:
    """A file of probes."""

    path: Path
    probes: tuple[Probe, ...]

    @property
    def name(self) -> str:
        """The file's name without its extension."""
        return self.path.stem


@dataclass(frozen=True)
class Outcome:
    """The result of one probe: the answer, up to the token that decides it, and whether it is right."""

    probe: Probe
    answer: str
    right: bool


def read_probes(path: Path) -> ProbeSet:
    """Read a probe set: a list in a `.yml` or `.yaml` file, one JSON object per line in any other file.

    Raises:
        InputError: the file is unreadable, or an entry is not {prompt, expected}; names the file and the line.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError("the file is too large to be a probe set", where=str(path))
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("the probe set is not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot read the probe set: {error.strerror or error}", where=str(path)) from error
    entries = _yaml(text, path) if path.suffix.lower() in {".yml", ".yaml"} else _json_lines(text, path)
    probes = tuple(_probe(value, f"{path}, line {line}", line) for line, value in entries)
    if not probes:
        raise InputError("the probe set is empty", where=str(path))
    return ProbeSet(path, probes)


def score(subject: Subject, probes: ProbeSet) -> Iterator[Outcome]:
    """Run each probe greedily, one at a time, because batches change the rounding and so sometimes the answer.

    An answer ends with the text, or with its first line if one line is expected. It is right if it equals the expected
    answer without surrounding whitespace.
    """
    for probe in probes.probes:
        answer = _answer(subject, probe)
        yield Outcome(probe, answer, answer == probe.expected.strip())


def _answer(subject: Subject, probe: Probe) -> str:
    expected = probe.expected.strip()
    limit = len(subject.encode(" " + expected)) + _SPARE_TOKENS
    text = ""
    for piece in pieces(subject, subject.encode(probe.prompt), limit, Generation()):
        text = (text + piece).lstrip()
        if "\n" in text and "\n" not in expected:
            return text.partition("\n")[0].rstrip()
        if not expected.startswith(text) and text.rstrip() != expected:
            break
    return text.rstrip()


def _json_lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                yield line, json.loads(content)
            except (ValueError, RecursionError) as error:
                raise InputError("this is not JSON", where=f"{path}, line {line}", why=str(error)) from error


def _yaml(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedSeq
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        # The round-trip loader builds only plain data, and records the lines.
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError("this is not valid YAML", where=f"{path}, line {line}", why=one_line(error.problem)) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError("this is not valid YAML", where=str(path), why=one_line(error)) from error
    if not isinstance(tree, CommentedSeq):
        raise InputError("a probe set in YAML is a list of {prompt, expected}", where=str(path))
    for index, value in enumerate(tree):
        yield tree.lc.item(index)[0] + 1, value


def _probe(value: Any, where: str, line: int) -> Probe:
    if not isinstance(value, dict):
        raise InputError("a probe is {prompt: ..., expected: ...}", where=where)
    for key in value:
        if key not in _KEYS:
            meant = nearest(str(key), _KEYS)
            remedy = f"did you mean {meant}?" if meant else f"a probe has the keys {' and '.join(_KEYS)}"
            raise InputError(f"{one_line(key)!r} is not a key of a probe", where=where, remedy=remedy)
    for key in _KEYS:
        if key not in value:
            raise InputError(f"the probe has no {key}", where=where)
        # A bare number in YAML may be meant as an answer of digits, but 007 and 1e3 would change.
        if not isinstance(value[key], str):
            raise InputError(f"{key} is not text", where=where, remedy="put it in quotes")
    if not value["prompt"] or not value["expected"].strip():
        raise InputError("prompt and expected may not be empty", where=where)
    return Probe(value["prompt"], value["expected"], line)
