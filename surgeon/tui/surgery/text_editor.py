"""Opens the recipe's YAML in the user's editor, and reads it back as one edit."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from textual.app import SuspendNotSupported
from textual.screen import Screen

from ...errors import InputError
from ...recipe import document as documents
from ...statefile import read_bytes
from ..session import Session
from .editor import Editor
from .surgery_view import SurgeryView

_WITH_LINE = {"vi", "vim", "nvim", "view", "nano", "pico", "emacs", "emacsclient", "micro", "kak", "joe", "mg", "ne"}
"""Editors that take `+LINE` before the file."""


class TextEditor:
    """Runs the editor on a copy of the text in a folder that only this user can read."""

    def __init__(self, screen: Screen[Any], session: Session, view: SurgeryView, editor: Editor) -> None:
        self._screen, self._session, self._view, self._editor = screen, session, view, editor
        self._refused = ("", "")

    def edit(self, line: int) -> str:
        """Open the text at a line, wait for the editor, and take what it wrote; returns what to say."""
        session = self._session
        before = session.current.text
        path = session.document.path
        # A text that was refused is opened again, unless the recipe was changed since.
        given = self._refused[1] if self._refused[0] == before else before
        folder = Path(tempfile.mkdtemp(prefix="surgeon-"))
        copy = folder / (path.name if path else "recipe.yaml")
        try:
            copy.write_text(given, encoding="utf-8", newline="")
            problem = self._run(copy, line)
            raw = read_bytes(copy, documents.MAX_BYTES)
            after = raw.decode("utf-8-sig")
        except (OSError, ValueError) as error:
            # What was written there is somebody's work: it stays.
            return f"the text cannot be read back: {error}. What the editor left is in {folder}"
        if problem and after != given:
            return f"{problem}. What it left is in {copy}"
        shutil.rmtree(folder, ignore_errors=True)
        if problem:
            return problem
        if after == given != before:
            self._refused = ("", "")
            return "the text that was not taken is dropped: the editor opens the recipe again"
        return "the editor changed nothing" if after == before else self._take(before, after)

    def _run(self, copy: Path, line: int) -> str:
        """Run the editor on a file; returns why it failed, or an empty string."""
        chosen = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
        try:
            words = shlex.split(chosen)
        except ValueError as error:
            return f"$EDITOR is no command: {error}"
        at = [f"+{line}"] if words and Path(words[0]).name in _WITH_LINE else []
        try:
            with self._screen.app.suspend():
                code = subprocess.run([*words, *at, str(copy)], check=False).returncode
        except SuspendNotSupported:
            return "this terminal cannot be lent to an editor: edit the file outside, then :reload"
        except (OSError, ValueError, IndexError) as error:
            return f"{chosen} cannot be started: {getattr(error, 'strerror', None) or error}. Set $EDITOR to an editor"
        return f"{chosen} failed with exit code {code}: nothing was read back" if code else ""

    def _take(self, before: str, text: str) -> str:
        """Make a text the recipe, as one step that can be undone; a wrong text is kept for another try."""
        session = self._session
        self._refused = ("", "")
        try:
            session.recover(documents.parse(text, session.document.path))
        except InputError as error:
            self._refused = (before, text)
            return f"not taken: {error.sentence()} The editor opens your text again"
        self._editor.show_edit("edited the YAML")
        return "the edited YAML is the recipe now: u undoes it"
