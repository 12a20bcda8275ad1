"""What the interface works on, without a widget: donors, recipe and history, register, plan, saved state."""

from __future__ import annotations

import contextlib
import difflib
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ..checkpoint import Checkpoint
from ..errors import InputError
from ..plan import Donors, Plan, resolve
from ..plan.donors.open_donors import absolute, located, rebased
from ..plan.layers.block_expansion import completed
from ..recipe import stack
from ..recipe.document import Document, fresh
from ..recipe.document_stages import RESULT, edited_document, model_refs, stage_names, standalone, with_stage
from ..recipe.edits import Edit, Insert, InsertRuns, Replace, grammar
from ..recipe.history import History
from ..recipe.letters import letters
from ..recipe.saving import Seen
from ..recipe.schema import End, Recipe
from .recipe_cells import changed_range, markers, recipe_cells
from .replaced_text import Restore, TextState, undone, with_step, without_redo

_MANY = 5_000
"""Tensors of newly opened donors from which on the garbage collector leaves them alone."""


@dataclass(frozen=True)
class Yank:
    """Layers in the register: runs of `(model, start, stop)`; or an end of the network."""

    runs: tuple[tuple[str, int, int], ...] = ()
    end: tuple[End, str] | None = None

    @property
    def count(self) -> int:
        """Number of layers."""
        return sum(stop - start for _, start, stop in self.runs)


