"""Remove this machine's paths and user names from texts that are published with the weights."""

from __future__ import annotations

import contextlib
import getpass
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ...errors import InputError
from ...plan.config.output_config import ORIGINS, is_local
from ...plan.model import Plan
from ...plan.new_tokenizer import TOKENIZER
from ...recipe.document import Document, parse
from ...statefile import parse as parse_json

_SNAPSHOT = re.compile(r"models--([^/]+)--([^/]+)/snapshots/([^/]+)/?$")
_PATH = re.compile(
    r"(?:file://|[A-Za-z]:\\)[^\s\"'#,;()\[\]{}]+"
    r"|(?<![\w/.~-])(?:~[\w.-]*)?/[^\s/\"'#,;()\[\]{}]+(?:/[^\s/\"'#,;()\[\]{}]*)*"
    r"|(?<![\w/])~[\w.-]*/[^\s\"'#,;()]*"
)
_LARGEST = 8_000_000


@dataclass(frozen=True)
class Published:
    """A plan and its recipe with public names of donors.

    Attributes:
        plan: the plan; its tensors are unchanged.
        recipe: the recipe's text.
    """

    plan: Plan
    recipe: str


def published(plan: Plan, recipe: str) -> Published:
    """The plan and the recipe's text, with the folder's name instead of a donor's path on this machine.

    Relative paths stay, so that the recipe still finds its donors from the same working directory.
    """
    refs = [donor.ref for donor in plan.donors.values()]
    try:
        document: Document | None = parse(recipe)
    except InputError:
        document = None  # A caller of `assemble` may pass any text.
    names = public_names([*refs, *((*document.model_refs, *document.tokenizer_refs) if document else ())])
    if document is not None:
        document = document.with_models(names) if names else document
        recipe = _without_paths(document)
    donors = {letter: replace(donor, ref=names.get(donor.ref, donor.ref)) for letter, donor in plan.donors.items()}
    return Published(replace(plan, donors=donors), recipe)


def public_names(refs: Iterable[str]) -> dict[str, str]:
    """Unique public names of the references that need one."""
    every = list(dict.fromkeys(refs))
    taken = {ref for ref in every if _public(ref) == ref}
    names: dict[str, str] = {}
    for ref in every:
        name = plain = _public(ref)
        if name == ref:
            continue
        number = 1
        while name in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name)
        names[ref] = name
    return names


def _public(ref: str) -> str:
    parts = ref.split("+")
    if len(parts) > 1 and all(parts):
        return "+".join(map(_public, parts))
    if found := _SNAPSHOT.search(ref):
        return f"{found[1]}/{found[2]}@{found[3]}"
    path = PurePath(ref)
    if path.is_absolute() or ref.startswith("~") or (".." in path.parts and _private() & set(path.parts)):
        return path.name or "donor"
    return ref


def _private() -> set[str]:
    """Parts of paths that name this machine's user."""
    found = set()
    # In a container the user may have no entry in the user database.
    with contextlib.suppress(OSError, KeyError, RuntimeError, ImportError):
        found = {getpass.getuser(), Path.home().name}
    return found - {"", "root"}


def _without_paths(document: Document) -> str:
    """The recipe's text, with absolute paths in comments shortened to their last part."""
    text = document.text.replace("\r\n", "\n").replace("\r", "\n")
    for start, stop in reversed(list(document.comment_places())):
        text = text[:start] + _PATH.sub(_last_part, text[start:stop]) + text[stop:]
    return text


def _last_part(found: re.Match[str]) -> str:
    return re.split(r"[/\\\\]", found[0].rstrip("/\\"))[-1] or found[0]


def without_origins(name: str, data: bytes) -> bytes:
    """A small file's bytes; a JSON table loses the keys that record a path of a machine."""
    if not name.endswith(".json") or name == TOKENIZER or len(data) > _LARGEST:
        return data
    if not any(f'"{key}"'.encode() in data for key in ORIGINS):
        return data
    try:
        table = parse_json(data)
    except ValueError:
        return data
    private = [key for key in ORIGINS if isinstance(table, dict) and is_local(table.get(key))]
    if not private:
        return data
    kept = {key: value for key, value in table.items() if key not in private}
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
