"""Runs what was typed on the command line: an edit of the recipe, or one of `commands.COMMANDS`."""

from __future__ import annotations

from collections.abc import Callable

from ...recipe.edits import EDITS, grammar
from ...text import nearest
from ..commands import COMMANDS
from ..jobs_controller import JobsController
from ..navigation import Navigation
from .edit_log import EditLog
from .editor import Editor
from .recipe_files import RecipeFiles
from .recipe_opener import RecipeOpener
from .screen_opener import ScreenOpener
from .surgery_view import SurgeryView
from .text_editor import TextEditor

ABBREVIATIONS = {"w": "write", "q": "quit", "e": "edit", "o": "open", "save": "write"}


class CommandRunner:
    """Finds the object that does what a command says."""

    def __init__(
        self,
        view: SurgeryView,
        editor: Editor,
        files: RecipeFiles,
        recipes: RecipeOpener,
        text: TextEditor,
        log: EditLog,
        opener: ScreenOpener,
        jobs: JobsController,
        navigation: Navigation,
    ) -> None:
        self._view, self._editor = view, editor
        self._commands: dict[str, Callable[[str], None]] = {
            "open": lambda rest: files.open(rest) if rest else recipes.do_open(None),
            "close": recipes.close,
            "edit": recipes.edit,
            "reload": lambda rest: recipes.reload(),
            "diff": recipes.diff,
            "yaml": lambda rest: view.say(text.edit(1)),
            "stage": recipes.stage,
            "log": log.log,
            "replay": log.replay,
            "write": files.save,
            "run": lambda rest: jobs.start(rest) if rest else opener.do_run(None),
            "jobs": lambda rest: jobs.choose(),
            "try": lambda rest: opener.do_try_it(None),
            "results": lambda rest: opener.do_results(None),
            "plan": lambda rest: opener.do_plan(None),
            "theme": lambda rest: view.say(navigation.set_theme(rest)),
            "picture": lambda rest: view.say(navigation.save_picture(rest)),
            "messages": lambda rest: navigation.show_messages(),
            "mouse": lambda rest: view.say(navigation.set_mouse(rest)),
            "quit": lambda rest: opener.do_quit(None),
        }

    def run(self, text: str) -> None:
        """Run a command line."""
        word, _, rest = text.lstrip(":").strip().partition(" ")
        word = ABBREVIATIONS.get(word, word)
        edits = [kind.verb for kind in EDITS]
        if word in COMMANDS:
            self._commands[word](rest.strip())
        elif word in edits or word in grammar.ALIASES:
            self._editor.apply_text(text.lstrip(":"))
        else:
            guess = nearest(word, [*edits, *COMMANDS])
            advice = f": did you mean {guess}?" if guess else ": press ? for all"
            self._view.refuse(f"there is no command {word!r}{advice}")
