"""The session's edits as a script for `surgeon edit`, and replaying such a script on the donors that are open."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from textual.screen import Screen

from ...errors import InputError, SurgeonError
from ...files import exists, expanded, is_dir, write_atomic
from ...recipe.document_stages import model_refs
from ...statefile import read_bytes
from ...text import one_line, plural
from ..dialogs import TextDialog
from ..navigation import Navigation
from ..replaced_text import Restore
from ..session import Session
from .editor import Editor
from .surgery_view import SurgeryView

MAX_BYTES = 200_000
MAX_EDITS = 10_000


class EditLog:
    """Commands that show, write and replay edits."""

    def __init__(
        self, screen: Screen[Any], session: Session, view: SurgeryView, editor: Editor, navigation: Navigation
    ) -> None:
        self._screen, self._session, self._view, self._editor = screen, session, view, editor
        self._navigation = navigation

    def log(self, name: str) -> None:
        """Show the edits, or write them to a file as a script; ask before a file is replaced."""
        lines = list(script_lines(self._session))
        if not name:
            self._screen.app.push_screen(TextDialog("Edits of this session", lines))
            return
        path = expanded(name)
        if is_dir(path):
            self._view.refuse(f"{path} is a folder: give a file name")
        elif exists(path):

            def answered(answer: str | None) -> None:
                if answer == "y":
                    self._write(path, lines)

            self._navigation.ask(f"{path} exists. Replace it?", [("y", "replace it"), ("n", "no")], answered)
        else:
            self._write(path, lines)

    def _write(self, path: Path, lines: Sequence[str]) -> None:
        try:
            write_atomic(path, "\n".join(lines) + "\n")
        except SurgeonError as error:
            self._view.say(error.sentence(), "error")
            return
        self._view.say(f"wrote {one_line(path)}: `sh {one_line(path)} RECIPE` repeats the edits, :replay does so here")

    def replay(self, name: str) -> None:
        """Apply the edits of a file to the recipe, all of them or none; letters mean the donors that are open here."""
        if not name:
            self._view.refuse("name a file that `log FILE` wrote: replay FILE")
            return
        session = self._session
        before = session.history
        try:
            edits = read_script(expanded(name))
        except InputError as error:
            self._view.say(error.sentence(), "error")
            return
        for number, text in enumerate(edits, start=1):
            try:
                session.command(text)
            except InputError as error:
                session.return_to(before)
                self._view.say(f"nothing is replayed: edit {number}, {text!r}: {error.sentence()}", "error")
                return
        self._editor.show_edit(f"replayed {plural(len(edits), 'edit')} of {one_line(name)}")


def script_lines(session: Session) -> Iterator[str]:
    """A shell script that makes the same edits; its argument is the recipe."""
    steps = session.history.done
    replaced = [number for number, step in enumerate(steps) if isinstance(step.edit, Restore)]
    edits = [step.edit for step in steps[replaced[-1] + 1 :]] if replaced else [step.edit for step in steps]
    start = steps[replaced[-1]].recipe if replaced else session.history.start
    yield "#!/bin/sh"
    if replaced:
        yield "# The recipe's text was replaced as a whole; the edits since then:"
    elif start.model_refs():
        yield "# The edits since the recipe was opened; RECIPE is the file as it was then."
    if not edits:
        yield "# There are no edits."
        return
    own = model_refs(session.document)
    words = [f"--stage {shlex.quote(session.stage)}"] if session.stage else []
    words += [f"--donor {shlex.quote(ref)}" for ref in session.models if ref not in own and ref not in session.stages]
    words += [f"--op {shlex.quote(session.describe(edit))}" for edit in edits]
    yield 'surgeon edit "${1:?name a recipe}" \\'
    yield from (f"  {word} \\" for word in words[:-1])
    yield f"  {words[-1]}"


def read_script(path: Path) -> list[str]:
    """The edits of a script of `script_lines`, or of a file with one edit on each line.

    Raises:
        InputError: the file cannot be read, or has no edits.
    """
    try:
        text = read_bytes(path, MAX_BYTES, follow=True).decode("utf-8")
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        words = shlex.split("\n".join(lines)) if any("--op" in line for line in lines) else []
    except (OSError, ValueError) as error:
        raise InputError(
            f"the edits cannot be read: {getattr(error, 'strerror', None) or error}", where=str(path)
        ) from error
    edits = [text for word, text in pairwise(words) if word == "--op"] if words else lines
    if not edits or len(edits) > MAX_EDITS:
        raise InputError(f"the file has {plural(len(edits), 'edit')}", where=str(path))
    return edits
