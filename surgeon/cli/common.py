"""What verbs share: opening a recipe with its donors, options, and how errors and findings are printed."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, SurgeonError
from ..files import exists, expanded
from ..text import parse_size

if TYPE_CHECKING:
    from ..plan import Donors, Finding, Plan
    from ..recipe.document import Document

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="DONOR=PATH", help="Use PATH for a donor, named as in the recipe or by its letter."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def fail(error: SurgeonError) -> int:
    """Print an error on stderr; gives its exit code."""
    print(f"surgeon: {error.sentence()}", file=sys.stderr)
    return error.exit_code


def bytes_option(text: str) -> int:
    """A size such as 5GB from an option."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise InputError(str(error)) from error


def load_document(recipe: Path, sets: Sequence[str] | None = None) -> Document:
    """The recipe file, with donors replaced as `--set` says.

    Raises:
        InputError: the file is not a recipe, or a `--set` names no donor of it.
    """
    from dataclasses import replace

    from ..recipe import document as documents
    from ..recipe.letters import letters, named

    document = documents.load(recipe)
    if not sets:
        return document
    models = document.model_refs
    rename = {}
    for text in sets:
        name, equals, path = text.partition("=")
        model = named(name, models)
        if not equals or not path or model is None:
            known = ", ".join(f"{letter} {ref}" for ref, letter in letters(models).items())
            raise InputError(f"--set {text} names no donor of the recipe", remedy=f"write DONOR=PATH; donors: {known}")
        if model in rename:
            raise InputError(f"--set names {model} twice", remedy="give one of the two")
        # A path typed on the command line is meant from the working directory, not from the recipe's folder.
        rename[model] = str(expanded(path).absolute()) if exists(expanded(path)) else path
    changed = document.with_models(rename)
    return replace(changed, key_problems=document.key_problems)


def load_plan(
    recipe: Path,
    sets: Sequence[str] | None = None,
    *,
    shard_size: int | None = None,
    roots: Sequence[Path] | None = None,
) -> tuple[Document, Plan]:
    """The recipe file and its plan; findings are in the plan, whatever they are.

    Args:
        roots: folders that relative paths are looked for in, instead of the recipe's own.
    """
    from ..plan import Donors, resolve
    from ..plan.config.estimate import DEFAULT_SHARD

    document = load_document(recipe, sets)
    donors: Donors = Donors(document.roots if roots is None else roots)
    return document, resolve(document, donors, shard_size=shard_size or DEFAULT_SHARD)


def print_findings(findings: Sequence[Finding], *, where: str) -> None:
    """Findings on stderr, one a line, with the recipe's line where there is one."""
    for finding in findings:
        place = f"{where}:{finding.line}" if finding.line else where
        print(f"{finding.severity}: {place}: {finding.sentence()}", file=sys.stderr)


def refuse(plan: Plan, where: str) -> None:
    """Print every finding and raise when the plan cannot be carried out.

    Raises:
        InputError: the plan has errors.
    """
    print_findings(plan.findings, where=where)
    if not plan.ok:
        count = len(plan.errors)
        raise InputError(f"the recipe has {count} error{'s' if count > 1 else ''}, so nothing was done", where=where)


def finite(value: Any) -> Any:
    """The same without NaN and infinities, which JSON does not have and configs sometimes do."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
