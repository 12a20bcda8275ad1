"""The plan screen: sizes, findings that lead to their layers and lines, the YAML, and what changed in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal

from ...plan import Finding
from ...text import number, one_line, plural, size
from .. import clipboard, theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..rows.layer_runs import runs
from ..rows.pane_rows import END_NAMES
from ..session import Session
from ..widgets.line import Line, Piece
from ..widgets.status_line import StatusLine
from ..widgets.text_pane import TextPane
from .plan_views import View, difference_view, findings_view, yaml_view

VIEWS = ("findings", "yaml", "difference")
NARROW, WIDE = 110, 170
"""Widths from which the sizes, and the YAML beside the findings, are shown."""


class PlanScreen(ActionScreen):
    """Its result is the layer to go to, or None.

    Args:
        session: the recipe and its plan.
        edit_text: opens the YAML at a line in an editor; returns what to say.
    """

    kind: ClassVar[ScreenName] = "plan"
    DEFAULT_CSS = """
    PlanScreen #summary { width: 40; border-right: vkey $panel; }
    PlanScreen.-narrow #summary { display: none; }
    PlanScreen #beside { border-left: vkey $panel; }
    PlanScreen #header, PlanScreen #footer { background: $panel; }
    """

    def __init__(self, session: Session, edit_text: Callable[[int], str]) -> None:
        super().__init__()
        self.session = session
        self._edit_text = edit_text
        self.view = "findings"
        self.shown = View([], (), "")

    def compose(self) -> ComposeResult:
        """Header, sizes, the view, the YAML beside it, messages, footer."""
        yield Line(id="header")
        yield Line(id="tabs")
        with Horizontal():
            yield TextPane(id="summary")
            yield TextPane(pointed=True, id="body")
            yield TextPane(id="beside")
        yield StatusLine(id="status")
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Fill in when sizes are known."""
        self.query_one("#body", TextPane).focus()
        self.call_after_refresh(self.fill)

    def on_resize(self, event: events.Resize) -> None:
        """Wrap texts to the new width."""
        self.set_class(event.size.width < NARROW, "-narrow")
        self.query_one("#beside").display = event.size.width >= WIDE
        self.call_after_refresh(self.fill)

    @property
    def body(self) -> TextPane:
        """The pane with the view."""
        return self.query_one("#body", TextPane)

    def fill(self) -> None:
        """Draw the screen."""
        self._tabs()
        facts = self.facts()
        self.query_one("#summary", TextPane).show(
            [[(f" {name:<15}", theme.DIM), (text, theme.PLAIN)] for name, text in facts]
        )
        line: list[Piece] = [(" PLAN", theme.TITLE)]
        if len(self.session.stages) > 1:
            line.append((f" of {one_line(self.session.stage) or 'the result'}", theme.BOLD))
        if self.has_class("-narrow"):
            line.append((f" {self.short_facts()}", theme.PLAIN))
        self.query_one("#header", Line).show(*line)
        self.shown = self._view(self.view)
        self.body.show(self.shown.lines, self.shown.stops)
        self.body.refresh()
        beside = self.query_one("#beside", TextPane)
        if beside.display:
            beside.show(self._view("findings" if self.view == "yaml" else "yaml", beside.size.width).lines)
        self.show_footer(self.query_one("#footer", Line))

    def _view(self, name: str, width: int = 0) -> View:
        if name == "findings":
            return findings_view(self.session.plan.findings, (width or self.body.size.width) - 3)
        if name == "yaml":
            return yaml_view(self.session.current.text)
        return difference_view(self.session.diff())

    def short_facts(self) -> str:
        """The sizes in one line of a narrow terminal."""
        plan = self.session.plan
        sizes = plan.estimates
        return (
            f"{len(plan.layers)}L {number(sizes.parameters)} | {size(sizes.nbytes)} in {plural(sizes.shards, 'shard')}"
            f" | KV {size(sizes.kv_per_token)}/token | runs in {size(sizes.run_bytes)}"
        )

    def facts(self) -> list[tuple[str, str]]:
        """Names and values of the plan's sizes and sources."""
        plan = self.session.plan
        sizes = plan.estimates
        found = [
            ("layers", str(len(plan.layers))),
            ("parameters", number(sizes.parameters)),
            ("on disk", f"{size(sizes.nbytes)} {plural(sizes.shards, 'shard')}"),
            ("free disk for", size(sizes.disk_bytes)),
            ("KV cache", f"{size(sizes.kv_per_token)}/token"),
            ("to run", f"{size(sizes.run_bytes)} at {sizes.run_context} tokens"),
            ("dtype", self.session.recipe.dtype or "as the donors'"),
        ]
        for role, end in plan.ends.items():
            found.append((END_NAMES[role], f"{end.donor or '-'} {'' if end.how == 'copied' else end.how}".strip()))
        found.append(("config", plan.config_donor or "-"))
        for letter, donor in plan.donors.items():
            found.append((f"donor {letter}", one_line(donor.ref)))
        found += [(f"{run.start}-{run.stop - 1}", run.label) for run in runs(plan)]
        return found

    def _tabs(self) -> None:
        pieces: list[Piece] = []
        for view in VIEWS:
            style = theme.BOLD if view == self.view else theme.DIM
            pieces.append((f" [{view}]" if view == self.view else f"  {view} ", style))
        self.query_one("#tabs", Line).show(*pieces, ("   tab changes", theme.DIM))

    def say(self, text: str, severity: str = "") -> None:
        """Put a sentence above the footer."""
        self.query_one("#status", StatusLine).say(text, severity)

    # -- actions

    def do_view(self, count: int | None) -> None:
        """Show the next view."""
        self._show(VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)])

    def _show(self, view: str, line: int = 0) -> None:
        self.view = view
        self.body.cursor = self.body.top = 0
        self.fill()
        self.body.move(line)

    @property
    def _finding(self) -> Finding | None:
        """The finding under the cursor; None in another view, or without findings."""
        findings = self.session.plan.findings
        if self.view != "findings" or not findings:
            return None
        return findings[self.shown.stops.index(self.body.cursor)]

    def do_goto(self, count: int | None) -> None:
        """Leave for the layer of the finding under the cursor, or show its line of the YAML."""
        finding = self._finding
        if finding is None:
            said = (
                "there is no finding to go to"
                if self.view == "findings"
                else "tab shows the findings, enter goes there"
            )
            self.say(said)
        elif finding.layers:
            self.dismiss(finding.layers[0])
        else:
            self.do_line(None)

    def do_line(self, count: int | None) -> None:
        """Show the line of the YAML that the finding under the cursor is about."""
        finding = self._finding
        if finding is None:
            self.say("there is no finding to go to")
        elif finding.line is None:
            self.say("this finding concerns the whole model: no line or layer of the recipe is its place")
        else:
            self._show("yaml", finding.line - 1)
            self.say(f"line {finding.line}: {finding.what}. E opens it in an editor")

    def do_editor(self, count: int | None) -> None:
        """Open the YAML in an editor, at the line under the cursor or of the finding, and read it back."""
        finding = self._finding
        line = self.body.cursor + 1 if self.view == "yaml" else finding.line if finding and finding.line else 1
        said = self._edit_text(line)
        self.fill()
        self.say(said)

    def do_copy(self, count: int | None) -> None:
        """Copy the view: findings, YAML or difference."""
        self.say(clipboard.copy(self.app, self.shown.text))

    def do_down(self, count: int | None) -> None:
        """Go to the next finding or line."""
        self.body.move(1)

    def do_up(self, count: int | None) -> None:
        """Go to the previous finding or line."""
        self.body.move(-1)

    def do_half_down(self, count: int | None) -> None:
        """Go half a page down."""
        self.body.page(0.5)

    def do_half_up(self, count: int | None) -> None:
        """Go half a page up."""
        self.body.page(-0.5)

    def do_back(self, count: int | None) -> None:
        """Leave without a layer."""
        self.dismiss(None)
