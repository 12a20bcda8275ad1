"""A recipe as a YAML document: parsing with line numbers in every error, and writing that keeps comments."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import InputError
from ..statefile import open_regular
from ..text import nearest, one_line
from .schema import ENDS, Recipe
from .unknown_keys import KeyProblem, unknown_keys
from .yaml import writer
from .yaml.nodes import Node, Place, TextError, TooLarge, anchor_carriers, build, lines, plain, scalars
from .yaml.patch import comments, patch, without_aliases

MAX_BYTES = 1_000_000
MAX_DONORS = 1_000
_COMMENT = re.compile(r"(?:(?<=[ \t\n])|\A)#[^\n]*")


@dataclass(frozen=True)
class Document:
    """A recipe and its text, with the line ends of the file; `path` is None until it is saved.

    Several YAML documents in one text are a merge in stages. `recipe` is the recipe of the result. `stages` are the
    other documents; recipes refer to them by their `name`.
    """

    recipe: Recipe
    text: str
    path: Path | None = None
    key_problems: tuple[KeyProblem, ...] = ()
    lines: Mapping[Place, int] = field(default_factory=dict)
    tree: Node | None = field(default=None, repr=False, compare=False)
    stages: tuple[Document, ...] = ()

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders in which relative model paths are searched before the working directory."""
        return (Path(os.path.realpath(self.path)).parent,) if self.path else ()

    def line(self, *place: str | int) -> int | None:
        """The line (from 1) of a place such as `("slices", 2)`, or of the nearest place that contains it."""
        while place:
            if place in self.lines:
                return self.lines[place]
            place = place[:-1]
        return None

    def with_recipe(self, recipe: Recipe) -> Document:
        """The document of an edited recipe; comments, and the order and spelling of unchanged parts, are kept."""
        if recipe == self.recipe:
            return self
        for write in (self._patched, self._patched_without_aliases):
            try:
                document = parse(self._finished(write(recipe)), self.path)
            except (ValueError, InputError):
                continue
            if recipe in (document.recipe, *(stage.recipe for stage in document.stages)):
                return document
        return parse(self._finished(self._rewritten(recipe)), self.path)

    def with_models(self, rename: Mapping[str, str]) -> Document:
        """The document with renamed donors in every stage; `rename` maps old references to new ones."""
        changed = self.with_recipe(self.recipe.with_models(rename))
        for number, stage in enumerate(self.stages):
            renamed = stage.recipe.with_models(rename)
            if renamed != stage.recipe:
                changed = replace(changed.stages[number].with_recipe(renamed), key_problems=changed.key_problems)
        return changed

    @property
    def model_refs(self) -> list[str]:
        """Every donor that a stage names, each once, without the names of stages."""
        names = {stage.recipe.name for stage in self.stages}
        refs = (ref for document in (self, *self.stages) for ref in document.recipe.model_refs())
        return [ref for ref in dict.fromkeys(refs) if ref not in names]

    @property
    def tokenizer_refs(self) -> list[str]:
        """Every source of a tokenizer or token row that a stage names, each once, without the names of stages."""
        names = {"union", "base", *(stage.recipe.name for stage in self.stages)}
        refs = (ref for document in (self, *self.stages) for ref in document.recipe.tokenizer_refs())
        return [ref for ref in dict.fromkeys(refs) if ref not in names]

    def comment_places(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of every comment in the text."""
        text = self._unix
        trees = sorted((one.tree for one in (self, *self.stages) if one.tree), key=lambda tree: tree.start)
        ends = [0] + [node.stop for tree in trees for node in scalars(tree)]
        starts = [node.start for tree in trees for node in scalars(tree)] + [len(text)]
        for end, start in zip(ends, starts, strict=True):
            for found in _COMMENT.finditer(text, end, max(end, start)):
                yield found.span()

    @cached_property
    def donor_places(self) -> dict[str, Place]:
        """Donor -> the place where the recipe first names it."""
        found: dict[str, Place] = {}
        recipe = self.recipe
        for number, entry in enumerate(recipe.models or ()):
            found.setdefault(entry.model, ("models", number, "model"))
        for number, part in enumerate(recipe.slices or ()):
            for index, source in enumerate(part.sources):
                found.setdefault(source.model, ("slices", number, "sources", index, "model"))
            found.setdefault(part.base_model or "", ("slices", number, "base_model"))
        found.setdefault(recipe.base_model or "", ("base_model",))
        for key in (*ENDS, "first_layers", "last_layers"):
            found.setdefault(getattr(getattr(recipe, key), "model", None) or "", (key, "model"))
        return found

    @property
    def _unix(self) -> str:
        return _unix(self.text)

    def _patched(self, recipe: Recipe) -> str:
        if self.tree is None:
            raise TextError("there is nothing to patch")
        return patch(self._unix, self.tree, as_data(self.recipe), as_data(recipe))

    def _patched_without_aliases(self, recipe: Recipe) -> str:
        if self.tree is None:
            raise TextError("there is nothing to patch")
        # Without aliases, the keys that only hold anchors have no use.
        text = without_aliases(self._unix, self.tree, _carriers(self.tree, ""))
        return parse(text)._patched(recipe)

    def _rewritten(self, recipe: Recipe) -> str:
        known = Recipe.model_fields.keys() | _carriers(self.tree, "")
        strange = {key: value for key, value in _data(self.tree).items() if key not in known}
        text = writer.dump({**as_data(recipe), **strange})
        if not self.stages or self.tree is None:
            return text
        return self._unix[: self.tree.start] + text + self._unix[self.tree.stop :].lstrip("\n")

    def _finished(self, text: str) -> str:
        """The text with lost comments added at its top, and with the line ends of the file."""
        lost = Counter(comments(self._unix)) - Counter(comments(text))
        text = "".join(f"{line}\n" for line in lost.elements()) + text
        return text.replace("\n", "\r\n") if "\r\n" in self.text else text


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def as_data(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain data, with keys in the order in which recipes are written and without unset values."""
    data = recipe.model_dump(exclude_unset=True, exclude_none=True)
    return {name: _tidy(data[name]) for name in _ORDER if name in data}


_ORDER = (
    "name", "merge_method", "base_model", "models", "slices", "modules", "embeddings", "final_norm", "lm_head",
    "first_layers", "last_layers", "parameters", "dtype", "out_dtype", "seed", "tokenizer_source", "tokenizer",
    "chat_template",
)  # fmt: skip


def _tidy(value: Any) -> Any:
    """The value as plain lists and dicts, without the empty parameter tables that copies of a slice may have."""
    if isinstance(value, dict):
        return {key: _tidy(item) for key, item in value.items() if not (key == "parameters" and item == {})}
    return [_tidy(item) for item in value] if isinstance(value, (list, tuple)) else value


def fresh(recipe: Recipe) -> Document:
    """A new document for a recipe that is not saved yet."""
    return parse(writer.dump(as_data(recipe)), None)


def load(path: Path) -> Document:
    """Read a recipe file.

    Raises:
        InputError: the file is unreadable, not YAML, or not a recipe; with the line.
    """
    try:
        with open_regular(path, follow=True) as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise _too_large(str(path), f"it has more than {MAX_BYTES:,} bytes")
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("the file is not UTF-8 text", where=str(path)) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the recipe: {getattr(error, 'strerror', None) or error}", where=str(path)
        ) from error
    return parse(text, path)


