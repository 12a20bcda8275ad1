"""`surgeon results [FILE]`: what was evaluated and tried, and what came out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..text import one_line, plural, safe
from .common import JsonOption
from .table import Style, TableRow, say, table

if TYPE_CHECKING:
    from ..evaluate.results import Row


def results(
    file: Annotated[
        Path | None, typer.Argument(help="The results file; default: surgeon-results.jsonl here.", metavar="FILE")
    ] = None,
    as_json: JsonOption = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of text.")] = False,
    last: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the last N rows.")] = None,
    recipe: Annotated[int | None, typer.Option(min=1, metavar="N", help="Print the recipe of row N.")] = None,
) -> None:
    """List what was evaluated and tried, with its scores."""
    from ..evaluate.results import NAME, read_results

    if as_json and as_markdown:
        raise InputError("--json and --markdown exclude each other", remedy="leave one of them out")
    path = Path(NAME) if file is None else file / NAME if file.is_dir() else file
    rows, bad = read_results(path)
    if recipe is not None:
        _print_recipe(rows, recipe, path)
        return
    rows = rows[-last:] if last else rows
    if as_json:
        print(json.dumps([{"row": one.number, **one.values} for one in rows], indent=2))
    elif as_markdown:
        for line in _markdown(rows):
            say(line)
    else:
        for line in lines(rows, Style.of(sys.stdout)):
            say(line)
    if bad:
        text = f"{safe(path)}: {plural(bad, 'line')} cannot be read and {'is' if bad == 1 else 'are'} left out."
        print(text, file=sys.stderr)


def _print_recipe(rows: list[Row], number: int, path: Path) -> None:
    row = next((one for one in rows if one.number == number), None)
    if row is None:
        raise InputError(f"there is no row {number}", where=str(path), remedy="see the numbers in `surgeon results`")
    if row.recipe is None:
        raise InputError(f"row {number} has no recipe", where=str(path), why="it is a checkpoint's")
    for line in row.recipe.splitlines():
        say("\t".join(safe(part) for part in line.split("\t")))


def _cells(row: Row, names: list[str]) -> list[str]:
    return [row.shown(name) for name in names]


def _measures(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.measures))


def _head(row: Row) -> str:
    return one_line(f"{row.number} {row.text('name') or '?'}")


def _facts(row: Row) -> dict[str, str]:
    """What else a row says, as text."""
    facts = {"time": row.text("time"), "what": row.text("what"), "split": row.text("split")}
    facts |= {"prompt": row.text("prompt")[:200], "answer": row.text("answer")[:200]}
    return {key: one_line(value) for key, value in facts.items() if value}


def lines(rows: list[Row], style: Style) -> list[str]:
    """The rows as columns of a table of measures."""
    if not rows:
        return ["nothing was evaluated or tried yet"]
    facts = [_facts(row) for row in rows]
    made = [
        TableRow(key, tuple(one.get(key, "-") for one in facts), ())
        for key in ("time", "what", "split", "prompt", "answer")
        if any(key in one for one in facts)
    ]
    made += [TableRow(one_line(name), tuple(row.shown(name) for row in rows), ()) for name in _measures(rows)]
    return table(made, [_head(row) for row in rows], style)


def _markdown(rows: list[Row]) -> list[str]:
    from ..evaluate.report import markdown_table

    names = _measures(rows)
    head = ["row", "time", "model", *names]
    return markdown_table(
        head, [[str(row.number), row.text("time"), row.text("name"), *_cells(row, names)] for row in rows]
    )
