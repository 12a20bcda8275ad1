"""`surgeon methods [NAME]`: list the merge methods, their parameters, and the source of each formula."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from .common import JsonOption
from .table import say, wrap

if TYPE_CHECKING:
    from ..methods import Method, Parameter

WIDTH = 80
_BASE = {
    "none": "base_model gives only the config and the tokenizer",
    "member": "base_model, if the recipe names one, is one more donor",
    "start": "base_model is the donor at 0; without one, it is the first source",
    "optional": "base_model, if the slice has it, is subtracted from the donors and added to the result",
    "required": "base_model is required: it is subtracted from the donors and added to the result",
}


def methods(
    name: Annotated[str | None, typer.Argument(help="A method, to see its parameters.", metavar="NAME")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the merge methods: parameters, and the source of each formula."""
    from ..methods.catalogue import every, suggestion

    known = every()
    if name is not None and name not in known:
        guess = suggestion(name)
        raise InputError(f"there is no method {name!r}", remedy=f"try {guess}" if guess else "see `surgeon methods`")
    chosen = [known[name]] if name else list(known.values())
    if as_json:
        print(json.dumps([to_dict(method) for method in chosen], indent=2))
        return
    for line in lines(chosen[0]) if name else overview(chosen):
        say(line)


def overview(found: list[Method]) -> Iterator[str]:
    """Name and summary of each method."""
    width = max(len(method.name) for method in found)
    for method in found:
        first, *rest = wrap(method.summary, WIDTH - width - 4)
        yield f"  {method.name:<{width}}  {first}"
        yield from (" " * (width + 4) + line for line in rest)
    yield ""
    yield "`surgeon methods NAME` shows a method's parameters."


def lines(method: Method) -> Iterator[str]:
    """Everything about one method, in at most 80 columns."""
    from ..plan.layers.blending import counted

    yield method.name
    for text in (method.summary, f"Source: {method.source}"):
        yield from (f"  {line}" for line in wrap(text, WIDTH - 2))
    base = " plus the base" if method.subtracts else ""
    yield from (f"  {line}" for line in wrap(f"Takes {counted(method.donors)}{base}; {_BASE[method.base]}.", WIDTH - 2))
    if method.parameters:
        yield ""
        width = max(len(name) for name in method.parameters)
        for parameter in method.parameters.values():
            first, *rest = wrap(_facts(parameter), WIDTH - width - 4)
            yield f"  {parameter.name:<{width}}  {first}"
            yield from (" " * (width + 4) + line for line in rest)


def _facts(parameter: Parameter) -> str:
    from ..plan.layers.blending import shown

    facts = ["one per donor" if parameter.each else "one for all donors"]
    facts.append("required" if parameter.required else f"default {shown(parameter.default)}")
    if parameter.words:
        facts.append(f"one of {', '.join(parameter.words)}")
    elif parameter.kind == "bool":
        facts.append("true or false")
    if parameter.low is not None and parameter.high is not None:
        facts.append(f"{parameter.low:g} to {parameter.high:g}")
    elif parameter.low is not None:
        facts.append(f"at least {parameter.low:g}")
    return f"{parameter.help} ({', '.join(facts)})" if parameter.help else ", ".join(facts)


def to_dict(method: Method) -> dict[str, Any]:
    """A method for JSON."""
    return {
        "name": method.name,
        "summary": method.summary,
        "source": method.source,
        "donors": {"least": method.donors[0], "most": method.donors[1]},
        "base": method.base,
        "parameters": [
            {
                "name": p.name,
                "each": p.each,
                "kind": p.kind,
                "required": p.required,
                "default": None if p.required else p.default,
                "low": p.low,
                "high": p.high,
                "words": list(p.words),
                "help": p.help,
            }
            for p in method.parameters.values()
        ],
    }
