"""One request to a loaded model as a stream of events: what the command line prints and the resident child sends.

Events are plain dicts: {"event": "token", "text"}, {"event": "probe", "name", "index", "total", "right"}, {"event":
"reading", "name", "tokens", "total"} during a long text, {"event": "perplexity", "name", "value", ...}, and at the end
{"event": "done"} with every statistic (see `Report`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..statefile import open_regular
from ..text import size as bytes_as_text
from .environment import fitting_threads, peak_memory
from .generate import Generation, pieces
from .probe_set import ProbeSet
from .score import score
from .subject import Subject
from .text_measures import default_window, finite_on_ids, perplexity_steps

Event = dict[str, Any]

MAX_TEXT = 20_000_000
"""Most bytes of a text; to measure a longer one takes days on a CPU."""
_SHOWN = 24
"""Characters of a text that serve as its name."""


@dataclass(frozen=True)
class Text:
    """A text and its name: its file, or its beginning; `problem` is why it cannot be read."""

    name: str
    text: str
    problem: InputError | None = None


@dataclass(frozen=True)
class Request:
    """What to do with a model.

    Attributes:
        prompt: text to continue; None for none.
        n: most tokens to generate.
        probes: probe sets to score.
        texts: texts to measure the perplexity of.
        temperature: sampling temperature; 0 for greedy.
        top_p: share of probability that sampling draws from.
        seed: random seed of sampling.
        chat: whether the prompt is put into the tokenizer's chat template if there is one.
        system: the system's message of the chat; None for none.
        check: whether a model that is not asked anything is run on fixed token ids, to see that its logits are finite.
        go_on: whether a text that cannot be measured has an event with an `error`, and the others are measured.
    """

    prompt: str | None = None
    n: int = 64
    probes: tuple[ProbeSet, ...] = ()
    texts: tuple[Text, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    chat: bool = False
    system: str | None = None
    check: bool = True
    go_on: bool = False


@dataclass
class Report:
    """Every statistic of a request; those that were not requested are None or empty.

    Attributes:
        text: the text that follows the prompt.
        tokens: number of its tokens.
        chat: whether the prompt was put into the chat template; None without a prompt.
        stop: why it ended: `length`, `eos`, `context`, `not finite`.
        tokens_per_second: speed after the first token.
        load_seconds: time of loading the model, even if that was for an earlier request.
        peak_memory_bytes: peak memory of this process, or on CUDA of the device; None if unknown.
        finite: whether all logits were finite.
        degenerate: whether the text repeats itself; None without a prompt.
        perplexity: {name, tokens, window, stride, context, value} of each text; value is None if it is not
            finite. With `go_on`, a text that cannot be measured has {name, value: None, error}.
        probes: {file, name, right, total, score} of each probe set.
        layers, parameters, dtype, device: see `Subject`.
        notes: sentences for the user.
    """

    text: str | None = None
    chat: bool | None = None
    tokens: int = 0
    stop: str = ""
    tokens_per_second: float | None = None
    load_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    finite: bool = True
    degenerate: bool | None = None
    perplexity: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)
    layers: int = 0
    parameters: int = 0
    dtype: str = ""
    device: str = ""
    notes: list[str] = field(default_factory=list)


def loaded(subject: Subject) -> Event:
    """The event that describes the loaded model."""
    return {
        "event": "loaded",
        "seconds": round(subject.seconds, 3),
        "layers": subject.layers,
        "parameters": subject.parameters,
        "dtype": subject.dtype,
        "device": subject.device,
        "chat": subject.chat,
    }


def run(subject: Subject, request: Request, check: Callable[[], None] = lambda: None) -> Iterator[Event]:
    """Carry out a request: the prompt, then the probe sets, then the perplexity, then `done`.

    Args:
        subject: the model.
        request: what to do.
        check: called regularly; may raise to stop.

    Raises:
        InputError: the request has a text and the model has no tokenizer, or the prompt is too long.
        SurgeonError: the model fails.
    """
    report = Report(
        load_seconds=round(subject.seconds, 3),
        layers=subject.layers,
        parameters=subject.parameters,
        dtype=subject.dtype,
        device=subject.device,
    )
    with fitting_threads(subject.parameters, subject.device):
        if request.prompt is not None:
            yield from _prompt(subject, request, report, check)
        for probes in request.probes:
            yield from _probes(subject, probes, report, check)
        for text in request.texts:
            try:
                yield from _measure(subject, text, report, check)
            except InputError as error:
                if not request.go_on or subject.tokenizer is None:
                    raise
                failed = {"name": text.name, "value": None, "error": error.sentence()}
                report.perplexity.append(failed)
                yield {"event": "perplexity", **failed}
        if request.prompt is None and not request.texts and request.check:
            report.finite = report.finite and finite_on_ids(subject)
    if subject.tokenizer is None:
        report.notes.append(
            f"no text was generated, because {subject.why_no_tokenizer}: the model was run on fixed token ids"
        )
    report.peak_memory_bytes = peak_memory(subject.device)
    yield {"event": "done", **asdict(report)}


def _prompt(subject: Subject, request: Request, report: Report, check: Callable[[], None]) -> Iterator[Event]:
    assert request.prompt is not None
    made, text = Generation(), ""
    report.chat = request.chat and subject.chat
    if request.system is not None and not report.chat:
        why = "the prompt is raw text" if subject.chat else "the tokenizer has no chat template"
        report.notes.append(f"the system's message is left out, because {why}")
    ids = subject.encode_chats([(request.prompt, request.system)])[0] if report.chat else subject.encode(request.prompt)
    temperature, top_p, seed = request.temperature, request.top_p, request.seed
    for piece in pieces(subject, ids, request.n, made, temperature=temperature, top_p=top_p, seed=seed):
        check()
        text += piece
        yield {"event": "token", "text": piece}
    report.text, report.tokens, report.stop = text, len(made.ids), made.stop
    report.finite, report.degenerate = made.finite, made.degenerate
    report.tokens_per_second = round(made.tokens_per_second, 2)


def _probes(subject: Subject, probes: ProbeSet, report: Report, check: Callable[[], None]) -> Iterator[Event]:
    right, total = 0, len(probes.probes)
    for index, outcome in enumerate(score(subject, probes, check), start=1):
        check()
        right += outcome.right
        yield {"event": "probe", "name": probes.name, "index": index, "total": total, "right": right}
    report.probes.append(
        {
            "file": str(probes.path),
            "name": probes.name,
            "right": right,
            "total": total,
            "score": round(right / total, 4),
        }
    )


def _measure(subject: Subject, text: Text, report: Report, check: Callable[[], None]) -> Iterator[Event]:
    if text.problem is not None:
        raise text.problem
    ids, size = subject.encode(text.text), default_window(subject)
    steps = perplexity_steps(subject, ids, window=size, check=check)
    while True:
        try:
            read = next(steps)
        except StopIteration as end:
            value = float(end.value)
            break
        yield {"event": "reading", "name": text.name, "tokens": read, "total": len(ids)}
    report.finite = report.finite and not math.isnan(value)
    found = {
        "name": text.name,
        "tokens": len(ids),
        "window": size,
        "stride": size - size // 2,
        "context": subject.context,
        "value": value if math.isfinite(value) else None,
    }
    report.perplexity.append(found)
    yield {"event": "perplexity", **found}


def text_in(path: Path) -> Text:
    """The text of a file.

    Raises:
        InputError: the file does not exist, cannot be read, or has no text.
    """
    try:
        with open_regular(path, follow=True) as file:
            data = file.read(MAX_TEXT + 1)
        if len(data) > MAX_TEXT:
            raise InputError(
                f"the text is larger than {bytes_as_text(MAX_TEXT)}", where=str(path), remedy="use a part of it"
            )
        text = data.decode().replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError("the file is not UTF-8 text", where=str(path)) from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot read the text: {why}",
            where=str(path),
            remedy="name a file, or pass the text itself with --perplexity-text",
        ) from error
    return _filled(Text(str(path), text))


def text_or_problem(path: Path) -> Text:
    """The text of a file, or a text with the problem that `text_in` raises."""
    try:
        return text_in(path)
    except InputError as error:
        return Text(str(path), "", error)


def text_given(text: str) -> Text:
    """A text from the command line or a request; InputError if it is empty."""
    return _filled(Text(repr(text[:_SHOWN] + ("..." if len(text) > _SHOWN else "")), text))


def _filled(text: Text) -> Text:
    if not text.text.strip():
        raise InputError("there is no text to measure the perplexity of", where=text.name)
    return text
