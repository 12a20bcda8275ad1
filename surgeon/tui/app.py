"""The application: a session, the screens over it, and leaving safely. It alone imports the screens."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import App, SystemCommand
from textual.driver import Driver
from textual.screen import Screen

from ..errors import SurgeonError
from ..files import exists, write_atomic
from . import theme
from .action_screen import ActionScreen
from .actions import of_screen, perform
from .actions import use as use_actions
from .dialogs import Ask, TextDialog
from .jobs_controller import JobsController
from .key_queue import KeyQueue
from .run.job_watch import JobWatch
from .session import Session
from .settings import THEMES, Settings, settings_path
from .shutdown import ShutdownWatch
from .surgery.surgery_screen import SurgeryScreen
from .try_model.try_state import TryState
from .unsaved_work import UnsavedWork
from .widgets.line import Line
from .widgets.status_line import StatusLine

if TYPE_CHECKING:
    from ..evaluate.results import Row
    from ..jobs.job import Job
    from ..recipe.edits import BlendLayers, Edit
    from .blend.blend_choice import BlendChoice
    from .curves.drafts import Draft


JOB_INTERVAL = 1.0
"""Seconds between looks at the current job."""
MAX_MESSAGES = 100
"""Messages that `:messages` shows."""


class SurgeonApp(App[None]):
    """surgeon's terminal interface; to its screens and controllers it is a `navigation.Navigation`.

    Args:
        session: donors and recipe to begin with.
        probes: probe sets that the Try screen offers.
        settings: theme and keys; None for the defaults.
    """

    TITLE = "surgeon"
    CSS = """
    Screen { background: $background; color: $foreground; }
    """
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar = []

    def __init__(self, session: Session, probes: Sequence[Path] = (), settings: Settings | None = None) -> None:
        # Without colours an ANSI theme sends none at all; any other would send shades of grey.
        colourless = "NO_COLOR" in os.environ
        super().__init__(ansi_color=True if colourless else None)
        self.session = session
        self.try_state = TryState(list(probes))
        self.jobs = JobsController(session, self)
        self.unsaved_work = UnsavedWork(session, self, self._say_after_refresh)
        self.shutdown_watch: ShutdownWatch | None = None
        self._job_watch = JobWatch()
        self.messages: deque[tuple[str, str, str]] = deque(maxlen=MAX_MESSAGES)
        self._keys = KeyQueue(self, self._send_key)
        for palette in theme.PALETTES.values():
            self.register_theme(palette.theme)
        settings = settings or Settings()
        use_actions(settings.actions())
        self._colourless = colourless
        self.theme = self._theme_of(settings.theme)

    def get_default_screen(self) -> Screen[Any]:
        """The main screen from the first frame on."""
        return SurgeryScreen(self.session, self.unsaved_work, self.jobs, self)

    @property
    def surgery(self) -> SurgeryScreen:
        """The main screen."""
        screen = next(screen for screen in self.screen_stack if isinstance(screen, SurgeryScreen))
        assert isinstance(screen, SurgeryScreen)
        return screen

    # -- messages

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence on the status line of the main screen."""
        self.surgery.view.say(text, severity)

    def on_status_line_said(self, event: StatusLine.Said) -> None:
        """Keep a message with the time."""
        self.messages.appendleft((time.strftime("%H:%M:%S"), event.text, event.severity))

    def show_messages(self) -> None:
        """Show the last messages, the newest first."""
        lines = [(f"{at}  {text}", theme.SEVERITY.get(severity, theme.PLAIN)) for at, text, severity in self.messages]
        self.push_screen(TextDialog("Messages, the newest first", lines or ["there is none yet"]))

    def _say_after_refresh(self, text: str, severity: str) -> None:
        self.call_after_refresh(self.say, text, severity)

    def ask(self, question: str, answers: Sequence[tuple[str, str]], then: Callable[[str | None], None]) -> None:
        """Ask a question over the current screen."""
        self.push_screen(Ask(question, answers), then)

    def _show_job(self) -> None:
        """Show the state of the current job on every screen but its own."""
        text, severity = self._job_watch.words(self.jobs.current)
        if isinstance(self.screen, ActionScreen) and self.screen.kind == "run":
            self._job_watch.look_at()
            return
        piece = (text, theme.SEVERITY.get(severity, theme.BOLD)) if text else None
        for header in self.screen.query("#header").results(Line):
            header.show_right(piece)

    # -- screens

    def open_plan(self, then: Callable[[int | None], None]) -> None:
        """Open the plan screen; its result is the layer to go to."""
        from .plan.plan_screen import PlanScreen

        self.push_screen(PlanScreen(self.session, self.surgery.text.edit), then)

    def open_blend(self, choice: BlendChoice, then: Callable[[BlendLayers | None], None]) -> None:
        """Open the screen that chooses donors, method and base of a blend."""
        from .blend.blend_screen import BlendScreen

        self.push_screen(BlendScreen(choice), then)

    def open_curves(self, draft: Draft, track: int, then: Callable[[Edit | None], None]) -> None:
        """Open the curve editor at a track of the draft."""
        from .curves.curve_screen import CurveScreen

        self.push_screen(CurveScreen(self.session, draft, track), then)

    def open_run(self) -> None:
        """Show the progress of the current job."""
        from .run.run_screen import RunScreen

        self.push_screen(RunScreen(self.jobs.current, self))
        self.call_after_refresh(self._show_job)

    def open_try(self, folder: Path | None = None) -> None:
        """Generate from the unwritten recipe, or from the model in a folder."""
        from .try_model.try_screen import TryScreen

        self.push_screen(TryScreen(self.session, self.try_state, self, folder))

    def open_results(self) -> None:
        """List what was tried and evaluated; the recipe of a row can become the one that is edited."""
        from .results.results_screen import ResultsScreen

        def chosen(row: Row | None) -> None:
            if row is None or row.recipe is None:
                return
            self.return_to_surgery()
            said = f"the recipe of row {row.number} is edited now: u undoes that, T tries it"
            self.surgery.recipes.take(row.recipe, row.text("stage"), said)

        history = self.try_state.history_of(self.session)
        self.push_screen(ResultsScreen(self.session, history.file, history.flush), chosen)

    def resume_job(self, job: Job) -> None:
        """Resume a job, and show its progress."""
        self.jobs.resume(job)

    def return_to_surgery(self) -> None:
        """Close every screen above the main one."""
        while not isinstance(self.screen, SurgeryScreen):
            self.pop_screen()

    # -- what earlier sessions left

    def offer_earlier_work(self) -> None:
        """Offer unsaved work of an earlier session, then jobs that run or can be resumed."""
        if not self.unsaved_work.check():
            self.surgery.view.show_header()
        self.unsaved_work.offer(self._recovered, self.jobs.offer)

    def _recovered(self) -> None:
        self.surgery.run_worker(self._show_recovered())

    async def _show_recovered(self) -> None:
        await self.surgery.view.place_panes()
        self.say("unsaved work is recovered: w saves it")

    # -- leaving

    async def action_quit(self) -> None:
        """Textual's own quit keys ask like ours."""
        self.ask_quit()

    def ask_quit(self) -> None:
        """Leave; ask first when work is unsaved."""
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
                self.surgery.files.save("", self._leave)
            elif answer == "w":
                self.return_to_surgery()
                self.surgery.files.do_save(None)

        self.ask("The recipe has changes that are not saved.", answers, answered)

    def _leave(self) -> None:
        self.unsaved_work.forget()
        self.exit()

    # -- the terminal

    def get_driver_class(self) -> type[Driver]:
        """Textual's driver for this system; on Linux and the like one that survives the loss of the terminal."""
        found = super().get_driver_class()
        if found.__name__ == "LinuxDriver":
            from .terminal_driver import TerminalDriver

            return TerminalDriver
        return found

    async def _send_key(self, event: events.Event) -> None:
        for line in self.screen.query(StatusLine):
            line.fold()
        await super().on_event(event)

    async def on_event(self, event: events.Event) -> None:
        """Send keys and pasted texts one by one."""
        if isinstance(event, (events.Key, events.Paste)) and not event.is_forwarded:
            await self._keys.put(event)
        else:
            await super().on_event(event)

    @property
    def driver(self) -> Driver | None:
        """What draws on the terminal; None before the first frame."""
        return self._driver

    def on_mount(self) -> None:
        """Watch the terminal, where there is one."""
        self.set_interval(JOB_INTERVAL, self._show_job)
        if not self.is_headless:
            self.shutdown_watch = ShutdownWatch(self)

    def end_children(self) -> None:
        """End the processes that work for the interface; jobs continue."""
        for screen in self.screen_stack:
            if (end := getattr(screen, "end_children", None)) is not None:
                end()
        self.try_state.process.close()

    async def on_unmount(self) -> None:
        """The interface is left."""
        await self.try_state.process.end()

    def end(self, code: int) -> None:
        """Leave with an exit code, without a question."""
        self.exit(return_code=code)

    def _theme_of(self, name: str) -> str:
        """Use a palette; returns the name of Textual's theme for it."""
        chosen = theme.use(name)
        return chosen if not self._colourless else "ansi-light" if chosen == theme.LIGHT.theme.name else "ansi-dark"

    def set_theme(self, name: str) -> str:
        """Change the colours; returns the message to show."""
        if name not in THEMES:
            return f"write `theme` and one of {', '.join(THEMES)}"
        self.theme = self._theme_of(name)
        self.surgery.view.refresh_all()
        self.refresh(layout=True)
        return f"theme {name}; to keep it, write `theme: {name}` to {settings_path() or 'the settings'}"

    def save_picture(self, name: str = "") -> str:
        """Write the screen to a new SVG file in the working directory, or to one that is named; returns what to say."""
        path = Path(name).expanduser() if name else _new_picture(getattr(self.screen, "kind", "screen"))
        if path.suffix != ".svg":
            path = path.with_name(f"{path.name}.svg")
        if exists(path):
            return f"{path} exists: give another name"
        try:
            write_atomic(path, self.export_screenshot(title="surgeon"))
        except SurgeonError as error:
            return error.sentence()
        return f"wrote {path}"

    def set_mouse(self, word: str) -> str:
        """Take the mouse (`on`) or leave it to the terminal (`off`); returns the message to show."""
        driver = self._driver
        if word not in {"on", "off"} or driver is None:
            return "write `mouse on` or `mouse off`"
        switch = getattr(driver, "_enable_mouse_support" if word == "on" else "_disable_mouse_support", None)
        if switch is None:
            return "this terminal has no mouse support to switch"
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
                    lambda name=action.name: perform(screen.parts, name),
                )


def _new_picture(kind: str) -> Path:
    """A name that no file in the working directory has."""
    number = next(number for number in range(1, 100_000) if not exists(f"surgeon-{kind}-{number}.svg"))
    return Path(f"surgeon-{kind}-{number}.svg")


def run(
    session: Session,
    *,
    probes: Sequence[Path] = (),
    mouse: bool | None = None,
    settings: Settings | None = None,
) -> int:
    """Run the interface until it is left; returns the exit code, which is 0 only when the user left it.

    Args:
        session: donors and recipe to begin with.
        probes: probe sets for the Try screen.
        mouse: whether to take the mouse; None does unless this is an SSH session.
        settings: theme and keys; None for the defaults.
    """
    if mouse is None:
        mouse = "SSH_CONNECTION" not in os.environ
    app = SurgeonApp(session, probes, settings)
    try:
        app.run(mouse=mouse)
    finally:
        if app.shutdown_watch is not None:
            app.shutdown_watch.close()
    return app.return_code or 0
