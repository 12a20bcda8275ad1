"""Goes from the surgery screen to the others, and out of the program."""

from __future__ import annotations

from ..jobs_controller import JobsController
from ..navigation import Navigation
from ..session import Session
from .command_line import CommandLine
from .surgery_view import SurgeryView


class ScreenOpener:
    """Actions that open another screen."""

    def __init__(
        self, session: Session, view: SurgeryView, line: CommandLine, jobs: JobsController, navigation: Navigation
    ) -> None:
        self._session, self._view, self._line = session, view, line
        self._jobs, self._navigation = jobs, navigation

    def do_plan(self, count: int | None) -> None:
        """Open the plan screen: findings, sizes, YAML, difference."""
        self._navigation.open_plan(self._to_layer)

    def _to_layer(self, layer: int | None) -> None:
        if layer is not None:
            self._view.stack.focus()
            self._view.stack.go_to(self._view.stack.row_of_layer(layer))

    def do_run(self, count: int | None) -> None:
        """Begin a command that writes the model; a running job is shown instead."""
        if self._jobs.running:
            self._navigation.open_run()
            return
        if not self._session.result_plan.ok:
            why = self._session.result_plan.errors[0].sentence()
            self._view.refuse(f"the model cannot be written yet: {why} (f lists all)")
            return
        self._jobs.before_writing(self._ask_output)

    def _ask_output(self) -> None:
        path = self._session.document.path
        if self._session.stage:
            self._view.say("the result of the recipe is written, not the stage that is edited")
        self._line.open(":", "run ", offered=f"{path.with_suffix('') if path else './model'}-out")

    def do_try_it(self, count: int | None) -> None:
        """Open the Try screen on the unwritten model."""
        self._navigation.open_try()

    def do_results(self, count: int | None) -> None:
        """List what was tried and evaluated."""
        self._navigation.open_results()

    def do_quit(self, count: int | None) -> None:
        """Leave; ask first when work is unsaved."""
        self._navigation.ask_quit()
