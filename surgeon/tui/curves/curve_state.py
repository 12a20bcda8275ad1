"""What the curve editor edits: a draft with its history, the current track, the cursor and the selection."""

from __future__ import annotations

from .drafts import CurveLine, Draft


class CurveState:
    """The state of the curve editor, without a widget.

    Attributes:
        draft: the curves as they are.
        done: earlier drafts, to undo; the last one last.
        undone: drafts to redo.
        track: index of the track that is edited.
        cursor: index of a value of that track.
        mark: where the selection began; None without one.
        sticky: whether plain moves extend the selection; not after a change of what is selected.
        asked_to_leave: whether the user was warned that leaving loses changes.
    """

    def __init__(self, draft: Draft, track: int) -> None:
        self.draft = draft
        self.done: list[Draft] = []
        self.undone: list[Draft] = []
        self.track = track
        self.cursor = 0
        self.mark: int | None = None
        self.sticky = False
        self.asked_to_leave = False

    @property
    def line(self) -> CurveLine:
        """The track that is edited."""
        return self.draft.lines[self.track]

    @property
    def selection(self) -> tuple[int, int] | None:
        """Selected values `[start, stop)`."""
        if self.mark is None:
            return None
        return min(self.mark, self.cursor), max(self.mark, self.cursor) + 1

    def span(self, *, whole: bool) -> tuple[int, int]:
        """What an operation changes: the selection, else the value under the cursor, or with `whole` all of them."""
        return self.selection or ((0, len(self.line.values)) if whole else (self.cursor, self.cursor + 1))

    def change(self, draft: Draft) -> bool:
        """Take another draft, with a step back to this one; returns False when nothing differs."""
        self.asked_to_leave = False
        if draft.lines == self.draft.lines:
            return False
        self.done.append(self.draft)
        self.undone.clear()
        self.sticky = False
        self.draft = draft
        self.track = min(self.track, len(draft.lines) - 1)
        return True

    def undo(self, count: int) -> None:
        """Go back up to `count` steps."""
        self._travel(self.done, self.undone, count)

    def redo(self, count: int) -> None:
        """Go forward up to `count` steps."""
        self._travel(self.undone, self.done, count)

    def _travel(self, there: list[Draft], back: list[Draft], count: int) -> None:
        for _ in range(min(count, len(there))):
            back.append(self.draft)
            self.draft = there.pop()
        self.track = min(self.track, len(self.draft.lines) - 1)
