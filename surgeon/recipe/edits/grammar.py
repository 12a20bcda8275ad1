"""The text form of edits, for `surgeon edit --op`, the TUI's command line, logs and replays.

Ranges are inclusive as on screen (`8-23`, `8`) or half-open as in files (`[8,24)`). `@14` is a position, `x2` a
count, `name=value` a setting. A donor is a letter, a folder name, or a path (quoted if it has spaces).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...errors import InputError
from ...text import nearest
from .. import edits
from ..letters import letters, named
from ..schema import ENDS
from . import blend_edits, blend_text
from .blend_text import span
from .parameter_tables import with_donors
from .words import EditWords

ALIASES = {
    "splice": "insert", "del": "delete", "dup": "duplicate", "dus": "upscale", "stack": "selfstack", "rev": "reverse",
}  # fmt: skip

_SETTINGS: dict[type[edits.Edit], str] = {
    edits.Upscale: "[mn]", edits.SelfStack: "block|stride",
    edits.Interleave: "block|stride", edits.Scale: r"[\w.*]+", edits.Expand: "every|zero",
}  # fmt: skip


def parse(text: str, models: Sequence[str]) -> edits.Edit:
    """The edit that `text` describes; the letters of donors follow the order of `models`.

    Raises:
        InputError: there is no such edit, or its arguments are wrong; with the usage.
    """
    try:
        words = shlex.split(re.sub(r"\[\s*(\d+)\s*,\s*(\d+)\s*\)", r"[\1,\2)", text))
    except ValueError as error:
        raise InputError(f"cannot read the edit {text!r}", why=str(error)) from error
    if not words:
        raise InputError("the edit is empty", remedy=f"known: {', '.join(kind.verb for kind in edits.EDITS)}")
    verb = ALIASES.get(words[0], words[0])
    kind = next((kind for kind in edits.EDITS if kind.verb == verb), None)
    if kind is None:
        guess = nearest(words[0], [kind.verb for kind in edits.EDITS])
        known = f"did you mean {guess}?" if guess else f"known: {', '.join(kind.verb for kind in edits.EDITS)}"
        raise InputError(f"there is no edit {words[0]!r}", remedy=known.rstrip("?"))
    return _Arguments(kind, words[1:], models).edit()


class _Arguments(EditWords):
    """Builds one edit from its arguments."""

    def __init__(self, kind: type[edits.Edit], words: list[str], models: Sequence[str]) -> None:
        super().__init__(kind, [], models)
        self.at: int | None = None
        self.times: int | None = None
        settings = _SETTINGS.get(kind, "(?!)")
        for word in words:
            if kind in (edits.Insert, edits.Move) and re.fullmatch(r"@(\d{1,9}|end)", word):
                self.at = None if word == "@end" else int(word[1:])
            elif kind is edits.Duplicate and re.fullmatch(r"[x×]\d{1,4}", word):
                self.times = int(word[1:])
            elif match := re.fullmatch(rf"({settings})=(.*)", word):
                self.settings[match[1]] = match[2]
            else:
                self.rest.append(word)

    def edit(self) -> edits.Edit:
        made = self._build()
        if self.rest or self.settings:
            raise self.wrong(f"{' '.join([*self.rest, *self.settings])!r} is not expected there")
        return made

    def _build(self) -> edits.Edit:
        kind: Any = self.kind
        if kind is edits.Insert:
            runs = [self.donor_range()]
            while self.rest:
                runs.append(self.donor_range())
            return edits.Insert(*runs[0], at=self.at) if len(runs) == 1 else edits.InsertRuns(tuple(runs), self.at)
        if kind in (edits.Delete, edits.Reverse):
            return kind(*self.range(self.next("a range")))  # type: ignore[no-any-return]
        if kind is edits.Move:
            start, stop = self.range(self.next("a range"))
            if self.at is None:
                raise self.wrong("the position @n is missing")
            return edits.Move(start, stop, self.at)
        if kind is edits.Duplicate:
            start, stop = self.range(self.next("a range"))
            return edits.Duplicate(start, stop, 1 if self.times is None else self.times)
        if kind is edits.Replace:
            start, stop = self.range(self.next("a range"))
            return edits.Replace(start, stop, *self.donor_range())
        if kind is edits.SetEnd:
            return self._end()
        if kind is edits.Upscale:
            model = self.model(self.next("a donor"))
            depth = self.setting("n") if "n" in self.settings else None
            return edits.Upscale(model, self.setting("m"), depth)
        if kind is edits.SelfStack:
            return edits.SelfStack(self.model(self.next("a donor")), self.setting("block"), self.setting("stride"))
        if kind is edits.Interleave:
            models = tuple(self.model(word) for word in self.rest)
            self.rest.clear()
            if len(models) < 2:
                raise self.wrong("two donors are needed")
            block = self.setting("block", 1)
            return edits.Interleave(models, block, self.setting("stride", block))
        if kind is edits.Scale:
            return self._scale()
        if kind is edits.Expand:
            start, stop = self.range(self.next("a range"))
            zero = tuple(filter(None, self.settings.pop("zero", "").split(",")))
            return edits.Expand(start, stop, self.setting("every"), zero)
        if kind in blend_edits.BLENDS:
            return blend_text.build(self)
        word = self.next("a value")
        if kind is edits.SetDtype:
            return edits.SetDtype(None if word == "keep" else word)
        return edits.SetBase(None if word == "auto" else self.model(word))

    def _end(self) -> edits.Edit:
        name = self.next("embeddings, final_norm or lm_head")
        end = blend_text.END_ALIASES.get(name, name)
        if end not in ENDS:
            raise self.wrong(f"{name!r} is not an end")
        if self.rest and blend_text.is_setting(self.rest[0]):
            return edits.SetEnd(end, settings=blend_text.settings(self))
        word = self.next("a donor")
        if word in ("tie", "auto"):
            return edits.SetEnd(end, tie=word == "tie")
        return edits.SetEnd(end, self.model(word))

    def _scale(self) -> edits.Edit:
        start, stop = self.range(self.next("a range"))
        try:
            factors = tuple((name, float(value)) for name, value in self.settings.items())
        except ValueError as error:
            raise self.wrong("a factor is not a number") from error
        self.settings.clear()
        return edits.Scale(start, stop, factors)


def unparse(edit: edits.Edit, models: Sequence[str] = ()) -> str:
    """The text of an edit; a donor is written as a letter if `models` contains it, else as its reference."""
    known = letters(models)

    def donor(model: str) -> str:
        # Another donor's name can equal this donor's letter.
        letter = known.get(model, "")
        return letter if named(letter, models) == model else shlex.quote(model)

    match edit:
        case edits.Insert():
            at = "" if edit.at is None else f" @{edit.at}"
            return f"insert {donor(edit.model)}:{span(edit.start, edit.stop)}{at}"
        case edits.InsertRuns():
            runs = " ".join(f"{donor(model)}:{span(start, stop)}" for model, start, stop in edit.runs)
            return f"insert {runs}" + ("" if edit.at is None else f" @{edit.at}")
        case edits.Move():
            return f"move {span(edit.start, edit.stop)} @{edit.to}"
        case edits.Duplicate():
            return f"duplicate {span(edit.start, edit.stop)}" + (f" x{edit.times}" if edit.times != 1 else "")
        case edits.Replace():
            source = f"{donor(edit.model)}:{span(edit.from_start, edit.from_stop)}"
            return f"replace {span(edit.start, edit.stop)} {source}"
        case edits.Delete() | edits.Reverse():
            return f"{edit.verb} {span(edit.start, edit.stop)}"
        case edits.SetEnd():
            if edit.settings:
                return f"end {edit.end} {blend_text.settings_text(edit.settings, donor)}"
            return f"end {edit.end} " + ("tie" if edit.tie else donor(edit.model) if edit.model else "auto")
        case edits.Upscale():
            return f"upscale {donor(edit.model)} m={edit.drop}" + (f" n={edit.depth}" if edit.depth else "")
        case edits.SelfStack():
            return f"selfstack {donor(edit.model)} block={edit.block} stride={edit.step}"
        case edits.Interleave():
            names = " ".join(donor(model) for model in edit.models)
            return f"interleave {names} block={edit.block} stride={edit.stride}"
        case edits.Scale():
            factors = " ".join(f"{name}={factor!r}" for name, factor in edit.factors)
            return f"scale {span(edit.start, edit.stop)} {factors}"
        case edits.Expand():
            zero = f" zero={','.join(edit.zero)}" if edit.zero else ""
            return f"expand {span(edit.start, edit.stop)} every={edit.every}{zero}"
        case edits.SetDtype():
            return f"dtype {edit.dtype or 'keep'}"
        case edits.SetBase():
            return f"base {donor(edit.model) if edit.model else 'auto'}"
    return blend_text.text(edit, donor)


def renamed(edit: edits.Edit, name: Callable[[str], str]) -> edits.Edit:
    """The edit with renamed donors; `name` maps references."""
    match edit:
        case edits.InsertRuns():
            return replace(edit, runs=tuple((name(model), start, stop) for model, start, stop in edit.runs))
        case edits.Interleave():
            return replace(edit, models=tuple(map(name, edit.models)))
        case edits.Insert() | edits.Replace() | edits.Upscale() | edits.SelfStack():
            return replace(edit, model=name(edit.model))
        case edits.SetEnd():
            model = None if edit.model is None else name(edit.model)
            return replace(edit, model=model, settings=with_donors(edit.settings, name))
        case edits.SetBase() if edit.model is not None:
            return replace(edit, model=name(edit.model))
    return blend_edits.with_renamed_donors(edit, name)
