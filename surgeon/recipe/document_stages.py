"""The earlier documents of a recipe in stages, each as the one that is looked at and edited."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .document import Document, as_data, parse
from .schema import Recipe
from .yaml import writer

RESULT = ""
"""What is edited when it is no stage: the document that gives the output."""


def model_refs(document: Document) -> list[str]:
    """Every reference of the result, then of the stages, each once; names of stages are among them. Donors have their
    letters in this order."""
    refs = (ref for one in (document, *document.stages) for ref in one.recipe.model_refs())
    return list(dict.fromkeys(refs))


def stage_names(document: Document) -> list[str]:
    """The names of the stages, in the order of the file."""
    return [stage.recipe.name for stage in document.stages if stage.recipe.name]


def edited_document(document: Document, stage: str) -> Document:
    """The document of a stage, with the stages that it is made of as its own; the whole recipe for `RESULT`."""
    if stage == RESULT:
        return document
    return replace(_stage(document, stage), stages=tuple(_needed(document, stage)))


def with_stage(document: Document, stage: str, recipe: Recipe) -> Document:
    """The whole recipe with another recipe in the place of a stage, or of the result."""
    if stage == RESULT:
        return document.with_recipe(recipe)
    own = _stage(document, stage)
    return document if recipe == own.recipe else own.with_recipe(recipe)


def standalone(document: Document, stage: str) -> Document:
    """A recipe whose result is the stage, as new text; the document itself for `RESULT`."""
    if stage == RESULT:
        return document
    own = _stage(document, stage).recipe
    unnamed = {key: value for key, value in as_data(own).items() if key != "name"}
    texts = [writer.dump(as_data(needed.recipe)) for needed in _needed(document, stage)]
    return parse("---\n".join([*texts, writer.dump(unnamed)]), document.path)


def _stage(document: Document, name: str) -> Document:
    return next(stage for stage in document.stages if stage.recipe.name == name)


def _needed(document: Document, name: str) -> Iterator[Document]:
    """The stages that one names, and those that these name, in the order of the file."""
    known = {stage.recipe.name: stage for stage in document.stages if stage.recipe.name != name}
    needed: set[str] = set()
    waiting = [_stage(document, name)]
    while waiting:
        for ref in waiting.pop().recipe.model_refs():
            if ref in known and ref not in needed:
                needed.add(ref)
                waiting.append(known[ref])
    yield from (stage for key, stage in known.items() if key in needed)
