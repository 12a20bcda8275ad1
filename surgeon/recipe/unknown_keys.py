"""Keys that no recipe has, with the key that was probably meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from ..text import nearest
from .schema import Recipe
from .yaml.nodes import Place

MAX_GUESSES = 20
"""Most unknown keys for which a suggestion is searched."""


@dataclass(frozen=True)
class KeyProblem:
    """An unknown key, its line, the suggested key, and the place of the table that holds it."""

    key: str
    line: int | None
    suggestion: str | None
    table: Place = ()


def unknown_keys(data: Mapping[str, Any], places: Mapping[Place, int]) -> Iterator[KeyProblem]:
    """Unknown keys, those in filter tables included: a misspelled `filter` would apply to every tensor."""
    guesses = iter(range(MAX_GUESSES))

    def problem(key: str, place: Place, known: Iterable[str]) -> KeyProblem:
        meant = nearest(key, known) if next(guesses, None) is not None else None
        return KeyProblem(key, places.get((*place, key)), meant, place)

    def check(value: Any, known: Mapping[str, Any], place: Place) -> Iterator[KeyProblem]:
        if not isinstance(value, Mapping):
            return
        for key, item in value.items():
            if key not in known:
                yield problem(key, place, known)
            elif key == "parameters" and isinstance(item, Mapping):
                for name, setting in item.items():
                    yield from check_setting(setting, (*place, key, name))
            elif get_origin(annotation := known[key].annotation) is dict:
                for inner in _models_in(annotation):
                    for name, entry in item.items() if isinstance(item, Mapping) else ():
                        yield from check(entry, inner.model_fields, (*place, key, name))
            else:
                for inner in _models_in(annotation):
                    yield from each(item, partial(check, known=inner.model_fields), (*place, key))

    def check_setting(value: Any, place: Place) -> Iterator[KeyProblem]:
        if isinstance(value, Mapping):
            for key in value:
                if key not in ("filter", "value"):
                    yield problem(key, place, ("filter", "value"))
            yield from check_setting(value.get("value"), (*place, "value"))
        elif isinstance(value, list):
            yield from each(value, check_setting, place)

    def each(value: Any, visit: Callable[..., Iterator[KeyProblem]], place: Place) -> Iterator[KeyProblem]:
        if isinstance(value, list):
            for index, entry in enumerate(value):
                yield from visit(entry, place=(*place, index))
        else:
            yield from visit(value, place=place)

    yield from check(data, Recipe.model_fields, ())


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
