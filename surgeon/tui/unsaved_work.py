"""Keeps unsaved work in a swap file after every edit, and offers what an earlier session left unsaved."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import InputError
from ..recipe import document as documents
from ..text import duration
from . import swap
from .navigation import Messages
from .session import Session


class UnsavedWork:
    """The unsaved work of a session.

    Args:
        session: whose recipe is kept.
        messages: where questions and errors are shown.
        notify: shows a message when the screen has been redrawn, after what the edit itself has to say.

    Attributes:
        not_kept: why unsaved work is not on disk; empty when it is.
    """

    def __init__(self, session: Session, messages: Messages, notify: Callable[[str, str], None]) -> None:
        self._session, self._messages, self._notify = session, messages, notify
        self.not_kept = ""

    def keep(self) -> bool:
        """Write unsaved work to disk; returns whether it is there."""
        session = self._session
        why = ""
        if session.dirty:
            why = swap.write(session.current.text, session.models, session.document.path)
        else:
            swap.clear()
        if bool(why) != bool(self.not_kept):
            said = f"unsaved work is not kept: {why}" if why else "unsaved work is kept again"
            self._notify(said, "warning" if why else "")
        self.not_kept = why
        return not why

    def forget(self) -> None:
        """Delete the swap file: the recipe is saved, or dropped on purpose."""
        swap.clear()

    def check(self) -> bool:
        """Say so when there is no place for unsaved work; returns whether there is one."""
        self.not_kept = swap.problem()
        if self.not_kept:
            self._messages.say(f"neither unsaved work nor jobs are kept: {self.not_kept}", "warning")
        return not self.not_kept

    def offer(self, recovered: Callable[[], None], then: Callable[[], None]) -> None:
        """Offer what an earlier session left unsaved.

        Args:
            recovered: called when that became the session's recipe.
            then: called when the question is answered, or when there is none.
        """
        left = swap.left_behind(self._session.document.path)
        if left is None or left.text == self._session.document.text:
            then()
            return
        name = left.recipe_path.name if left.recipe_path else "an unnamed recipe"
        ended = f"on {left.host} has not saved" if left.host else "ended without saving"
        question = f"A session {duration(left.age)} ago {ended} {name}. Recover its changes?"
        if left.host:
            question += " It may still be open there, so its copy is kept until you delete it."
        answers = [("r", "recover it (can be undone)"), ("d", "delete it"), ("l", "later: ask again next time")]

        def answered(answer: str | None) -> None:
            if answer == "r":
                if self._recover(left):
                    recovered()
            elif answer == "d":
                swap.discard(left)
            then()

        self._messages.ask(question, answers, answered)

    def _recover(self, left: swap.Swap) -> bool:
        try:
            document = documents.parse(left.text, self._session.document.path)
            self._session.recover(document, left.refs)
        except InputError as error:
            self._messages.say(error.sentence(), "error")
            return False
        # The old copy goes when there is a new one: at no time is there none.
        if self.keep() and not left.host:
            swap.discard(left)
        return True
