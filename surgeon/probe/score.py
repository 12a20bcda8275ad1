"""Probe sets: prompts with expected answers, and a model's score on them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..text import nearest, one_line
from .generate import Generation, pieces
from .subject import Subject

MAX_BYTES = 20_000_000
_KEYS = ("prompt", "expected")
_SETTINGS = ("chat", "system")
"""Keys of a probe, or of the file for all its probes."""
_SPARE_TOKENS = 4
"""Tokens that an answer may have in addition to the expected one's, for spaces and the end of the line."""


@dataclass(frozen=True)
class Probe:
    """A prompt and the expected answer without surrounding whitespace.

    Attributes:
        line: its line in the file, from 1.
        chat: whether the prompt is a user's message in the tokenizer's chat template; else it is raw text.
        system: the system's message of a chat; None for none.
    """

    prompt: str
    expected: str
    line: int
    chat: bool = False
    system: str | None = None


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

    Settings of all probes (`chat`, `system`) are the first line of JSON, or in YAML keys next to `probes`.

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
    settings, entries = (_yaml if path.suffix.lower() in {".yml", ".yaml"} else _json)(text, path)
    probes = tuple(_probe(value, f"{path}, line {line}", line, settings) for line, value in entries)
    if not probes:
        raise InputError("the probe set is empty", where=str(path))
    return ProbeSet(path, probes)


def score(subject: Subject, probes: ProbeSet) -> Iterator[Outcome]:
    """Run each probe greedily, one at a time, because batches change the rounding and so sometimes the answer.

    An answer ends with the text, or with its first line if one line is expected. It is right if it equals the expected
    answer without surrounding whitespace.

    Raises:
        InputError: the model has no tokenizer, or a probe is a chat and the model has no usable chat template.
    """
    asked = [(probe.prompt, probe.system) for probe in probes.probes if probe.chat]
    chats = iter(subject.encode_chats(asked) if asked else ())
    for probe in probes.probes:
        answer = _answer(subject, probe, next(chats) if probe.chat else subject.encode(probe.prompt))
        yield Outcome(probe, answer, answer == probe.expected.strip())


def _answer(subject: Subject, probe: Probe, prompt: list[int]) -> str:
    expected = probe.expected.strip()
    limit = len(subject.encode(" " + expected)) + _SPARE_TOKENS
    text = ""
    for piece in pieces(subject, prompt, limit, Generation()):
        text = (text + piece).lstrip()
        if "\n" in text and "\n" not in expected:
            return text.partition("\n")[0].rstrip()
        if not expected.startswith(text) and text.rstrip() != expected:
            break
    return text.rstrip()


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
    """`chat` and `system` of a probe or a file, checked, over those of the file."""
    chat, system = (value.get(key, inherited.get(key)) for key in _SETTINGS)
    if chat is not None and not isinstance(chat, bool):
        raise InputError("chat is not true or false", where=where)
    if system is not None and not isinstance(system, str):
        raise InputError("system is not text", where=where, remedy="put it in quotes")
    if value.get("system") is not None and not chat:
        raise InputError("system has no meaning without a chat", where=where, remedy="add chat: true")
    return {"chat": bool(chat), "system": system if chat else None}


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
    for key in _KEYS:
        if key not in value:
            raise InputError(f"the probe has no {key}", where=where)
        # A bare number in YAML may be meant as an answer of digits, but 007 and 1e3 would change.
        if not isinstance(value[key], str):
            raise InputError(f"{key} is not text", where=where, remedy="put it in quotes")
    if not value["prompt"] or not value["expected"].strip():
        raise InputError("prompt and expected may not be empty", where=where)
    return Probe(value["prompt"], value["expected"], line, **_settings(value, where, inherited))
