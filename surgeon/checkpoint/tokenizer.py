"""Who a tokenizer is: do two checkpoints mean the same by token 1234?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .locate import read_json_object
from .tokenizer_digest import merged_vocabulary, vocabulary_digest

FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "merges.txt", "vocab.txt", "tekken.json", "spiece.model", "chat_template.jinja",
    "chat_template.json",
)  # fmt: skip
"""Every file a tokenizer may be made of; what a new checkpoint takes from its tokenizer's donor."""

_CORE = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")


@dataclass(frozen=True)
class Tokenizer:
    """Identity of a tokenizer: equal `digest` means that every id stands for the same text.

    Attributes:
        digest: 12 hex digits over vocabulary and merges; empty when there is no tokenizer.
        tokens: number of known tokens, added ones included; None when only a binary file is there.
        special: names of special ids (from the configs) and their values.
        files: the tokenizer files of the folder.
    """

    digest: str
    tokens: int | None
    special: Mapping[str, Any]
    files: tuple[Path, ...]


def read_tokenizer(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer in `folder`, its special ids completed from the model's config."""
    files = tuple(folder / name for name in FILES if (folder / name).is_file())
    special = {key: config[key] for key in _SPECIAL if config.get(key) is not None}
    core = [path for path in files if path.name in _CORE]
    if not core:
        return Tokenizer("", None, special, files)
    stamps = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in core)
    digest, tokens = _identity(stamps)
    return Tokenizer(digest, tokens, special, files)


@lru_cache(maxsize=32)
def _identity(stamps: tuple[tuple[Path, int, int], ...]) -> tuple[str, int | None]:
    """Digest and token count of the core files; the time stamps are there for the cache."""
    paths = [path for path, _, _ in stamps]
    if paths[0].name == "tokenizer.json":
        return vocabulary_digest(paths[0])
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12], None


def vocabulary_of(path: Path) -> dict[str, int]:
    """Token -> id of a tokenizer.json, added tokens included; a Unigram list is numbered in its order."""
    return merged_vocabulary(read_json_object(path))
