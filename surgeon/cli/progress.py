"""The progress of writing a model, as text: a line that is redrawn on a terminal, else a line from time to time."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..text import duration, one_line, plural, size

Event = dict[str, Any]
Show = Callable[[Event], None]

PLAIN_INTERVAL = 30.0
"""Seconds between two lines where stderr is no terminal."""

WIDEST = 160
"""Maximum columns: four redraws per second stay far below 1.5 kB on very wide screens too."""

_BAR = 20


@contextlib.contextmanager
def shown(layers: int, silent: bool = False) -> Iterator[Show]:
    """A function that shows events on stderr: not at all if silent, redrawn on a terminal, else line by line."""
    if silent:
        yield lambda event: None
    elif sys.stderr.isatty():
        with bar(layers) as show:
            yield show
    else:
        yield _lines(layers)


@contextlib.contextmanager
def bar(layers: int) -> Iterator[Show]:
    """A function that shows events in one redrawn line on stderr; the line is erased at the end."""
    last, files = "", 0

    def draw(text: str) -> None:
        nonlocal last
        # Unchanged text is not sent again: the terminal may be behind a slow SSH connection.
        if text != last:
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()
            last = text

    def show(event: Event) -> None:
        nonlocal files
        width = min(shutil.get_terminal_size().columns, WIDEST) - 1
        if event["event"] == "start":
            files = int(event["shards"])
        elif event["event"] == "progress":
            draw(line(event, width, layers, files))
        elif event["event"] == "check":
            draw("checking the config"[:width])

    draw("starting")
    try:
        yield show
    finally:
        with contextlib.suppress(OSError):
            draw("")
            sys.stderr.write("\r")
            sys.stderr.flush()


def line(event: Event, width: int, layers: int, files: int) -> str:
    """A progress event in `width` columns; the least important parts are dropped first."""
    parts = words(event, layers, files)
    while len(parts) > 1 and len("  ".join(parts)) > width:
        parts.pop()
    room = width - len("  ".join(parts)) - 4
    if room >= _BAR:
        filled = round(_BAR * _share(event))
        parts.insert(1, f"[{'#' * filled}{'.' * (_BAR - filled)}]")
    return "  ".join(parts)[:width]


def words(event: Event, layers: int, files: int) -> list[str]:
    """The parts of a progress event as phrases, the most important first."""
    parts = [
        f"{100 * _share(event):3.0f}%",
        f"{size(event['bytes'])} of {size(event['total'])}",
    ]
    if event["rate"]:
        parts.append(f"{size(event['rate'])}/s")
    if event["eta"]:
        parts.append(f"{duration(event['eta'])} left")
    parts.append(where(event["layer"], layers))
    if event.get("memory"):
        parts.append(f"{size(event['memory'])} memory")
    if files > 1:
        parts.append(f"file {_files(event)} of {files}")
    return parts


def _share(event: Event) -> float:
    return min(1.0, event["bytes"] / event["total"]) if event["total"] else 1.0


def _files(event: Event) -> str:
    """The numbers of the files being written, with the percentage of each; if there are none, the files done."""
    found = []
    for name, (done, total) in sorted(event.get("files", {}).items()):
        number = name.removeprefix("model-").partition("-")[0].lstrip("0")
        found.append(f"{number if number.isdigit() else one_line(name)} {100 * done // max(1, total)}%")
    return ", ".join(found) or str(event.get("files_done", 0))


def _lines(layers: int) -> Show:
    printed, files = time.monotonic(), 0

    def show(event: Event) -> None:
        nonlocal printed, files
        if event["event"] == "start":
            files = int(event["shards"])
            text = f"writing {plural(event['layers'], 'layer')}, {size(event['bytes'])} in {plural(files, 'file')}"
            print(text, file=sys.stderr)
        elif event["event"] == "progress" and time.monotonic() - printed >= PLAIN_INTERVAL:
            printed = time.monotonic()
            print(", ".join(words(event, layers, files)).strip(), file=sys.stderr, flush=True)

    return show


def where(place: int | str | None, layers: int) -> str:
    """The layer or other part of the model that is being written, as a phrase."""
    if isinstance(place, int):
        return f"layer {place} of 0-{layers - 1}"
    return one_line(place or "starting").replace("_", " ")
