"""A recipe as a file: parsed with every mistake named at its line, and written back with its comments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ..errors import InputError
from ..text import nearest, one_line
from . import yamltext
from .schema import Recipe

MAX_BYTES = 2_000_000
MAX_NODES = 200_000
Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class KeyProblem:
    """A key that no recipe has, the line it stands on, and the one probably meant."""

    key: str
    line: int | None
    suggestion: str | None


@dataclass(frozen=True)
class Document:
    """A recipe and the text it stands in; `path` is None until it is saved."""

    recipe: Recipe
    text: str
    path: Path | None = None
    key_problems: tuple[KeyProblem, ...] = ()
    lines: Mapping[Path_, int] = field(default_factory=dict)

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders that relative model paths are looked for in, before the working directory."""
        return (self.path.resolve().parent,) if self.path else ()

    def line(self, *place: str | int) -> int | None:
        """The line (from 1) on which a place such as `("slices", 2)` begins, or the nearest place around it."""
        while place:
            if place in self.lines:
                return self.lines[place]
            place = place[:-1]
        return None

    def with_recipe(self, recipe: Recipe) -> Document:
        """The document of an edited recipe: comments, order and spelling of what did not change are kept."""
        if recipe == self.recipe:
            return self
        old, new = as_data(self.recipe), as_data(recipe)
        for write in (
            partial(yamltext.rewrite, self.text, old, new),
            partial(yamltext.sync_whole, self.text, new),
        ):
            try:
                document = parse(write(), self.path)
            except (ValueError, YAMLError, InputError, KeyError, IndexError):
                continue
            if document.recipe == recipe:
                return document
        return replace(fresh(recipe), path=self.path)


def as_data(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data in the order a recipe is written, without what was not said."""
    data: dict[str, Any] = yamltext.plain(recipe.model_dump(mode="json", exclude_unset=True, exclude_none=True))
    order = [name for name in _ORDER if name in data]
    return {name: _tidy(data[name]) for name in order}


_ORDER = (
    "name", "merge_method", "base_model", "models", "slices", "modules", "embeddings", "final_norm", "lm_head",
    "first_layers", "last_layers", "parameters", "dtype", "out_dtype", "tokenizer_source", "tokenizer",
    "chat_template",
)  # fmt: skip


def _tidy(value: Any) -> Any:
    """Without the empty parameter tables that copies of a slice may carry."""
    if isinstance(value, dict):
        return {key: _tidy(item) for key, item in value.items() if not (key == "parameters" and item == {})}
    return [_tidy(item) for item in value] if isinstance(value, list) else value


def fresh(recipe: Recipe) -> Document:
    """A new document for a recipe that no file holds yet."""
    text = yamltext.dump(as_data(recipe)) if as_data(recipe) else ""
    return parse(text, None)


def load(path: Path) -> Document:
    """Read a recipe file.

    Raises:
        InputError: unreadable, not YAML, or not a recipe; with the line.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError("the file is too large to be a recipe", where=str(path))
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("the file is not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot read the recipe: {error.strerror or error}", where=str(path)) from error
    return parse(text, path)


def parse(text: str, path: Path | None = None) -> Document:
    """A recipe from YAML text; `path` is where it came from, for messages and relative model paths."""
    where = str(path) if path else "the recipe"
    try:
        tree = yamltext.load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        reason = f"{error.context or ''} {error.problem or ''}".strip()
        raise InputError("this is not valid YAML", where=f"{where}, line {line}", why=one_line(reason)) from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError("this is not valid YAML", where=where, why=one_line(error).strip()) from error
    if tree is None:
        tree = CommentedMap()
    if not isinstance(tree, CommentedMap):
        raise InputError("a recipe is a table of keys such as merge_method and slices", where=where)
    _count(tree, where)
    lines = dict(_walk_lines(tree, ()))
    data = yamltext.plain(tree)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise _invalid(error, lines, where) from error
    if recipe.models is not None and recipe.slices is not None:
        raise InputError("a recipe has either models or slices, not both", where=where)
    return Document(recipe, text, path, tuple(_key_problems(data, lines)), lines)


def _count(tree: Any, where: str) -> None:
    """Refuse a document whose aliases unfold into more nodes than any recipe has."""
    stack, seen = [tree], 0
    while stack:
        node = stack.pop()
        seen += 1
        if seen > MAX_NODES:
            raise InputError("the recipe unfolds into too many values", where=where, why="its aliases multiply")
        if isinstance(node, Mapping):
            stack.extend(node.values())
        elif isinstance(node, Sequence) and not isinstance(node, str):
            stack.extend(node)


def _walk_lines(node: Any, place: Path_) -> list[tuple[Path_, int]]:
    found: list[tuple[Path_, int]] = []
    if isinstance(node, CommentedMap):
        for key in node:
            position = node.lc.data.get(key) if node.lc.data else None
            if position:
                found.append(((*place, str(key)), position[0] + 1))
            found += _walk_lines(node[key], (*place, str(key)))
    elif isinstance(node, CommentedSeq):
        for index, item in enumerate(node):
            position = node.lc.data.get(index) if node.lc.data else None
            if position:
                found.append(((*place, index), position[0] + 1))
            found += _walk_lines(item, (*place, index))
    return found


def _invalid(error: ValidationError, lines: Mapping[Path_, int], where: str) -> InputError:
    first = error.errors(include_url=False)[0]
    place: Path_ = tuple(first["loc"])
    line = None
    probe = place
    while probe and line is None:
        line = lines.get(probe)
        probe = probe[:-1]
    name = ".".join(str(part) for part in place) or "the recipe"
    more = error.error_count() - 1
    return InputError(
        f"{name} is wrong: {first['msg'].removeprefix('Value error, ').rstrip('.').lower()}"
        + (f" (and {more} more)" if more else ""),
        where=f"{where}, line {line}" if line else where,
        remedy="see `surgeon plan --help` and the examples in recipes/",
    )


def _key_problems(data: Mapping[str, Any], lines: Mapping[Path_, int]) -> list[KeyProblem]:
    found: list[KeyProblem] = []

    def check(value: Any, model: type[BaseModel], place: Path_) -> None:
        if not isinstance(value, Mapping):
            return
        for key, item in value.items():
            if key not in model.model_fields:
                found.append(KeyProblem(key, lines.get((*place, key)), nearest(key, model.model_fields)))
                continue
            for inner in _models_in(model.model_fields[key].annotation):
                if isinstance(item, list):
                    for index, entry in enumerate(item):
                        check(entry, inner, (*place, key, index))
                else:
                    check(item, inner, (*place, key))

    check(data, Recipe, ())
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
