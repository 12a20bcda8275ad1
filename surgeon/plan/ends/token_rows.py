"""Compare the donors' tokenizers, and determine the number of token rows of the output.

Embeddings and heads are padded to different multiples, so donors with the same tokenizer may have different numbers of
rows. The output gets the smaller number: it covers every token, it copies leading rows, and no row is invented. A row
of zeros in a head would be harmful, because its logit of 0 exceeds negative logits.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ...checkpoint import TensorEntry, dtypes
from ...checkpoint.locate import read_json_object
from ...checkpoint.tokenizer.tokenizer_identity import (
    Difference,
    Relation,
    Tokenizer,
    first_difference,
    relation,
    tokens_beyond,
)
from ...errors import InputError
from ...text import one_line, plural
from ..findings import Finding
from ..model import Donor, PlannedEnd, PlannedTensor
from ..operands import Blend, Operand, Rows, Stored
from .end_owners import Owners

_SPECIAL = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")
_SHOWN = 40

Ends = dict[str, PlannedEnd]


def compare_tokenizers(who: Owners, others: Sequence[Donor], template: Donor) -> Iterator[Finding]:
    """Compare the meaning of token ids between the donor of the embeddings and the donors of all other parts."""
    embeddings = who.embeddings
    base = embeddings.checkpoint.tokenizer
    ends = {template.letter, *who.of("embeddings").letters, *who.of("lm_head").letters}
    for donor in others:
        mine = donor.checkpoint.tokenizer
        matters = donor.letter in ends
        rows = (_rows(embeddings), _rows(donor))
        if donor.letter == embeddings.letter or (base.digest and mine.digest == base.digest):
            continue
        related = _related(base, mine, rows)
        if related is not None and related.conflict is None and related.splits_alike:
            if related.named:
                yield _named(embeddings, donor, related.named, matters)
            continue
        if rows[0] == rows[1] and not (mine.digest and base.digest):
            if matters and bool(mine.digest) != bool(base.digest):
                yield _unknown(embeddings, donor)
            continue
        sizes = f" ({rows[0]:,} and {rows[1]:,} rows)" if rows[0] and rows[1] and rows[0] != rows[1] else ""
        yield Finding(
            "error" if matters else "warning",
            "tokenizer",
            f"{embeddings.letter} and {donor.letter} have different {'vocabularies' if sizes else 'tokenizers'}{sizes}"
            + _first(embeddings, donor),
            "every token id must mean the same in the embeddings, the head and the tokenizer"
            if matters
            else f"{donor.letter}'s layers were trained on other tokens than {embeddings.letter}'s embeddings have",
            _remedy([embeddings, *others]) if matters else "expect worse text than from donors with one tokenizer",
        )


def _related(one: Tokenizer, other: Tokenizer, rows: tuple[int | None, int | None]) -> Relation | None:
    """The relation of two tokenizers over tables of equal height; None if heights differ or a file is unreadable."""
    if rows[0] is None or rows[0] != rows[1]:
        return None
    with suppress(InputError):
        return relation(one, other, rows[0])
    return None


def _named(one: Donor, other: Donor, found: Sequence[Difference], matters: bool) -> Finding:
    """A finding about rows that are padding in one donor and tokens in the other, which do not conflict."""
    first = found[0]
    owner, lacking = (one, other) if first.theirs is None else (other, one)
    more = f" and {len(found) - 1:,} more" if len(found) > 1 else ""
    token = first.mine if first.theirs is None else first.theirs
    return Finding(
        "warning" if matters else "note",
        "tokenizer-padding",
        f"{_quoted(token)} (id {first.token_id:,}){more} {'is' if not more else 'are'} "
        f"{'a token' if not more else 'tokens'} in {owner.letter}, but padding in {lacking.letter}",
        f"{lacking.letter}'s rows for {'it' if not more else 'them'} were never trained",
        "set `tokenizer_source: base` or `union` so that every token gets the row of a donor that has the token",
    )


def _remedy(donors: Sequence[Donor]) -> str:
    """The remedy for conflicting tokens; tokenizer_source works only if every vocabulary is readable."""
    if all(donor.checkpoint.tokenizer.json is not None for donor in donors):
        return (
            "set `tokenizer_source: base`, or one of the models, or `union` of BPE tokenizers, so that rows follow "
            "their tokens; or take embeddings, head and base_model from donors with one tokenizer"
        )
    return "take embeddings, head and base_model from donors with one tokenizer"


def _first(one: Donor, other: Donor) -> str:
    """The first token that differs, as the end of a sentence; empty if it is unknown."""
    mine, theirs = one.checkpoint.tokenizer, other.checkpoint.tokenizer
    try:
        difference = first_difference(mine, theirs)
    except InputError:
        return ""
    if difference is None:
        same = mine.json and theirs.json
        return ": every id has the same text, but texts are split differently" if same else ""
    index, text, its = difference
    return f": id {index} is {_quoted(text)} in {one.letter} and {_quoted(its)} in {other.letter}"


def _quoted(text: str | None) -> str:
    if text is None:
        return "no token"
    return f"'{one_line(text[:_SHOWN])}{'...' if len(text) > _SHOWN else ''}'"


def _unknown(embeddings: Donor, donor: Donor) -> Finding:
    bare = donor if not donor.checkpoint.tokenizer.digest else embeddings
    return Finding(
        "note",
        "tokenizer-unknown",
        f"{bare.letter} has no tokenizer files, so its token ids cannot be compared",
        f"only the number of rows is compared, and both donors have {plural(_rows(bare) or 0, 'row')}",
    )


def _rows(donor: Donor) -> int | None:
    """Rows of the token embedding."""
    table = donor.checkpoint.token_embedding
    return table.shape[0] if table else None


def fit_rows(ends: Ends, who: Owners, template: Donor) -> tuple[Ends, int | None, list[Finding]]:
    """The ends with equal numbers of rows, that number (None if it is the embedding's own), and findings.

    Rows are the first dimension of an embedding, a head and a head's bias. If the two donors' tokenizers differ,
    the ends stay unchanged and `compare_tokenizers` reports the difference.
    """
    table, head = _table(ends, who.embeddings), ends["lm_head"]
    if table is None:
        return ends, None, []
    have = table.shape[0]
    counts = {tensor.shape[0] for tensor in head.tensors if tensor.shape} or {have}
    one, other = who.embeddings, who.lm_head
    mine, theirs = one.checkpoint.tokenizer, other.checkpoint.tokenizer
    rows = min(have, *counts)
    if counts == {have}:
        if have != _rows(one):
            return ends, have, [_blended_rows(have, who)]
        return ends, None, list(_config_rows(have, one, template))
    if not (mine.digest and mine.digest == theirs.digest):
        return ends, None, []
    if why := _cannot_crop(table, head, mine, rows):
        return ends, None, [_refused(one, have, other, max(counts), why)]
    finding = Finding(
        "note",
        "rows",
        f"The output has {rows:,} rows of tokens: the last {max(have, *counts) - rows:,} of "
        f"{'the embedding' if have > rows else 'the head'} are left out",
        f"{one.letter}'s embedding has {have:,} rows, {other.letter}'s head has {max(counts):,}, and the rows above id "
        f"{mine.last[1] if mine.last else rows - 1:,}, the last of their common tokenizer, are padding",
    )
    cropped = {
        role: replace(
            end, tensors=tuple(_cropped(t, rows) if t is table or role == "lm_head" else t for t in end.tensors)
        )
        for role, end in ends.items()
    }
    return cropped, rows, [finding]


def _table(ends: Mapping[str, PlannedEnd], donor: Donor) -> PlannedTensor | None:
    table, own = donor.checkpoint.token_embedding, donor.checkpoint.ends["embeddings"]
    return next((tensor for tensor in ends["embeddings"].tensors if own.get(tensor.place.suffix) is table), None)


def _blended_rows(rows: int, who: Owners) -> Finding:
    """A note that tables of different heights are blended."""
    heights = ", ".join(f"{donor.letter} {_rows(donor):,}" for donor in who.of("embeddings").donors)
    return Finding(
        "note",
        "rows",
        f"The output has {rows:,} rows of tokens, those that all donors have",
        f"the donors have the same tokenizer but pad its table differently ({heights} rows)",
    )


def _config_rows(rows: int, donor: Donor, template: Donor) -> Iterator[Finding]:
    theirs = _rows(template)
    mine, base = donor.checkpoint.tokenizer, template.checkpoint.tokenizer
    if theirs not in (None, rows) and mine.digest and mine.digest == base.digest:
        yield Finding(
            "note",
            "rows",
            f"The output has {rows:,} rows of tokens, as many as {donor.letter}'s embedding, and vocab_size is changed",
            f"{template.letter}, the donor of the config, has the same tokenizer but pads its table to {theirs:,} rows",
        )


def _cannot_crop(table: PlannedTensor, head: PlannedEnd, tokenizer: Tokenizer, rows: int) -> str:
    """Why the surplus rows cannot be left out; empty if they can."""
    for tensor in (table, *head.tensors):
        codes = {entry.dtype for entry in tensor.source.entries()}
        plain = tensor.name.endswith((".weight", ".bias")) and codes <= dtypes.ARITHMETIC
        if not plain or not tensor.shape:
            return f"{one_line(tensor.name)} is packed ({tensor.dtype}), so its rows cannot be separated"
    if tokenizer.last is None:
        return "without a tokenizer.json it is unknown how many rows are in use"
    text, index = tokenizer.last
    if index >= rows:
        return f"the smaller one has no row for {_quoted(text)}, id {index:,}"
    return ""


def _refused(one: Donor, rows: int, other: Donor, others: int, why: str) -> Finding:
    return Finding(
        "error",
        "rows",
        f"{one.letter}'s embedding of {rows:,} rows does not fit {other.letter}'s head of {others:,} rows",
        why,
        "take embeddings and head from one donor",
    )


def _cropped(tensor: PlannedTensor, rows: int) -> PlannedTensor:
    """The first rows of a tensor."""
    source = tensor.source
    if isinstance(source, Blend):
        source = replace(source, inputs=tuple(first_rows(operand, rows) for operand in source.inputs))
    else:
        source = replace(source, entry=_first_rows(source.entry, rows))
    return replace(tensor, shape=(rows, *tensor.shape[1:]), source=source)


def _first_rows(entry: TensorEntry, rows: int) -> TensorEntry:
    """The first rows of a stored tensor, as an entry for its first bytes."""
    return entry._replace(shape=(rows, *entry.shape[1:]), nbytes=entry.nbytes // entry.shape[0] * rows)


def first_rows(operand: Operand, rows: int) -> Operand:
    """The first rows of an operand; the operand itself if it has no more."""
    if operand.shape[0] == rows:
        return operand
    if isinstance(operand, Stored):
        return Stored(_first_rows(operand.entry, rows))
    return Rows((operand,), (array("i", range(rows)).tobytes(),))


def one_height(operands: Sequence[Operand], donors: Sequence[Donor]) -> list[Operand] | None:
    """Token tables without their surplus padding rows; None if they differ in more than padding."""
    rows = min((operand.shape[0] for operand in operands if operand.shape), default=0)
    rest = {operand.shape[1:] for operand in operands}
    found = {donor.checkpoint.tokenizer.digest for donor in donors}
    last = donors[0].checkpoint.tokenizer.last
    if len(rest) > 1 or len(found) > 1 or None in found or last is None or last[1] >= rows:
        return None
    return [first_rows(operand, rows) for operand in operands]


def is_part(entry: TensorEntry, whole: TensorEntry) -> bool:
    """Whether an entry is the tensor `whole` of a file, or the first rows of it."""
    same = entry._replace(shape=whole.shape, nbytes=whole.nbytes) == whole
    return same and entry.shape[1:] == whole.shape[1:] and entry.nbytes <= whole.nbytes


def beyond(ends: Mapping[str, PlannedEnd], who: Owners, template: Donor) -> Iterator[Finding]:
    """Tokens and special ids of the output for which its embedding has no row.

    The finding is an error if the template has the row, else a warning, because the template has the same flaw.
    """
    table = _table(ends, who.embeddings)
    own, tokenizer = _rows(template), template.checkpoint.tokenizer
    if table is None or own is None or tokenizer.digest != who.embeddings.checkpoint.tokenizer.digest:
        return
    rows = table.shape[0]
    try:
        lacking = tokens_beyond(tokenizer, rows)
    except InputError:
        lacking = ()
    if lacking:
        text, index = lacking[0]
        more = f" and {len(lacking) - 1:,} more" if len(lacking) > 1 else ""
        yield Finding(
            "error" if index < own else "warning",
            "token-rows",
            f"The token {_quoted(text)} (id {index:,}){more} has no row in the embedding, which has {rows:,}",
            "the model cannot read a text that contains it",
            "take the embeddings from a donor that has the rows" if index < own else "",
        )
    texts = {index: text for text, index in lacking}
    for key, index in _special_ids(template):
        if index >= rows:
            name = f"{_quoted(texts[index])}, " if index in texts else ""
            yield Finding(
                "error" if index < own else "warning",
                "special-id",
                f"{key} ({name}id {index:,}) has no row in the embedding, which has {rows:,}",
                "the model can neither read nor write it",
                "take the embeddings from a donor that has the row, or set another id in the donor's files",
            )


def _special_ids(template: Donor) -> Iterator[tuple[str, int]]:
    """Special ids by their key, from the config and the generation config."""
    tables: list[Mapping[str, Any]] = [template.checkpoint.config.text] if template.checkpoint.config else []
    path = template.checkpoint.folder / "generation_config.json"
    if path.is_file():
        with suppress(InputError):  # The file is copied unchanged; whatever loads it reports the error.
            tables.append(read_json_object(path))
    seen: set[tuple[str, int]] = set()
    for table in tables:
        for key in _SPECIAL:
            value = table.get(key)
            for index in value if isinstance(value, list) else [value]:
                if type(index) is int and index >= 0 and (key, index) not in seen:
                    seen.add((key, index))
                    yield key, index
