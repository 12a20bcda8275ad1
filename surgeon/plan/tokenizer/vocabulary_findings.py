"""Findings about an output's vocabulary: its rows, and the tokens that each donor lacks or loses."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from ...text import plural
from .donor_vocabularies import UNION, Note, VocabularyRequest, note, some
from .vocabulary_union import Composer


def vocabulary_notes(
    request: VocabularyRequest, composer: Composer, tokens: Sequence[str | None], own: Sequence[array[int]]
) -> Iterator[Note]:
    """Notes and warnings about a vocabulary.

    Args:
        request: the recipe's settings of the vocabulary.
        composer: the composed vocabulary.
        tokens: the output's tokens by id; None for an id without a token.
        own: for each donor, its row for each row of the output, or -1.
    """
    source = composer.source
    parts = []
    if composer.ids:
        parts.append(f"{plural(len(composer.ids) - len(composer.appended), 'token')} of {source.name}")
    if composer.appended:
        parts.append(f"{len(composer.appended):,} more ({some(list(composer.appended))})")
    bare = [index for index, token in enumerate(tokens) if token is None]
    if bare and composer.ids:
        kept = sum(index < (source.rows or 0) for index in bare) if source.letter else 0
        ways = [f"{kept:,} as in {source.name}"] if kept else []
        ways += [f"{len(bare) - kept:,} filled with the mean of the others"] if kept < len(bare) else []
        parts.append(f"{plural(len(bare), 'row')} without a token, {' and '.join(ways)}")
    what = f"The output has {plural(len(tokens), 'row')} of tokens, and vocab_size is set to that number"
    yield note("note", "rows", what, "; ".join(parts), place=request.place)
    yield from _rowless(composer, own)
    for number in range(len(composer.members)):
        yield from _of_donor(request, composer, number, own[number])


def _rowless(composer: Composer, own: Sequence[array[int]]) -> Iterator[Note]:
    """Tokens of the output for which no donor has a row."""
    nobody = [(token, index) for token, index in composer.ids.items() if index not in composer.fixed]
    for numbers, member in zip(own, composer.members, strict=True):
        rows = member.rows or 0
        nobody = [(token, index) for token, index in nobody if not 0 <= numbers[index] < rows]
    if nobody:
        texts = [token for token, _ in nobody]
        what = f"No donor has a row for {plural(len(nobody), 'token')} of the output: {some(texts)}"
        why = "each gets the mean of all other rows"
        yield note("warning", "token-rows", what, why, "train the model on these tokens before using them")


def _of_donor(request: VocabularyRequest, composer: Composer, number: int, own: array[int]) -> Iterator[Note]:
    member, vocabulary, ids = composer.members[number], composer.vocabularies[number], composer.ids
    name, rows = member.name, member.rows
    if not member.digest:
        why = f"its ids are assumed to mean the same as in {composer.base.name}"
        yield note("warning", "tokenizer", f"{name} has no tokenizer files", why)
    if rows is None:
        return
    beyond = [token for token, index in ids.items() if own[index] >= rows] if max(own, default=-1) >= rows else []
    if beyond:
        what = f"{name}'s tokenizer has {some(beyond)}, but its embedding of {rows:,} rows has no row for that"
        yield note("warning", "token-rows", what, "another donor's row or the mean of all rows is used instead")
    lacking = [token for token, index in ids.items() if own[index] < 0 and index not in composer.fixed]
    if lacking:
        what = f"{name} does not have {plural(len(lacking), 'token')} of the output: {some(lacking)}"
        why = "its table gets the row of the only donor with the token, else the base model's, else the donors' mean"
        yield note("note", "token-rows", what, why)
    lost = [token for token in vocabulary.ids if token not in ids] if vocabulary else []
    if lost and request.source != UNION:
        what = f"{plural(len(lost), 'token')} of {name} are not in the output: {some(lost)}"
        yield note("note", "tokens-lost", what, "the vocabulary is another donor's", "write `union` to keep them")
