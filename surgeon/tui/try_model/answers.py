"""What models answered: the requests of each model on the Try screen, and the lines that show them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ...text import duration, one_line, plural, safe, size
from .. import theme
from ..cells import wrapped
from ..widgets.line import Piece

AT_ONCE = "ended at once: end of text"


@dataclass
class Answer:
    """One request: what was asked, the text so far, and how it ended.

    Attributes:
        since: when the wait for it began, a time of `time.monotonic`.
        number: its number at the process; None before it was sent.
    """

    ask: str
    since: float = field(default_factory=time.monotonic)
    number: int | None = None
    text: str = ""
    state: str = "waiting"
    bad: bool = False

    def take(self, event: dict[str, Any]) -> None:
        """Take an event of the process that holds the model."""
        kind = event.get("event")
        if kind == "loading":
            self.state = "loading the model"
        elif kind == "loaded":
            self.state = f"loaded in {self.waited()}, {event.get('layers')} layers"
        elif kind == "token":
            self.text += str(event.get("text", ""))
        elif kind == "probe":
            self.state = f"{event.get('right')} right of {event.get('index')} (of {event.get('total')} in total)"
        elif kind == "cancelled":
            self.state = "stopped"
        elif kind == "error":
            self.state, self.bad = str(event.get("message")), True
        elif kind == "done":
            self.state = summary(event, self.waited())
            self.bad = not event.get("finite", True) or bool(event.get("degenerate"))

    def waited(self) -> str:
        """The time since the wait began."""
        seconds = time.monotonic() - self.since
        return f"{seconds:.2f}s" if seconds < 1 else duration(seconds)


@dataclass
class Column:
    """A model and its answers.

    Attributes:
        target: its recipe file or checkpoint; empty until a copy of the unwritten recipe is on disk.
        recipe: the text that is copied; empty for the session's recipe.
        kind: `recipe`, or `path` for a checkpoint.
        chat: whether its tokenizer has a chat template; None until it is loaded.
    """

    name: str
    target: str
    kind: str
    recipe: str = ""
    chat: bool | None = None
    answers: list[Answer] = field(default_factory=list)

    def take(self, event: dict[str, Any]) -> None:
        """Note what an event says about the model."""
        if event.get("event") == "loaded":
            self.chat = bool(event.get("chat"))

    @property
    def transcript(self) -> str:
        """The model and its answers as plain text."""
        parts = [one_line(self.name)]
        parts += [f"> {safe(answer.ask)}\n{safe(answer.text)}\n[{one_line(answer.state)}]" for answer in self.answers]
        return "\n\n".join(parts) + "\n"


def summary(event: dict[str, Any], waited: str) -> str:
    """What a finished request measured, in one line; `waited` is the time since it was asked."""
    scores = [f"{p['name']} {p['right']}/{p['total']} ({p['score']:.3f})" for p in event.get("probes") or []]
    if scores:
        return ", ".join(scores)
    if event.get("text") is None:
        return ", ".join([f"ready after {waited}", *(event.get("notes") or [])])
    parts = ["chat" if event.get("chat") else "raw"]
    if not event.get("tokens") and event.get("stop") == "eos":
        parts.append(AT_ONCE)
    else:
        ends = {"eos": " (end of text)", "context": " (the context is full)"}
        parts.append(plural(event.get("tokens") or 0, "token") + ends.get(event.get("stop") or "", ""))
    if event.get("tokens_per_second"):
        parts.append(f"{event['tokens_per_second']:.0f} tok/s")
    if event.get("peak_memory_bytes"):
        parts.append(f"peak {size(event['peak_memory_bytes'])}")
    parts.append("finite" if event.get("finite", True) else "NOT FINITE: the logits hold NaN or infinity")
    if event.get("degenerate"):
        parts.append("DEGENERATE: the text repeats itself")
    return ", ".join([*parts, *(event.get("notes") or [])])


def lines_of(column: Column, width: int) -> list[list[Piece]]:
    """A column as styled lines."""
    lines: list[list[Piece]] = [[(f" {one_line(column.name)}", theme.TITLE)]]
    for answer in column.answers:
        lines.append([])
        for number, asked in enumerate(safe(answer.ask).split("\n")):
            sign = "> " if number == 0 else "  "
            lines += [[(f" {part}", theme.BOLD)] for part in wrapped(sign + asked, width, indent="  ")]
        if answer.text:
            lines += [[(f" {part}", theme.PLAIN)] for part in wrapped(safe(answer.text), width)]
        style = theme.SEVERITY["error"] if answer.bad else theme.DIM
        lines += [[(f" {part}", style)] for part in wrapped(one_line(answer.state), width, indent="  ")]
    return lines
