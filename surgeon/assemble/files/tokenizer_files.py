"""Generate tokenizer files for a larger vocabulary or another chat template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...checkpoint.locate import read_json_object
from ...checkpoint.tokenizer.vocabulary import Vocabulary, read_vocabulary
from ...errors import InputError
from ...plan.new_tokenizer import SETTINGS, TEMPLATE, TOKENIZER, NewTokenizer

Merge = tuple[str, str]


def written(new: NewTokenizer) -> dict[str, bytes]:
    """The contents of the files named in `new.made`, by name; those in `new.copied` are copied instead.

    Raises:
        InputError: a donor's file cannot be read or is not a tokenizer.
    """
    texts: dict[str, str] = {}
    for name in new.made:
        if name == TOKENIZER:
            texts[name] = _dumped(_tokenizer(new))
        elif name == SETTINGS:
            texts[name] = json.dumps(_settings(new), indent=2, ensure_ascii=False) + "\n"
        elif name == TEMPLATE:
            texts[name] = new.template or ""
    # Lone surrogates, which JSON can express but UTF-8 cannot, are written as the escapes they were read from.
    return {name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}


def _dumped(document: Mapping[str, Any]) -> str:
    # No indent, because that uses Python's slow encoder: seconds for 300,000 entries.
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _tokenizer(new: NewTokenizer) -> dict[str, Any]:
    """The source's tokenizer.json with the new tokens.

    The loader ignores the ids in the file for added tokens that the model's vocabulary lacks, and uses the next free
    ids. These change when the vocabulary grows, so the added tokens are put into the vocabulary.
    """
    assert new.source.json is not None, "a vocabulary without tokenizer.json cannot grow"
    vocabulary = read_vocabulary(new.source)
    more = _candidates(new)  # Before the source is read, to have only one of these large files in memory.
    document = read_json_object(new.source.json)
    model = _model(document, new.source.json)
    if isinstance(model.get("vocab"), dict):
        model["vocab"].update({token: vocabulary.ids[token] for token in vocabulary.added})
        model["vocab"].update(new.appended)
    document["added_tokens"] = list(_added(new, vocabulary))
    if more:
        model["merges"] = _merged(model, more)
    return document


def _model(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    model = document.get("model")
    if not isinstance(model, dict):
        raise InputError("the file has no model, so it is not a tokenizer", where=str(path))
    return model


def _added(new: NewTokenizer, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """Every added token, by id."""
    found = {text: (vocabulary.ids[text], flags) for text, flags in vocabulary.added.items()}
    found.update({token.text: (token.index, token.flags) for token in new.added})
    for text, (index, flags) in sorted(found.items(), key=lambda item: item[1][0]):
        yield {"id": index, "content": text, **flags}


def _candidates(new: NewTokenizer) -> dict[Merge, None]:
    """The merges of other tokenizers that form new tokens, in order, without duplicates."""
    appended = {token for token, _ in new.appended}
    found: dict[Merge, None] = {}
    for path in new.merges:
        model = _model(read_json_object(path), path)
        for left, right in _pairs(model.get("merges") or []):
            if _formed(model, left, right) in appended:
                found[left, right] = None
    return found


def _merged(model: Mapping[str, Any], more: Mapping[Merge, None]) -> list[Any]:
    """The source's merges, followed by those of other tokenizers that form new tokens.

    Other tokenizers' merges that form a token of the source in another way are left out. So a text without new tokens
    is encoded as before: the source's merges have priority, and any later merge would produce a new token.
    """
    merges, vocab = list(model.get("merges") or []), model["vocab"]
    known = {pair for pair in _pairs(merges) if pair in more}
    # The tokenizers library refuses a merge whose halves or result are not in the vocabulary.
    fitting = [
        (left, right)
        for left, right in more
        if (left, right) not in known and {left, right, _formed(model, left, right)} <= vocab.keys()
    ]
    if all(isinstance(merge, str) for merge in merges) and not any(" " in half for pair in fitting for half in pair):
        return [*merges, *(" ".join(pair) for pair in fitting)]
    return [*map(list, _pairs(merges)), *map(list, fitting)]


def _formed(model: Mapping[str, Any], left: str, right: str) -> str:
    """The token that a merge forms from its halves."""
    prefix = model.get("continuing_subword_prefix")
    return left + right[len(prefix) if isinstance(prefix, str) else 0 :]


def _pairs(merges: list[Any]) -> Iterator[Merge]:
    """Merges as pairs, from either of the two forms in files; skips anything else."""
    for merge in merges:
        halves = merge.split(" ") if isinstance(merge, str) else merge
        if isinstance(halves, list) and len(halves) == 2:
            left, right = halves
            if isinstance(left, str) and isinstance(right, str):
                yield left, right


def _settings(new: NewTokenizer) -> dict[str, Any]:
    """The source's tokenizer_config.json with the new added tokens, and without its template if there is a new one."""
    (path,) = (path for path in new.source.files if path.name == SETTINGS)
    settings = read_json_object(path)
    if new.template is not None:
        settings.pop("chat_template", None)
    decoder = settings.get("added_tokens_decoder")
    if isinstance(decoder, dict) and new.grown:
        # All added tokens, with their current ids.
        entries = _added(new, read_vocabulary(new.source))
        settings["added_tokens_decoder"] = {str(entry.pop("id")): entry for entry in entries}
    return settings
