"""The output's vocabulary if the recipe sets one: its tokens, and every donor's rows in the new order.

The vocabulary is that of one donor with unchanged ids, or the union: the base model's (else the first donor's), then
the tokens of the others in the order of donors and ids. Ids without a token (gaps, and padding after the last) keep the
rows of the donor whose vocabulary it is; only `pad_to_multiple_of` removes or adds padding. Tokens for which no donor
has a row are not an error: they get the mean of all rows, and a finding reports them.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...checkpoint.tokenizer.vocabulary import MAX_ID
from ...recipe.schema import Recipe
from ..ends.token_rows import first_rows
from ..findings import Finding
from ..model import Donor
from ..new_tokenizer import NewTokenizer
from ..operands import Operand, Rows
from .donor_vocabularies import (
    BASE,
    UNION,
    Line,
    Member,
    Note,
    VocabularyRequest,
    members,
    note,
    outsider,
    placed,
    requested,
)
from .row_rules import Fixed, packed, takes
from .vocabulary_findings import vocabulary_notes
from .vocabulary_union import Composer

_SPECIAL_IDS = ("_token_id", "_token_ids", "_token_index")


@dataclass(frozen=True)
class Built:
    """The output's vocabulary, and how the donors' rows become its rows.

    Attributes:
        tokens: the tokens by id; None for an id without a token.
        files: the tokenizer files; None if they cannot be made.
        findings: the findings; if one is an error, donors keep their tables.
    """

    tokens: tuple[str | None, ...]
    files: NewTokenizer | None
    findings: tuple[Finding, ...]
    _letters: tuple[str, ...] = ()
    _own: tuple[array[int], ...] = ()
    _base: int | None = None
    _fixed: Mapping[int, Fixed] = field(default_factory=dict)
    _taken: dict[Any, dict[int, array[int]]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Number of rows of the output's embedding and head; 0 if there are errors."""
        return len(self.tokens)

    def operand(self, letter: str, tables: Mapping[str, Operand]) -> Operand:
        """A donor's table, with the rows of the output's vocabulary.

        Args:
            letter: the donor.
            tables: the same table (embedding, head, or the head's bias) of every donor that has one, by letter,
                including the donor's own. Tables of another width are ignored.
        """
        own = tables[letter]
        if letter not in self._letters or not own.shape:
            return own
        heights = tuple(
            tables[other].shape[0] if other in tables and tables[other].shape[1:] == own.shape[1:] else None
            for other in self._letters
        )
        found = self._takes(self._letters.index(letter), heights)
        if len(found) == 1:
            (numbers,) = found.values()
            if numbers == packed(range(len(numbers))):
                return first_rows(own, len(numbers))
        parts = tuple(tables[self._letters[other]] for other in found)
        return Rows(parts, tuple(numbers.tobytes() for numbers in found.values()))

    def _takes(self, donor: int, heights: tuple[int | None, ...]) -> dict[int, array[int]]:
        key = donor, heights
        if key not in self._taken:
            self._taken[key] = takes(donor, self._own, heights, self._base, self._fixed)
        return self._taken[key]

    def renumbered(self, letter: str, table: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
        """The special ids of a donor's config (or generation config) that differ in the output.

        Args:
            letter: the donor.
            table: its config, with `eos_token_id` and similar keys.
            other: the config of the output's tokenizer, for ids whose tokens the output does not have.

        Returns:
            The new values by key; None as a value if `other` has no such key.
        """
        if letter not in self._letters:
            return {}
        own = self._own[self._letters.index(letter)]
        changed: dict[str, Any] = {}
        for key, value in table.items():
            ids = value if isinstance(value, list) else [value]
            if not key.endswith(_SPECIAL_IDS) or not ids or not all(type(index) is int for index in ids):
                continue
            found = [index if index < 0 else own.index(index) for index in ids if index < 0 or index in own]
            if not found:
                changed[key] = other.get(key)
            else:
                changed[key] = found if isinstance(value, list) else found[0]
        return {key: value for key, value in changed.items() if value != table[key]}


def build(
    recipe: Recipe,
    donors: Sequence[Donor],
    base: Donor | None,
    *,
    line: Line = lambda *place: None,
    roots: Sequence[Path] = (),
) -> Built | None:
    """The output's vocabulary; None if the recipe sets none.

    Args:
        recipe: the recipe, with its `tokenizer_source` or `tokenizer`.
        donors: all donors of the merge in order, including the base model.
        base: the recipe's base_model; None without one.
        line: gives the line of a place in the recipe.
        roots: folders in which to look for a tokenizer without a donor.

    Never raises for errors in the recipe or the donors; these are findings.
    """
    request = requested(recipe)
    if request is None or not donors:
        return None
    notes: list[Note] = []
    if recipe.tokenizer is not None and recipe.tokenizer_source is not None:
        what = "The recipe has both tokenizer and tokenizer_source"
        why = "each sets the vocabulary"
        notes.append(note("error", "tokenizer", what, why, "remove one of the two", ("tokenizer_source",)))
    known = members(donors, notes)
    number = next((index for index, donor in enumerate(donors) if base and donor.letter == base.letter), None)
    source: Member | None = known[number or 0]
    if request.source not in (UNION, BASE):
        own = next((member for member in known if member.ref == request.source), None)
        source = own or outsider(request, roots, known, notes)
    if source is not None and not source.digest:
        # If no donor has a tokenizer, only the tables are merged, and the key makes no difference.
        bare = not any(member.digest for member in known) and request.source != UNION and not request.tokens
        why = "the recipe takes the vocabulary from it" + (", and no other donor has any" if bare else "")
        what = f"{source.name} has no tokenizer files"
        remedy = f"remove `{request.place[0]}`" if bare else "name another source"
        notes.append(note("warning" if bare else "error", "tokenizer", what, why, remedy, request.place))
        if bare:
            return Built((), None, placed(notes, line))
    if source is None or _failed(notes):
        return Built((), None, placed(notes, line))
    made, more = _made(request, known, source, number)
    return replace(made, findings=placed([*notes, *more], line))


def _failed(notes: Sequence[Note]) -> bool:
    return any(finding.severity == "error" for _, finding in notes)


@lru_cache(maxsize=4)
def _made(
    request: VocabularyRequest, known: tuple[Member, ...], source: Member, base: int | None
) -> tuple[Built, list[Note]]:
    """The vocabulary without lines, cached because the TUI replans at every key, mostly with the same vocabularies."""
    composer = Composer(request, known, source, known[base or 0])
    if not _failed(composer.notes):
        if request.source == UNION:
            composer.unite(request.place)
        composer.override(request)
    rows = _rows(request, composer)
    if _failed(composer.notes):
        return Built((), None, ()), composer.notes
    tokens: list[str | None] = [None] * rows
    for token, index in reversed(composer.ids.items()):
        tokens[index] = token
    own = tuple(_own(composer, index, tokens) for index in range(len(known)))
    letters = tuple(member.letter for member in known)
    built = Built(tuple(tokens), composer.files(), (), letters, own, base, composer.fixed)
    return built, [*composer.notes, *vocabulary_notes(request, composer, built.tokens, own)]


def _rows(request: VocabularyRequest, composer: Composer) -> int:
    """The number of rows of the output: its tokens, and the source's padding unless `pad_to_multiple_of` is set."""
    source, end = composer.source, composer.end
    rows = max(end, source.rows or 0)
    if request.multiple is not None:
        # Without readable tokens only the height of the table is known.
        end = end or rows
        rows = -(-end // request.multiple) * request.multiple
    if rows > MAX_ID:
        what = f"The output would have {rows:,} rows of tokens"
        remedy = "set a smaller pad_to_multiple_of" if request.multiple else f"remove {source.name}"
        place = ("tokenizer", "pad_to_multiple_of") if request.multiple else request.place
        composer.notes.append(note("error", "rows", what, f"the limit is {MAX_ID:,}", remedy, place))
    return rows


def _own(composer: Composer, number: int, tokens: Sequence[str | None]) -> array[int]:
    """A donor's row for each row of the output, or -1."""
    vocabulary = composer.vocabularies[number]
    if vocabulary is None:
        numbers = packed(range(len(tokens)))
        for index in composer.appended.values():
            numbers[index] = -1
        return numbers
    ids = vocabulary.ids
    return packed([-1 if token is None else ids.get(token, -1) for token in tokens])
