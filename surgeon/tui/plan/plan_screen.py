"""The plan screen: sizes, findings that lead to their layers, the YAML, and what changed in it."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal

from ...text import number, one_line, plural, size
from .. import theme
from ..action_screen import ActionScreen
from ..actions import ScreenName
from ..rows.layer_runs import runs
from ..rows.pane_rows import END_NAMES
from ..session import Session
from ..widgets.line import Line, Piece
from ..widgets.text_pane import TextPane, wrapped

VIEWS = ("findings", "yaml", "difference")


class PlanScreen(ActionScreen):
    """Its result is the layer to go to, or None."""

    kind: ClassVar[ScreenName] = "plan"
    DEFAULT_CSS = """
    PlanScreen #summary { width: 40; border-right: vkey $panel; }
    PlanScreen.-narrow #summary { display: none; }
    PlanScreen #header, PlanScreen #footer { background: $panel; }
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.view = "findings"
        self.targets: list[int | None] = []

    def compose(self) -> ComposeResult:
        """Header, sizes, the view, footer."""
        yield Line(id="header")
        yield Line(id="tabs")
        with Horizontal():
            yield TextPane(id="summary")
            yield TextPane(id="body")
        yield Line(id="footer")

    def on_mount(self) -> None:
        """Fill in when sizes are known."""
        self.query_one("#body", TextPane).focus()
        self.call_after_refresh(self.fill)

    def on_resize(self, event: events.Resize) -> None:
        """Wrap texts to the new width."""
        self.set_class(event.size.width < 110, "-narrow")
        self.call_after_refresh(self.fill)

    def fill(self) -> None:
        """Draw the screen."""
        self._tabs()
        facts = self.facts()
        self.query_one("#summary", TextPane).show(
            [[(f" {name:<15}", theme.DIM), (text, theme.PLAIN)] for name, text in facts]
        )
        line: list[Piece] = [(" PLAN", theme.TITLE)]
        if self.has_class("-narrow"):
            line.append((f" {self.short_facts()}", theme.PLAIN))
        self.query_one("#header", Line).show(*line)
        body = self.query_one("#body", TextPane)
        body.pointed = self.view == "findings"
        lines = {"findings": self._findings, "yaml": self._yaml, "difference": self._difference}[self.view]()
        body.show(lines)
        body.refresh()
        self.show_footer(self.query_one("#footer", Line))

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

    def _findings(self) -> list[list[Piece]]:
        width = self.query_one("#body", TextPane).size.width - 3
        self.targets = []
        lines: list[list[Piece]] = []
        for finding in self.session.plan.findings:
            head = finding.severity + (f", line {finding.line}" if finding.line else "")
            target = finding.layers[0] if finding.layers else None
            where = f" layer {target}" if target is not None else ""
            lines.append([(f" {head}{where}", theme.SEVERITY[finding.severity])])
            self.targets.append(target)
            for part in wrapped(finding.sentence(), width - 2):
                lines.append([(f"   {part}", theme.PLAIN)])
                self.targets.append(target)
        if not lines:
            return [[(" No findings: R writes the model, T tries it.", theme.ADDED)]]
        return lines

    def _yaml(self) -> list[list[Piece]]:
        text = self.session.current.text
        return [
            [(f" {one_line(line)}", theme.DIM if line.lstrip().startswith("#") else theme.PLAIN)]
            for line in text.splitlines()
        ]

    def _difference(self) -> list[list[Piece]]:
        styles = {"+": theme.ADDED, "-": theme.REMOVED, "@": theme.DIM}
        lines = [[(f" {one_line(line)}", styles.get(line[:1], theme.PLAIN))] for line in self.session.diff()]
        return lines or [[(" The recipe has no unsaved changes.", theme.DIM)]]

    def do_view(self, count: int | None) -> None:
        """Show the next view."""
        self.view = VIEWS[(VIEWS.index(self.view) + 1) % len(VIEWS)]
        body = self.query_one("#body", TextPane)
        body.cursor = body.top = 0
        self.fill()

    def do_goto(self, count: int | None) -> None:
        """Leave for the layer of the finding under the cursor."""
        body = self.query_one("#body", TextPane)
        target = self.targets[body.cursor] if self.view == "findings" and body.cursor < len(self.targets) else None
        if target is not None:
            self.dismiss(target)

    def do_down(self, count: int | None) -> None:
        """Go to the next line."""
        self.query_one("#body", TextPane).move(1)

    def do_up(self, count: int | None) -> None:
        """Go to the previous line."""
        self.query_one("#body", TextPane).move(-1)

    def do_half_down(self, count: int | None) -> None:
        """Go half a page down."""
        body = self.query_one("#body", TextPane)
        body.move(max(1, body.size.height // 2))

    def do_half_up(self, count: int | None) -> None:
        """Go half a page up."""
        body = self.query_one("#body", TextPane)
        body.move(-max(1, body.size.height // 2))

    def do_back(self, count: int | None) -> None:
        """Leave without a layer."""
        self.dismiss(None)
