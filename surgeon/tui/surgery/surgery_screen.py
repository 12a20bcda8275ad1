"""The surgery screen: donors beside the stack that is built. It owns the objects that show and change them."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Input

from ...recipe.edits import EDITS
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..command_suggester import CommandSuggester
from ..commands import COMMANDS
from ..jobs_controller import JobsController
from ..navigation import Navigation
from ..session import Session
from ..unsaved_work import UnsavedWork
from ..widgets.line import Line
from ..widgets.pane import DonorPane, Pane, StackPane
from ..widgets.status_line import StatusLine
from .blender import Blender
from .command_line import CommandLine
from .command_runner import CommandRunner
from .edit_log import EditLog
from .editor import Editor
from .layer_search import LayerSearch
from .marks import Marks
from .mover import Mover
from .recipe_files import RecipeFiles
from .recipe_opener import RecipeOpener
from .screen_opener import ScreenOpener
from .selector import Selector
from .surgery_view import SurgeryView
from .text_editor import TextEditor
from .typed_edits import TypedEdits


class CommandInput(Input):
    """The input of the command line."""

    def action_delete_left_all(self) -> None:
        """Delete all that is left of the cursor (`^u`), also where a part of it is selected."""
        self.cursor_position = max(self.selection)
        super().action_delete_left_all()


class SurgeryScreen(ActionScreen):
    """The main screen: lays out the widgets and passes their events to its parts.

    Attributes:
        view: draws the session, and shows messages.
        line: the command line.
        search: finds layers.
        editor: turns actions and commands into edits.
        files: opens donors and saves the recipe.
        text: opens the recipe's YAML in an editor.
        recipes: opens other recipes and stages, and lists donors nearby.
        commands: runs what was typed on the command line.
    """

    kind: ClassVar[ScreenName] = "surgery"
    counts: ClassVar[bool] = True
    counted_keys: ClassVar[str] = "j k lines  G to that layer  v y d x layers  D copies  J K move  u undo  . repeat"
    DEFAULT_CSS = """
    SurgeryScreen { layout: vertical; }
    SurgeryScreen #panes { height: 1fr; }
    SurgeryScreen DonorPane { width: 22; border-right: vkey $panel; }
    SurgeryScreen StackPane { width: 1fr; min-width: 36; }
    SurgeryScreen #side { border-left: vkey $panel; height: 1fr; }
    SurgeryScreen #inspector { height: 2fr; }
    SurgeryScreen #recipe { height: 3fr; display: none; border-top: solid $panel; }
    SurgeryScreen #header { background: $panel; }
    SurgeryScreen #footer { background: $panel; }
    SurgeryScreen #command { height: 1; display: none; }
    SurgeryScreen #command.-open { display: block; }
    SurgeryScreen #status.-hidden { display: none; }
    SurgeryScreen #prompt { width: 1; }
    SurgeryScreen Input { border: none; padding: 0; height: 1; width: 1fr; background: $surface; }
    """

    def __init__(
        self, session: Session, unsaved_work: UnsavedWork, jobs: JobsController, navigation: Navigation
    ) -> None:
        super().__init__()
        self._navigation = navigation
        self.view = SurgeryView(self, session, unsaved_work)
        self.line = CommandLine(self, session, self.view)
        self.search = LayerSearch(session, self.view, self.line)
        self.editor = Editor(session, self.view, unsaved_work)
        self.files = RecipeFiles(self, session, self.view, self.line, unsaved_work, navigation)
        self.recipes = RecipeOpener(self, session, self.view, self.line, self.files, unsaved_work, navigation)
        self.text = TextEditor(self, session, self.view, self.editor)
        log = EditLog(self, session, self.view, self.editor, navigation)
        opener = ScreenOpener(session, self.view, self.line, jobs, navigation)
        self.commands = CommandRunner(
            self.view, self.editor, self.files, self.recipes, self.text, log, opener, jobs, navigation
        )
        self.parts = (
            self, self.view, self.line, self.search, self.editor, self.files, self.recipes, opener,
            Mover(self, session, self.view),
            Marks(self, session, self.view),
            Selector(self, session, self.view),
            TypedEdits(session, self.view, self.line, self.editor),
            Blender(session, self.view, self.line, self.editor, navigation),
        )  # fmt: skip
        # The stack where there is one, else the first donor: chosen here, so that it costs no second frame.
        self.AUTO_FOCUS = "#stack" if session.plan.layers or not session.models else "DonorPane"  # type: ignore[misc]

    def compose(self) -> ComposeResult:
        """Header, barcode, donor tabs, panes, detail, status, footer."""
        yield Line(id="header")
        yield Line(id="barcode")
        yield Line(id="tabs")
        with Horizontal(id="panes"):
            yield from (DonorPane(ref) for ref in self.view.donors_in_view())
            yield StackPane(id="stack")
            yield self.view.side.compose()
        yield StatusLine(id="detail")
        yield StatusLine(id="status")
        with Horizontal(id="command"):
            yield Line(id="prompt")
            box = CommandInput(
                compact=True,
                id="line",
                select_on_focus=False,
                suggester=CommandSuggester([*COMMANDS, *(kind.verb for kind in EDITS)]),
            )
            box.cursor_blink = False
            yield box
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Fill the panes before the first frame."""
        self.view.refresh_all()
        self.show_footer(self.query_one("#footer", Line))
        self.recipes.watch()
        self.call_after_refresh(self._navigation.offer_earlier_work)

    async def on_resize(self, event: events.Resize) -> None:
        """Mount the donors that fit into the new size."""
        if self.is_mounted and self.query(StackPane):
            await self.view.place_panes()
            self.show_footer(self.query_one("#footer", Line))

    def on_pane_moved(self, event: Pane.Moved) -> None:
        """Show what the cursor is on now."""
        self.view.show_cursor()
        self.view.say_selection()

    def on_descendant_focus(self) -> None:
        """Show what the cursor of the focused pane is on."""
        if isinstance(self.focused, Pane):
            self.view.show_cursor()

    def leave_input(self) -> None:
        """Escape on the command line closes it."""
        self.line.close()

    def complete(self) -> None:
        """Tab on the command line completes it."""
        self.line.complete()

    def recall(self, step: int) -> None:
        """Up and down on the command line bring earlier ones back."""
        self.line.recall(step)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Run the command, or search, when Enter is pressed on the command line."""
        event.stop()
        prompt, text = self.line.prompt, event.value.strip()
        self.line.close()
        if not text:
            return
        if prompt == "/":
            self.search.find(text)
            return
        self.line.remember(text)
        self.commands.run(text)
