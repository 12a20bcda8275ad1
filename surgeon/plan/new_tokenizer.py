"""The output's tokenizer as a value: the tokenizer it is made from, and the changes to its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.tokenizer.tokenizer_identity import Tokenizer

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"

_OF_ONE_VOCABULARY = frozenset(
    {
        "added_tokens.json",
        "merges.txt",
        "spiece.model",
        "tekken.json",
        "tokenizer.model",
        "vocab.json",
        "vocab.txt",
    }
)
"""Other files with the vocabulary, which would contradict a new tokenizer.json."""
_TEMPLATES = frozenset({TEMPLATE, "chat_template.json"})


@dataclass(frozen=True)
class AddedToken:
    """A token that the tokenizer finds in a text before splitting it, with its flags in tokenizer.json."""

    text: str
    index: int
    flags: Mapping[str, bool]


@dataclass(frozen=True)
class NewTokenizer:
    """The tokenizer files of the output.

    Attributes:
        source: the tokenizer that they are made from.
        appended: all new tokens with their ids, in ascending order above the source's ids.
        added: tokens to write as added tokens; each is one of `appended` or a token of the source.
        merges: the tokenizer.json of each tokenizer whose merges are appended.
        template: the chat template; None keeps the source's.
    """

    source: Tokenizer
    appended: tuple[tuple[str, int], ...] = ()
    added: tuple[AddedToken, ...] = ()
    merges: tuple[Path, ...] = ()
    template: str | None = None

    @property
    def grown(self) -> bool:
        """Whether the vocabulary differs from the source's."""
        return bool(self.appended or self.added)

    @property
    def made(self) -> tuple[str, ...]:
        """Names of the files that are generated."""
        names = {path.name for path in self.source.files}
        wanted = [TOKENIZER] if self.grown else []
        if SETTINGS in names and (self.grown or self.template is not None):
            wanted.append(SETTINGS)
        return (*wanted, *([TEMPLATE] if self.template is not None else []))

    @property
    def copied(self) -> dict[str, Path]:
        """The files that are copied unchanged, by name."""
        dropped = set(self.made)
        if self.grown:
            dropped |= _OF_ONE_VOCABULARY
        if self.template is not None:
            dropped |= _TEMPLATES
        return {path.name: path for path in self.source.files if path.name not in dropped}
