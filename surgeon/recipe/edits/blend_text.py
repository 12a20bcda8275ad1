"""The text form of blend edits: runs, `name=value` settings, and the qualifiers after a setting."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..curves.shortest_form import spelled
from ..curves.tracks import REST
from ..parameters import Word
from ..schema import ENDS, End
from . import blend_edits
from .edit import Edit
from .parameter_tables import Setting
from .words import EditWords

_SETTING = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_RUN = re.compile(r".+:(\d+(-\d+)?|\[\d+,\d+\))", re.DOTALL)
_OWN_WORDS = ("method", "base", "model")
_QUALIFIERS = ("filter", "donor", "source", "end")
END_ALIASES: dict[str, End] = {
    "embed": "embeddings", "embedding": "embeddings", "norm": "final_norm", "head": "lm_head",
}  # fmt: skip


def span(start: int, stop: int) -> str:
    """A half-open range in its typed form: `8-23`."""
    return str(start) if stop == start + 1 else f"{start}-{stop - 1}"


def is_setting(word: str) -> bool:
    """Whether a word is `name=value`."""
    match = _SETTING.fullmatch(word)
    return match is not None and (match[1] in (*_OWN_WORDS, *_QUALIFIERS) or not _RUN.fullmatch(word))


def build(words: EditWords) -> Edit:
    """The blend edit that these words describe; InputError if they describe none."""
    kind = words.kind
    if kind is blend_edits.Edges:
        return _edges(words)
    start, stop = words.range(words.next("a range"))
    if kind is blend_edits.Collapse:
        return blend_edits.Collapse(start, stop)
    if kind is blend_edits.Unblend:
        return blend_edits.Unblend(start, stop, words.model(words.rest.pop(0)) if words.rest else None)
    if kind is blend_edits.SetMethod:
        return blend_edits.SetMethod(start, stop, words.next("a method"))
    if kind is blend_edits.SetParameters:
        found = settings(words)
        if not found:
            raise words.wrong("a parameter is missing")
        return blend_edits.SetParameters(start, stop, found)
    own = _own(words, ("method", "base"))
    runs = []
    while words.rest and not is_setting(words.rest[0]):
        runs.append(words.donor_range())
    base = words.model(own["base"]) if "base" in own else None
    if not runs and not own and not words.rest:
        raise words.wrong("a donor's range is missing")
    return blend_edits.BlendLayers(start, stop, tuple(runs), own.get("method"), base, settings(words))


def _edges(words: EditWords) -> Edit:
    which = words.next("first or last")
    if which not in ("first", "last"):
        raise words.wrong(f"{which!r} is neither first nor last")
    count = words.next("a number of layers")
    if not re.fullmatch(r"\d{1,6}", count):
        raise words.wrong(f"{count!r} is not a whole number")
    taper = "taper" in words.rest
    if taper:
        words.rest.remove("taper")
    own = _own(words, ("model",))
    model = words.model(own["model"]) if "model" in own else None
    return blend_edits.Edges(which == "last", int(count), model, settings(words), taper)


def _own(words: EditWords, names: Sequence[str]) -> dict[str, str]:
    """Take the `name=value` words with these names out of `words`."""
    found = {}
    for word in list(words.rest):
        match = _SETTING.fullmatch(word)
        if match and match[1] in names:
            if match[1] in found or not match[2]:
                raise words.wrong(f"{word!r} is not expected there" if match[2] else f"{word} has no value")
            found[match[1]] = match[2]
            words.rest.remove(word)
    return found


def settings(words: EditWords) -> tuple[Setting, ...]:
    """Take every setting `name=value` with its qualifiers out of `words`."""
    found: list[Setting] = []
    while words.rest and is_setting(words.rest[0]):
        word = words.rest.pop(0)
        match = _SETTING.fullmatch(word)
        assert match
        name, value = match[1], match[2]
        if name not in _QUALIFIERS:
            values = tuple(_word(part, word, words) for part in value.split(",")) if value else ()
            found.append(Setting(name, values))
        elif not found:
            raise words.wrong(f"{word!r} has no parameter before it")
        else:
            found[-1] = _qualified(found[-1], name, value, words)
    return tuple(found)


def _qualified(setting: Setting, name: str, value: str, words: EditWords) -> Setting:
    if not value:
        raise words.wrong(f"{name}= has no value")
    if name == "filter":
        return replace(setting, filter=value)
    if name == "donor":
        return replace(setting, donor=words.model(value))
    if name == "source":
        if not re.fullmatch(r"\d{1,4}", value):
            raise words.wrong(f"source={value} is not a whole number")
        return replace(setting, source=int(value))
    end = END_ALIASES.get(value, value)
    if end not in ENDS:
        raise words.wrong(f"{value!r} is not an end")
    return replace(setting, end=end)


def _word(text: str, word: str, words: EditWords) -> Word:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        if re.fullmatch(r"[A-Za-z]\w*", text):
            return text
        raise words.wrong(f"{word!r} has a value that is neither a number nor a word") from None


# -- from an edit to its text

Donor = Callable[[str], str]
"""Maps a donor's reference to its name in text."""


def text(edit: Edit, donor: Donor) -> str:
    """The text of a blend edit."""
    return " ".join(filter(None, _words(edit, donor)))


def _words(edit: Edit, donor: Donor) -> Iterator[str]:
    yield edit.verb
    match edit:
        case blend_edits.BlendLayers():
            yield span(edit.start, edit.stop)
            yield from (f"{donor(model)}:{span(start, stop)}" for model, start, stop in edit.runs)
            yield f"method={shlex.quote(edit.method)}" if edit.method else ""
            yield f"base={donor(edit.base)}" if edit.base else ""
            yield settings_text(edit.settings, donor)
        case blend_edits.Unblend():
            yield span(edit.start, edit.stop)
            yield donor(edit.model) if edit.model else ""
        case blend_edits.SetParameters():
            yield span(edit.start, edit.stop)
            yield settings_text(edit.settings, donor)
        case blend_edits.SetMethod():
            yield span(edit.start, edit.stop)
            yield shlex.quote(edit.method)
        case blend_edits.Collapse():
            yield span(edit.start, edit.stop)
        case blend_edits.Edges():
            yield f"{'last' if edit.last else 'first'} {edit.count}"
            yield f"model={donor(edit.model)}" if edit.model else ""
            yield settings_text(edit.settings, donor)
            yield "taper" if edit.taper else ""
        case _:
            raise AssertionError(f"no text for {edit!r}")


def settings_text(found: Sequence[Setting], donor: Donor) -> str:
    """Settings in their typed form."""
    return " ".join(word for setting in found for word in _setting_words(setting, donor))


def _setting_words(setting: Setting, donor: Donor) -> Iterator[str]:
    yield f"{setting.name}={','.join(map(_typed, setting.values))}"
    if setting.filter != REST:
        yield f"filter={shlex.quote(setting.filter)}"
    if setting.donor is not None:
        yield f"donor={donor(setting.donor)}"
    if setting.source is not None:
        yield f"source={setting.source}"
    if setting.end is not None:
        yield f"end={setting.end}"


def _typed(value: Word) -> str:
    if isinstance(value, (bool, str)):
        return spelled(value)
    return repr(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(value)
