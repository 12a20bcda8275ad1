"""The recipe's settings of the output's vocabulary, and the vocabularies of the donors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...checkpoint.locate import find
from ...checkpoint.tokenizer.tokenizer_identity import Tokenizer, read_tokenizer
from ...checkpoint.tokenizer.vocabulary import Vocabulary, declared, read_vocabulary
from ...errors import InputError
from ...recipe.schema import Recipe, TokenOverride
from ...text import nearest, one_line
from ..findings import Finding, Severity
from ..model import Donor

UNION, BASE = "union", "base"
SHOWN = 40

Place = tuple[str, ...]
Line = Callable[..., "int | None"]
"""Gives the line of a place in the recipe, such as `"tokenizer", "tokens", "<x>"`; None if unknown."""

Note = tuple[Place, Finding]
"""A place in the recipe, and a finding about it."""


@dataclass(frozen=True)
class VocabularyRequest:
    """The recipe's settings of the output's vocabulary.

    Attributes:
        source: `union`, `base`, or the reference of a donor or tokenizer.
        tokens: the settings of single tokens.
        multiple: the number of rows is rounded up to a multiple of this; None for no rounding.
        place: the place of `source` in the recipe.
    """

    source: str
    tokens: tuple[tuple[str, TokenOverride], ...] = ()
    multiple: int | None = None
    place: Place = ("tokenizer_source",)


@dataclass(frozen=True)
class Member:
    """The vocabulary of a donor, or of a tokenizer that belongs to no donor.

    Attributes:
        letter: the donor's letter; empty for a tokenizer without a donor.
        ref: its name in the recipe.
        rows: number of rows of the donor's embedding; None without one.
        digest: hash of the tokenizer; empty without tokenizer files.
        declared: tokens that files other than tokenizer.json declare, with their flags.
        files: the files that it was read from.
        tokenizer: the tokenizer.
    """

    letter: str
    ref: str
    rows: int | None
    digest: str
    declared: tuple[tuple[str, tuple[bool, ...]], ...]
    files: tuple[Path, ...]
    tokenizer: Tokenizer = field(compare=False)

    @property
    def name(self) -> str:
        """Its name in findings."""
        return self.letter or one_line(self.ref)

    def same(self, other: Member) -> bool:
        """Whether every id means the same in both."""
        return bool(self.digest) and (self.digest, self.declared) == (other.digest, other.declared)

    def vocabulary(self) -> Vocabulary:
        """Its tokens and rules.

        Raises:
            InputError: the files cannot be read.
        """
        return read_vocabulary(self.tokenizer)


def requested(recipe: Recipe) -> VocabularyRequest | None:
    """The recipe's settings of the vocabulary; None without any."""
    settings = recipe.tokenizer
    if settings is not None:
        tokens = tuple(settings.tokens.items())
        return VocabularyRequest(settings.source, tokens, settings.pad_to_multiple_of, ("tokenizer", "source"))
    return VocabularyRequest(recipe.tokenizer_source) if recipe.tokenizer_source is not None else None


def members(donors: Iterable[Donor], notes: list[Note]) -> tuple[Member, ...]:
    """The donors' vocabularies; adds a note for each that cannot be read."""
    found = []
    for donor in donors:
        table, tokenizer = donor.checkpoint.token_embedding, donor.checkpoint.tokenizer
        found.append(_member(donor.letter, donor.ref, table.shape[0] if table else None, tokenizer, notes))
    return tuple(found)


def outsider(
    request: VocabularyRequest, roots: Sequence[Path], known: Sequence[Member], notes: list[Note]
) -> Member | None:
    """The tokenizer without a donor that the recipe names by its folder; None, with a note, if there is none."""
    try:
        path = find(request.source, tuple(roots))
        tokenizer = read_tokenizer(path if path.is_dir() else path.parent, {})
    except InputError as error:
        names = [UNION, BASE, *(member.ref for member in known)]
        guess = nearest(request.source, names)
        what = f"There is no tokenizer at {one_line(request.source)}"
        remedy = f"did you mean `{one_line(guess)}`?" if guess else "write union, base, or one of the recipe's models"
        notes.append(note("error", "tokenizer", what, error.what, remedy, request.place))
        return None
    return _member("", request.source, None, tokenizer, notes)


def _member(letter: str, ref: str, rows: int | None, tokenizer: Tokenizer, notes: list[Note]) -> Member:
    tokens: tuple[tuple[str, tuple[bool, ...]], ...] = ()
    try:
        tokens = declared(tokenizer)
    except InputError as error:
        notes.append(unreadable(letter or one_line(ref), error))
    return Member(letter, ref, rows, tokenizer.digest, tokens, tokenizer.files, tokenizer)


def unreadable(name: str, error: InputError) -> Note:
    """An error: a vocabulary cannot be read."""
    why = f"{error.where}: {error.what}" if error.where else error.what
    remedy = (
        error.remedy
        or "write a tokenizer.json with AutoTokenizer.from_pretrained('IN').save_pretrained('OUT'), and put it there"
    )
    return note("error", "tokenizer", f"The vocabulary of {name} cannot be read", why, remedy)


def note(severity: Severity, code: str, what: str, why: str = "", remedy: str = "", place: Place = ()) -> Note:
    """A finding with its place in the recipe."""
    return place, Finding(severity, code, what, why, remedy)


def placed(notes: Iterable[Note], line: Line) -> tuple[Finding, ...]:
    """The findings with their lines."""
    return tuple(replace(finding, line=line(*place)) if place else finding for place, finding in notes)


def quoted(text: str) -> str:
    """A token in quotation marks, shortened."""
    return f"'{one_line(text[:SHOWN])}{'...' if len(text) > SHOWN else ''}'"


def some(texts: Sequence[str]) -> str:
    """The first of several tokens, and the number of the others."""
    more = f" and {len(texts) - 1:,} more" if len(texts) > 1 else ""
    return f"{quoted(texts[0])}{more}"
