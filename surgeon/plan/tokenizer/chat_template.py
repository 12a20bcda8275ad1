"""The output's chat template: the donors' most common one, a known format, or a text in the recipe."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

from ...checkpoint.locate import read_json_object
from ...checkpoint.tokenizer.tokenizer_identity import Tokenizer
from ...errors import InputError
from ...statefile import open_regular
from ...text import nearest, one_line
from ..findings import Finding
from ..model import Donor
from ..new_tokenizer import SETTINGS, TEMPLATE
from .donor_vocabularies import Line
from .known_templates import BUILTIN

AUTO = "auto"
_SHORTEST = 20
_LARGEST = 2_000_000


def choose(
    wanted: str | None,
    donors: Sequence[Donor],
    tokens: Container[str | None] | None,
    *,
    line: Line = lambda *place: None,
) -> tuple[str | None, list[Finding]]:
    """The template's text (None: keep the tokenizer's), and the findings.

    Args:
        wanted: the recipe's `chat_template`: `auto`, a known format, or a Jinja text.
        donors: the donors whose templates `auto` counts; of equally common ones the first donor's is chosen.
        tokens: the output's tokens; None if they are unknown.
        line: gives the line of a place in the recipe.
    """
    if wanted is None:
        return None, []
    place = line("chat_template")
    if wanted == AUTO:
        return _most_common(donors, place)
    if wanted in BUILTIN:
        text, needed = BUILTIN[wanted]
        lacking = [token for token in needed if tokens is not None and token not in tokens]
        return text, [_lacks_tokens(wanted, lacking, place)] if lacking else []
    if len(wanted) < _SHORTEST or "{" not in wanted:
        return None, [_no_template(wanted, place)]
    why = _why_not(wanted)
    if why:
        remedy = "correct the template, or write auto or the name of a known format"
        return None, [Finding("error", "chat-template", "chat_template is not valid Jinja", why, remedy, line=place)]
    return wanted, []


def _no_template(wanted: str, line: int | None) -> Finding:
    known = [AUTO, *BUILTIN]
    guess = nearest(wanted, known)
    what = f"chat_template {one_line(wanted)!r} is neither a known format nor a template"
    remedy = f"did you mean `{guess}`?" if guess else f"write {', '.join(known)}, or a Jinja text"
    why = f"a template has at least {_SHORTEST} characters and a brace"
    return Finding("error", "chat-template", what, why, remedy, line=line)


def _lacks_tokens(name: str, lacking: Sequence[str], line: int | None) -> Finding:
    what = f"The chat template {name} writes {', '.join(lacking)}, none of which is a token of the output"
    if len(lacking) == 1:
        what = f"The chat template {name} writes {lacking[0]}, which is not a token of the output"
    remedy = "use the tokenizer of a donor trained on that format, or the union"
    why = "the tokenizer splits it into pieces that no donor was trained on"
    return Finding("warning", "chat-template", what, why, remedy, line=line)


def _most_common(donors: Sequence[Donor], line: int | None) -> tuple[str | None, list[Finding]]:
    found: dict[str, str] = {}
    for donor in donors:
        try:
            text = template_of(donor.checkpoint.tokenizer)
        except InputError:
            continue  # Whatever else reads the file reports the error.
        if text and text.strip():
            found[donor.letter] = text
    if not found:
        what = "No donor has a chat template"
        return None, [Finding("warning", "chat-template", what, "auto takes the donors' most common one", line=line)]
    counts = Counter(text.strip() for text in found.values())
    most = max(counts.values())
    letters = [letter for letter, text in found.items() if counts[text.strip()] == most]
    chosen = found[letters[0]]
    same = [letter for letter, text in found.items() if text.strip() == chosen.strip()]
    what = f"The chat template is that of {', '.join(same)}"
    why = f"{len(same)} of the {len(donors)} donors have it" if len(counts) > 1 else "it is the only template"
    return chosen, [Finding("note", "chat-template", what, why, line=line)]


def template_of(tokenizer: Tokenizer) -> str | None:
    """A tokenizer's chat template (the default one of several), found as in transformers 5; None without one.

    Raises:
        InputError: a file cannot be read.
    """
    names = {path.name: path for path in tokenizer.files}
    if TEMPLATE in names:
        return _text(names[TEMPLATE])
    value: Any = read_json_object(names[SETTINGS]).get("chat_template") if SETTINGS in names else None
    if value is None and "chat_template.json" in names:
        value = read_json_object(names["chat_template.json"]).get("chat_template")
    if isinstance(value, list):
        named = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None


def _text(path: Path) -> str:
    try:
        with open_regular(path, follow=True) as file:
            raw = file.read(_LARGEST + 1)
        if len(raw) > _LARGEST:
            raise InputError("the file is too large to be a chat template", where=str(path))
        return raw.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise InputError(f"cannot read the file: {error.strerror or error}", where=str(path)) from error


def _why_not(text: str) -> str:
    """Why transformers cannot compile a text as a template; empty if it can, or if jinja2 is not installed."""
    if importlib.util.find_spec("jinja2") is None:
        return ""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The tag that transformers adds to mark an assistant's text."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

        def parse(self, parser: Parser) -> nodes.Node:
            number = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(number)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
        optimized=False,  # Constants must not be evaluated: a template may contain 9 ** 9 ** 9.
    )
    try:
        environment.compile(text)
    except jinja2.TemplateSyntaxError as error:
        return f"{one_line(error.message or 'it cannot be parsed')} (line {error.lineno} of the template)"
    except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError, ValueError) as error:
        return one_line(error.msg if isinstance(error, SyntaxError) else error) or "it cannot be parsed"
    return ""
