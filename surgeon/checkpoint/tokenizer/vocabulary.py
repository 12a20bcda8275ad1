"""The tokens that a tokenizer knows and their ids, as the tokenizers library and transformers number them.

`model.vocab` of a tokenizer.json says ids outright. The id beside an added token does not count when the file is
loaded: a token of the vocabulary keeps its id there, the others are numbered in the order of the file, from the size of
the vocabulary on. Tokens that only tokenizer_config.json or the files of old checkpoints name follow after the highest
added one. (Observed with tokenizers 0.23 and transformers 5; older ones differ where a vocabulary has holes.)
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
from ...text import one_line
from ..locate import read_json, read_json_object
from .tokenizer_identity import Tokenizer

MAX_ID = 2**22
"""Ids from here on are refused: the largest vocabularies have a quarter of a million, and tables are made of them."""

FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
"""What an added token has besides its text, and what tokenizers takes where it is not said."""

_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("extra_special_tokens", "additional_special_tokens")
_RULES = ("normalizer", "pre_tokenizer")
_MODEL_RULES = ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges")
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_MERGES = b'\n    "merges": ['

Flags = Mapping[str, bool]


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer knows.

    Attributes:
        kind: `BPE`, `WordPiece`, `Unigram` or `WordLevel`.
        ids: token -> id, in the order of ids; two tokens may share one in a broken file.
        added: the tokens that are found in a text before it is split, and how; in the order they are loaded.
        rules: digest of how text is cut before tokens are looked for.
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
    """The vocabulary of a tokenizer that has a tokenizer.json. What was read is remembered while the files stay.

    Raises:
        InputError: there is none, it cannot be read, or it is not one.
    """
    if tokenizer.json is None:
        raise InputError("there is no tokenizer.json, which vocabularies are read from")
    return _read(tokenizer.json, declared(tokenizer), _stamp(tokenizer.json))


def declared(tokenizer: Tokenizer) -> tuple[tuple[str, tuple[bool, ...]], ...]:
    """Added tokens (text and the values of `FLAGS`) that the files beside a tokenizer.json name, in loading order.

    Raises:
        InputError: one of the files cannot be read or is not JSON.
    """
    names = {path.name: path for path in tokenizer.files}
    wanted = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    return _declared(tuple((names[name], _stamp(names[name])) if name in names else None for name in wanted))


def flags_of(token: Mapping[str, Any], **fallback: bool) -> dict[str, bool]:
    """An added token's flags from JSON."""
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
        # transformers looks at the older files only without that key.
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
    """Special tokens that a tokenizer_config.json names by their role, then the others that it lists."""
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
def _read(path: Path, beside: tuple[tuple[str, tuple[bool, ...]], ...], stamp: tuple[int, int]) -> Vocabulary:
    document = _document(path)
    model = document.get("model")
    if not isinstance(model, dict):
        raise InputError("the file has no model, so it is no tokenizer", where=str(path))
    kind = kind_of(model)
    raw = model.get("vocab")
    ids = _unigram(raw, path) if kind == "Unigram" else _table(raw, path)
    size = len(raw or ())
    added = dict(_added(document, path))
    _number(ids, added, size)
    last = max((ids[token] for token in added), default=-1)
    for text, values in beside:
        added.setdefault(text, dict(zip(FLAGS, values, strict=True)))
    _number(ids, added, max(size, last + 1))
    for token, index in ids.items():
        if index >= MAX_ID:
            raise InputError(
                f"the token '{one_line(token[:40])}' has the id {index:,}, and no vocabulary is that large",
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
    """The kind of a tokenizer.json's model; files of old do not say it."""
    stated = model.get("type")
    if isinstance(stated, str):
        return stated
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "max_input_chars_per_word" in model else "WordLevel"


def _document(path: Path) -> dict[str, Any]:
    """The file without its merges, which are half of it and of no interest here."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from error
    # As the tokenizers library lays files out, merges end the model and the model ends the file. A JSON string never
    # holds a raw line break, so that these bytes are what they look like.
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
        raise InputError("the model's vocab is not a table of tokens and ids", where=str(path))
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
    """Give ids, from `following` on, to the added tokens that have none."""
    for token in added:
        if token not in ids:
            ids[token] = following
            following += 1
