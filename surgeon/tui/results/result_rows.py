"""Rows of the results file as text: a line of the list, and everything of a row."""

from __future__ import annotations

import calendar
import hashlib
import time

from rich.cells import cell_len
from rich.style import Style

from ...evaluate.results import Row
from ...statefile import StateRecord
from ...text import duration, one_line, safe
from .. import theme
from ..cells import cut, pad, shortened
from ..widgets.line import Piece

NAME = 24
"""Most cells of a model's name."""
_DAY = 86_400


def age(row: Row, now: float) -> str:
    """How long ago the row was written; empty if it does not say."""
    try:
        then = calendar.timegm(time.strptime(row.text("time"), "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        return ""
    seconds = max(0.0, now - then)
    return f"{int(seconds // _DAY)}d" if seconds >= _DAY else duration(round(seconds)).split()[0]


def heading(rows: list[Row], width: int) -> str:
    """The heads over `line`."""
    name = _name_width(rows)
    return cut(f"  {'row':>5} {'age':>4} recipe  {pad('model', name)}  what came out", width)


def line(row: Row, width: int, name: int, now: float, current: str) -> list[Piece]:
    """A row in one line of at most `width` cells; `*` marks the recipe that is edited."""
    model = pad(shortened(one_line(row.text("name") or "?"), name), name)
    mark = "*" if row.recipe == current else " "
    start = f" {row.number:>5} {age(row, now):>4} {mark}{recipe_digest(row):<5}  "
    room = width - cell_len(start) - name - 2
    return [(start, theme.DIM), (f"{model}  ", theme.BOLD), (cut(outcome(row), max(0, room)), theme.PLAIN)]


def lines(rows: list[Row], width: int, now: float, current: str) -> list[list[Piece]]:
    """The list of rows; `current` is the recipe that is edited."""
    name = _name_width(rows)
    return [line(row, width, name, now, current) for row in rows]


def recipe_digest(row: Row) -> str:
    """The beginning of the digest of a row's recipe, equal for equal recipes; empty for a checkpoint."""
    return "" if row.recipe is None else hashlib.sha256(row.recipe.encode("utf-8", "backslashreplace")).hexdigest()[:5]


def _name_width(rows: list[Row]) -> int:
    return min(NAME, max((cell_len(one_line(row.text("name") or "?")) for row in rows), default=5))


def outcome(row: Row) -> str:
    """Prompt and answer, or scores, in one line."""
    if "prompt" in row.values:
        return one_line(f"> {row.text('prompt')[:60]} -> {row.text('answer')[:200]}")
    scores = [f"{label} {row.shown(name)}" for name, label in labels(row) if not name.endswith(" coverage")]
    return one_line(", ".join(scores)) or row.text("what")


def labels(row: Row) -> list[tuple[str, str]]:
    """(name, name for the screen) of each measure that has a value."""
    found = row.values.get("measures")
    kinds = found if isinstance(found, dict) else {}
    return [
        (name, name.removesuffix("loss") + "perplexity" if StateRecord(kinds[name]).text("kind") == "loss" else name)
        for name in row.measures
    ]


def whole(row: Row) -> list[str | tuple[str, Style]]:
    """Everything of a row, for a window to read."""
    made: list[str | tuple[str, Style]] = []
    facts = {key: row.text(key) for key in ("name", "path", "time", "what", "base", "split", "stage", "stop")}
    settings = row.values.get("settings")
    if isinstance(settings, dict):
        facts["settings"] = ", ".join(f"{key} {value}" for key, value in settings.items())
    for key in ("tokens", "tokens_per_second", "first_token_seconds", "seconds"):
        if (value := StateRecord(row.values).number(key)) is not None:
            facts[key.replace("_", " ")] = f"{value:g}"
    made += [f"{key:<20} {one_line(value)}" for key, value in facts.items() if value]
    if scores := labels(row):
        made += ["", ("Scores", theme.TITLE), *(f"{one_line(label):<32} {row.shown(name)}" for name, label in scores)]
    for key in ("prompt", "answer"):
        if key in row.values:
            made += ["", (key.capitalize(), theme.TITLE), *safe(row.text(key)).split("\n")]
    made += ["", ("Recipe", theme.TITLE)]
    made += [one_line(text) for text in row.recipe.splitlines()] if row.recipe else ["a checkpoint, no recipe"]
    return made
