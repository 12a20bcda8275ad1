"""Identity of a tokenizer: whether two checkpoints assign the same text to a token id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ...statefile import open_regular
from ..locate import read_json_object
from .vocabulary_digest import last_token, merged_vocabulary, merges_digest, vocabulary_digest

FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "merges.txt", "vocab.txt", "tekken.json", "spiece.model", "qwen.tiktoken", "tiktoken.model",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
"""Every file that a tokenizer can consist of; a new checkpoint copies them from its tokenizer's donor."""

_CORE = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "qwen.tiktoken",
    "tiktoken.model",
)
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")


@dataclass(frozen=True)
class Tokenizer:
    """Identity of a tokenizer: with equal `digest`, every id stands for the same text.

    Attributes:
        digest: 12 hex digits over vocabulary and merges; empty if there is no tokenizer.
        tokens: number of known tokens, added ones included; None if there is only a binary file.
        special: names of special ids (from the configs) and their values.
        files: the tokenizer files of the folder.
        last: the token with the highest id, and that id; None if it is not known.
    """

    digest: str
    tokens: int | None
    special: Mapping[str, Any]
    files: tuple[Path, ...]
    last: tuple[str, int] | None = None

    @property
    def json(self) -> Path | None:
        """Its tokenizer.json, if there is one."""
        return next((path for path in self.files if path.name == "tokenizer.json"), None)


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer in `folder`, with special ids from the model's config."""
    files = tuple(folder / name for name in FILES if (folder / name).is_file())
    special = {key: config[key] for key in _SPECIAL if config.get(key) is not None}
    core = [path for path in files if path.name in _CORE]
    if not core:
        return Tokenizer("", None, special, files)
    digest, tokens, last = _identity(tuple(map(_stamp, core)))
    return Tokenizer(digest, tokens, special, files, last)


_Stamp = tuple[Path, int, int]


def _stamp(path: Path) -> _Stamp:
    """(path, modification time, size) of a file, as a cache key for its content."""
    found = path.stat()
    return path, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=32)
def _identity(stamps: tuple[_Stamp, ...]) -> tuple[str, int | None, tuple[str, int] | None]:
    """Digest, token count and last token of the core files."""
    paths = [path for path, _, _ in stamps]
    if paths[0].name == "tokenizer.json":
        return *vocabulary_digest(paths[0]), last_token(paths[0])
    digest = hashlib.sha256()
    for path in paths:
        with open_regular(path, follow=True) as file:
            digest.update(file.read())
    return digest.hexdigest()[:12], None, None


def vocabulary_of(path: Path) -> dict[str, int]:
    """Token -> id of a tokenizer.json, added tokens included; the ids of a Unigram list are its positions."""
    return merged_vocabulary(read_json_object(path))


def first_difference(one: Tokenizer, other: Tokenizer) -> Difference | None:
    """The lowest id with different texts in two tokenizers; None if there is none or one has no tokenizer.json.

    Raises:
        InputError: a file cannot be read or is not JSON.
    """
    if one.json is None or other.json is None:
        return None
    return next(iter(_differences(_stamp(one.json), _stamp(other.json))), None)


class Difference(NamedTuple):
    """An id and its texts in two tokenizers; a text is None if the id is not a token there."""

    token_id: int
    mine: str | None
    theirs: str | None


class Relation(NamedTuple):
    """The comparison of two vocabularies in the ids that have a row.

    Attributes:
        conflict: the lowest id that is a different token in each; None if there is none.
        named: ids that are a token in only one and padding in the other, in order.
        splits_alike: whether both have the same merges, so that they split a text in the same way.
    """

    conflict: Difference | None
    named: tuple[Difference, ...]
    splits_alike: bool


def relation(one: Tokenizer, other: Tokenizer, rows: int) -> Relation | None:
    """The comparison of two tokenizers in ids below `rows`; None if they cannot be compared.

    Raises:
        InputError: a file cannot be read or is not JSON.
    """
    if one.json is not None and other.json is not None:
        return _relation(_stamp(one.json), _stamp(other.json), rows)
    mine, theirs = (next((p for p in t.files if p.name == "tokenizer.model"), None) for t in (one, other))
    if mine is None or theirs is None or _identity((_stamp(mine),))[0] != _identity((_stamp(theirs),))[0]:
        return None
    return Relation(None, (), True)


@lru_cache(maxsize=64)
def _relation(one: _Stamp, other: _Stamp, rows: int) -> Relation:
    found = [d for d in _differences(one, other) if d.token_id < rows]
    conflict = next((d for d in found if d.mine is not None and d.theirs is not None), None)
    named = tuple(d for d in found if d.mine is None or d.theirs is None)
    return Relation(conflict, named, merges_digest(one[0]) == merges_digest(other[0]))


@lru_cache(maxsize=32)
def _differences(one: _Stamp, other: _Stamp) -> tuple[Difference, ...]:
    mine, theirs = vocabulary_of(one[0]).items(), vocabulary_of(other[0]).items()
    here, there = ({index: text for text, index in items} for items in (mine - theirs, theirs - mine))
    return tuple(Difference(index, here.get(index), there.get(index)) for index in sorted(here.keys() | there.keys()))


@lru_cache(maxsize=32)
def _beyond(stamp: _Stamp, rows: int) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(((text, at) for text, at in vocabulary_of(stamp[0]).items() if at >= rows), key=lambda t: t[1]))


def tokens_beyond(tokenizer: Tokenizer, rows: int) -> tuple[tuple[str, int], ...]:
    """(token, id) of all tokens whose id is `rows` or more, in the order of ids.

    Raises:
        InputError: a file cannot be read or is not JSON.
    """
    if tokenizer.json is None or tokenizer.last is None or tokenizer.last[1] < rows:
        return ()
    return _beyond(_stamp(tokenizer.json), rows)