class Session:
    """One recipe being edited over its donors. In a recipe in stages, one of its documents is edited at a time.

    Args:
        refs: donors opened by hand, in order.
        document: the recipe, saved or new.

    Attributes:
        document: the recipe as it was last read or saved.
        stage: the name of the stage that is edited; `RESULT` for the document that gives the output.
    """

    def __init__(self, refs: Sequence[str] = (), document: Document | None = None) -> None:
        self.register: Yank | None = None
        self.curve: tuple[float, ...] = ()
        self._known = 0
        self.load(document or fresh(Recipe()), refs)

    def load(self, document: Document, refs: Sequence[str] = ()) -> None:
        """Begin with a recipe, saved or new, and with these donors beside its own."""
        # References of another recipe may mean other models here.
        self.register = None
        self._redo: dict[int, TextState] = {}
        self.document = document
        self.seen = Seen.of(document)
        self.stage = RESULT
        self._begin_histories()
        self.refs = list(dict.fromkeys([*model_refs(document), *refs]))
        self.donors = Donors(document.roots, self.refs)
        self._changed()

    def _begin_histories(self) -> None:
        # The text that edits change: as it was saved, until it is replaced as a whole.
        self._base = self.document
        recipes = {name: edited_document(self.document, name).recipe for name in stage_names(self.document)}
        self._histories = {name: History(recipe) for name, recipe in {**recipes, RESULT: self.document.recipe}.items()}

    @property
    def history(self) -> History:
        """The edits of the document that is edited."""
        return self._histories[self.stage]

    @history.setter
    def history(self, history: History) -> None:
        self._histories[self.stage] = history

    @property
    def recipe(self) -> Recipe:
        """The recipe as edited: of the stage that is edited, or of the result."""
        return self.history.recipe

    @property
    def stages(self) -> list[str]:
        """The documents that can be edited: the stages in the order of the file, then the result."""
        return list(self._histories)

    def recipe_of(self, stage: str) -> Recipe:
        """The recipe of one of `stages`, as edited."""
        return self._histories[stage].recipe

    def has_edits(self, stage: str) -> bool:
        """Whether a document has edits that can be undone."""
        return bool(self._histories[stage].done)

    def uses(self, stage: str, other: str) -> bool:
        """Whether a document names a stage as its donor."""
        return other in self.recipe_of(stage).model_refs()

    def edit_stage(self, stage: str) -> None:
        """Edit another document of the recipe."""
        self.stage = stage
        self._changed()

    @property
    def models(self) -> list[str]:
        """Every donor's reference in the order of its letter; stages are donors too."""
        used = (ref for history in reversed(self._histories.values()) for ref in history.recipe.model_refs())
        return list(letters([*self.refs, *used]))

    @property
    def letters(self) -> dict[str, str]:
        """Reference -> letter."""
        return letters(self.models)

    @property
    def shown_models(self) -> list[str]:
        """The donors that have a column: all but the stage that is edited."""
        return [ref for ref in self.models if ref != self.stage]

    @property
    def edited(self) -> Document:
        """The document that is edited, with the lines of the whole text."""
        return edited_document(self.current, self.stage)

    @cached_property
    def plan(self) -> Plan:
        """The plan of the recipe as edited; made again after each change."""
        made = resolve(self.edited, self.donors)
        known = sum(len(donor.checkpoint.tensors) for donor in made.donors.values())
        if known > self._known + _MANY:
            # The collector would walk through all of them every few keys, which takes as long as ten edits.
            gc.freeze()
            self._known = known
        return made

    @cached_property
    def result_plan(self) -> Plan:
        """The plan of the model that is written: the same, unless a stage is edited."""
        return self.plan if self.stage == RESULT else resolve(self.current, self.donors)

    @cached_property
    def current(self) -> Document:
        """The document of the whole recipe as edited, its text with the user's comments."""
        document = self._base
        for stage, history in self._histories.items():
            document = with_stage(document, stage, history.recipe)
        return document

    @cached_property
    def markers(self) -> list[str]:
        """A character per output layer: `+` not in the saved recipe, `~` there with other parameters, or blank."""
        depth = self.donors.depth
        return markers(recipe_cells(self._saved(self.stage), depth), recipe_cells(self.recipe, depth))

    def changed_from(self, before: Recipe) -> tuple[int, int] | None:
        """The output layers `[start, stop)` that differ from those of another recipe; where layers were removed, the
        place of the first of them as an empty range; None if all are equal."""
        return changed_range(recipe_cells(before, self.donors.depth), recipe_cells(self.recipe, self.donors.depth))

    @property
    def dirty(self) -> bool:
        """Whether the recipe differs from what was last saved."""
        if self._base.text != self.document.text:
            return True
        return any(history.recipe != self._saved(stage) for stage, history in self._histories.items())

    def _saved(self, stage: str) -> Recipe:
        """A document of the recipe as it was saved; an empty one if there was none."""
        known = stage == RESULT or stage in stage_names(self.document)
        return edited_document(self.document, stage).recipe if known else Recipe()

    def _changed(self) -> None:
        self.donors.first = tuple(self.models)
        self.donors.keep_stages(self._histories)
        for name in ("plan", "result_plan", "current", "markers"):
            with contextlib.suppress(AttributeError):
                delattr(self, name)

    def checkpoint(self, ref: str) -> Checkpoint | None:
        """A donor, or None when it cannot be opened."""
        with contextlib.suppress(InputError):
            return self.donors.checkpoint(ref)
        return None

    def open(self, ref: str) -> str:
        """Open a donor by its path from the working directory; returns its letter. Raises InputError if that fails."""
        self.donors.forget()
        try:
            if self.document.path is not None:
                ref = located(ref, (), self.document.path.absolute().parent)
            self.donors.checkpoint(ref)
            self.refs = list(dict.fromkeys([*self.models, ref]))
        finally:
            # Files may have changed: everything is read again, also where this donor cannot be.
            self._changed()
            self.plan  # noqa: B018 - stages are donors once they are planned
        return self.letters[ref]

    def apply(self, edit: Edit) -> bool:
        """Apply an edit; returns False when it changes nothing. Raises InputError when it does not fit the recipe."""
        before = self.history
        self.history = before.apply(completed(edit, self.recipe, self.donors), self.donors.depth)
        if self.history is not before:
            self._histories = without_redo(self._histories)
        # A donor keeps its letter, whichever document names it.
        self.refs = self.models
        self._changed()
        return self.history is not before

    def command(self, text: str) -> Edit:
        """Apply the edit that a command line describes; returns it."""
        edit = grammar.parse(text, self.models)
        self.apply(edit)
        return edit

    def describe(self, edit: Edit) -> str:
        """An edit as the command line writes it, donors by letter."""
        return "a new text" if isinstance(edit, Restore) else grammar.unparse(edit, self.models)

    def undo(self) -> Edit | None:
        """Undo the last edit; returns it, or None at the start."""
        last = self.history.last
        if isinstance(last, Restore):
            self._redo[last.serial] = TextState(self._base, self._histories)
            self._set(TextState(last.before.text, undone(last)))
        else:
            self.history = self.history.undo()
            self._changed()
        return last

    def redo(self) -> Edit | None:
        """Redo the edit undone last; returns it, or None when there is none."""
        if not self.history.undone:
            return None
        edit = self.history.undone[-1].edit
        if isinstance(edit, Restore):
            self._set(self._redo.pop(edit.serial))
        else:
            self.history = self.history.redo()
            self._changed()
        return self.history.last

    def _set(self, state: TextState) -> None:
        """Take another text and the edits of its documents."""
        # A step may be older than the place where the recipe was saved last.
        self._base, self._histories = replace(state.text, path=self.document.path), dict(state.histories)
        self.stage = self.stage if self.stage in self._histories else RESULT
        self._changed()

    def return_to(self, history: History) -> None:
        """Go back to an earlier history of the document that is edited."""
        self.history = history
        self._changed()

    def recover(self, document: Document, refs: Sequence[str] = ()) -> None:
        """Replace the whole recipe and its text, as one step that can be undone."""
        self.refs = list(dict.fromkeys([*self.models, *refs]))
        before = TextState(self._base, self._histories)
        histories: dict[str, History] = {}
        for stage in (*stage_names(document), RESULT):
            recipe = edited_document(document, stage).recipe
            histories[stage] = with_step(self._histories.get(stage) or History(recipe), Restore(recipe, before))
        self._set(TextState(replace(document, path=self.document.path), histories))

    def reload(self, document: Document) -> None:
        """Take the recipe as it is on disk now, as a step that can be undone; files of donors may have changed too."""
        self.donors.forget()
        self.document, self.seen = document, Seen.of(document)
        self.recover(document)

    def close(self, ref: str) -> None:
        """Close a donor; those after it move up by a letter.

        Raises:
            InputError: the recipe uses it, or there is no such donor.
        """
        used = {model for history in self._histories.values() for model in history.recipe.model_refs()}
        letter = self.letters.get(ref, "")
        if not letter:
            raise InputError(f"there is no donor {ref}")
        if ref in used:
            raise InputError(f"{letter} is used by the recipe", remedy="delete its layers first, or undo")
        self.refs = [model for model in self.models if model != ref]
        self.register = None
        self._changed()

    def yank_stack(self, start: int, stop: int) -> Yank:
        """Copy output layers `[start, stop)` into the register, as runs of their donors."""
        runs: list[tuple[str, int, int]] = []
        for cell in stack.cells(self.recipe.explicit(self.donors.depth))[start:stop]:
            model, index = cell.sources[0]
            if runs and runs[-1][0] == model and runs[-1][2] == index:
                runs[-1] = (model, runs[-1][1], index + 1)
            else:
                runs.append((model, index, index + 1))
        self.register = Yank(tuple(runs))
        return self.register

    def paste_edit(self, at: int) -> Edit:
        """The edit that puts the register before output layer `at`; InputError when nothing was yanked."""
        runs = self._runs()
        return Insert(*runs[0], at=at) if len(runs) == 1 else InsertRuns(runs, at)

    def replace_edit(self, start: int, stop: int) -> Edit:
        """The edit that puts the register in the place of output layers `[start, stop)`."""
        runs = self._runs()
        if len(runs) != 1:
            raise InputError("the register holds several runs", remedy="delete the layers and paste instead")
        return Replace(start, stop, *runs[0])

    def _runs(self) -> tuple[tuple[str, int, int], ...]:
        if self.register is None or not self.register.runs:
            raise InputError(
                "nothing is yanked", remedy="select layers with v and yank them with y, or cut them with x"
            )
        return self.register.runs

    def save(self, path: Path, *, over: bool = False) -> None:
        """Write the recipe; relative paths of donors are changed for another folder.

        Args:
            over: replace the file whatever it holds.

        Raises:
            Occupied: it holds what was not read from it here, or written to it.
            SurgeonError: it cannot be written.
        """
        document, roots = self.moved(path), self.document.roots
        self.seen = self.seen.write(path, document.text, over=over)
        old, new = model_refs(self.current), model_refs(document)
        self.document = self._base = document
        if old != new:
            # Donors have other names from the new folder, and the steps so far speak of the old ones.
            renamed = dict(zip(old, new, strict=True))
            self._begin_histories()
        else:
            renamed = {}
        # Donors that are open, and layers in the register, are the same models from another folder too.
        folder = path.absolute().parent
        stages = set(self.stages)
        renamed |= {ref: located(ref, roots, folder) for ref in {*self.refs, *self._yanked()} - {*renamed, *stages}}
        self.refs = list(dict.fromkeys(renamed.get(ref, ref) for ref in self.refs))
        self._rename_yanked(renamed)
        self.donors = Donors(document.roots, self.refs)
        self._changed()

    def _yanked(self) -> set[str]:
        """The donors of what is in the register."""
        if self.register is None:
            return set()
        return {ref for ref, _, _ in self.register.runs} | ({self.register.end[1]} if self.register.end else set())

    def _rename_yanked(self, renamed: Mapping[str, str]) -> None:
        if self.register is None:
            return
        runs = tuple((renamed.get(ref, ref), start, stop) for ref, start, stop in self.register.runs)
        end = self.register.end
        self.register = Yank(runs, (end[0], renamed.get(end[1], end[1])) if end else None)

    def moved(self, path: Path) -> Document:
        """The current document as it would be saved at `path`."""
        return rebased(self.current, self.document.roots, path)

    def absolute(self, document: Document | None = None) -> Document:
        """What is edited, here or in another state of the document, with every donor by its absolute path: for child
        processes elsewhere."""
        whole = document or self.current
        stage = self.stage if self.stage in stage_names(whole) else RESULT
        return absolute(standalone(whole, stage), (*whole.roots, *self.document.roots))

    def donor_recipe(self, ref: str) -> Document | None:
        """A recipe that gives a donor whose weights are computed: a stage, or one with an adapter; None for others."""
        if ref in self.stages:
            return standalone(self.current, ref)
        donor = self.plan.donors.get(self.letters.get(ref, ""))
        if donor is None or donor.adapter is None:
            return None
        whole = Recipe.model_validate({"merge_method": "passthrough", "models": [{"model": ref}]})
        return replace(fresh(whole), path=self.document.path)

    def diff(self) -> list[str]:
        """Unified difference of the saved text and the edited one."""
        old, new = self.document.text.splitlines(), self.current.text.splitlines()
        return list(difflib.unified_diff(old, new, "saved", "edited", lineterm=""))