def parse(text: str, path: Path | None = None) -> Document:
    """Parse a recipe from YAML text; `path` is its file, for messages and relative model paths.

    Raises:
        InputError: the text is not YAML or not a recipe; with the line.
    """
    where = str(path) if path else "the recipe"
    try:
        trees = build(_unix(text))
        parts: list[tuple[Node | None, dict[str, Any]]] = [(tree, _data(tree)) for tree in trees]
    except TextError as error:
        place = f"{where}, line {error.line}" if error.line else where
        if isinstance(error, TooLarge):
            raise _too_large(place, str(error)) from error
        remedy = "indent with spaces, not tabs" if "'\\t'" in str(error) else ""
        raise InputError("this is not valid YAML", where=place, why=one_line(error), remedy=remedy) from error
    found = [_one(tree, data, text, path, where) for tree, data in parts or [(None, {})]]
    last = _last(found, where)
    document = replace(found[last], stages=tuple(found[:last] + found[last + 1 :]))
    if len(document.model_refs) > MAX_DONORS:
        raise _too_large(where, f"it names more than {MAX_DONORS:,} models")
    return document


def _too_large(where: str, why: str) -> InputError:
    return InputError("this is too large to be a recipe", where=where, why=why)


def _one(tree: Node | None, data: dict[str, Any], text: str, path: Path | None, where: str) -> Document:
    places = dict(lines(tree)) if tree else {}
    carriers = _carriers(tree, where)
    data = {key: value for key, value in data.items() if key not in carriers}
    problems = tuple(unknown_keys(data, places))
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise _invalid(error, places, problems, where) from error
    _check_name(recipe.name, f"{where}, line {places.get(('name',), 1)}")
    if recipe.models is not None and recipe.slices is not None:
        raise InputError("a recipe has either models or slices, not both", where=where)
    return Document(recipe, text, path, problems, places, tree)


