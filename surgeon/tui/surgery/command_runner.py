"""Runs what was typed on the command line: an edit of the recipe, or one of `commands.COMMANDS`."""

from __future__ import annotations

from ...recipe.edits import EDITS, grammar
from ...text import nearest
from ..commands import COMMANDS
from ..jobs_controller import JobsController
from ..navigation import Navigation
from .editor import Editor
from .recipe_files import RecipeFiles
from .screen_opener import ScreenOpener
from .surgery_view import SurgeryView

ABBREVIATIONS = {"w": "write", "q": "quit", "e": "open", "o": "open", "save": "write"}


class CommandRunner:
    """Finds the object that does what a command says."""

    def __init__(
        self,
        view: SurgeryView,
        editor: Editor,
        files: RecipeFiles,
        opener: ScreenOpener,
        jobs: JobsController,
        navigation: Navigation,
    ) -> None:
        self._view, self._editor, self._files, self._opener = view, editor, files, opener
        self._jobs, self._navigation = jobs, navigation

    def run(self, text: str) -> None:
        """Run a command line."""
        word, _, rest = text.lstrip(":").strip().partition(" ")
        word = ABBREVIATIONS.get(word, word)
        edits = [kind.verb for kind in EDITS]
        if word in COMMANDS:
            self._run_command(word, rest.strip())
        elif word in edits or word in grammar.ALIASES:
            self._editor.apply_text(text.lstrip(":"))
        else:
            guess = nearest(word, [*edits, *COMMANDS])
            advice = f": did you mean {guess}?" if guess else ": press ? for all"
            self._view.refuse(f"there is no command {word!r}{advice}")

    def _run_command(self, word: str, rest: str) -> None:
        if word == "open":
            self._files.open(rest)
        elif word == "write":
            self._files.save(rest)
        elif word == "run" and rest:
            self._jobs.start(rest)
        elif word == "run":
            self._opener.do_run(None)
        elif word == "jobs":
            self._jobs.choose()
        elif word == "try":
            self._opener.do_try_it(None)
        elif word == "plan":
            self._opener.do_plan(None)
        elif word == "messages":
            self._navigation.show_messages()
        elif word == "mouse":
            self._view.say(self._navigation.set_mouse(rest))
        else:
            self._opener.do_quit(None)
