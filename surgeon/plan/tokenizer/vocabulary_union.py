"""Compose the output's tokens and ids: one vocabulary or the union of several, and tokens that the recipe sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...checkpoint.tokenizer.vocabulary import FLAGS, Flags, Vocabulary
from ...errors import InputError
from ...recipe.schema import TokenOverride, TokenRow
from ...text import nearest, one_line, plural
from ..new_tokenizer import AddedToken, NewTokenizer
from .donor_vocabularies import Member, Note, Place, VocabularyRequest, note, quoted, some, unreadable
from .row_rules import Fixed


class Composer:
    """Builds a vocabulary from that of a source.

    Attributes:
        members: the donors' vocabularies.
        source: the vocabulary to begin with.
        base: the base model's vocabulary, which also holds for donors without a tokenizer.
        vocabularies: the tokens of each donor; None if they are unreadable or their ids mean the same as the source's.
        ids: token -> id, in ascending order of ids.
        end: one more than the highest id.
        appended: the tokens that the source does not have, with their ids.
        fixed: by id, the row that the recipe sets.
        notes: findings.
    """

    def __init__(self, request: VocabularyRequest, members: Sequence[Member], source: Member, base: Member) -> None:
        self.members = members
        self.source = source
        self.base = base
        self.notes: list[Note] = []
        # A donor without a tokenizer is assumed to have the base's.
        effective = [member if member.digest else base for member in members]
        same = all(member.same(source) for member in effective)
        self.own = None if same and not source.tokenizer.json and not request.tokens else self._read(source)
        self.vocabularies = [None if member.same(source) else self._read(member) for member in effective]
        self.ids = dict(self.own.ids) if self.own else {}
        self.end = self.own.end if self.own else 0
        self.appended: dict[str, int] = {}
        self.fixed: dict[int, Fixed] = {}
        self._added: dict[str, Flags] = {}
        self._merges: list[Path] = []

    def _read(self, member: Member) -> Vocabulary | None:
        try:
            return member.vocabulary()
        except InputError as error:
            note = unreadable(member.name, error)
            self.notes += [] if note in self.notes else [note]
            return None

    def files(self) -> NewTokenizer:
        """The tokenizer files of the vocabulary as composed so far."""
        added = tuple(AddedToken(text, self.ids[text], flags) for text, flags in self._added.items())
        return NewTokenizer(self.source.tokenizer, tuple(self.appended.items()), added, tuple(self._merges))

    def unite(self, place: Place) -> None:
        """Append the tokens that only other donors have, except those without a row."""
        lacking: dict[str, str] = {}
        for member, vocabulary in zip(self.members, self.vocabularies, strict=True):
            if vocabulary is None or self.own is None:
                continue
            new = [item for item in vocabulary.ids.items() if item[0] not in self.ids]
            rows = vocabulary.end if member.rows is None else member.rows
            plain = False
            for token, index in new:
                if index >= rows:
                    lacking.setdefault(token, member.name)
                    continue
                plain = plain or token not in vocabulary.added
                self._append(token)
            if plain:
                self._extend(member, vocabulary, self.own, place)
        for vocabulary in self.vocabularies:
            if vocabulary is not None and self.own is not None:
                self._mark(vocabulary, self.own)
        self._left_out([token for token in lacking if token not in self.ids], set(lacking.values()))

    def _append(self, token: str) -> None:
        self.ids[token] = self.appended[token] = self.end
        self.end += 1

    def _extend(self, member: Member, vocabulary: Vocabulary, own: Vocabulary, place: Place) -> None:
        """Add the merges that form a donor's tokens; an error for kinds of tokenizers without merges."""
        name, first = member.name, self.source.name
        if own.kind != "BPE" or vocabulary.kind != "BPE":
            kinds = f"{first}'s is {own.kind}" + (
                f", {name}'s {vocabulary.kind}" if own.kind != vocabulary.kind else ""
            )
            what = f"The tokenizers of {first} and {name} cannot be united"
            why = f"only BPE tokenizers can get new tokens that are not added tokens, but {one_line(kinds)}"
            remedy = "write `base` or one of the models as the source"
            self.notes.append(note("error", "tokenizer", what, why, remedy, place))
            return
        assert member.tokenizer.json is not None
        self._merges.append(member.tokenizer.json)
        if vocabulary.rules != own.rules:
            what = f"{name}'s tokens join {first}'s, but the two split a text differently before they look for tokens"
            why = f"the output splits a text as {first} does, so it may never find some of {name}'s tokens"
            remedy = f"set base_model to {name} if its texts matter more"
            self.notes.append(note("warning", "tokenizer", what, why, remedy, place))

    def _mark(self, vocabulary: Vocabulary, own: Vocabulary) -> None:
        """Record a donor's added tokens that are appended, or that are special here but ordinary in the source."""
        for token, flags in vocabulary.added.items():
            ordinary = token in own.ids and token not in own.added and flags["special"]
            if token in self.appended or ordinary:
                self._added.setdefault(token, flags)

    def _left_out(self, tokens: list[str], names: set[str]) -> None:
        if tokens:
            what = f"{plural(len(tokens), 'token')} of {', '.join(sorted(names))} are left out: {some(tokens)}"
            self.notes.append(note("note", "token-rows", what, "the embedding has no rows for their ids"))

    def override(self, request: VocabularyRequest) -> None:
        """Apply the recipe's settings of single tokens; a token that no vocabulary has becomes an added token."""
        for token, override in request.tokens:
            place = ("tokenizer", "tokens", token)
            fixed = self._fixed(token, override, place)
            if fixed is None:
                continue
            if token not in self.ids:
                self._append(token)
                self._added[token] = self._flags(token, fixed.donor)
            self.fixed[self.ids[token]] = fixed

    def _flags(self, token: str, donor: int | None) -> Flags:
        found = [v.added[token] for v in self.vocabularies if v is not None and token in v.added]
        first = self.vocabularies[donor] if donor is not None else None
        return first.added[token] if first and token in first.added else found[0] if found else FLAGS

    def _fixed(self, token: str, override: TokenOverride, place: Place) -> Fixed | None:
        source = override.source
        if isinstance(source, TokenRow) and source.kind == "zero":
            return Fixed(None, force=override.force)
        ref = source.model if isinstance(source, TokenRow) else source
        donor = next((index for index, member in enumerate(self.members) if member.ref == ref), None)
        if donor is None:
            guess = nearest(str(ref), [member.ref for member in self.members])
            remedy = f"did you mean `{one_line(guess)}`?" if guess else "name one of the recipe's models"
            what = f"The recipe takes the row of {quoted(token)} from {one_line(ref)}, which is no model of this merge"
            self.notes.append(note("error", "token-row", what, "", remedy, place))
            return None
        wanted = source.token if isinstance(source, TokenRow) else token
        row = source.token_id if isinstance(source, TokenRow) and wanted is None else self._id(donor, str(wanted))
        rows = self.members[donor].rows
        if row is None or (rows is not None and row >= rows):
            self.notes.append(self._no_row(token, donor, wanted, row, place))
            return None
        return Fixed(donor, row, override.force)

    def _id(self, donor: int, token: str) -> int | None:
        vocabulary = self.vocabularies[donor] or self.own
        return vocabulary.ids.get(token) if vocabulary else None

    def _no_row(self, token: str, donor: int, wanted: str | None, row: int | None, place: Place) -> Note:
        name, rows = self.members[donor].name, self.members[donor].rows
        if row is None:
            vocabulary = self.vocabularies[donor] or self.own
            guess = nearest(str(wanted), vocabulary.added) if vocabulary else None
            why, remedy = f"{name} has no such token", f"did you mean `{one_line(guess)}`?" if guess else ""
        else:
            why, remedy = f"its id there is {row:,}, but {name}'s embedding has only {rows or 0:,} rows", ""
        what = f"The row of {quoted(token)} cannot be taken from {name}"
        if wanted is not None and wanted != token:
            what += f" ({quoted(wanted)})"
        return note("error", "token-row", what, why, remedy or "name another model or token", place)
