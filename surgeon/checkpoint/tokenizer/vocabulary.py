"""The tokens of a tokenizer and their ids, as the tokenizers library and transformers number them.

`model.vocab` of a tokenizer.json states ids. The `id` of an added token is ignored when the file is loaded: a token of
the vocabulary keeps its id, and the others are numbered in the order of the file, from the size of the vocabulary on.
Tokens that only tokenizer_config.json or the files of old checkpoints name follow after the highest added one.
(Observed with tokenizers 0.23 and transformers 5; older versions differ if a vocabulary has gaps.)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...statefile import open_regular
from ...text import one_line
from ..locate import read_json, read_json_object
from .tokenizer_identity import Tokenizer

MAX_ID = 2**22
"""Ids from here on are refused, because tables of this size are allocated; the largest vocabularies have 2**18 ids."""

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
"""The flags of an added token, with the defaults of the tokenizers library."""

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("extra_special_tokens", "additional_special_tokens")
_RULES = ("normalizer", "pre_tokenizer")
_MODEL_RULES = ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_MERGES = b'\n    "merges": ['

Flags = Mapping[str, bool]


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary of a tokenizer.

    Attributes:
        kind: `BPE`, `WordPiece`, `Unigram` or `WordLevel`.
        ids: token -> id, in the order of ids; in an invalid file two tokens may share an id.
        added: added tokens, which are matched before a text is split -> their flags, in loading order.
        rules: digest of the normalizer, the pre-tokenizer and the model's settings.
    """

    kind: str
    ids: Mapping[str, int]
    added: Mapping[str, Flags]
    rules: str

    @cached_property
    def end(self) -> int:
        """One more than the highest id."""
        return max(self.ids.values(), default=-1) + 1


