"""What a recipe asks of the output's vocabulary, and the donors as far as their vocabularies go."""

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
"""From a place in the recipe, such as `"tokenizer", "tokens", "<x>"`, to its line."""

Note = tuple[Place, Finding]
"""A finding, and where in the recipe it belongs."""


@dataclass(frozen=True)
class VocabularyRequest:
    """What a recipe says of the output's vocabulary.

    Attributes:
        source: `union`, `base`, or a donor's reference.
        tokens: what it says of single tokens.
        multiple: what the number of rows is rounded up to a multiple of.
        place: where it says so.
    """

    source: str
    tokens: tuple[tuple[str, TokenOverride], ...] = ()
    multiple: int | None = None
    place: Place = ("tokenizer_source",)


@dataclass(frozen=True)
class Member:
    """A donor's vocabulary, or that of a tokenizer that is no donor's.

    Attributes:
        letter: the donor's; empty for a tokenizer that is no donor's.
        rows: of its embedding; None where it has none.
        beside: tokens that files beside tokenizer.json name.
        files: what it was read from.
    """

    letter: str
    ref: str
    rows: int | None
    digest: str
    beside: tuple[tuple[str, tuple[bool, ...]], ...]
    files: tuple[Path, ...]
    tokenizer: Tokenizer = field(compare=False)

    @property
    def name(self) -> str:
        """What findings call it."""
        return self.letter or one_line(self.ref)

    def same(self, other: Member) -> bool:
        """Whether every id means the same to both."""
        return bool(self.digest) and (self.digest, self.beside) == (other.digest, other.beside)

    def vocabulary(self) -> Vocabulary:
        """Its tokens.

        Raises:
            InputError: they cannot be read.
        """
        return read_vocabulary(self.tokenizer)


def requested(recipe: Recipe) -> VocabularyRequest | None:
    """What the recipe says of the vocabulary; None where it says nothing."""
    settings = recipe.tokenizer
    if settings is not None:
        tokens = tuple(settings.tokens.items())
        return VocabularyRequest(settings.source, tokens, settings.pad_to_multiple_of, ("tokenizer", "source"))
    return VocabularyRequest(recipe.tokenizer_source) if recipe.tokenizer_source is not None else None


def members(donors: Iterable[Donor], notes: list[Note]) -> tuple[Member, ...]:
    """The donors' vocabularies; what cannot be read of them is noted."""
    found = []
    for donor in donors:
        table, tokenizer = donor.checkpoint.token_embedding, donor.checkpoint.tokenizer
        found.append(_member(donor.letter, donor.ref, table.shape[0] if table else None, tokenizer, notes))
    return tuple(found)


def outsider(
    request: VocabularyRequest, roots: Sequence[Path], known: Sequence[Member], notes: list[Note]
) -> Member | None:
    """The tokenizer that the recipe names and that is no donor's, by the folder it lies in."""
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
    beside: tuple[tuple[str, tuple[bool, ...]], ...] = ()
    try:
        beside = declared(tokenizer)
    except InputError as error:
        notes.append(unreadable(letter or one_line(ref), error))
    return Member(letter, ref, rows, tokenizer.digest, beside, tokenizer.files, tokenizer)


def unreadable(name: str, error: InputError) -> Note:
    """That a vocabulary cannot be read."""
    why = f"{error.where}: {error.what}" if error.where else error.what
    remedy = (
        error.remedy
        or "have transformers write one: AutoTokenizer.from_pretrained('IN').save_pretrained('OUT'), and put it there"
    )
    return note("error", "tokenizer", f"The vocabulary of {name} cannot be read", why, remedy)


def note(severity: Severity, code: str, what: str, why: str = "", remedy: str = "", place: Place = ()) -> Note:
    """A finding and its place."""
    return place, Finding(severity, code, what, why, remedy)


def placed(notes: Iterable[Note], line: Line) -> tuple[Finding, ...]:
    """The findings with their lines."""
    return tuple(replace(finding, line=line(*place)) if place else finding for place, finding in notes)


def quoted(text: str) -> str:
    """A token in a sentence."""
    return f"'{one_line(text[:SHOWN])}{'...' if len(text) > SHOWN else ''}'"


def some(texts: Sequence[str]) -> str:
    """The first of several tokens, and how many more there are."""
    more = f" and {len(texts) - 1:,} more" if len(texts) > 1 else ""
    return f"{quoted(texts[0])}{more}"
