"""The command line of the surgery screen, and the actions that open, save, run, try and leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from textual.widgets import Input

from ...errors import InputError, SurgeonError
from ...files import expanded, is_dir
from ...recipe.edits import EDITS, grammar
from ...recipe.saving import Occupied
from ...text import nearest
from ..commands import COMMANDS
from ..widgets.line import Line
from .blending import Blending


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

    def write(self, name: str, then: Callable[[], None] | None = None) -> None:
        """Save to a name (the file's own without one); what was not read from that file is asked about first.

        Args:
            then: called when it is saved.
        """
        path = expanded(name) if name else self.session.document.path
        if path is None:
            self.do_save(None)
            return
        if path.name and not path.suffix and name and not is_dir(path):
            path = path.with_suffix(".yaml")
        if is_dir(path) or not path.name:
            self.refuse(f"{path} is a folder: give a file name")
        else:
            self._save(path, then)

    def _save(self, path: Path, then: Callable[[], None] | None, *, over: bool = False) -> None:
        """Write the recipe and say so."""
        try:
            self.session.save(path, over=over)
        except Occupied as error:
            self._ask_over(path, error.why, then)
            return
        except SurgeonError as error:
            self.say(error.sentence(), "error")
            return
        self.surgeon.saved()
        self.run_worker(self.place_panes())
        self.say(f"saved {path.absolute()}")
        if then is not None:
            then()

    def _ask_over(self, path: Path, why: str, then: Callable[[], None] | None) -> None:
        def answered(answer: str | None) -> None:
            if answer == "y":
                self._save(path, then, over=True)
                return
            self.say("not saved")
            if answer == "s":
                while self.app.screen is not self:
                    self.app.pop_screen()
                self.do_save_as(None)

        answers = [("y", "overwrite it"), ("s", "save under another name"), ("n", "leave it")]
        self.surgeon.ask(f"{path}: {why}. Overwrite it?", answers, answered)

    # -- other screens

    def do_plan(self, count: int | None) -> None:
        """Findings, sizes, YAML, difference."""
        from ..plan.plan_screen import PlanScreen

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
