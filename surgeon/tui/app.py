"""The application: a session, the screens over it, child processes for heavy work, and leaving safely."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from textual.app import App, SystemCommand
from textual.driver import Driver
from textual.screen import Screen

from ..errors import InputError
from ..jobs.job import Job
from ..recipe import document as documents
from . import swap, theme
from .action_screen import ActionScreen
from .actions import of_screen
from .dialogs import Ask
from .ending import Ending
from .session import Session
from .surgery.surgery_screen import Surgery


class SurgeonApp(App[None]):
    """surgeon's terminal interface.

    Args:
        session: donors and recipe to begin with.
        probes: probe sets that the Try screen offers.
    """

    TITLE = "surgeon"
    CSS = """
    Screen { background: $background; color: $foreground; }
    """
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar = []

    def __init__(self, session: Session, probes: Sequence[Path] = ()) -> None:
        # Without colours an ANSI theme sends none at all; any other would send shades of grey.
        colourless = "NO_COLOR" in os.environ
        super().__init__(ansi_color=True if colourless else None)
        self.session = session
        self.probes = list(probes)
        self.job: Job | None = None
        self.job_out: Path | None = None
        self.ending: Ending | None = None
        self.not_kept = ""
        self.register_theme(theme.DARK)
        self.theme = "ansi-dark" if colourless else "surgeon"

    def get_driver_class(self) -> type[Driver]:
        """Textual's driver for this system; on Linux and the like one that bears the end of the terminal."""
        found = super().get_driver_class()
        if found.__name__ == "LinuxDriver":
            from .terminal import Terminal

            return Terminal
        return found

    @property
    def driver(self) -> Driver | None:
        """What draws on the terminal; None before the first frame."""
        return self._driver

    def on_mount(self) -> None:
        """Look out for the end of the terminal, where there is one."""
        if not self.is_headless:
            self.ending = Ending(self)

    def end_children(self) -> None:
        """End the processes that work for this one; what is being written in the background goes on."""
        for screen in self.screen_stack:
            if (end := getattr(screen, "end_children", None)) is not None:
                end()

    def get_default_screen(self) -> Screen[Any]:
        """The main screen from the first frame on."""
        return Surgery()

    @property
    def surgery(self) -> Surgery:
        """The main screen."""
        screen = next(screen for screen in self.screen_stack if isinstance(screen, Surgery))
        assert isinstance(screen, Surgery)
        return screen

    def ask(self, question: str, answers: list[tuple[str, str]], then: Callable[[str | None], None]) -> None:
        """Ask a question over the current screen."""
        self.push_screen(Ask(question, answers), then)

    # -- unsaved work

    def recipe_changed(self) -> bool:
        """Keep unsaved work on disk; gives whether it is kept."""
        session = self.session
        why = ""
        if session.dirty:
            why = swap.write(session.current.text, session.models, session.document.path)
        else:
            swap.clear()
        if bool(why) != bool(self.not_kept):
            said = f"unsaved work is not kept: {why}" if why else "unsaved work is kept again"
            # After what the edit itself has to say.
            self.call_after_refresh(self.surgery.say, said, "warning" if why else "")
        self.not_kept = why
        return not why

    def saved(self) -> None:
        """The recipe is on disk now."""
        swap.clear()

    def offer_swap(self) -> None:
        """Offer what an earlier session left unsaved, and then what its jobs do or have left."""
        self.not_kept = swap.problem()
        if self.not_kept:
            self.surgery.say(f"neither unsaved work nor jobs are kept: {self.not_kept}", "warning")
            self.surgery.show_header()
        left = swap.left_behind(self.session.document.path)
        if left is None or left.text == self.session.document.text:
            self._offer_jobs()
            return
        from ..text import duration

        name = left.recipe_path.name if left.recipe_path else "an unnamed recipe"
        ended = f"on {left.host} has not saved" if left.host else "ended without saving"
        question = f"A session {duration(left.age)} ago {ended} {name}. Take its work up again?"
        if left.host:
            question += " It may still be open there, so its copy stays until you delete it."
        answers = [("r", "recover it (undo leads back)"), ("d", "delete it"), ("l", "later: ask again next time")]

        def answered(answer: str | None) -> None:
            if answer == "r":
                self._recover(left)
            elif answer == "d":
                swap.discard(left)
            self._offer_jobs()

        self.ask(question, answers, answered)

    def _offer_jobs(self) -> None:
        from .run.run_screen import offer

        offer(self)

    def _recover(self, left: swap.Swap) -> None:
        try:
            document = documents.parse(left.text, self.session.document.path)
        except InputError as error:
            self.surgery.say(error.sentence(), "error")
            return
        self.session.recover(document.recipe, left.refs)
        # The old copy goes when there is a new one: at no time is there none.
        if self.recipe_changed() and not left.host:
            swap.discard(left)
        self.surgery.run_worker(self._recovered())

    async def _recovered(self) -> None:
        await self.surgery.place_panes()
        self.surgery.say("recovered unsaved work: w saves it")

    # -- leaving

    async def action_quit(self) -> None:
        """Textual's own quit keys ask like ours."""
        self.ask_quit()

    def ask_quit(self) -> None:
        """Leave, asking first when work is unsaved."""
        if isinstance(self.screen, Ask):
            return
        if not self.session.dirty:
            self._leave()
            return
        name = self.session.document.path
        answers = [("w", f"save {name.name}" if name else "save as ..."), ("d", "leave without saving"), ("c", "stay")]

        def answered(answer: str | None) -> None:
            if answer == "d":
                self._leave()
            elif answer == "w" and name:
                self.surgery.write("", self._leave)
            elif answer == "w":
                while not isinstance(self.screen, Surgery):
                    self.pop_screen()
                self.surgery.do_save(None)

        self.ask("The recipe has changes that are not saved.", answers, answered)

    def _leave(self) -> None:
        swap.clear()
        self.exit()

    # -- other screens and children

    def running(self) -> bool:
        """Whether a job started here still runs."""
        return self.job is not None and self.job.running

    def start_run(self, name: str) -> None:
        """Write the model to a folder, in a child process."""
        from .run.run_screen import begin

        begin(self, name)

    def show_run(self) -> None:
        """The screen of the job."""
        from .run.run_screen import RunScreen

        self.push_screen(RunScreen())

    def show_jobs(self) -> None:
        """Choose a job to show."""
        from .run.run_screen import choose

        choose(self)

    def show_try(self, target: Path | None = None) -> None:
        """Generate from the unwritten recipe, or from a folder."""
        from .try_model.try_screen import TryScreen

        self.push_screen(TryScreen(target))

    def set_mouse(self, word: str) -> str:
        """Take the mouse, or leave it to the terminal; gives what to say."""
        driver = self._driver
        if word not in {"on", "off"} or driver is None:
            return "write `mouse on` or `mouse off`"
        switch = getattr(driver, "_enable_mouse_support" if word == "on" else "_disable_mouse_support", None)
        if switch is None:
            return "this terminal has no mouse to switch"
        driver._mouse = True
        switch()
        driver._mouse = word == "on"
        driver.flush()
        return f"mouse {word}"

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: every action of the screen it is opened on."""
        if isinstance(screen, ActionScreen):
            for action in of_screen(screen.kind):
                yield SystemCommand(
                    f"{action.help}  ({action.show})",
                    f":{action.verb}" if action.verb else action.group,
                    lambda name=action.name: screen.act(name),
                )


def run(session: Session, *, probes: Sequence[Path] = (), mouse: bool | None = None) -> int:
    """Run the interface until it is left; gives the exit code, which is 0 only when a person left it.

    Args:
        session: donors and recipe to begin with.
        probes: probe sets for the Try screen.
        mouse: whether to take the mouse; None does unless this is an SSH session.
    """
    if mouse is None:
        mouse = "SSH_CONNECTION" not in os.environ
    app = SurgeonApp(session, probes)
    try:
        app.run(mouse=mouse)
    finally:
        if app.ending is not None:
            app.ending.close()
    return app.return_code or 0
