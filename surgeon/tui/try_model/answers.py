"""What models answered: the requests of each model on the Try screen, and the lines that show them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...text import one_line, safe, size
from .. import theme
from ..widgets.line import Piece
from ..widgets.text_pane import wrapped


@dataclass
class Answer:
    """One request: what was asked, the text so far, and how it ended."""

    ask: str
    text: str = ""
    state: str = ""
    bad: bool = False

    def take(self, event: dict[str, Any]) -> None:
        """Take an event of the process that holds the model."""
        kind = event.get("event")
        if kind == "loading":
            self.state = "loading the model"
        elif kind == "loaded":
            self.state = f"loaded in {event.get('seconds', 0):.1f}s, {event.get('layers')} layers"
        elif kind == "token":
            self.text += str(event.get("text", ""))
        elif kind == "probe":
            self.state = f"{event.get('right')} right of {event.get('index')} (of {event.get('total')} in total)"
        elif kind == "cancelled":
            self.state = "stopped"
        elif kind == "error":
            self.state, self.bad = str(event.get("message")), True
        elif kind == "done":
            self.state = summary(event)
            self.bad = not event.get("finite", True) or bool(event.get("degenerate"))


@dataclass
class Column:
    """A model and its answers, by the id of the request.

    Attributes:
        target: its recipe file or checkpoint; empty until a copy of the unwritten recipe is on disk.
        kind: `recipe`, or `path` for a checkpoint.
    """

    name: str
    target: str
    kind: str
    answers: dict[int, Answer] = field(default_factory=dict)


def summary(event: dict[str, Any]) -> str:
    """What a finished request measured, in one line."""
    scores = [f"{p['name']} {p['right']}/{p['total']} ({p['score']:.3f})" for p in event.get("probes") or []]
    if scores:
        return ", ".join(scores)
    if not event.get("tokens"):
        loaded = event.get("load_seconds")
        return f"ready, loaded in {loaded:.1f}s" if isinstance(loaded, (int, float)) else "ready"
    parts = [f"{event['tokens']} tokens"]
    if event.get("tokens_per_second"):
        parts.append(f"{event['tokens_per_second']:.0f} tok/s")
    if event.get("peak_memory_bytes"):
        parts.append(f"peak {size(event['peak_memory_bytes'])}")
    parts.append("finite" if event.get("finite", True) else "NOT FINITE: the logits hold NaN or infinity")
    if event.get("degenerate"):
        parts.append("DEGENERATE: the text repeats itself")
    return ", ".join(parts)


def lines_of(column: Column, width: int) -> list[list[Piece]]:
    """A column as styled lines."""
    lines: list[list[Piece]] = [[(f" {one_line(column.name)}", theme.TITLE)]]
    for answer in column.answers.values():
        lines.append([])
        lines += [[(f" {part}", theme.BOLD)] for part in wrapped(f"> {one_line(answer.ask)}", width, indent="  ")]
        if answer.text:
            lines += [[(f" {part}", theme.PLAIN)] for part in wrapped(safe(answer.text), width)]
        style = theme.SEVERITY["error"] if answer.bad else theme.DIM
        lines += [[(f" {part}", style)] for part in wrapped(one_line(answer.state), width, indent="  ")]
    return lines
