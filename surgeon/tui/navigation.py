"""What screens and controllers ask of the application; `app.SurgeonApp` provides it and alone knows every screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..jobs.job import Job
    from ..recipe.edits import BlendLayers, Edit
    from .blend.blend_choice import BlendChoice
    from .curves.drafts import Draft


class Messages(Protocol):
    """Tells the user something, or asks."""

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence on the status line of the main screen."""

    def ask(self, question: str, answers: Sequence[tuple[str, str]], then: Callable[[str | None], None]) -> None:
        """Ask a question over the current screen; `then` gets the key of the answer, or an empty string."""


class Navigation(Messages, Protocol):
    """Opens screens. `then` gets a screen's result when it is left; None when it was left without one."""

    def open_plan(self, then: Callable[[int | None], None]) -> None:
        """Open the plan screen; its result is the layer to go to."""

    def open_blend(self, choice: BlendChoice, then: Callable[[BlendLayers | None], None]) -> None:
        """Open the screen that chooses donors, method and base of a blend."""

    def open_curves(self, draft: Draft, track: int, then: Callable[[Edit | None], None]) -> None:
        """Open the curve editor at a track of the draft."""

    def open_run(self) -> None:
        """Show the progress of the current job."""

    def open_try(self, folder: Path | None = None) -> None:
        """Generate from the unwritten recipe, or from the model in a folder."""

    def open_results(self) -> None:
        """List what was tried and evaluated; the recipe of a row can become the one that is edited."""

    def show_messages(self) -> None:
        """Show the last messages."""

    def resume_job(self, job: Job) -> None:
        """Resume a job, and show its progress."""

    def return_to_surgery(self) -> None:
        """Close every screen above the main one."""

    def offer_earlier_work(self) -> None:
        """Offer what earlier sessions left: unsaved work, running jobs, unfinished ones."""

    def ask_quit(self) -> None:
        """Leave; ask first when work is unsaved."""

    def set_theme(self, name: str) -> str:
        """Change the colours; returns the message to show."""

    def save_picture(self, name: str = "") -> str:
        """Write the screen to an SVG file; returns the message to show."""

    def set_mouse(self, word: str) -> str:
        """Take the mouse (`on`) or leave it to the terminal (`off`); returns the message to show."""