def read_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer that has a tokenizer.json. It is cached until the files change.

    Raises:
        InputError: there is no tokenizer.json, it cannot be read, or it is invalid.
    """
    if tokenizer.json is None:
        raise InputError("there is no tokenizer.json, from which vocabularies are read")
    return _read(tokenizer.json, declared(tokenizer), _stamp(tokenizer.json))


def declared(tokenizer: Tokenizer) -> tuple[tuple[str, tuple[bool, ...]], ...]:
    """Added tokens (text, values of `FLAGS`) from the files next to a tokenizer.json, in loading order.

    Raises:
        InputError: one of the files cannot be read or is not JSON.
    """
    names = {path.name: path for path in tokenizer.files}
    wanted = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    return _declared(tuple((names[name], _stamp(names[name])) if name in names else None for name in wanted))


def flags_of(token: Mapping[str, Any], **fallback: bool) -> dict[str, bool]:
    """The flags of an added token in JSON; `fallback` replaces the defaults of `FLAGS`."""
    chosen = {**FLAGS, **fallback}
    return {key: token[key] if isinstance(token.get(key), bool) else value for key, value in chosen.items()}


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from error
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=16)
def _declared(
    files: tuple[tuple[Path, tuple[int, int]] | None, ...],
) -> tuple[tuple[str, tuple[bool, ...]], ...]:
    config, special, added = (read_json_object(file[0]) if file else {} for file in files)
    decoder = config.get("added_tokens_decoder")
    found: list[tuple[str, dict[str, bool]]] = []
    if isinstance(decoder, dict):
        numbered = [
            (int(key), token) for key, token in decoder.items() if _NUMBER.fullmatch(key) and isinstance(token, dict)
        ]
        for _, token in sorted(numbered, key=lambda pair: pair[0]):
            found.append((str(token.get("content", "")), flags_of(token)))
    else:
        # transformers reads the older files only if that key is absent.
        config = {**config, **special}
        names = {text for text, _ in _named(config)}
        for text, _ in sorted(((t, i) for t, i in added.items() if type(i) is int), key=lambda pair: pair[1]):
            found.append((text, flags_of({}, normalized=text not in names, special=text in names)))
    found += _named(config)
    unique: dict[str, dict[str, bool]] = {}
    for text, flags in found:
        if text:
            unique.setdefault(text, flags)
    return tuple((text, tuple(flags[key] for key in FLAGS)) for text, flags in unique.items())


def _named(config: Mapping[str, Any]) -> list[tuple[str, dict[str, bool]]]:
    """Special tokens that a tokenizer_config.json names by role, then the others that it lists."""
    values = [config.get(key) for key in _NAMED]
    listed: Any = next((config[key] for key in _LISTS if config.get(key)), None)
    values += listed if isinstance(listed, list) else list(listed.values()) if isinstance(listed, dict) else []
    found = []
    for value in values:
        if isinstance(value, str):
            found.append((value, flags_of({}, normalized=False, special=True)))
        elif isinstance(value, dict) and isinstance(value.get("content"), str):
            found.append((value["content"], {**flags_of(value), "special": True}))
    return found


@lru_cache(maxsize=8)
def _read(path: Path, declared_tokens: tuple[tuple[str, tuple[bool, ...]], ...], stamp: tuple[int, int]) -> Vocabulary:
    document = _document(path)
    model = document.get("model")
    if not isinstance(model, dict):
        raise InputError("the file has no model, so it is not a tokenizer", where=str(path))
    kind = kind_of(model)
    raw = model.get("vocab")
    ids = _unigram(raw, path) if kind == "Unigram" else _table(raw, path)
    size = len(raw or ())
    added = dict(_added(document, path))
    _number(ids, added, size)
    last = max((ids[token] for token in added), default=-1)
    for text, values in declared_tokens:
        added.setdefault(text, dict(zip(FLAGS, values, strict=True)))
    _number(ids, added, max(size, last + 1))
    for token, index in ids.items():
        if index >= MAX_ID:
            raise InputError(
                f"the token '{one_line(token[:40])}' has the id {index:,}, which is too large for a vocabulary",
                where=str(path),
                remedy="do not use this tokenizer",
            )
    rules = json.dumps(
        [[document.get(key) for key in _RULES], [model.get(key) or None for key in _MODEL_RULES]], sort_keys=True
    )
    if (indices := list(ids.values())) != sorted(indices):
        ids = dict(sorted(ids.items(), key=lambda pair: pair[1]))
    return Vocabulary(kind, ids, added, hashlib.sha256(rules.encode("utf-8", "replace")).hexdigest()[:12])


def kind_of(model: Mapping[str, Any]) -> str:
    """The kind of a tokenizer.json's model; old files do not state it."""
    stated = model.get("type")
    if isinstance(stated, str):
        return stated
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def _document(path: Path) -> dict[str, Any]:
    """The JSON of the file without its merges, which are half of the file and not needed here."""
    try:
        with open_regular(path, follow=True) as file:
            raw = file.read()
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from error
    # In the layout of the tokenizers library, merges are the last key of the model and the model is the last key of the
    # file. A JSON string never contains a raw line break, so these bytes cannot be part of a string.
    head, found, rest = raw.partition(_MERGES)
    if found and _MERGES not in rest and rest.rstrip().endswith(b"]\n  }\n}") and head.endswith(b","):
        try:
            value = json.loads(head[:-1].decode("utf-8-sig") + "\n  }\n}")
        except (ValueError, RecursionError):
            pass
        else:
            if isinstance(value, dict) and isinstance(model := value.get("model"), dict):
                model.setdefault("merges", [])
                return value
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError("the file should hold a JSON object", where=str(path))
    return value


def _table(raw: Any, path: Path) -> dict[str, int]:
    if not isinstance(raw, dict):
        raise InputError("the model's vocab is not a table from tokens to ids", where=str(path))
    for token, index in raw.items():
        if type(index) is not int or index < 0:
            raise InputError(
                f"the token '{one_line(token[:40])}' has an id that is not a whole number from 0", where=str(path)
            )
    return dict(raw)


def _unigram(raw: Any, path: Path) -> dict[str, int]:
    rows = raw if isinstance(raw, list) else []
    if not rows or not all(isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in rows):
        raise InputError("the model's vocab is not a list of tokens and scores", where=str(path))
    return {row[0]: index for index, row in enumerate(rows)}


def _added(document: Mapping[str, Any], path: Path) -> Iterator[tuple[str, dict[str, bool]]]:
    tokens = document.get("added_tokens") or []
    if not isinstance(tokens, list) or not all(
        isinstance(token, dict) and isinstance(token.get("content"), str) for token in tokens
    ):
        raise InputError("added_tokens is not a list of tokens", where=str(path))
    for token in tokens:
        if token["content"]:
            yield token["content"], flags_of(token)


def _number(ids: dict[str, int], added: Mapping[str, Flags], following: int) -> None:
    """Assign ids, from `following` on, to the added tokens that have none."""
    for token in added:
        if token not in ids:
            ids[token] = following
            following += 1