def _carriers(tree: Node | None, where: str) -> frozenset[str]:
    """Unknown top-level keys that only hold an anchor.

    Raises:
        InputError: a key of the recipe schema occurs twice.
    """
    if tree is None:
        return frozenset()
    seen: set[str] = set()
    for key in tree.keys:
        name = str(key.value)
        if name in seen and name in Recipe.model_fields:
            raise InputError(
                "this is not valid YAML", where=f"{where}, line {key.line}", why=f"the key {name!r} occurs twice"
            )
        seen.add(name)
    known = Recipe.model_fields.keys()
    found = {key: used for key, used in anchor_carriers(tree).items() if key not in known}
    # An anchor without an alias may sit under a misspelled key: that key must be reported.
    return frozenset(key for key, used in found.items() if used or nearest(key, known) is None)


def _check_name(name: str | None, where: str) -> None:
    """Refuse a stage name that looks like a path: it would be published in exports, and read as a donor's path."""
    if name is not None and re.match(r"[/~]|\.\.(/|$)", name):
        raise InputError(
            f"a stage cannot be named {one_line(name)}",
            where=where,
            why="it looks like a path, and only the name distinguishes a stage from a donor",
            remedy="give it a plain name, such as `stage1`",
        )


def _last(found: list[Document], where: str) -> int:
    """The number of the document that is the result: the one without a name, else the last."""
    if len(found) == 1:
        return 0
    bare = [number for number, document in enumerate(found) if document.recipe.name is None]
    names = [document.recipe.name for document in found if document.recipe.name is not None]
    if len(bare) > 1:
        line = found[bare[0]].tree.line if found[bare[0]].tree else 1  # type: ignore[union-attr]
        raise InputError(
            f"{len(bare)} of the recipe's documents have no name",
            where=f"{where}, line {line}",
            why="only the result may have no name: recipes refer to the other documents by name",
            remedy="give each stage a `name:`",
        )
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two documents of the recipe are named {one_line(twice[0])}", where=where)
    return bare[0] if bare else len(found) - 1


def _data(tree: Node | None) -> dict[str, Any]:
    data = {} if tree is None else plain(tree)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise TextError("a recipe is a table of keys such as merge_method and slices", 1)
    return data


def _invalid(
    error: ValidationError, places: Mapping[Place, int], problems: tuple[KeyProblem, ...], where: str
) -> InputError:
    first = error.errors(include_url=False)[0]
    place: Place = tuple(first["loc"])
    line = next((places[place[:end]] for end in range(len(place), 0, -1) if place[:end] in places), None)
    name = ".".join(str(part) for part in place) or "the recipe"
    reason = _reason(first)
    what, remedy = f"{name} is wrong: {reason[:1].lower()}{reason[1:]}", "see the examples in recipes/"
    if first["type"] == "missing":
        what = f"{name} is missing"
        here = [problem for problem in problems if problem.table == place[:-1]]
        meant = next(
            (problem for problem in here if problem.suggestion == place[-1]), here[0] if len(here) == 1 else None
        )
        if place[-1] == "sources" and any(problem.key == "model" for problem in here):
            remedy = "put model and layer_range there: `sources: [{model: ..., layer_range: [..., ...]}]`"
        elif meant is not None:
            line, remedy = meant.line, f"write `{place[-1]}` instead of `{one_line(meant.key)}`"
    if (more := error.error_count() - 1) > 0:
        what += f" (and {more} more like it)" if more > 1 else " (and 1 more)"
    return InputError(what, where=f"{where}, line {line}" if line else where, remedy=remedy)


_EXPECTED = {
    "layer_range": "a layer range is two whole numbers, [first layer, last layer + 1]",
    "sources": "sources are a list of entries such as `- model: ...`",
    "slices": "slices are a list of entries such as `- sources: ...`",
    "models": "models are a list of entries such as `- model: ...`",
    "parameters": "parameters are a table, such as `weight: 0.5`",
}
"""The expected value of a key, in words."""

_KINDS = {
    "string": "it should be text",
    "int": "it should be a whole number",
    "float": "it should be a number",
    "bool": "it should be true or false",
    "tuple": "it should be a list",
    "list": "it should be a list",
    "dict": "it should be a table of keys",
    "model": "it should be a table of keys",
    "literal": "it is not one of the words that are allowed there",
}


def _reason(error: Any) -> str:
    """Why a value is wrong, in terms of the recipe instead of the validator."""
    kind = str(error["type"])
    if kind in ("value_error", "assertion_error"):
        return str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    key = next((part for part in reversed(error["loc"]) if isinstance(part, str)), "")
    direct = bool(error["loc"]) and error["loc"][-1] == key
    if key in _EXPECTED and (direct or key == "layer_range"):
        return _EXPECTED[key]
    if key in ("slices", "models", "sources"):
        return f"each entry of {key} is a table of keys, such as `{'sources' if key == 'slices' else 'model'}: ...`"
    return _KINDS.get(kind.partition("_")[0], "it cannot be used there")
