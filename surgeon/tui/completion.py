"""Completes a half-typed command line: commands, edits, their words, donors, paths."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..files import expanded, is_dir
from ..recipe.edits import EDITS, grammar
from ..recipe.edits.blend_text import span
from ..recipe.schema import ENDS
from ..text import safe
from .commands import COMMANDS

MAX_ENTRIES = 500
"""Entries of a folder that are looked at."""
PATHS = ("open", "write", "run", "edit", "diff", "log", "replay", "picture")
"""Commands whose argument is a path, to the end of the line."""
_FILTERS = ("self_attn", "mlp", "norm", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_DTYPES = ("bfloat16", "float16", "float32", "keep")

_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "insert": ((), ("run", "@end")),
    "move": (("",), ("@end",)),
    "replace": (("", "run"), ()),
    "end": (("end", "donor tie auto"), ("parameter",)),
    "upscale": (("donor",), ("m=", "n=")),
    "interleave": ((), ("donor", "block=", "stride=")),
    "selfstack": (("donor",), ("block=", "stride=")),
    "dtype": ((" ".join(_DTYPES),), ()),
    "base": (("donor auto",), ()),
    "blend": (("",), ("run", "method=", "base=", "parameter", "filter=", "donor=", "source=", "end=")),
    "unblend": (("", "donor"), ()),
    "param": (("",), ("parameter", "filter=", "donor=", "source=", "end=")),
    "method": (("", "method"), ()),
    "edges": (("first last", ""), ("model=", "parameter", "filter=", "donor=", "taper")),
    "scale": (("",), ("tensor",)),
    "expand": (("",), ("every=", "zero=")),
    "mouse": (("on off",), ()),
    "theme": (("dark light auto",), ()),
}
"""Command -> what its words are in order, and what those behind them can be, in any order. `donor`, `run`, `method`,
`parameter`, `tensor` and `end` stand for all of their kind; an empty text for what cannot be listed."""


@dataclass(frozen=True)
class Completion:
    """A completed line.

    Attributes:
        text: the line, as far as it is certain.
        choices: what the last word can be, if that is more than one thing.
    """

    text: str
    choices: tuple[str, ...] = ()


class Completer:
    """Knows what can be typed.

    Args:
        donors: reference -> letter and number of layers.
    """

    def __init__(self, donors: dict[str, tuple[str, int]]) -> None:
        self._donors = donors

    def complete(self, line: str) -> Completion:
        """The line with its last word completed as far as only one word, or a common beginning, fits."""
        head, word = _split(line)
        fitting = sorted({text for text in self._candidates(head.split(), word) if _begins(text, word)})
        if not fitting:
            return Completion(line)
        if len(fitting) == 1:
            return Completion(head + fitting[0] + ("" if fitting[0][-1] in "=:/" or _path(head) else " "))
        common = os.path.commonprefix(fitting)  # noqa: RUF071 - of texts, not of folders
        return Completion(head + (common if len(common) > len(word) else word), tuple(map(_last_part, fitting)))

    def _candidates(self, before: Sequence[str], word: str) -> Iterator[str]:
        if not before:
            yield from (*COMMANDS, *(kind.verb for kind in EDITS))
            return
        verb = grammar.ALIASES.get(before[0], before[0])
        if verb == "open":
            yield from (path for path in paths(word) if path.endswith(("/", ".safetensors")))
        elif verb in PATHS:
            yield from paths(word)
        if verb in PATHS:
            if verb == "open":
                yield from (ref for ref in self._donors if word)
            return
        ordered, others = _WORDS.get(verb, ((), ()))
        typed = before[1:]
        kinds = ordered[len(typed)].split() if len(typed) < len(ordered) else others
        name, equals, _ = word.rpartition("=")
        if equals:
            yield from (f"{name}={value}" for value in self._values(name))
            return
        for kind in kinds:
            yield from self._words(kind, before, word)

    def _words(self, kind: str, before: Sequence[str], word: str) -> Iterable[str]:
        """Every word of a kind."""
        if kind == "donor":
            return self._donor_words(word)
        if kind == "run":
            letter, colon, _ = word.partition(":")
            runs = {name: span(0, depth) for name, depth in self._donors.values()}
            if colon:
                return [f"{letter}:{runs[letter.upper()]}"] if letter.upper() in runs else []
            return [f"{name}:" for name in runs]
        if kind == "end":
            return ENDS
        if kind == "method":
            return _methods()
        if kind == "parameter":
            return [f"{name}=" for name in _parameters(before)]
        if kind == "tensor":
            return [f"{name}=" for name in _FILTERS]
        return [kind] if kind else []

    def _donor_words(self, word: str) -> Iterator[str]:
        """Letters, and what has been begun of references."""
        yield from (letter for letter, _ in self._donors.values())
        if len(word) > 1:
            yield from (shlex.quote(ref) for ref in self._donors)

    def _values(self, name: str) -> Iterable[str]:
        """What can stand behind `name=`."""
        if name == "method":
            return _methods()
        if name in ("base", "donor", "model"):
            return [letter for letter, _ in self._donors.values()]
        return {"filter": _FILTERS, "zero": _FILTERS, "end": ENDS}.get(name, ())


def usage(line: str) -> str:
    """How the command of a line is written, or an empty text."""
    word = line.split(" ")[0]
    word = grammar.ALIASES.get(word, word)
    known = {kind.verb: f"{kind.usage}   {kind.help}" for kind in EDITS}
    known |= {name: "   ".join(words) for name, words in COMMANDS.items()}
    return known.get(word, "")


def _split(line: str) -> tuple[str, str]:
    """A line before its last word, and that word; a path has spaces."""
    word, space, rest = line.partition(" ")
    if space and word in PATHS:
        return word + space, rest.lstrip()
    head, space, last = line.rpartition(" ")
    return head + space, last


def _path(head: str) -> bool:
    return head.strip() in PATHS


def _begins(text: str, word: str) -> bool:
    return text.startswith((word, f"'{word}")) or (
        re.fullmatch(r"[a-z]{1,2}", word) is not None and text.startswith(word.upper())
    )


def _last_part(text: str) -> str:
    """A choice as it is listed: without the folder of a path, and without the name before a value."""
    _, _, value = text.partition("=")
    if value:
        return value
    end = "/" if text.endswith("/") else ""
    return text.rstrip("/").rsplit("/", 1)[-1] + end


def _methods() -> list[str]:
    from ..methods.catalogue import every

    return [name for name in every() if name != "passthrough"]


def _parameters(before: Sequence[str]) -> list[str]:
    """The parameters of the method that the line names, or of all."""
    from ..methods.catalogue import every, find

    named = next((word.removeprefix("method=") for word in before if word.startswith("method=")), "")
    method = find(named) if named else None
    methods = [method] if method else every().values()
    return list(dict.fromkeys(name for one in methods for name in one.parameters))


def paths(text: str) -> list[str]:
    """The paths that begin with `text`, folders with a slash behind them; none whose name a terminal would not show."""
    folder, slash, name = text.rpartition("/")
    if not slash and text == "~":
        return ["~/"]
    try:
        base = expanded(folder or (slash or "."))
        entries = [entry for _, entry in zip(range(MAX_ENTRIES), os.scandir(base), strict=False)]
    except (OSError, ValueError):
        return []
    found = []
    for entry in entries:
        if entry.name.startswith(name) and (name or not entry.name.startswith(".")) and safe(entry.name) == entry.name:
            found.append(folder + slash + entry.name + ("/" if is_dir(entry.path) else ""))
    return sorted(found)
