"""The command line of the surgery screen, and the actions that open, save, run, try and leave."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from textual.widgets import Input

from ...errors import InputError, SurgeonError
from ...files import exists, expanded, is_dir
from ...recipe import grammar
from ...recipe.edits import EDITS
from ...text import nearest
from ..widgets.line import Line
from .dialogs import COMMANDS
from .surgery_blend import Blending


class Surgery(Blending):
    """Donors, stack, inspector: the whole screen."""

    # -- the command line

    def do_command(self, count: int | None) -> None:
        """An empty command line."""
        self.open_line(":", "")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter on the line."""
        event.stop()
        prompt = self.query_one("#prompt", Line).text
        text = event.value.strip()
        self.leave_input()
        if not text:
            return
        if prompt == "/":
            self.search(text)
            return
        self.past = [*(line for line in self.past if line != text), text]
        self.obey(text)

    def obey(self, text: str) -> None:
        """A command: an edit, or one of COMMANDS."""
        word, _, rest = text.lstrip(":").strip().partition(" ")
        word = {"w": "write", "q": "quit", "e": "open", "o": "open", "save": "write"}.get(word, word)
        rest = rest.strip()
        known = [kind.verb for kind in EDITS]
        if word not in COMMANDS:
            if word not in known and word not in grammar.ALIASES:
                guess = nearest(word, [*known, *COMMANDS])
                self.refuse(
                    f"there is no command {word!r}" + (f": did you mean {guess}?" if guess else ": press ? for all")
                )
                return
            self.attempt(text.lstrip(":"))
            return
        if word == "open":
            self.open_donor(rest)
        elif word == "write":
            self.write(rest)
        elif word == "run":
            self.surgeon.start_run(rest)
        elif word == "jobs":
            self.surgeon.show_jobs()
        elif word == "try":
            self.do_try_it(None)
        elif word == "plan":
            self.do_plan(None)
        elif word == "mouse":
            self.say(self.surgeon.set_mouse(rest))
        else:
            self.do_quit(None)

    # -- donors and files

    def do_open(self, count: int | None) -> None:
        """Ask for a donor."""
        self.open_line(":", "open ")

    def open_donor(self, ref: str) -> None:
        """Open a donor and go to it."""
        if not ref:
            self.refuse("write the path of a checkpoint, or a Hub id from the local cache, behind `open`")
            return
        try:
            letter = self.session.open(ref)
        except InputError as error:
            self.say(error.sentence(), "error")
            return
        self.surgeon.recipe_changed()
        self.run_worker(self._show_opened(letter))

    async def _show_opened(self, letter: str) -> None:
        ref = next(ref for ref, own in self.session.letters.items() if own == letter)
        await self.place_panes()
        await self.show_donor(ref)
        self.say(f"{letter} is {ref}")

    def do_save(self, count: int | None) -> None:
        """Save where it came from, or ask for a name."""
        if self.session.document.path is None:
            self.open_line(":", "write recipe.yaml")
        else:
            self.write("")

    def do_save_as(self, count: int | None) -> None:
        """Save under another name."""
        path = self.session.document.path
        self.open_line(":", f"write {path or 'recipe.yaml'}")

    def write(self, name: str) -> None:
        """Save to a name (the file's own without one); another existing file is asked about first."""
        own = self.session.document.path
        path = expanded(name) if name else own
        if path is None:
            self.do_save(None)
            return
        if name and not path.suffix:
            path = path.with_suffix(".yaml")
        if is_dir(path):
            self.refuse(f"{path} is a folder: give a file name")
        elif exists(path) and (own is None or not _same(path, own)):
            self.surgeon.ask(
                f"{path} exists. Overwrite it?", [("y", "overwrite"), ("n", "leave it")], self._overwrite(path)
            )
        elif own is not None and _same(path, own) and self.surgeon.changed_on_disk():
            question = f"{path} was changed by another program since it was opened. Overwrite it?"
            self.surgeon.ask(question, [("y", "overwrite"), ("n", "leave it")], self._overwrite(path))
        else:
            self.save_to(path)

    def _overwrite(self, path: Path) -> Callable[[str | None], None]:
        def answered(answer: str | None) -> None:
            if answer == "y":
                self.save_to(path)
            else:
                self.say("not saved")

        return answered

    def save_to(self, path: Path) -> None:
        """Write the recipe and say so."""
        try:
            self.session.save(path)
        except SurgeonError as error:
            self.say(error.sentence(), "error")
            return
        self.surgeon.saved()
        self.run_worker(self.place_panes())
        self.say(f"saved {path.absolute()}")

    # -- other screens

    def do_plan(self, count: int | None) -> None:
        """Findings, sizes, YAML, difference."""
        from .plan import PlanScreen

        self.app.push_screen(PlanScreen(), self._to_layer)

    def _to_layer(self, layer: object) -> None:
        if isinstance(layer, int):
            self.stack.focus()
            self.stack.move_to(self.stack.row_of_layer(layer))

    def do_run(self, count: int | None) -> None:
        """Ask where to; a running job is shown instead."""
        if self.surgeon.running():
            self.surgeon.show_run()
            return
        if not self.session.plan.ok:
            self.refuse(f"it cannot be written yet: {self.session.plan.errors[0].sentence()} (f lists all)")
            return
        path = self.session.document.path
        self.open_line(":", f"run {path.with_suffix('') if path else './model'}-out")

    def do_try_it(self, count: int | None) -> None:
        """Generate from the unwritten model."""
        self.surgeon.show_try()

    def do_quit(self, count: int | None) -> None:
        """Leave; unsaved work asks."""
        self.surgeon.ask_quit()


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
