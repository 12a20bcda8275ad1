"""A digest of a vocabulary and its merges that does not depend on how the file is written.

tokenizer.json files of 10 to 30 MB are common. Writers differ in indentation, in the form of merges (`"a b"` or
`["a", "b"]`) and in whether added tokens are repeated in the vocabulary. The digest is therefore taken over a canonical
text. Building that text by parsing takes a third of a second. A file in the layout of the tokenizers library (two
spaces, tokens in the order of ids) is converted by replacing line breaks, which is several times faster, and exact
because JSON strings never contain a raw line break.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...statefile import open_regular
from ..locate import read_json_object

_BETWEEN = "\x1f"
"""Separates the halves of a merge. Like the line breaks between entries, it never occurs raw in a JSON string."""

_ID = re.compile(rb'": (\d{1,9})(?:,$|$)', re.MULTILINE)
_ESCAPE = re.compile(rb"\\(\\*)[u/]")


_Facts = tuple[str, int, "tuple[str, int] | None", str]
"""Digest, number of tokens, last token, and the digest of the merges alone."""

_known: dict[bytes, _Facts] = {}


def vocabulary_digest(path: Path) -> tuple[str, int]:
    """The digest (12 hex digits) of vocabulary and merges of a tokenizer.json, and the number of tokens.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    return _facts(path)[:2]


def last_token(path: Path) -> tuple[str, int] | None:
    """The token with the highest id of a tokenizer.json, and that id; None if it has no tokens.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    return _facts(path)[2]


def merges_digest(path: Path) -> str:
    """The digest (12 hex digits) of the merges of a tokenizer.json.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    return _facts(path)[3]


def _facts(path: Path) -> _Facts:
    try:
        with open_regular(path, follow=True) as file:
            raw = file.read()
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from error
    content = hashlib.sha256(raw).digest()
    if content not in _known:  # Donors of one family often have the same file.
        entries, merges, count = by_lines(raw) or by_parsing(read_json_object(path))
        digest = hashlib.sha256(entries + b"\n\n" + merges).hexdigest()[:12]
        _known[content] = digest, count, _last(entries), hashlib.sha256(merges).hexdigest()[:12]
    return _known[content]


def _last(entries: bytes) -> tuple[str, int] | None:
    """The entry of the last line, which has the highest id."""
    try:
        table = json.loads(b"{%s}" % entries[entries.rfind(b",\n") + 1 :])
    except ValueError:
        return None
    return next(iter(table.items()), None)


def merged_vocabulary(document: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id of a parsed tokenizer.json, added tokens included; the ids of a Unigram list are its positions."""
    model = document.get("model")
    raw = model.get("vocab") if isinstance(model, dict) else None
    vocabulary: dict[str, int] = {}
    if isinstance(raw, dict):
        vocabulary = {token: index for token, index in raw.items() if type(index) is int}
    elif isinstance(raw, list):
        vocabulary = {str(item[0]): index for index, item in enumerate(raw) if isinstance(item, list) and item}
    added = document.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict) and type(token.get("id")) is int:
            vocabulary[str(token.get("content"))] = token["id"]
    return vocabulary


def by_parsing(document: Mapping[str, Any]) -> tuple[bytes, bytes, int]:
    """The canonical texts of vocabulary (`"token": id` per line, by id) and merges, and the token count."""
    vocabulary = merged_vocabulary(document)
    ordered = dict(sorted(vocabulary.items(), key=lambda item: (item[1], item[0])))
    return _dumps(ordered, ": ")[1:-1].encode(), _canonical_merges(document).encode(), len(vocabulary)


def _canonical_merges(document: Mapping[str, Any]) -> str:
    """The halves of one merge per line, in order."""
    model = document.get("model")
    merges = model.get("merges") if isinstance(model, dict) else None
    if not isinstance(merges, list) or not merges:
        return ""
    if all(isinstance(merge, str) for merge in merges):
        return _dumps(merges)[2:-2].replace('",\n"', "\n").replace(" ", _BETWEEN)
    pairs = [merge if isinstance(merge, list) else [merge] for merge in merges]
    if not all(pair and all(isinstance(half, str) for half in pair) for pair in pairs):
        return _dumps(pairs)
    return _dumps(pairs)[3:-3].replace('"],\n["', "\n").replace('",\n"', _BETWEEN)


def _dumps(value: Any, colon: str = ":") -> str:
    # Lone surrogates cannot be encoded; escaped, they stay distinct from all other text.
    text = json.dumps(value, ensure_ascii=False, separators=(",\n", colon))
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def by_lines(raw: bytes) -> tuple[bytes, bytes, int] | None:
    """As `by_parsing`, without parsing; None if the file has another layout."""
    head, _, rest = raw.partition(b'\n  "model": {')
    model, _, tail = rest.partition(b"\n  }")
    vocab = _block(model, b'\n    "vocab": {\n      ', b"\n    }")
    merges = _block(model, b'\n    "merges": [\n      ', b"\n    ]")
    added = _block(head, b'\n  "added_tokens": [\n', b"\n  ]")
    # A file whose merges or added tokens have another layout is not read here (an empty list stands on one line).
    hidden = (merges is None and b'"merges": ' in model and b'\n    "merges": []' not in model) or (
        added is None and b'"added_tokens": ' in head and b'\n  "added_tokens": []' not in head
    )
    if vocab is None or hidden or tail.strip() != b"}" or _has_escapes(vocab) or _has_escapes(merges or b""):
        return None
    entries = vocab.replace(b"\n      ", b"\n")
    count = entries.count(b"\n") + 1
    if b",".join(_ID.findall(entries)) != ",".join(map(str, range(count))).encode():
        return None
    extra = _added_lines(entries, added or b"")
    if extra is None:
        return None
    return b",\n".join([entries, *extra]), _merge_lines(merges or b'""'), count + len(extra)


def _merge_lines(merges: bytes) -> bytes:
    if merges.startswith(b"["):
        pairs = merges[len(b'[\n        "') : -len(b'"\n      ]')]
        return pairs.replace(b'"\n      ],\n      [\n        "', b"\n").replace(b'",\n        "', _BETWEEN.encode())
    return merges[1:-1].replace(b'",\n      "', b"\n").replace(b" ", _BETWEEN.encode())


def _block(raw: bytes, start: bytes, stop: bytes) -> bytes | None:
    """The text between `start` and the next `stop`; None unless `start` occurs exactly once."""
    _before, _, rest = raw.partition(start)
    if not rest or start in rest:
        return None
    return rest[: rest.find(stop)]


def _has_escapes(text: bytes) -> bool:
    """Whether optional JSON escapes occur, which writers use differently (`\\u00e9`, `\\/`)."""
    return any(len(match[1]) % 2 == 0 for match in _ESCAPE.finditer(text))


def _added_lines(entries: bytes, added: bytes) -> list[bytes] | None:
    """Lines for added tokens that follow the vocabulary; None if one replaces an entry of it."""
    known = entries.split(b",\n")
    lines: dict[int, bytes] = {}
    try:
        tokens = [(token["id"], token["content"]) for token in json.loads(b"[" + added + b"]")]
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    for index, content in tokens:
        if type(index) is not int or index < 0 or index in lines or not isinstance(content, str):
            return None
        line = _dumps({content: index}, ": ")[1:-1].encode()
        if index >= len(known):
            lines[index] = line
        elif known[index] != line:
            return None
    if lines:
        names = {line[: line.rindex(b": ")] for line in known}
        new = {line[: line.rindex(b": ")] for line in lines.values()}
        if new & names or len(new) != len(lines):
            return None
    return [lines[index] for index in sorted(lines)]
