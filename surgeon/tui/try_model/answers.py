"""What models answered: a turn is a prompt with the answer of each model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...text import duration, one_line, plural, safe, size

AT_ONCE = "ended at once: end of text"


@dataclass
class Answer:
    """One request: the text so far, and how it ended.

    Attributes:
        since: when the wait for it began, a time of `time.monotonic`.
        number: its number at the process; None before it was sent.
        first: seconds until the first token; None before it.
        done: the statistics of a complete answer; None before.
        ended: whether nothing more is to come.
    """

    since: float = field(default_factory=time.monotonic)
    number: int | None = None
    text: str = ""
    state: str = "waiting"
    bad: bool = False
    first: float | None = None
    done: Mapping[str, Any] | None = None
    ended: bool = False

    def take(self, event: dict[str, Any]) -> None:
        """Take an event of the process that holds the model."""
        kind = event.get("event")
        if kind == "loading":
            self.state = "loading the model"
        elif kind == "loaded":
            self.state = f"loaded in {self.waited()}, {event.get('layers')} layers"
        elif kind == "token":
            if self.first is None:
                self.first = time.monotonic() - self.since
            self.text += str(event.get("text", ""))
        elif kind == "cancelled":
            self.state, self.ended = "stopped", True
        elif kind == "error":
            self.state, self.bad, self.ended = str(event.get("message")), True, True
        elif kind == "done":
            self.state = summary(event, self.waited())
            self.bad = not event.get("finite", True) or bool(event.get("degenerate"))
            self.done, self.ended = event, True

    def waited(self) -> str:
        """The time since the wait began."""
        seconds = time.monotonic() - self.since
        return f"{seconds:.2f}s" if seconds < 1 else duration(seconds)


@dataclass
class Turn:
    """A prompt, and what each model answered.

    Attributes:
        settings: how it was asked, as sent to the process.
        answers: the answer of each model, by `ColumnModel.key`.
        states: for each column that was asked, by `ColumnModel.spec`, the key of its model then.
    """

    prompt: str
    settings: Mapping[str, Any]
    answers: dict[str, Answer] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)

    def of(self, spec: str, key: str) -> tuple[Answer | None, bool]:
        """The answer of a column, and whether it is that of an earlier state of its model."""
        if key in self.answers:
            return self.answers[key], False
        return self.answers.get(self.states.get(spec, "")), True

    @property
    def transcript(self) -> str:
        """The prompt as plain text."""
        return f"> {safe(self.prompt)}"


def summary(event: Mapping[str, Any], waited: str) -> str:
    """What a finished request measured, in one line; `waited` is the time since it was asked."""
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


def transcript(turns: list[Turn], columns: list[tuple[str, str, str]]) -> str:
    """All turns as plain text; `columns` are (name, spec, key) of each model."""
    parts = []
    for turn in turns:
        parts.append(turn.transcript)
        for name, spec, key in columns:
            answer, old = turn.of(spec, key)
            if answer is not None:
                mark = " (an earlier state)" if old else ""
                parts.append(f"{one_line(name)}{mark}:\n{safe(answer.text)}\n[{one_line(answer.state)}]")
    return "\n\n".join(parts) + "\n" if parts else ""
