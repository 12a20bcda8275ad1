"""Edits as text, for `surgeon edit --op`, the TUI's command line, logs and replays.

Ranges are inclusive as on screen (`8-23`, `8`) or half-open as in files (`[8,24)`); `@14` is a position, `x2` a
count, `name=value` a setting; a donor is a letter, a folder name, or its path (quoted if it has spaces).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...errors import InputError
from ...text import nearest
from ..letters import letters, named
from ..schema import ENDS
from . import blend_edits, blend_text, layer_edits
from .blend_text import span
from .layer_edits import EDITS, Edit
from .parameter_tables import with_donors

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?|\[(\d{1,9}),(\d{1,9})\)")
ALIASES = {
    "splice": "insert", "del": "delete", "dup": "duplicate", "dus": "upscale", "stack": "selfstack", "rev": "reverse",
}  # fmt: skip

_SETTINGS: dict[type[Edit], str] = {
    layer_edits.Upscale: "[mn]", layer_edits.SelfStack: "block|stride",
    layer_edits.Interleave: "block|stride", layer_edits.Scale: r"[\w.*]+", layer_edits.Expand: "every|zero",
}  # fmt: skip


def parse(text: str, models: Sequence[str]) -> Edit:
    """The edit that `text` describes, donors named by the letters of `models`.

    Raises:
        InputError: no such edit, or its arguments are wrong; with the usage.
    """
    try:
        words = shlex.split(re.sub(r"\[\s*(\d+)\s*,\s*(\d+)\s*\)", r"[\1,\2)", text))
    except ValueError as error:
        raise InputError(f"cannot read the edit {text!r}", why=str(error)) from error
    if not words:
        raise InputError("the edit is empty", remedy=f"known: {', '.join(kind.verb for kind in EDITS)}")
    verb = ALIASES.get(words[0], words[0])
    kind = next((kind for kind in EDITS if kind.verb == verb), None)
    if kind is None:
        guess = nearest(words[0], [kind.verb for kind in EDITS])
        known = f"did you mean {guess}?" if guess else f"known: {', '.join(kind.verb for kind in EDITS)}"
        raise InputError(f"there is no edit {words[0]!r}", remedy=known.rstrip("?"))
    return _Words(kind, words[1:], models).edit()


class _Words:
    """The arguments of one edit, taken from its words one by one."""

    def __init__(self, kind: type[Edit], words: list[str], models: Sequence[str]) -> None:
        self.kind, self.models = kind, models
        self.at: int | None = None
        self.times: int | None = None
        self.settings: dict[str, str] = {}
        self.rest: list[str] = []
        settings = _SETTINGS.get(kind, "(?!)")
        for word in words:
            if kind in (layer_edits.Insert, layer_edits.Move) and re.fullmatch(r"@(\d{1,9}|end)", word):
                self.at = None if word == "@end" else int(word[1:])
            elif kind is layer_edits.Duplicate and re.fullmatch(r"[x×]\d{1,4}", word):
                self.times = int(word[1:])
            elif match := re.fullmatch(rf"({settings})=(.*)", word):
                self.settings[match[1]] = match[2]
            else:
                self.rest.append(word)

    def wrong(self, why: str) -> InputError:
        return InputError(f"{self.kind.verb}: {why}", remedy=f"write it like: {self.kind.usage}")

    def next(self, what: str) -> str:
        if not self.rest:
            raise self.wrong(f"{what} is missing")
        return self.rest.pop(0)

    def model(self, text: str) -> str:
        found = named(text, self.models)
        if found is not None:
            return found
        if re.fullmatch(r"[A-Za-z]{1,2}", text):
            known = ", ".join(f"{letter} {model}" for model, letter in letters(self.models).items())
            raise self.wrong(f"there is no donor {text} (known: {known or 'none'})")
        return text

    def range(self, text: str) -> tuple[int, int]:
        match = _RANGE.fullmatch(text)
        if not match:
            raise self.wrong(f"{text!r} is not a range")
        if match[3]:
            return int(match[3]), int(match[4])
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise self.wrong(f"the range {text} runs backwards")
        return first, last + 1

    def donor_range(self) -> tuple[str, int, int]:
        word = self.next("a donor's range")
        model, _, text = word.rpartition(":")
        if not model:
            raise self.wrong(f"{word!r} is not a donor's range")
        return (self.model(model), *self.range(text))

    def setting(self, name: str, default: int | None = None) -> int:
        text = self.settings.pop(name, None)
        if text is None:
            if default is None:
                raise self.wrong(f"{name}= is missing")
            return default
        if not re.fullmatch(r"\d{1,6}", text):
            raise self.wrong(f"{name}={text} is not a whole number")
        return int(text)

    def edit(self) -> Edit:
        made = self._build()
        if self.rest or self.settings:
            raise self.wrong(f"{' '.join([*self.rest, *self.settings])!r} is not expected there")
        return made

    def _build(self) -> Edit:
        kind: Any = self.kind
        if kind is layer_edits.Insert:
            runs = [self.donor_range()]
            while self.rest:
                runs.append(self.donor_range())
            return (
                layer_edits.Insert(*runs[0], at=self.at)
                if len(runs) == 1
                else layer_edits.InsertRuns(tuple(runs), self.at)
            )
        if kind in (layer_edits.Delete, layer_edits.Reverse):
            return kind(*self.range(self.next("a range")))  # type: ignore[no-any-return]
        if kind is layer_edits.Move:
            start, stop = self.range(self.next("a range"))
            if self.at is None:
                raise self.wrong("the position @n is missing")
            return layer_edits.Move(start, stop, self.at)
        if kind is layer_edits.Duplicate:
            start, stop = self.range(self.next("a range"))
            return layer_edits.Duplicate(start, stop, 1 if self.times is None else self.times)
        if kind is layer_edits.Replace:
            start, stop = self.range(self.next("a range"))
            return layer_edits.Replace(start, stop, *self.donor_range())
        if kind is layer_edits.SetEnd:
            return self._end()
        if kind is layer_edits.Upscale:
            model = self.model(self.next("a donor"))
            depth = self.setting("n") if "n" in self.settings else None
            return layer_edits.Upscale(model, self.setting("m"), depth)
        if kind is layer_edits.SelfStack:
            return layer_edits.SelfStack(
                self.model(self.next("a donor")), self.setting("block"), self.setting("stride")
            )
        if kind is layer_edits.Interleave:
            models = tuple(self.model(word) for word in self.rest)
            self.rest.clear()
            if len(models) < 2:
                raise self.wrong("two donors are needed")
            block = self.setting("block", 1)
            return layer_edits.Interleave(models, block, self.setting("stride", block))
        if kind is layer_edits.Scale:
            return self._scale()
        if kind is layer_edits.Expand:
            start, stop = self.range(self.next("a range"))
            zero = tuple(filter(None, self.settings.pop("zero", "").split(",")))
            return layer_edits.Expand(start, stop, self.setting("every"), zero)
        if kind in blend_edits.BLENDS:
            return blend_text.build(self)
        word = self.next("a value")
        if kind is layer_edits.SetDtype:
            return layer_edits.SetDtype(None if word == "keep" else word)
        return layer_edits.SetBase(None if word == "auto" else self.model(word))

    def _end(self) -> Edit:
        name = self.next("embeddings, final_norm or lm_head")
        end = blend_text.END_ALIASES.get(name, name)
        if end not in ENDS:
            raise self.wrong(f"{name!r} is not an end")
        if self.rest and blend_text.is_setting(self.rest[0]):
            return layer_edits.SetEnd(end, settings=blend_text.settings(self))
        word = self.next("a donor")
        if word in ("tie", "auto"):
            return layer_edits.SetEnd(end, tie=word == "tie")
        return layer_edits.SetEnd(end, self.model(word))

    def _scale(self) -> Edit:
        start, stop = self.range(self.next("a range"))
        try:
            factors = tuple((name, float(value)) for name, value in self.settings.items())
        except ValueError as error:
            raise self.wrong("a factor is not a number") from error
        self.settings.clear()
        return layer_edits.Scale(start, stop, factors)


def unparse(edit: Edit, models: Sequence[str] = ()) -> str:
    """The text of an edit; donors by letter when `models` names them, by reference otherwise."""
    known = letters(models)

    def donor(model: str) -> str:
        # Another donor's own name may be this one's letter.
        letter = known.get(model, "")
        return letter if named(letter, models) == model else shlex.quote(model)

    match edit:
        case layer_edits.Insert():
            at = "" if edit.at is None else f" @{edit.at}"
            return f"insert {donor(edit.model)}:{span(edit.start, edit.stop)}{at}"
        case layer_edits.InsertRuns():
            runs = " ".join(f"{donor(model)}:{span(start, stop)}" for model, start, stop in edit.runs)
            return f"insert {runs}" + ("" if edit.at is None else f" @{edit.at}")
        case layer_edits.Move():
            return f"move {span(edit.start, edit.stop)} @{edit.to}"
        case layer_edits.Duplicate():
            return f"duplicate {span(edit.start, edit.stop)}" + (f" x{edit.times}" if edit.times != 1 else "")
        case layer_edits.Replace():
            source = f"{donor(edit.model)}:{span(edit.from_start, edit.from_stop)}"
            return f"replace {span(edit.start, edit.stop)} {source}"
        case layer_edits.Delete() | layer_edits.Reverse():
            return f"{edit.verb} {span(edit.start, edit.stop)}"
        case layer_edits.SetEnd():
            if edit.settings:
                return f"end {edit.end} {blend_text.settings_text(edit.settings, donor)}"
            return f"end {edit.end} " + ("tie" if edit.tie else donor(edit.model) if edit.model else "auto")
        case layer_edits.Upscale():
            return f"upscale {donor(edit.model)} m={edit.drop}" + (f" n={edit.depth}" if edit.depth else "")
        case layer_edits.SelfStack():
            return f"selfstack {donor(edit.model)} block={edit.block} stride={edit.step}"
        case layer_edits.Interleave():
            names = " ".join(donor(model) for model in edit.models)
            return f"interleave {names} block={edit.block} stride={edit.stride}"
        case layer_edits.Scale():
            factors = " ".join(f"{name}={factor!r}" for name, factor in edit.factors)
            return f"scale {span(edit.start, edit.stop)} {factors}"
        case layer_edits.Expand():
            zero = f" zero={','.join(edit.zero)}" if edit.zero else ""
            return f"expand {span(edit.start, edit.stop)} every={edit.every}{zero}"
        case layer_edits.SetDtype():
            return f"dtype {edit.dtype or 'keep'}"
        case layer_edits.SetBase():
            return f"base {donor(edit.model) if edit.model else 'auto'}"
    return blend_text.text(edit, donor)


def renamed(edit: Edit, name: Callable[[str], str]) -> Edit:
    """The same edit with its donors under other references."""
    match edit:
        case layer_edits.InsertRuns():
            return replace(edit, runs=tuple((name(model), start, stop) for model, start, stop in edit.runs))
        case layer_edits.Interleave():
            return replace(edit, models=tuple(map(name, edit.models)))
        case layer_edits.Insert() | layer_edits.Replace() | layer_edits.Upscale() | layer_edits.SelfStack():
            return replace(edit, model=name(edit.model))
        case layer_edits.SetEnd():
            model = None if edit.model is None else name(edit.model)
            return replace(edit, model=model, settings=with_donors(edit.settings, name))
        case layer_edits.SetBase() if edit.model is not None:
            return replace(edit, model=name(edit.model))
    return blend_edits.with_renamed_donors(edit, name)
