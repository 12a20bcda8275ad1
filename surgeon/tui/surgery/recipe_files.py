"""Opens donors and saves the recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.screen import Screen

from ...errors import InputError, SurgeonError
from ...files import expanded, is_dir
from ...recipe.saving import Occupied
from ..navigation import Navigation
from ..recent_recipes import remember_recipe
from ..session import Session
from ..unsaved_work import UnsavedWork
from .command_line import CommandLine
from .surgery_view import SurgeryView


class RecipeFiles:
    """Actions on donors and on the recipe's file."""

    def __init__(
        self,
        screen: Screen[Any],
        session: Session,
        view: SurgeryView,
        line: CommandLine,
        unsaved_work: UnsavedWork,
        navigation: Navigation,
    ) -> None:
        self._screen, self._session, self._view, self._line = screen, session, view, line
        self._unsaved_work, self._navigation = unsaved_work, navigation

    def open(self, ref: str) -> None:
        """Open a donor and go to it."""
        if not ref:
            self._view.refuse("write the path of a checkpoint, or a Hub id from the local cache, after `open`")
            return
        try:
            letter = self._session.open(ref)
        except InputError as error:
            self._view.say(error.sentence(), "error")
            return
        self._unsaved_work.keep()
        self._screen.run_worker(self._show_opened(letter))

    async def _show_opened(self, letter: str) -> None:
        ref = next(ref for ref, own in self._session.letters.items() if own == letter)
        await self._view.place_panes()
        await self._view.show_donor(ref)
        self._view.say(f"{letter} is {ref}")

    def do_save(self, count: int | None) -> None:
        """Save the recipe; begin a command with a name when it has no file."""
        if self._session.document.path is None:
            self._line.open(":", "write ", offered="recipe.yaml")
        else:
            self.save("")

    def do_save_as(self, count: int | None) -> None:
        """Begin a command that saves under another name."""
        path = self._session.document.path
        self._line.open(":", "write ", offered=str(path or "recipe.yaml"))

    def save(self, name: str, then: Callable[[], None] | None = None) -> None:
        """Save to a name, or without one to the recipe's file; ask before text that was not read here is overwritten.

        Args:
            then: called when it is saved.
        """
        path = expanded(name) if name else self._session.document.path
        if path is None:
            self.do_save(None)
            return
        if path.name and not path.suffix and name and not is_dir(path):
            path = path.with_suffix(".yaml")
        if is_dir(path) or not path.name:
            self._view.refuse(f"{path} is a folder: give a file name")
        else:
            self._write(path, then)

    def _write(self, path: Path, then: Callable[[], None] | None, *, over: bool = False) -> None:
        """Write the recipe and say so; ask when the file holds something else."""
        try:
            self._session.save(path, over=over)
        except Occupied as error:
            self._ask_over(path, error.why, then)
            return
        except SurgeonError as error:
            self._view.say(error.sentence(), "error")
            return
        self._unsaved_work.forget()
        remember_recipe(path)
        self._screen.run_worker(self._view.place_panes())
        self._view.say(f"saved {path.absolute()}")
        if then is not None:
            then()

    def _ask_over(self, path: Path, why: str, then: Callable[[], None] | None) -> None:
        def answered(answer: str | None) -> None:
            if answer == "y":
                self._write(path, then, over=True)
                return
            self._view.say("not saved")
            if answer == "s":
                self._navigation.return_to_surgery()
                self.do_save_as(None)

        answers = [("y", "overwrite it"), ("s", "save under another name"), ("n", "leave it")]
        self._navigation.ask(f"{path}: {why}. Overwrite it?", answers, answered)
