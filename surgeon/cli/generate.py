"""`surgeon generate PATH|RECIPE`: smoke-test a model: text, speed, scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, SurgeonError
from ..text import duration, plural, safe, size
from .common import JsonOption, SetOption, refuse

if TYPE_CHECKING:
    from ..probe.requests import Request
    from ..probe.subject import Subject

DEFAULT_PROMPT = "The"
DEFAULT_MESSAGE = "Hello! What can you do?"
"""The default prompt of a model that is asked in its chat template."""
KEYS = (
    "text", "chat", "tokens", "stop", "tokens_per_second", "load_seconds", "peak_memory_bytes", "finite", "degenerate",
    "perplexity", "probes", "layers", "parameters", "dtype", "device",
)  # fmt: skip
"""The keys that `--json` prints, in this order."""


def generate(
    target: Annotated[
        str, typer.Argument(help="A checkpoint (folder, .safetensors file, Hub id) or a recipe.", metavar="PATH|RECIPE")
    ],
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="The text to continue, or the message where there is a chat template."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without the chat template.")
    ] = False,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="The system's message of the chat.")] = None,
    n: Annotated[int, typer.Option("-n", "--tokens", min=1, help="Maximum number of tokens to generate.")] = 64,
    probe: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A probe set to score: prompts and expected answers in JSONL or YAML."),
    ] = None,
    perplexity: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A file of text to measure the perplexity of; may be repeated."),
    ] = None,
    perplexity_text: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A text to measure the perplexity of; may be repeated.")
    ] = None,
    sets: SetOption = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token; above 0 samples.")] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Sample from the likeliest tokens that have this probability together."),
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of sampling.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: JsonOption = False,
    events: Annotated[bool, typer.Option("--events", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Smoke-test a checkpoint from disk, or a recipe's model in memory, without writing it."""
    from ..probe import requests
    from ..probe.probe_set import read_probes

    try:
        wanted = requests.Request(
            prompt=prompt,
            n=n,
            probes=tuple(read_probes(path) for path in probe or ()),
            texts=(
                *(requests.text_in(path) for path in perplexity or ()),
                *(requests.text_given(text) for text in perplexity_text or ()),
            ),
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            chat=not raw,
            system=system,
        )
        _refuse_without_effect(wanted, raw)
        if events:
            _show_event({"event": "loading"})
        subject = _load(target, sets, device)
        if system is not None and subject.tokenizer is not None and not subject.chat:
            raise InputError(
                "--system needs a chat template", where=target, why="the tokenizer has none", remedy="leave it out"
            )
        wanted = _with_default(wanted, subject)
        if events:
            _show_event(requests.loaded(subject))
        done = _run(subject, wanted, quiet=as_json, events=events)
        if as_json and not events:
            print(json.dumps({key: done[key] for key in KEYS}, indent=2))
        if not done["finite"]:
            raise SurgeonError(
                "the logits are not finite",
                where=target,
                why="the model computes infinities or NaN",
                remedy="look for a scale or a weight that is too large, or for a damaged donor",
            )
    except SurgeonError as error:
        if events:
            _show_event({"event": "error", "message": error.sentence()})
        raise


def _refuse_without_effect(wanted: Request, raw: bool) -> None:
    """Refuse options that have no meaning together."""
    if raw and wanted.system is not None:
        raise InputError("--system has no meaning with --raw", remedy="leave one of them out")
    if wanted.top_p < 1 and wanted.temperature == 0:
        raise InputError(
            "--top-p has no meaning at temperature 0",
            why="the likeliest token is taken",
            remedy="add --temperature 0.7",
        )


def _load(target: str, sets: list[str] | None, device: str) -> Subject:
    from ..checkpoint import open_checkpoint
    from ..plan.load import is_recipe, load_plan
    from ..probe.subject import from_checkpoint, from_plan

    if is_recipe(target):
        _, plan = load_plan(Path(target), sets)
        refuse(plan, target)
        return from_plan(plan, device)
    if sets:
        raise InputError("--set belongs to a recipe", where=target, remedy="leave it out for a checkpoint")
    checkpoint = open_checkpoint(target)
    return from_checkpoint(checkpoint, device)


