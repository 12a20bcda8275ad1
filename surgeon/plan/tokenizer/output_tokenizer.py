"""Plan the output's tokenizer: its files, its chat template, and special ids with new values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ...checkpoint.locate import read_json_object
from ...checkpoint.tokenizer.vocabulary import read_vocabulary
from ...errors import InputError
from ...recipe.document import Document
from ..findings import Finding
from ..model import Donor, Plan
from ..new_tokenizer import NewTokenizer
from .chat_template import choose
from .output_vocabulary import Built

GENERATION = "generation_config.json"


def new_tokenizer(
    document: Document, built: Built | None, donors: Sequence[Donor], template: Donor
) -> tuple[NewTokenizer | None, list[Finding]]:
    """How to make the tokenizer files (None: copy those of the config's donor), and the findings."""
    recipe = document.recipe
    own = template.checkpoint.tokenizer
    tokens = frozenset(token for token in built.tokens if token is not None) if built else None
    if tokens is None and recipe.chat_template is not None:
        with suppress(InputError):
            tokens = frozenset(read_vocabulary(own).ids)
    text, findings = choose(recipe.chat_template, donors, tokens, line=document.line)
    if built is not None and built.files is not None:
        return replace(built.files, template=text), list(findings)
    return (NewTokenizer(own, template=text) if text is not None else None), list(findings)


def with_tokenizer(plan: Plan, new: NewTokenizer, built: Built | None, template: Donor) -> Plan:
    """The plan with this tokenizer, and with the special ids of config and generation config renumbered for it."""
    old = {path.name for path in template.checkpoint.tokenizer.files}
    files = {name: path for name, path in plan.files.items() if name not in old} | new.copied
    files = {name: path for name, path in files.items() if name not in new.made}
    if built is None:
        return replace(plan, files=files, tokenizer=new)
    source = next((d for d in plan.donors.values() if d.checkpoint.tokenizer is new.source), template)
    config = plan.config and _config(plan.config, built, template, source)
    made: dict[str, str] = {}
    if GENERATION in files:
        with suppress(InputError):  # An unreadable file is copied unchanged; whatever loads it reports the error.
            table = read_json_object(files[GENERATION])
            changed = built.renumbered(template.letter, table, _generation(source))
            if changed:
                made[GENERATION] = json.dumps({**table, **changed}, indent=2) + "\n"
    files = {name: path for name, path in files.items() if name not in made}
    return replace(plan, files=files, made=made, tokenizer=new, config=config)


def _config(config: dict[str, Any], built: Built, template: Donor, source: Donor) -> dict[str, Any]:
    other = source.checkpoint.config
    theirs = dict(other.raw) if other else {}
    found = {**config, **built.renumbered(template.letter, config, theirs)}
    for key in ("text_config", "llm_config"):
        inner = found.get(key)
        if isinstance(inner, dict):
            nested = theirs.get(key)
            found[key] = {
                **inner,
                **built.renumbered(template.letter, inner, nested if isinstance(nested, dict) else {}),
            }
    return found


def _generation(donor: Donor) -> dict[str, Any]:
    path = donor.checkpoint.folder / GENERATION
    return dict(read_json_object(path)) if path.is_file() else {}
