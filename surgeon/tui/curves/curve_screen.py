"""The curve editor: each parameter of some layers as a curve, with a track per filter and donor."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult

from ...recipe.schema import Recipe
from ...text import plural, ranges
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..dialogs import TextDialog
from ..session import Session
from ..widgets.curve_chart import CurveChart
from ..widgets.line import Line
from ..widgets.prompt import Prompt
from ..widgets.status_line import StatusLine
from ..widgets.text_pane import TextPane
from .curve_editor import CurveEditor
from .curve_mover import CurveMover
from .curve_state import CurveState
from .curve_view import CurveView
from .drafts import Draft


def overridden_layers(recipe: Recipe, depth: int) -> dict[int, str]:
    """Output layer -> the key of the recipe that overrides the parameters of its slice."""
    found: dict[int, str] = {}
    for key, edge in (("first_layers", recipe.first_layers), ("last_layers", recipe.last_layers)):
        if edge is not None and (edge.model is not None or edge.parameters):
            count = min(edge.count, depth)
            layers = range(count) if key == "first_layers" else range(depth - count, depth)
            found |= dict.fromkeys(layers, key)
    return found


class CurveScreen(ActionScreen):
    """Its result is the edit that sets what was drawn; None when it was left without.

    Args:
        session: its register of curves, and its donors' letters.
        draft: the curves as they are opened.
        track: the track to begin with.
    """

    kind: ClassVar[ScreenName] = "curves"
    counts: ClassVar[bool] = True
    counted_keys: ClassVar[str] = "h l layers  G to that layer  v layers  k j steps  s smooth  t taper  u undo"
    DEFAULT_CSS = """
    CurveScreen #header, CurveScreen #footer { background: $panel; }
    CurveScreen #tracks { height: auto; max-height: 40%; }
    CurveScreen #footer { dock: bottom; }
    CurveScreen #chart { max-height: 19; }
    CurveScreen #status.-hidden { display: none; }
    """

    def __init__(self, session: Session, draft: Draft, track: int = 0) -> None:
        super().__init__()
        self.state = CurveState(draft, track)
        self.overridden = overridden_layers(session.recipe, len(session.plan.layers))
        self.view = CurveView(self, self.state, session.letters, self.overridden)
        self.mover = CurveMover(self.state, self.view)
        self.parts = (self, self.mover, CurveEditor(self, session, self.state, self.view))

    def compose(self) -> ComposeResult:
        """Header, tracks, the curve, what the cursor is on, the form, status, footer."""
        yield Line(id="header")
        yield TextPane(id="tracks")
        yield CurveChart(id="chart")
        yield Line(id="detail")
        yield Line(id="form")
        yield StatusLine(id="status")
        yield Prompt(id="prompt")
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Draw the screen."""
        self.query_one(CurveChart).focus()
        self.view.fit_tracks()
        self.show_footer(self.query_one("#footer", Line))
        here = [layer for layer in self.overridden if self.state.draft.start <= layer < self.state.draft.stop]
        if here:
            keys = " and ".join(dict.fromkeys(self.overridden[layer] for layer in here))
            self.say(f"layers {ranges(sorted(here))} have values of {keys}, whatever is drawn: t in the stack",
                     "warning")  # fmt: skip

    def say(self, text: str, severity: str = "") -> None:
        """Show a sentence under the chart."""
        self.view.say(text, severity)

    def on_resize(self) -> None:
        """The list of tracks and the chart have another size."""
        self.call_after_refresh(self.view.fill)

    def on_curve_chart_picked(self, event: CurveChart.Picked) -> None:
        """A click puts the cursor there."""
        self.mover.move(event.index)

    def leave_input(self) -> None:
        """Escape was pressed in the line."""
        self.query_one(Prompt).close()

    def on_prompt_closed(self) -> None:
        """Show the status line again."""
        self.query_one("#status").remove_class("-hidden")

    def do_apply(self, count: int | None) -> None:
        """Leave with the edit."""
        self.dismiss(self.state.draft.result())

    def do_detail(self, count: int | None) -> None:
        """Show the current track in full."""
        self.app.push_screen(TextDialog(*self.view.detail()))

    def do_cancel(self, count: int | None) -> None:
        """Clear the selection; without one, leave. Changes are only dropped when asked twice."""
        self.keys.clear()
        state = self.state
        if state.mark is not None:
            self.mover.clear_selection()
        elif state.done and not state.asked_to_leave:
            state.asked_to_leave = True
            lost = f"{plural(len(state.done), 'change')} would be lost: esc again leaves, enter applies"
            self.view.say(lost, "warning")
        else:
            self.dismiss(None)
