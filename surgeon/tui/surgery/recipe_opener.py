"""Opens what is edited: donors from a list, another recipe, the same recipe again, a stage of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual.screen import Screen

from ...errors import InputError
from ...files import exists, expanded, is_dir
from ...recipe import document as documents
from ...recipe.document_stages import RESULT
from ...recipe.letters import named
from ...recipe.saving import Seen
from ...recipe.schema import Recipe
from ...text import one_line, plural
from ..dialogs import DifferenceDialog
from ..model_picker import AdapterChoice, ModelPicker, near
from ..navigation import Navigation
from ..picker import Choice, Picker
from ..recent_recipes import recent_recipes, remember_recipe
from ..session import Session
from ..unsaved_work import UnsavedWork
from ..widgets.pane import DonorPane
from .command_line import CommandLine
from .recipe_files import RecipeFiles
from .surgery_view import SurgeryView

NO_FILE = "the recipe has no file yet: w saves it"
LOOK = 3.0
"""Seconds between looks at the recipe's file, which another program may change."""
MAX_LISTED = 100


class RecipeOpener:
    """Actions and commands that open."""

    def __init__(
        self,
        screen: Screen[Any],
        session: Session,
        view: SurgeryView,
        line: CommandLine,
        files: RecipeFiles,
        unsaved_work: UnsavedWork,
        navigation: Navigation,
    ) -> None:
        self._screen, self._session, self._view, self._line = screen, session, view, line
        self._files, self._unsaved_work, self._navigation = files, unsaved_work, navigation
        self._told: Seen | None = None

    # -- donors

    def do_open(self, count: int | None) -> None:
        """Choose a donor among the checkpoints nearby, or type its path."""
        opened = [self._session.checkpoint(ref) for ref in self._session.models if ref not in self._session.stages]
        known = [checkpoint for checkpoint in opened if checkpoint is not None]
        families = {checkpoint.config.model_type for checkpoint in known if checkpoint.config is not None}
        folders = [checkpoint.folder for checkpoint in known]
        picker = ModelPicker(
            near([folder.parent for folder in folders]), [os.path.realpath(path) for path in folders], families
        )
        self._screen.app.push_screen(picker, self._chosen)

    def _chosen(self, choice: Choice | None) -> None:
        if choice is None:
            return
        if not isinstance(choice, AdapterChoice):
            self._files.open(choice.value)
            return
        donors = [donor for donor in self._session.models if donor not in self._session.stages]
        self._line.open(":", f"open {donors[0] if donors else 'BASE'}+{choice.value}")
        self._view.say("an adapter is opened with its base: BASE+ADAPTER")

    # -- recipes

    def edit(self, name: str) -> None:
        """Edit another recipe; without a name, choose one. Ask first when work is unsaved."""
        if not name:
            self._choose_recipe()
            return
        path = expanded(name)
        if is_dir(path):
            self._view.refuse(f"{path} is a folder: give the file of a recipe, or `open` a checkpoint")
            return
        self._if_saved("open", lambda: self._edit(path))

    def _choose_recipe(self) -> None:
        here = [path for pattern in ("*.yaml", "*.yml") for path in sorted(Path().glob(pattern))[:MAX_LISTED]]
        found: dict[str, Path] = {}
        for path in (*recent_recipes(), *here):
            found.setdefault(os.path.realpath(path), path)
        choices = [Choice(str(path), _short(path)) for path in found.values()]
        picker = Picker("Edit a recipe", choices, other="opens that file, or a new one", empty="type a file's name")
        self._screen.app.push_screen(picker, lambda chosen: self.edit(chosen.value) if chosen else None)

    def _edit(self, path: Path) -> None:
        try:
            new = not exists(path)
            document = replace(documents.fresh(Recipe()), path=path) if new else documents.load(path)
        except InputError as error:
            self._view.say(error.sentence(), "error")
            return
        self._unsaved_work.forget()
        self._session.load(document)
        if not new:
            remember_recipe(path)
        self._shown(f"{'new recipe' if new else 'opened'} {one_line(path)}")
        self._unsaved_work.offer(lambda: self._shown("unsaved work is recovered: w saves it"), lambda: None)

    def take(self, text: str, stage: str, said: str) -> None:
        """Make a text the recipe that is edited, as one step that can be undone.

        Args:
            text: a recipe whose relative paths are valid beside this one.
            stage: the stage to edit.
            said: what to say then.
        """
        session = self._session
        try:
            session.recover(documents.parse(text, session.document.path))
        except InputError as error:
            self._view.say(error.sentence(), "error")
            return
        if stage in session.stages and stage != session.stage:
            session.edit_stage(stage)
        self._unsaved_work.keep()
        self._shown(said)

    def reload(self) -> None:
        """Read the recipe's file again. Ask first when work is unsaved."""
        path = self._session.document.path
        if path is None or not exists(path):
            self._view.refuse(f"there is no {path.name}: w writes it again" if path else NO_FILE)
            return
        self._if_saved("reload", lambda: self._reload(path))

    def _reload(self, path: Path) -> None:
        try:
            document = documents.load(path)
        except InputError as error:
            self._view.say(error.sentence(), "error")
            return
        self._unsaved_work.forget()
        self._session.reload(document)
        self._shown(f"read {one_line(path)} again: u goes back")

    def close(self, name: str) -> None:
        """Close a donor by its letter, name or path: the one whose column has the focus without a name."""
        pane = self._view.pane
        ref = named(name, self._session.models) if name else pane.ref if isinstance(pane, DonorPane) else None
        if ref is None:
            self._view.refuse(f"there is no donor {name}" if name else "name the donor to close: close B")
            return
        letter = self._session.letters[ref]
        try:
            self._session.close(ref)
        except InputError as error:
            self._view.refuse(error)
            return
        self._unsaved_work.keep()
        self._shown(f"closed {letter} {one_line(ref)}")

    def _if_saved(self, verb: str, then: Callable[[], None]) -> None:
        """Do it at once without unsaved changes; else ask."""
        if not self._session.dirty:
            then()
            return

        def answered(answer: str | None) -> None:
            if answer == "d":
                then()
            elif answer == "w":
                self._files.save("", then)

        answers = [("w", f"save, then {verb}"), ("d", f"{verb}, and drop the changes"), ("c", "stay")]
        self._navigation.ask("The recipe has changes that are not saved.", answers, answered)

    def _shown(self, said: str) -> None:
        self._view.refresh_all()
        self._screen.run_worker(self._show(said))

    async def _show(self, said: str) -> None:
        self._view.stack.clear_selection()
        await self._view.place_panes()
        self._view.say(said)

    # -- the file on disk

    def watch(self) -> None:
        """Look now and then whether another program has changed the recipe's file."""
        if (path := self._session.document.path) is not None and exists(path):
            # Not before the first frame: it writes a file.
            self._screen.call_after_refresh(remember_recipe, path)
        self._screen.set_interval(LOOK, self._look)

    def _look(self) -> None:
        seen = self._session.seen
        if seen is self._told or seen.path is None or seen.text is None:
            return
        if not exists(seen.path):
            self._told = seen
            self._view.say(f"another program removed {one_line(seen.path.name)}: w writes it again", "warning")
        elif seen.problem(seen.path):
            self._told = seen
            self._view.say(
                f"another program changed {one_line(seen.path.name)}: :diff disk shows how, :reload reads it", "warning"
            )

    def diff(self, name: str) -> None:
        """Show how the recipe as edited differs from the saved one, the file on disk (`disk`), or another recipe."""
        current = self._session.current.text
        path = expanded(name) if name and name != "disk" else self._session.document.path
        if not name:
            title, old = "saved -> edited", self._session.document.text
        elif path is None:
            self._view.refuse(NO_FILE)
            return
        else:
            try:
                title, old = f"{one_line(path.name)} -> this recipe", documents.load(path).text
            except InputError as error:
                self._view.say(error.sentence(), "error")
                return
        self._screen.app.push_screen(DifferenceDialog(title, old, current))

    # -- stages

    def do_stage(self, count: int | None) -> None:
        """Choose the document of the recipe that is edited."""
        stages = self._session.stages
        if len(stages) < 2:
            self._view.refuse("this recipe has one document; in a recipe in stages, s chooses the one to edit")
            return
        choices = [
            Choice(str(number), stage or "the result", self._about(stage)) for number, stage in enumerate(stages)
        ]

        def chosen(choice: Choice | None) -> None:
            if choice is not None:
                self._edit_stage(stages[int(choice.value)])

        self._screen.app.push_screen(Picker("Edit a stage", choices), chosen)

    def _about(self, stage: str) -> str:
        recipe = self._session.recipe_of(stage)
        words = [recipe.merge_method or "", "edited now" if stage == self._session.stage else ""]
        users = [other or "the result" for other in self._session.stages if stage and self._session.uses(other, stage)]
        words.append(f"used by {', '.join(users)}" if users else "")
        return one_line(", ".join(word for word in words if word))

    def stage(self, name: str) -> None:
        """Edit the stage of that name, or the result."""
        if not name:
            self.do_stage(None)
            return
        wanted = RESULT if name == "result" and name not in self._session.stages else name
        if wanted not in self._session.stages:
            known = ", ".join(stage for stage in self._session.stages if stage) or "none"
            self._view.refuse(f"there is no stage {name}: the recipe's stages are {known}")
            return
        self._edit_stage(wanted)

    def _edit_stage(self, wanted: str) -> None:
        self._session.edit_stage(wanted)
        depth = plural(len(self._session.plan.layers), "layer")
        self._shown(f"editing {wanted or 'the result'}: {depth}")


def _short(path: Path) -> str:
    """A path relative to the working directory, where that is shorter."""
    near_by = os.path.relpath(path)
    return one_line(near_by if len(near_by) < len(str(path)) else path)
