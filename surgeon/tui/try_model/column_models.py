"""The models that can be a column of the Try screen: this recipe, its earlier states, donors, outputs, recipes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...jobs import job_list
from ...plan.donors.open_donors import absolute, rebased
from ...recipe import document as documents
from ...recipe.document import Document
from ...recipe.document_stages import with_stage
from ...text import one_line, plural
from ..picker import Choice
from ..recent_recipes import recent_recipes
from ..session import Session

RECIPE, SAVED, WRITTEN = "recipe", "saved", "written"
"""Names of columns; `undo:N`, `donor:REF`, `file:PATH` and `output:PATH` are others."""
MOST_STEPS = 30
"""Earlier states that are offered."""
MOST_FILES = 100


@dataclass(frozen=True)
class ColumnModel:
    """A model in the state in which it is asked.

    Attributes:
        spec: which model it is, such as `undo:1`; its state may change.
        name: its name on the screen.
        key: identifies its state: the recipe with absolute paths, or the checkpoint's path.
        path: the checkpoint's folder or the recipe's file; None for a recipe without a file.
        text: the recipe with absolute paths; empty for a checkpoint.
        document: the recipe as it would stand beside the results file; empty for a checkpoint.
    """

    spec: str
    name: str
    key: str
    path: Path | None
    text: str = ""
    document: str = ""


class ColumnModels:
    """Finds models of a session by their names.

    Args:
        session: donors, recipe and its history.
        output: a written model that is tried instead of the recipe; None for the recipe.
    """

    def __init__(self, session: Session, output: Path | None = None) -> None:
        self._session, self._output = session, output

    @property
    def first(self) -> str:
        """The name of the first column."""
        return f"output:{self._output.absolute()}" if self._output else RECIPE

    def find(self, spec: str) -> ColumnModel:
        """The model of a name in its present state.

        Raises:
            InputError: there is no such model now, or its recipe cannot be read.
        """
        kind, _, rest = spec.partition(":")
        session = self._session
        if spec == RECIPE:
            return self._of_document(spec, "this recipe", session.current)
        if spec == SAVED:
            return self._of_document(spec, "as saved", session.document)
        if spec == WRITTEN:
            folder = self._written()
            if folder is None:
                raise InputError("nothing was written from this recipe yet")
            return _checkpoint(spec, f"written: {folder.name}", folder)
        if kind == "undo":
            return self._of_document(spec, f"{plural(int(rest), 'step')} back", self._earlier(int(rest)))
        if kind == "output":
            return _checkpoint(spec, Path(rest).name, Path(rest))
        if kind == "file":
            document = documents.load(Path(rest))
            beside = rebased(document, document.roots, self._beside(Path(rest)))
            full = absolute(document, document.roots).text
            return ColumnModel(spec, f"saved: {Path(rest).name}", _digest(full), Path(rest), full, beside.text)
        return self._donor(spec, rest)

    def _of_document(self, spec: str, name: str, document: Document) -> ColumnModel:
        full = self._session.absolute(document).text
        return ColumnModel(spec, name, _digest(full), self._session.document.path, full, document.text)

    def _donor(self, spec: str, ref: str) -> ColumnModel:
        session = self._session
        if ref not in session.letters:
            raise InputError(f"{one_line(ref)} is no donor of this recipe")
        name = f"{session.letters[ref]} {ref}"
        if (recipe := session.donor_recipe(ref)) is not None:
            full = absolute(recipe, session.document.roots).text
            return ColumnModel(spec, name, _digest(full), None, full, recipe.text)
        checkpoint = session.checkpoint(ref)
        return _checkpoint(spec, name, checkpoint.path if checkpoint else Path(ref))

    def _earlier(self, steps: int) -> Document:
        """The document as it was before the last edits."""
        session, done = self._session, self._session.history.done
        if not 0 < steps <= len(done):
            raise InputError(f"there are only {plural(len(done), 'step')} to go back")
        recipes = [session.history.start, *(step.recipe for step in done)]
        return with_stage(session.current, session.stage, recipes[-1 - steps])

    def _beside(self, path: Path) -> Path:
        """The place of a recipe next to the one that is edited."""
        own = self._session.document.path
        return (own.parent if own else Path()) / path.name

    def _written(self) -> Path | None:
        """The output that was last written from this recipe, as it was then; None if there is none, or for a stage."""
        if self._session.stage:
            return None
        for job in reversed(job_list.of_recipe(self._session.document.path, Path.cwd())):
            if job.out is not None and job.state().kind == "done" and job.out.is_dir():
                return job.out
        return None

    def measured(self) -> Iterator[str]:
        """The models that are scored in addition to the columns: the written output and every donor."""
        if self._output is None and self._written() is not None:
            yield WRITTEN
        yield from (f"donor:{ref}" for ref in self._session.shown_models)

    def choices(self) -> list[Choice]:
        """Every model that can be a column, the previous state of the recipe first."""
        session, history = self._session, self._session.history
        found = []
        edits = [step.edit for step in reversed(history.done)]
        recipes = [*(step.recipe for step in reversed(history.done[:-1])), history.start]
        for number, (edit, recipe) in enumerate(zip(edits, recipes, strict=False), start=1):
            if number <= MOST_STEPS and recipe.model_refs():
                found.append(
                    Choice(f"undo:{number}", f"{plural(number, 'step')} back", _before(session.describe(edit)))
                )
        first, later = found[:1], found[1:]
        saved = session.document.recipe.model_refs() and session.dirty
        near = [Choice(SAVED, "as saved", "the recipe's file")] if saved else []
        near += [Choice(f"donor:{ref}", f"{session.letters[ref]} {ref}", "donor") for ref in session.shown_models]
        if (folder := self._written()) is not None:
            near.append(Choice(WRITTEN, f"written: {folder.name}", "the output"))
        if self._output is not None:
            near.append(Choice(RECIPE, "this recipe", "as edited"))
        return [*first, *near, *later, *(Choice(f"file:{path}", _short(path), "recipe") for path in self._files())]

    def _files(self) -> list[Path]:
        own = self._session.document.path
        folder = own.parent if own else Path()
        here = [path for pattern in ("*.yaml", "*.yml") for path in sorted(folder.glob(pattern))[:MOST_FILES]]
        found = {os.path.realpath(path): path.absolute() for path in (*recent_recipes(), *here)}
        if own is not None:
            found.pop(os.path.realpath(own), None)
        return list(found.values())


def _checkpoint(spec: str, name: str, folder: Path) -> ColumnModel:
    return ColumnModel(spec, name, f"path:{folder.absolute()}", folder)


def _digest(text: str) -> str:
    return f"recipe:{hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()}"


def _before(edit: str) -> str:
    """Remark about a state: the edit that it lacks."""
    return f"before {edit if len(edit) <= 40 else edit[:39] + '…'}"


def _short(path: Path) -> str:
    near = os.path.relpath(path)
    return one_line(near if len(near) < len(str(path)) else path)