def _with_default(wanted: Request, subject: Subject) -> Request:
    """The request; if it asks for nothing and the model has a tokenizer, with the default prompt."""
    from dataclasses import replace

    if wanted.prompt is not None or wanted.probes or wanted.texts or subject.tokenizer is None:
        return wanted
    if wanted.chat and subject.chat:
        _say(f"no --prompt given, so the message is {DEFAULT_MESSAGE!r} (--raw continues a text)")
        return replace(wanted, prompt=DEFAULT_MESSAGE)
    _say(f"no --prompt given, so the text begins with {DEFAULT_PROMPT!r}")
    return replace(wanted, prompt=DEFAULT_PROMPT)


def _run(subject: Subject, wanted: Request, *, quiet: bool, events: bool) -> dict[str, Any]:
    """Run the request, print its events as they come, and return the last one."""
    from ..probe import requests

    done: dict[str, Any] = {}
    try:
        for event in requests.run(subject, wanted):
            if event["event"] == "done":
                done = event
                if not quiet and not events:
                    _show_done(wanted, done)
            elif event["event"] == "token" and not quiet and not events:
                _show_text(event["text"])
            if events:
                _show_event(event)
    except BaseException:
        if wanted.prompt is not None and not quiet and not events:
            _show_text("\n")
        raise
    return done


def _show_done(wanted: Request, done: dict[str, Any]) -> None:
    if wanted.prompt is not None:
        _show_text("\n")
    for probes in done["probes"]:
        print(f"{safe(probes['name'])}: {probes['right']}/{probes['total']} ({probes['score']:.3f})", flush=True)
    for text in done["perplexity"]:
        value = "not finite" if text["value"] is None else f"{text['value']:.4g}"
        print(f"{safe(text['name'])}: perplexity {value} ({window(text)})", flush=True)
    for note in done["notes"]:
        _say(note)
    _say(", ".join(statistics(done)))


def statistics(done: dict[str, Any]) -> list[str]:
    """The statistics of a `done` event as phrases."""
    parts = []
    empty = done["text"] is not None and not done["tokens"]
    if done["text"] is not None:
        parts.append("chat template" if done["chat"] else "raw text")
    if empty and done["stop"] == "eos":
        parts.append("ended at once: end of text")
    elif done["text"] is not None:
        parts.append(plural(done["tokens"], "token") + (" (end of text)" if done["stop"] == "eos" else ""))
        parts.append(f"{done['tokens_per_second']:.1f} tok/s")
    parts.append(f"loaded in {duration(done['load_seconds'])}")
    if done["peak_memory_bytes"] is not None:
        parts.append(f"peak memory {size(done['peak_memory_bytes'])}")
    parts.append("logits finite" if done["finite"] else "logits NOT finite")
    if done["degenerate"] is not None and not empty:
        parts.append("text DEGENERATE (it repeats itself)" if done["degenerate"] else "text not degenerate")
    return parts


def window(text: dict[str, Any]) -> str:
    """How the text was split for the perplexity, as a phrase."""
    read = plural(text["tokens"], "token")
    if text["tokens"] <= text["window"]:
        return f"{read} in one window"
    context = text["context"]
    of = f" of the model's {context:,}" if context and context > text["window"] else ""
    return f"{read}, window {text['window']:,}{of}, stride {text['stride']:,}"


def _show_text(text: str) -> None:
    # Tabs and newlines stay; `safe` makes every other control character visible.
    shown = "\t".join(safe(part) for part in text.split("\t"))
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(shown.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def _show_event(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def _say(text: str) -> None:
    print(safe(text), file=sys.stderr, flush=True)
