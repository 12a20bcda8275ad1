"""Tokenizer files that no donor has as they are: a vocabulary that has grown, another chat template."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.locate import read_json_object
from ..checkpoint.vocabulary import Vocabulary, read_vocabulary
from ..errors import InputError
from ..plan.newtokenizer import SETTINGS, TEMPLATE, TOKENIZER, NewTokenizer

Merge = tuple[str, str]


def written(new: NewTokenizer) -> dict[str, bytes]:
    """The contents of the files that `new.made` names; `new.copied` are those to copy.

    Raises:
        InputError: a donor's file cannot be read, or is no tokenizer.
    """
    texts: dict[str, str] = {}
    for name in new.made:
        if name == TOKENIZER:
            texts[name] = _dumped(_tokenizer(new))
        elif name == SETTINGS:
            texts[name] = json.dumps(_settings(new), indent=2, ensure_ascii=False) + "\n"
        elif name == TEMPLATE:
            texts[name] = new.template or ""
    # Lone surrogates, which JSON can name and UTF-8 cannot, become the escapes they were read from.
    return {name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}


def _dumped(document: Mapping[str, Any]) -> str:
    # Without an indent, which would take Python's own encoder: seconds for 300,000 entries.
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _tokenizer(new: NewTokenizer) -> dict[str, Any]:
    """The source's tokenizer.json with the new tokens.

    The loader gives added tokens that the model's vocabulary lacks the next free ids, whatever the file says; that
    would be others once the vocabulary has grown, so they are put into it.
    """
    assert new.source.json is not None, "a tokenizer without tokenizer.json cannot have grown"
    vocabulary = read_vocabulary(new.source)
    document = read_json_object(new.source.json)
    model = _model(document, new.source.json)
    if isinstance(model.get("vocab"), dict):
        model["vocab"].update({token: vocabulary.ids[token] for token in vocabulary.added})
        model["vocab"].update(new.appended)
    document["added_tokens"] = list(_added(new, vocabulary))
    if new.merges:
        model["merges"] = _merged(model, new)
    return document


def _model(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    model = document.get("model")
    if not isinstance(model, dict):
        raise InputError("the file has no model, so it is no tokenizer", where=str(path))
    return model


def _added(new: NewTokenizer, vocabulary: Vocabulary) -> Iterator[dict[str, Any]]:
    """Every added token, by id."""
    found = {text: (vocabulary.ids[text], flags) for text, flags in vocabulary.added.items()}
    found.update({token.text: (token.index, token.flags) for token in new.added})
    for text, (index, flags) in sorted(found.items(), key=lambda item: item[1][0]):
        yield {"id": index, "content": text, **flags}


def _merged(model: Mapping[str, Any], new: NewTokenizer) -> list[Any]:
    """The source's merges, and behind them those of others that form new tokens.

    Others' merges that form a token of the source in another way are left out. So a text in which no new token occurs
    is encoded as it was: the source's merges come first, and any later one leaves a new token behind.
    """
    merges, vocab = list(model.get("merges") or []), model["vocab"]
    known = set(_pairs(merges))
    appended = dict(new.appended)
    skip = len(model.get("continuing_subword_prefix") or "")
    more: list[Merge] = []
    for path in new.merges:
        for left, right in _pairs(_model(read_json_object(path), path).get("merges") or []):
            fits = left + right[skip:] in appended and left in vocab and right in vocab
            if fits and (left, right) not in known:
                known.add((left, right))
                more.append((left, right))
    if all(isinstance(merge, str) for merge in merges) and not any(" " in half for pair in more for half in pair):
        return [*merges, *(" ".join(pair) for pair in more)]
    return [*map(list, _pairs(merges)), *map(list, more)]


def _pairs(merges: list[Any]) -> Iterator[Merge]:
    """Merges as pairs, whichever of the two forms they have; what has neither is passed over."""
    for merge in merges:
        halves = merge.split(" ") if isinstance(merge, str) else merge
        if isinstance(halves, list) and len(halves) == 2:
            left, right = halves
            if isinstance(left, str) and isinstance(right, str):
                yield left, right


def _settings(new: NewTokenizer) -> dict[str, Any]:
    """tokenizer_config.json: the new added tokens among those it lists, and no template beside the new one."""
    (path,) = (path for path in new.source.files if path.name == SETTINGS)
    settings = read_json_object(path)
    if new.template is not None:
        settings.pop("chat_template", None)
    decoder = settings.get("added_tokens_decoder")
    if isinstance(decoder, dict) and new.grown:
        # Every one of them, with the ids that hold now.
        entries = _added(new, read_vocabulary(new.source))
        settings["added_tokens_decoder"] = {str(entry.pop("id")): entry for entry in entries}
    return settings
